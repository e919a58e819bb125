"""The assignment: which choice every layer gets; saved as `assignment.json`."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.files import write_atomic
from mpsearch.solution import Solution

FORMAT = "mpsearch.assignment"
VERSION = 1


@dataclass(frozen=True)
class Assignment:
    """Choice by qualified layer name, with what is known about it (see `Solution`).

    status is "given" where nobody searched: `Assignment.uniform` and hand-written ones. search:
    what else was asked, by option of `mpsearch solve`: {"pin": ("conv1=w8a8",)}. measured: what
    `solve --min-accuracy` measured (docs/formats.md); empty otherwise. table_digest, model_digest:
    of the table that it was chosen from, and of the float network that the table is of.
    """

    layers: Mapping[str, Choice]
    status: str = "given"
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    solver: str | None = None
    seconds: float | None = None
    totals: Mapping[str, int | float] = field(default_factory=dict)
    limits: Mapping[str, int | float] = field(default_factory=dict)
    table_digest: str | None = None
    at_least: Mapping[str, int | float] = field(default_factory=dict)
    minimize: str = "omega"
    omega: float | None = None
    search: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    model_digest: str | None = None

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
            search=search or {},
            model_digest=model_digest,
        )

    def to_document(self) -> dict[str, Any]:
        """The content of `assignment.json`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "layers": {
                name: {"w_bits": choice.w_bits, "a_bits": choice.a_bits}
                for name, choice in self.layers.items()
            },
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
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `assignment.json` in one step."""
        text = json.dumps(self.to_document(), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(path, text + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Assignment":
        """Read `assignment.json`; only format, version and layers are required."""
        name = os.fspath(path)
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"there is no assignment {name}; make one with `mpsearch solve -o {name}`"
            ) from None
        except (ValueError, IsADirectoryError) as error:
            raise InputError(f"{name} is not an assignment.json: {error}") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InputError(f'{name} is not an assignment.json; expected "format": "{FORMAT}"')
        if document.get("version") != VERSION:
            raise InputError(
                f"{name} has version {document.get('version')!r}; this mpsearch reads {VERSION}"
            )
        layers = document.get("layers")
        if not isinstance(layers, dict) or not layers:
            raise InputError(f"{name} assigns no layers")
        return Assignment(
            layers={layer: _choice(bits, layer, name) for layer, bits in layers.items()},
            status=str(document.get("status", "given")),
            objective=_number(document, "objective", name),
            bound=_number(document, "bound", name),
            gap=_number(document, "gap", name),
            solver=document.get("solver"),
            seconds=_number(document, "seconds", name),
            totals=_numbers(document, "totals", name),
            limits=_numbers(document, "limits", name),
            table_digest=document.get("table_digest"),
            at_least=_numbers(document, "at_least", name),
            minimize=str(document.get("minimize", "omega")),
            omega=_number(document, "omega", name),
            search=_texts(document, name),
            measured=_facts(document, name),
            model_digest=document.get("model_digest"),
        )


def _choice(bits: Any, layer: str, name: str) -> Choice:
    if isinstance(bits, dict):
        w_bits, a_bits = bits.get("w_bits"), bits.get("a_bits")
        if _is_bits(w_bits) and _is_bits(a_bits):
            return Choice(w_bits, a_bits)
    raise InputError(
        f'{name}: layer {layer!r} has {json.dumps(bits)[:50]}, not {{"w_bits": 8, "a_bits": 8}}'
    )


def _is_bits(value: Any) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= 64


def _number(document: Mapping[str, Any], key: str, name: str) -> Any:
    value = document.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InputError(f"{name}: {key} is {value!r}; expected a number")
    return value


def _numbers(document: Mapping[str, Any], key: str, name: str) -> dict[str, int | float]:
    values = document.get(key) or {}
    if not isinstance(values, dict):
        raise InputError(f"{name}: {key} is {values!r}; expected numbers by column")
    return {column: _number(values, column, name) for column in values}


def _facts(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    measured = document.get("measured") or {}
    if not isinstance(measured, dict):
        raise InputError(f"{name}: measured is {measured!r}; expected facts by name")
    return measured


def _texts(document: Mapping[str, Any], name: str) -> dict[str, tuple[str, ...]]:
    search = document.get("search") or {}
    if not isinstance(search, dict) or not all(isinstance(v, list) for v in search.values()):
        raise InputError(f"{name}: search is {search!r}; expected lists of texts by option")
    return {option: tuple(map(str, values)) for option, values in search.items()}
