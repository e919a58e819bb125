"""What each layer of a network is and takes, and how two networks differ, layer by layer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpsearch.files.json_file import by_name, null_or, number, text, whole
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount

SHOWN = 3  # layers that a message names
SIZE, BOPS = "size_bytes", "bops"
_COUNT, _COST = whole(0, 10**18), null_or(number(0, 1e30))
LAYERS = by_name(
    {"weights": _COUNT, "macs": _COUNT, "bits": null_or(text), SIZE: _COST, BOPS: _COST}
)


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of one network."""

    weights: int = 0
    """How many weights it has; 0: not known."""
    macs: int = 0
    """Multiply-accumulates of one sample; 0: not known."""
    choice: Choice | None = None
    """At which bits; None: none was chosen."""
    size_bytes: int | float | None = None
    """Bytes at these bits; None: not known."""
    bops: int | float | None = None
    """Bit operations of one sample at these bits; None: not known."""

    def cost(self, column: str) -> int | float | None:
        """`size_bytes` or `bops`."""
        return self.size_bytes if column == SIZE else self.bops

    def to_json(self) -> dict[str, Any]:
        """Its object in a baseline."""
        bits = None if self.choice is None else str(self.choice)
        return {
            "weights": self.weights, "macs": self.macs, "bits": bits,
            SIZE: self.size_bytes, BOPS: self.bops,
        }  # fmt: skip

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "NetworkLayer":
        """Of an object that has the form LAYERS. Raises ValueError for bits that are none."""
        bits = document["bits"]
        return NetworkLayer(
            document["weights"], document["macs"], None if bits is None else Choice.called(bits),
            document[SIZE], document[BOPS],
        )  # fmt: skip


@dataclass(frozen=True)
class LayerChange:
    """A layer that is not the same in two networks."""

    name: str
    """Its qualified name."""
    before: NetworkLayer | None
    """In the first network; None: added."""
    after: NetworkLayer | None
    """In the second network; None: removed."""

    @property
    def of_shape(self) -> bool:
        """Whether it is another architecture: not only other bits."""
        one, other = self.before, self.after
        return one is None or other is None or any(_shape_words(one, other))

    def grown(self, column: str) -> int | float | None:
        """How much more the second takes of `size_bytes` or `bops`; None: not known."""
        one = 0 if self.before is None else self.before.cost(column)
        other = 0 if self.after is None else self.after.cost(column)
        return None if one is None or other is None else other - one

    def sentence(self, column: str = SIZE) -> str:
        """`fc1 8,192 -> 8,704 weights, +0.3 KB (+6 %)`; column: what is said to have grown."""
        what = [*_words(self.before, self.after)]
        cost = self.cost_words(column)
        words = [f"{self.name} {what[0]}" if what else self.name, *what[1:]]
        return ", ".join([*words, cost] if cost else words)

    def cost_words(self, column: str) -> str:
        """`+0.3 KB (+6 %)`; empty where it takes as much, or that is not known."""
        grown = self.grown(column)
        if not grown:
            return ""
        before = None if self.before is None else self.before.cost(column)
        text = signed(column, grown, before or 0)
        return f"{text} ({percent(grown / before)})" if before and self.after else text

    def to_json(self) -> dict[str, Any]:
        """Its object in the JSON of `mpsearch diff` and `mpsearch gate`."""
        sides = (("before", self.before), ("after", self.after))
        return {
            "name": self.name,
            **{key: None if side is None else side.to_json() for key, side in sides},
        }


def _words(before: NetworkLayer | None, after: NetworkLayer | None) -> Iterable[str]:
    """What is other in the second network: shape, then bits."""
    if before is None or after is None:
        layer, word = (after, "added") if before is None else (before, "removed")
        assert layer is not None
        facts = [f"{layer.weights:,} weights"] if layer.weights else []
        facts += [] if layer.choice is None else [str(layer.choice)]
        yield f"{word} ({', '.join(facts)})" if facts else word
        return
    yield from _shape_words(before, after)
    if before.choice != after.choice and None not in (before.choice, after.choice):
        yield f"{before.choice} -> {after.choice}"


