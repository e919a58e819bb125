"""`diff`: what changed from one network to another, as far as both sides say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.comparing.layers import BOPS, SIZE, LayerChange, changes_between
from mpsearch.comparing.sides import Side, side_of
from mpsearch.running.streams import shown
from mpsearch.statistics import drop_interval
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount

_SHOWN = 3  # totals in a repr
UNIFORM = 4  # choices of a table whose totals are compared


@dataclass(frozen=True)
class TotalChange:
    """What both networks take of one column."""

    column: str
    """`size_bytes`, `bops`, `omega` or another resource."""
    before: int | float
    """What the first takes."""
    after: int | float
    """What the second takes."""
    at: str = ""
    """Of tables, without chosen bits: the choice that every layer has, `w8a8`; else empty."""

    @property
    def share(self) -> float | None:
        """How much more the second takes, as a share of the first: 0.06; None of nothing."""
        return self.after / self.before - 1 if self.before else None


@dataclass(frozen=True)
class AccuracyChange:
    """Accuracy of both networks on the same samples."""

    data_name: str
    """What they were measured on."""
    samples: int
    """How many."""
    before: float
    """Of the first network, 0 to 1."""
    after: float
    """Of the second network, 0 to 1."""
    lost: int
    """Samples that became wrong."""
    won: int
    """Samples that became right."""
    drop_interval: tuple[float, float]
    """95 % interval of before - after, from the pairs (Tango)."""

    @property
    def drop(self) -> float:
        """What the second lost of accuracy: 0.02 is 2 points."""
        return (self.lost - self.won) / self.samples


@dataclass(frozen=True)
class Comparison:
    """What `mpsearch diff` finds."""

    before: str
    """What the first side was read from."""
    after: str
    """What the second side was read from."""
    layers: tuple[LayerChange, ...]
    """Those that differ, in network order."""
    unchanged: int
    """How many layers both have, alike."""
    totals: tuple[TotalChange, ...]
    """Columns that both know, changed or not."""
    accuracy: AccuracyChange | None
    """None where they were not both measured on the same data."""
    notes: tuple[str, ...]
    """What a reader should know, a sentence each."""

    def __repr__(self) -> str:
        totals = [
            f"{one.column}{f' at {one.at}' if one.at else ''} "
            f"{format_amount(one.column, one.before)} -> {format_amount(one.column, one.after)}"
            for one in self.totals
            if one.before != one.after
        ]
        layers = f"{len(self.layers)} of {len(self.layers) + self.unchanged} layers differ"
        sides = shown(f"{self.before} -> {self.after}", 200)
        return f"Comparison({sides}: {'; '.join([layers, *totals[:_SHOWN]])})"

    @property
    def same(self) -> bool:
        """Whether nothing differs of what both sides say."""
        totals = any(one.before != one.after for one in self.totals)
        accuracy = self.accuracy is not None and (self.accuracy.lost or self.accuracy.won)
        return not (self.layers or totals or accuracy)

    def to_document(self) -> dict[str, Any]:
        """The content of `mpsearch diff --json`."""
        found = self.accuracy
        return {
            "before": self.before, "after": self.after, "same": self.same,
            "layers": [change.to_json() for change in self.layers],
            "unchanged_layers": self.unchanged,
            "totals": [
                {"column": one.column, "at": one.at or None, "before": one.before,
                 "after": one.after}
                for one in self.totals
            ],
            "accuracy": None if found is None else {
                "data": found.data_name, "samples": found.samples, "before": found.before,
                "after": found.after, "lost": found.lost, "won": found.won, "drop": found.drop,
                "drop_interval": list(found.drop_interval),
            },
            "notes": list(self.notes),
        }  # fmt: skip


def diff(before: Any, after: Any) -> Comparison:
    """What changed from one network to another: layers, bits, totals, and accuracy where both were
    measured on the same samples.

    A side is what `profile`, `solve` or `apply` returned, an Assignment or a Network; or the path
    of a layer table, an assignment (with the profile.csv and evaluation.json beside it), a baseline
    of `mpsearch gate`, a model file (quantized or float), or a run folder. Raises InputError for
    anything else.

    >>> mpsearch.diff(table, table).same
    True
    """
    return compare(side_of(before), side_of(after))


def compare(before: Side, after: Side) -> Comparison:
    """The same of two sides that were read."""
    notes = list(dict.fromkeys((*before.notes, *after.notes)))
    layers = changes_between(before.layers, after.layers)
    shared = before.layers.keys() & after.layers.keys()
    if before.layers and after.layers and not shared:
        notes.append("no layer has the same name in both")
    if None not in (before.model_digest, after.model_digest):
        other = before.model_digest != after.model_digest
        notes += ["the weights are others"] if other and not any(x.of_shape for x in layers) else []
    by = _omega_by(before, after, notes)
    totals = [*_chosen(before, after, by), *_uniform(before, after, by)]
    changed = {change.name for change in layers}
    return Comparison(
        before.source, after.source, layers, len(shared - changed), tuple(totals),
        _accuracy(before, after, notes), tuple(notes),
    )  # fmt: skip


def _omega_by(before: Side, after: Side, notes: list[str]) -> bool:
    """Whether Ω of both can be compared: not where they are known to be of two metrics."""
    known = (before.metric, after.metric)
    if None not in known and before.metric != after.metric:
        notes.append(f"Ω is by {before.metric} and by {after.metric}, and not compared")
        return False
    return True


def _chosen(before: Side, after: Side, omega: bool) -> list[TotalChange]:
    columns = [column for column in before.totals if column in after.totals]
    first = [column for column in (SIZE, BOPS, "omega") if column in columns]
    return [
        TotalChange(column, before.totals[column], after.totals[column])
        for column in dict.fromkeys((*first, *columns))
        if omega or column != "omega"
    ]


def _uniform(before: Side, after: Side, omega: bool) -> list[TotalChange]:
    """Of two tables, at choices that every layer of both has."""
    one, other = before.table, after.table
    if one is None or other is None:
        return []
    choices = [choice for choice in _everywhere(one) if choice in _everywhere(other)]
    columns = [column for column in one.columns if column in other.columns]
    return [
        TotalChange(
            column, one.uniform_total(column, choice), other.uniform_total(column, choice),
            str(choice),
        )
        for choice in choices[:: max(1, -(-len(choices) // UNIFORM))]
        for column in (*columns, *(["omega"] if omega else []))
    ]  # fmt: skip


def _everywhere(table: LayerTable) -> Mapping[Choice, None]:
    has: list[Any] = np.all(table.row_index >= 0, axis=0).tolist()
    return {choice: None for choice, all_have in zip(table.choices, has, strict=True) if all_have}


def _data(side: Side) -> str:
    return f"{side.data_name} ({str(side.data_digest)[:15]})"


def _accuracy(before: Side, after: Side, notes: list[str]) -> AccuracyChange | None:
    one, other = before.row, after.row
    if one is None or other is None or not (one.classifies and other.classifies):
        return None
    if before.data_digest != after.data_digest or one.n != other.n or not one.n:
        notes.append(
            "accuracy is not compared, as the samples differ: "
            f"{_data(before)} and {_data(after)}; measure both on one file with --data"
        )
        return None
    pairs = list(zip(one.correct, other.correct, strict=True))
    lost = sum(first and not second for first, second in pairs)
    won = sum(second and not first for first, second in pairs)
    return AccuracyChange(
        after.data_name or "", one.n, one.accuracy, other.accuracy, lost, won,
        drop_interval(lost, won, one.n),
    )  # fmt: skip
