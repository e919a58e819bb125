"""The solution: an assignment, what it costs, and how much of that is proven."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mpsearch.errors import InputError
from mpsearch.running.notebook import html_table
from mpsearch.running.python_words import in_python
from mpsearch.tables.choice import Choice, counted
from mpsearch.tables.remedy import Remedy
from mpsearch.tables.units import format_amount, format_rounded

if TYPE_CHECKING:
    import mpsearch
    from mpsearch.tables.assignment import Assignment
    from mpsearch.tables.table import LayerTable

Status = Literal["optimal", "feasible", "infeasible", "no-solution"]


@dataclass(frozen=True)
class Smallest:
    """The smallest feasible value of a limit: `alone`, and `with_others` within those.

    Of a lower limit, the largest one.

    `with_others` is None where the other limits are infeasible by themselves, or time ran out.
    """

    alone: int | float
    with_others: int | float | None


@dataclass(frozen=True)
class Useful:
    """Between which values a limit makes a difference, beside the others; None: time ran out."""

    tightest: int | float | None
    """The tightest that can be met: of an upper limit the smallest, of a lower one the largest."""
    free: int | float | None
    """The tightest that costs nothing: the optimum is what it is without the limit."""

    def to_json(self) -> dict[str, int | float | None]:
        """As files have it."""
        return {"tightest": self.tightest, "free": self.free}


@dataclass(frozen=True)
class Solution:
    """What `solve` returns."""

    status: Status
    """`optimal` (proven), `feasible` (a gap is left), `infeasible` (proven) or `no-solution` (the
    time was too short)."""
    choices: Mapping[str, Choice]
    """By layer name; empty without an assignment."""
    objective: float | None
    """Total Ω, or of what else was minimised; None without an assignment."""
    bound: float | None
    """No assignment within the limits has a smaller objective; None: not known."""
    gap: float | None
    """objective - bound, relative to the objective's magnitude; None: not known."""
    seconds: float
    """How long the search took."""
    solver: str
    """Which one found it."""
    totals: Mapping[str, int | float]
    """Every resource column and every limited key -> what the assignment takes, exact."""
    limits: Mapping[str, int | float]
    """Limited key -> upper limit."""
    smallest: Mapping[str, Smallest] = field(default_factory=dict)
    """When infeasible: limited key -> the smallest limit that can be met; keys of lower limits
    begin with ">="."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as a solver's claim that was wrong."""
    at_least: Mapping[str, int | float] = field(default_factory=dict)
    """Limited key -> lower limit."""
    minimize: str = "omega"
    """What was minimised: a column, or a weighted sum of columns."""
    omega: float | None = None
    """Total Ω; None without an assignment."""
    not_binding: Mapping[str, Useful] = field(default_factory=dict)
    """Key of a limit (of a lower one after ">=") -> where it would make a difference: of those
    without all of which the optimum is no better. Of every resource column where there is none."""

    remedies: tuple[Remedy, ...] = ()
    """When infeasible: what would change that, each alone enough and tried."""
    no_bits_fit: str = ""
    """When infeasible: why no options to leave out and no other bits help; empty where some do, and
    where that is not proven."""

    table: "LayerTable | None" = field(default=None, repr=False, compare=False)
    """The table that was searched, and in memory what it was profiled from; None: not known."""
    search: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """What else was asked, by option of `mpsearch solve`: `{"pin": ("conv1=w8a8",)}`."""
    records: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """What was measured or planned for it, as assignment.json keeps it: `measured`, `refined`,
    `memory`."""

    if TYPE_CHECKING:  # bound by the package
        explain = mpsearch.explain
        export = mpsearch.export
        refine = mpsearch.refine
        what_if = mpsearch.what_if

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
        """`{"conv1": Choice(4, 8)}`: what every layer gets, in the table's order."""
        return dict(self.choices)

    @property
    def origin(self) -> Any:
        """(network, samples) that the table was profiled from in memory; None: not known."""
        return None if self.table is None else self.table.origin

    def to_assignment(self) -> "Assignment":
        """The content of assignment.json. Raises InputError where there is no assignment, and
        where nothing is known of the table."""
        from mpsearch.tables.assignment import Assignment
        from mpsearch.tables.provenance import model_digest_of

        if self.table is None:
            raise InputError(
                "the solution does not know its table; expected one of mpsearch.solve, or write "
                "Assignment.from_solution(solution, table.digest)"
            )
        memory = self.records.get("memory", {})  # of the C export, and not of the table
        totals, limits = (
            {key: value for key, value in these.items() if key not in memory}
            for these in (self.totals, self.limits)
        )
        return Assignment.from_solution(
            replace(self, totals=totals, limits=limits), self.table.digest, self.search,
            model_digest_of(self.table.provenance),
        )  # fmt: skip

    def save(self, path: str | os.PathLike[str] = "assignment.json") -> None:
        """Write assignment.json, as `mpsearch solve` does; InputError as `to_assignment`."""
        self.to_assignment().save(path)

    def to_dict(self) -> dict[str, Any]:
        """What `mpsearch solve --json` prints, ready for JSON."""
        return {
            "status": self.status,
            "layers": {name: choice.to_json() for name, choice in self.choices.items()},
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
            "smallest_feasible": {
                key: {"alone": least.alone, "with_other_limits": least.with_others}
                for key, least in self.smallest.items()
            },
            "remedies": [one.to_json() for one in self.remedies],
            "no_bits_fit": self.no_bits_fit or None,
            "not_binding": {key: one.to_json() for key, one in self.not_binding.items()},
            "notes": list(self.notes),
            "table_digest": None if self.table is None else self.table.digest,
        }

    def __repr__(self) -> str:
        return f"Solution({'; '.join(self._lines())})"

    def _lines(self) -> list[str]:
        """Status and Ω, what it takes of what is limited, how many layers have which bits."""
        proof = ", proven" if self.status in ("optimal", "infeasible") else ""
        if not self.choices:
            least = [
                f"{key} {format_rounded(key, one.alone, up=not key.startswith('>='))}"
                for key, one in self.smallest.items()
            ]
            lines = [f"least feasible: {', '.join(least)}"] if least else []
            ways = [f"feasible with {in_python(str(one))}" for one in self.remedies] or [
                self.no_bits_fit
            ]
            return [f"{self.status}{proof}", *lines, *filter(None, ways)]
        gap = f", gap {100 * self.gap:.3g} %" if self.gap and not proof else ""
        omega = "" if self.omega is None else f": Ω {self.omega:.4g}"
        return [
            f"{self.status}{proof}{omega}{gap}",
            *filter(None, [used_text(self.totals, self.limits), counted(self.choices.values())]),
        ]

    def _repr_html_(self) -> str:
        """For notebooks: the answer, and what every layer gets."""
        columns = [] if self.table is None else [
            column for column in ("size_bytes", "bops") if column in self.table.resources
        ]  # fmt: skip
        rows = []
        for name, choice in self.choices.items():
            cells = [name, str(choice)]
            if self.table is not None:
                row = self.table.row_of(name, choice)
                cells.append(f"{self.table.omega[row]:.4g}")
                cells += [format_amount(c, self.table.resources[c][row]) for c in columns]
            rows.append(cells)
        header = ["layer", "bits", *(["Ω"] if self.table is not None else []), *columns]
        return html_table([*self._lines(), *self.notes], header, rows)


def used_text(
    totals: Mapping[str, int | float], limits: Mapping[str, int | float] | None = None
) -> str:
    """`size_bytes 44.7 KB of 45.0 KB`: every limited total, or else the size; empty for none."""
    limits = limits or {}
    keys = [key for key in totals if key in limits] or [k for k in totals if k == "size_bytes"]
    return ", ".join(
        f"{key} {format_amount(key, totals[key])}"
        + (f" of {format_amount(key, limits[key])}" if key in limits else "")
        for key in keys
    )