def _shape_words(before: NetworkLayer, after: NetworkLayer) -> Iterable[str]:
    if before.weights != after.weights and before.weights and after.weights:
        yield f"{before.weights:,} -> {after.weights:,} weights"
    elif before.macs != after.macs and before.macs and after.macs:
        yield f"{before.macs:,} -> {after.macs:,} MACs"


def signed(column: str, grown: float, before: float, unit: str = " BOPS") -> str:
    """`+0.3 KB`, `-1.200 M BOPS`: in KB where what it is added to is; unit: of the latter."""
    amount = format_amount(column, abs(grown)).strip()
    if column == SIZE and abs(grown) < 1024 <= before and abs(grown) >= 1024 / 20:
        amount = f"{abs(grown) / 1024:.1f} KB"
    return f"{'+' if grown >= 0 else '-'}{amount}{unit if column == BOPS else ''}"


def percent(share: float) -> str:
    """0.0625 -> `+6 %`; of less than one percent one digit."""
    return f"{100 * share:+,.0f} %" if abs(share) >= 0.01 else f"{100 * share:+.1g} %"


def layers_of(assignment: Assignment | None, table: LayerTable | None) -> dict[str, NetworkLayer]:
    """Every layer by name, as far as these two say it. Raises InputError where the table lacks a
    layer or a choice of the assignment."""
    if table is None:
        chosen = {} if assignment is None else assignment.layers
        weights = {} if assignment is None else assignment.weights
        return {
            name: NetworkLayer(weights.get(name, 0), choice=choice)
            for name, choice in chosen.items()
        }
    found = {}
    for layer in table.layers:
        if assignment is None or layer.name not in assignment.layers:
            found[layer.name] = NetworkLayer(layer.weights, layer.macs)
            continue
        choice = assignment.layers[layer.name]
        row = table.row_of(layer.name, choice)
        costs = (
            table.resources[column][row].item() if column in table.columns else None
            for column in (SIZE, BOPS)
        )  # fmt: skip
        found[layer.name] = NetworkLayer(layer.weights, layer.macs, choice, *costs)
    return found


def totals_of_layers(layers: Mapping[str, NetworkLayer]) -> dict[str, int | float]:
    """Size and BOPS of all layers; a column that some layer does not know is not there."""
    costs = {column: [layer.cost(column) for layer in layers.values()] for column in (SIZE, BOPS)}
    return {
        column: sum(known) for column, values in costs.items()
        if len(known := [value for value in values if value is not None]) == len(values)
    }  # fmt: skip


def changes_between(
    before: Mapping[str, NetworkLayer], after: Mapping[str, NetworkLayer]
) -> tuple[LayerChange, ...]:
    """Layers that differ in weights, MACs or bits, or that only one has; in the order of the
    second network, then those that it lacks. What one side does not know is no difference."""
    found = []
    for name in dict.fromkeys((*after, *before)):
        one, other = before.get(name), after.get(name)
        if one is None or other is None or any(_words(one, other)):
            found.append(LayerChange(name, one, other))
    return tuple(found)


def largest(changes: Iterable[LayerChange], column: str = SIZE) -> list[LayerChange]:
    """Those that change this column most first."""
    return sorted(changes, key=lambda change: -abs(change.grown(column) or 0))


def named(changes: Sequence[LayerChange], column: str = SIZE, most: int = SHOWN) -> str:
    """`fc1 8,192 -> 8,704 weights, +0.3 KB (+6 %); fc2 w4a4 -> w8a8, +1.0 KB (+100 %); and 3
    more`: the largest changes of this column, a few of them."""
    texts = [change.sentence(column) for change in largest(changes, column)[:most]]
    more = len(changes) - len(texts)
    return "; ".join([*texts, *([f"and {more} more"] if more else [])])
