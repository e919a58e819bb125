"""The assignment: which choice every layer gets; saved as `assignment.json`.

Whether an assignment's file says what its layer table says.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import (
    anything,
    by_name,
    check_form,
    flag,
    list_of,
    null_or,
    number,
    read_document,
    text,
    whole,
)
from mpsearch.files.whole import write_atomic
from mpsearch.running.notebook import html_table
from mpsearch.running.streams import json_text
from mpsearch.tables.choice import Choice, counted
from mpsearch.tables.solution import Solution, Useful, used_text
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    import mpsearch

FORMAT = "mpsearch.assignment"
VERSION = 1
LARGEST_MIB = 64


@dataclass(frozen=True)
class Assignment:
    """A choice for every layer, with what is known about it."""

    layers: Mapping[str, Choice]
    """Choice by qualified layer name."""
    status: str = "given"
    """As of a `Solution`, or `given` where nobody searched: `Assignment.uniform` and hand-written
    ones."""
    objective: float | None = None
    """Total Ω, or of what else was minimised; None: not known."""
    bound: float | None = None
    """No assignment within the limits has a smaller objective; None: not known."""
    gap: float | None = None
    """objective - bound, relative to the objective's magnitude; None: not known."""
    solver: str | None = None
    """Which one found it; None where nobody searched."""
    seconds: float | None = None
    """How long the search took; None where nobody searched."""
    totals: Mapping[str, int | float] = field(default_factory=dict)
    """Resource column or limited key -> what the assignment takes, exact."""
    limits: Mapping[str, int | float] = field(default_factory=dict)
    """Limited key -> upper limit that it was searched under; empty: none."""
    table_digest: str | None = None
    """Of the table that it was chosen from; None: not known."""
    at_least: Mapping[str, int | float] = field(default_factory=dict)
    """Limited key -> lower limit that it was searched under; empty: none."""
    minimize: str = "omega"
    """What was minimised: a column, or a weighted sum of columns."""
    omega: float | None = None
    """Total Ω; None: not known."""
    search: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What else was asked, by option of `mpsearch solve`: `{"pin": ("conv1=w8a8",)}`."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What `solve --min-accuracy` measured (docs/formats.md); empty otherwise."""
    refined: Mapping[str, Any] = field(default_factory=dict)
    """What `solve --refine` did (docs/formats.md); empty otherwise."""
    model_digest: str | None = None
    """Of the float network that the table is of; None: not known."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What `solve --ram` predicts of the C export (docs/formats.md); empty otherwise."""
    not_binding: Mapping[str, Useful] = field(default_factory=dict)
    """Limits that made no difference to the search, as of a `Solution`."""

    weights: Mapping[str, int] = field(default_factory=dict)
    """Layer -> how many weights it has in the table that this was chosen from; empty: not known."""

    if TYPE_CHECKING:  # bound by the package

        def apply(
            self, model: Any = None, data: Any = None, **settings: Any
        ) -> "mpsearch.QuantizedNetwork":
            """`mpsearch.apply` with this one."""
            raise NotImplementedError

        def finetune(
            self, model: Any = None, data: Any = None, **settings: Any
        ) -> "mpsearch.FineTuned":
            """`mpsearch.finetune` with this one."""
            raise NotImplementedError

        def to_module(self, model: Any = None, data: Any = None, **settings: Any) -> Any:
            """`mpsearch.to_module` of what `apply` makes with these arguments."""
            raise NotImplementedError

    @property
    def bits(self) -> dict[str, Choice]:
        """`{"conv1": Choice(4, 8)}`: what every layer gets."""
        return dict(self.layers)

    def __repr__(self) -> str:
        return f"Assignment({'; '.join(self._lines())})"

    def _lines(self) -> list[str]:
        omega = "" if self.omega is None else f": Ω {self.omega:.4g}"
        found = [used_text(self.totals, self.limits), counted(self.layers.values())]
        return [f"{self.status}{omega}", *filter(None, found)]

    def _repr_html_(self) -> str:
        """For notebooks: what is known of it, and what every layer gets."""
        rows = [[name, str(choice)] for name, choice in self.layers.items()]
        return html_table(self._lines(), ["layer", "bits"], rows)

    @staticmethod
    def uniform(names: Iterable[str], choice: Choice) -> "Assignment":
        """The same choice for every layer."""
        return Assignment(dict.fromkeys(names, choice))

    @staticmethod
    def from_solution(
        solution: Solution,
        table_digest: str,
        search: Mapping[str, tuple[str, ...]] | None = None,
        model_digest: str | None = None,
    ) -> "Assignment":
        """The assignment of a solution that has one; InputError for one without."""
        if not solution.choices:
            raise InputError(f"there is no assignment to save: the solution is {solution.status}")
        return Assignment(
            layers=solution.choices,
            status=solution.status,
            objective=solution.objective,
            bound=solution.bound,
            gap=solution.gap,
            solver=solution.solver,
            seconds=solution.seconds,
            totals=solution.totals,
            limits=solution.limits,
            table_digest=table_digest,
            at_least=solution.at_least,
            minimize=solution.minimize,
            omega=solution.omega,
            search=search or solution.search,
            model_digest=model_digest,
            not_binding=solution.not_binding,
            weights={} if solution.table is None else solution.table.layer_weights,
            **solution.records,
        )

    def to_document(self) -> dict[str, Any]:
        """The content of `assignment.json`."""
        idle = {key: one.to_json() for key, one in self.not_binding.items()}
        return {
            "format": FORMAT,
            "version": VERSION,
            "layers": {name: choice.to_json() for name, choice in self.layers.items()},
            "status": self.status,
            "minimize": self.minimize,
            "objective": self.objective,
            "omega": self.omega,
            "bound": self.bound,
            "gap": self.gap,
            "solver": self.solver,
            "seconds": self.seconds,
            "totals": dict(self.totals),
            "limits": dict(self.limits),
            "at_least": dict(self.at_least),
            "search": {option: list(values) for option, values in self.search.items()},
            "table_digest": self.table_digest,
            **({} if self.model_digest is None else {"model_digest": self.model_digest}),
            **({"measured": dict(self.measured)} if self.measured else {}),
            **({"refined": dict(self.refined)} if self.refined else {}),
            **({"memory": dict(self.memory)} if self.memory else {}),
            **({"weights": dict(self.weights)} if self.weights else {}),
            **({"not_binding": idle} if idle else {}),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `assignment.json` in one step."""
        text = json_text(self.to_document(), indent=2, allow_nan=False)
        write_atomic(path, text + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Assignment":
        """Read `assignment.json`; only format, version and layers are required."""
        name = os.fspath(path)
        missing = f"there is no assignment {name}; make one with `mpsearch solve -o {name}`"
        document = read_document(path, "assignment.json", FORMAT, VERSION, LARGEST_MIB, missing)
        layers = document.get("layers")
        if not isinstance(layers, dict) or not layers:
            raise InputError(f"{name} assigns no layers")
        try:
            check_form(document, _FORM, "")
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
        return Assignment(
            layers={layer: _choice(bits, layer, name) for layer, bits in layers.items()},
            status=document.get("status", "given"),
            objective=document.get("objective"),
            bound=document.get("bound"),
            gap=document.get("gap"),
            solver=document.get("solver"),
            seconds=document.get("seconds"),
            totals=document.get("totals") or {},
            limits=document.get("limits") or {},
            table_digest=document.get("table_digest"),
            at_least=document.get("at_least") or {},
            minimize=document.get("minimize", "omega"),
            omega=document.get("omega"),
            search={key: tuple(texts) for key, texts in (document.get("search") or {}).items()},
            measured=document.get("measured") or {},
            refined=document.get("refined") or {},
            model_digest=document.get("model_digest"),
            memory=document.get("memory") or {},
            weights=document.get("weights") or {},
            not_binding={
                key: Useful(one["tightest"], one["free"])
                for key, one in (document.get("not_binding") or {}).items()
            },
        )


_NUMBER, _TOTALS, _TEXT = null_or(number()), null_or(by_name(number())), null_or(text)
_SHARE = null_or(number(0, 1))
_MEASURED = {
    "min_accuracy?": _SHARE, "min_agreement?": _SHARE, "max_drop?": null_or(number(-1, 1)),
    "tolerance?": null_or(number()), "most?": null_or(whole()), "data?": text, "calibration?": text,
}  # fmt: skip
_REFINED = {
    "asked": whole(), "error": text, "samples": whole(), "held_out": flag, "chosen": whole(),
    **dict.fromkeys(("data", "data_digest", "calibration", "calibration_digest"), text),
    **dict.fromkeys(("model_digest", "assignment_digest"), text),
    "post_training": by_name(anything), "fp32_accuracy": _SHARE, "comparisons": whole(),
    "gain": number(), "gain_interval": [number(), number()], "surely_better": flag,
    "candidates": list_of({
        "from": text, "error": number(), "accuracy": _SHARE, "samples": whole(),
        "layers": by_name(text),
    }),
}  # fmt: skip
_FORM = {
    "layers": anything,  # by _choice
    **dict.fromkeys(("objective?", "omega?", "bound?", "gap?", "seconds?"), _NUMBER),
    **dict.fromkeys(("totals?", "limits?", "at_least?"), _TOTALS),
    **dict.fromkeys(("solver?", "table_digest?", "model_digest?"), _TEXT),
    **dict.fromkeys(("status?", "minimize?"), text),
    "search?": null_or(by_name(list_of(text))),
    "measured?": null_or(_MEASURED),
    "refined?": null_or(_REFINED),
    "weights?": null_or(by_name(whole(1))),
    "memory?": null_or(
        {
            **dict.fromkeys(("ram_bytes?", "ram_limit?", "flash_bytes?", "flash_limit?"), whole()),
            "target?": null_or(text),
        }
    ),
    "not_binding?": null_or(by_name({"tightest": _NUMBER, "free": _NUMBER})),
}


def _choice(bits: Any, layer: str, name: str) -> Choice:
    try:
        return Choice.from_json(bits if isinstance(bits, dict) else {})
    except ValueError:
        raise InputError(
            f"{name}: layer {layer!a} has {json.dumps(bits)[:50]}, "
            'not {"w_bits": 8, "a_bits": 8} or {"choice": "Q4_K"}'
        ) from None


def weights_notes(assignment: Assignment, path: str, model: str, digest: str) -> list[str]:
    """A sentence where the network of `model`, which has this digest, has other weights than those
    that the assignment in the file `path` was chosen for; else nothing."""
    if assignment.model_digest in (None, digest):
        return []
    return [
        f"{model} has other weights than those that {path} was chosen for: profile and solve again "
        "for bits that are of these"
    ]


def recomputed_totals(assignment: Assignment, table: LayerTable) -> dict[str, int | float]:
    """Column -> exact total of the assignment, from the table alone.

    Raises InputError when the two do not have the same layers and choices.
    """
    return {column: table.total(assignment.layers, column) for column in table.columns}


def contradictions(assignment: Assignment, table: LayerTable) -> tuple[str, ...]:
    """Totals that assignment.json states otherwise than the table, one phrase each.

    Integer totals must be equal; others to 1e-9 relative, as files round them to doubles. A column
    that only one of the two has is no contradiction. Raises InputError as `recomputed_totals` does.
    """
    found = []
    for column, value in recomputed_totals(assignment, table).items():
        stated = assignment.totals.get(column, value)
        whole = isinstance(value, int) and isinstance(stated, int)
        if stated != value and (whole or not math.isclose(stated, value, rel_tol=1e-9)):
            found.append(f"{column} is {stated} in the assignment and {value} from the table")
    return tuple(found)
