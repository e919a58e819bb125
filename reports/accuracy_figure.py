"""The picture of measured accuracy against a resource: the chosen network, what else there is, the
limit and FP32."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsearch.reports.accuracy_facts import CHOSEN
from mpsearch.reports.facts import AccuracyFacts, Facts, MeasuredFacts, NearFacts, Number
from mpsearch.reports.labels import Label, place_labels
from mpsearch.reports.prose import NAMES
from mpsearch.reports.style import (
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    Drawing,
    axis_label,
    scale_of,
)
from mpsearch.tables.choice import is_choice
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 40  # with more measured points the bars of their intervals become a band
FAR = 20.0  # percentage points below chosen and FP32: what is worse is shown at the lower edge


@dataclass(frozen=True)
class Mark:
    """One measured network: what it takes, its score in percent, the ends of the 95 % interval."""

    name: str
    total: Number
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AccuracyPicture:
    """Measured networks over `column`. score: `accuracy`, or `agreement` without labels.

    front: measured points of the front, by rising total; fp32: its score; total 0: not known.
    where: what was measured on; front_where: the same of the front's points, where it differs.
    """

    column: str
    score: str
    chosen: Mark | None
    uniform: tuple[Mark, ...]
    front: tuple[Mark, ...]
    fp32: Mark | None
    limit: Number | None
    where: str
    front_where: str = ""


def accuracy_picture(facts: Facts) -> AccuracyPicture | None:
    """What of a run was measured and where it lies; None where nothing can be shown."""
    measured = facts.front.measured if facts.front is not None else None
    score, rows = _scores(facts)
    if measured is not None and not rows:
        score = measured.score
    points = _front_marks(measured) if measured is not None and measured.score == score else ()
    swept = [facts.front.resource] if facts.front is not None else []
    limited = [asked.column for asked in facts.limits]
    columns = [*swept, *limited] if points else [*limited, *swept]
    for column in dict.fromkeys([*columns, "size_bytes", "bops"]):
        marks = [_mark(name, values, facts, column) for name, values in rows.items()]
        placed = [mark for mark in marks if mark is not None]
        shown = points if facts.front is not None and column == facts.front.resource else ()
        if not placed and not shown:
            continue
        chosen = next((mark for mark in placed if mark.name in CHOSEN), None)
        total = facts.answer.point.totals.get(column) if facts.answer else None
        if chosen is None:
            chosen = next((mark for mark in shown if mark.total == total), None)
        own = f"{facts.measured_samples:,} samples of {facts.accuracy_data}"
        theirs = f"{measured.samples:,} samples of {measured.data}" if measured and shown else ""
        return AccuracyPicture(
            column=column,
            score=score,
            chosen=chosen,
            uniform=tuple(mark for mark in placed if is_choice(mark.name)),
            front=shown,
            fp32=_fp32(rows, measured, facts.fp32.totals.get(column, 0) if facts.fp32 else 0),
            limit=next((asked.limit for asked in facts.limits if asked.column == column), None),
            where=own if rows else theirs,
            front_where=theirs if rows and theirs and theirs != own else "",
        )
    return None


Score = tuple[float, float, float]  # value and ends, in percent


def _scores(facts: Facts) -> tuple[str, dict[str, Score]]:
    """What the networks of evaluation.json reach, by name."""
    if facts.near:
        found = {row.name: row.agreement for row in facts.near if row.agreement is not None}
        return "agreement", {
            name: (100 * one.value, 100 * one.interval[0], 100 * one.interval[1])
            for name, one in found.items()
        }
    return "accuracy", {
        row.name: (100 * row.accuracy, 100 * row.interval[0], 100 * row.interval[1])
        for row in facts.accuracies
    }


def _mark(name: str, score: Score, facts: Facts, column: str) -> Mark | None:
    total = _totals(name, facts).get(column)
    return None if total is None or name == "FP32" else Mark(name, total, *score)


def _totals(name: str, facts: Facts) -> Mapping[str, Number]:
    """What a measured network takes: of its own measurement first, else from the table."""
    rows: list[AccuracyFacts | NearFacts] = [*facts.accuracies, *facts.near]
    row = next(row for row in rows if row.name == name)
    known = {"size_bytes": row.size_bytes, "bops": row.bops}
    points = {point.name: point for point in facts.uniform}
    point = facts.answer.point if facts.answer and name in CHOSEN else points.get(name)
    own = {column: value for column, value in known.items() if value is not None}
    return {**(point.totals if point else {}), **own}


def _front_marks(found: MeasuredFacts) -> tuple[Mark, ...]:
    values = zip(found.totals, found.accuracy, found.low, found.high, strict=True)
    return tuple(Mark("", total, *(100 * share for share in shares)) for total, *shares in values)


def _fp32(
    rows: Mapping[str, Score], measured: MeasuredFacts | None, total: Number = 0
) -> Mark | None:
    if "FP32" in rows:
        return Mark("FP32", total, *rows["FP32"])
    if rows or measured is None or measured.fp32 is None:
        return None
    low, high = measured.fp32_interval or (measured.fp32, measured.fp32)
    return Mark("FP32", total, *(100 * share for share in (measured.fp32, low, high)))


def accuracy_drawing(facts: Facts) -> Drawing | None:
    """The picture; None where nothing was measured that has a place in it."""
    picture = accuracy_picture(facts)
    if picture is None:
        return None

    def draw(figure: "Figure") -> None:
        _draw(figure, picture)

    name = NAMES.get(picture.column, picture.column)
    return Drawing(
        name="accuracy",
        title=f"Measured {picture.score} against {name}",
        text=_words(picture),
        caption=_caption(picture, facts),
        height=4.1,
        draw=draw,
    )


def marks_of(picture: AccuracyPicture) -> Iterator[Mark]:
    """The chosen one, those of one choice everywhere, the front's."""
    yield from (*([picture.chosen] if picture.chosen else []), *picture.uniform, *picture.front)


def lower_edge(picture: AccuracyPicture) -> float | None:
    """Where the picture ends, if networks lie so far below that no interval could be read."""
    near = [mark.low for mark in (picture.chosen, picture.fp32) if mark is not None]
    edge = min(near) - FAR if near else None
    if edge is None or all(mark.value >= edge for mark in marks_of(picture)):
        return None
    return edge


def _draw(figure: "Figure", picture: AccuracyPicture) -> None:
    axes = figure.subplots()
    totals = [mark.total for mark in marks_of(picture)]
    unit, unit_name = scale_of(picture.column, max([*totals, picture.limit or 0]))
    edge = lower_edge(picture)
    _draw_fp32(axes, picture.fp32)
    if picture.front:
        name = f"front, {len(picture.front):,} points measured"
        _draw_front(axes, picture.front, unit, name)
    _bars(axes, picture.uniform, unit, MUTED, "s", "one choice everywhere", 6)
    if picture.chosen is not None:
        _bars(axes, [picture.chosen], unit, ORANGE, "D", "chosen", 8)
    if picture.limit is not None:
        axes.axvline(picture.limit / unit, color=INK, linewidth=1, linestyle=(0, (4, 3)),
                     label="limit")  # fmt: skip
    axes.set_xlabel(axis_label(NAMES.get(picture.column, picture.column), picture.column,
                               unit_name))  # fmt: skip
    axes.set_ylabel(f"{picture.score} (%)")
    axes.margins(x=0.06, y=0.08)
    axes.grid()
    axes.set_axisbelow(True)
    if picture.fp32 is not None and picture.fp32.total:
        where = format_amount(picture.column, picture.fp32.total).strip()
        axes.set_title(f"FP32: {picture.fp32.value:.2f} % at {where} →", loc="right", fontsize=8,
                       color=MUTED)  # fmt: skip
    if edge is not None:
        axes.set_ylim(bottom=edge)
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.4))
    figure.legend(loc="outside upper center", ncols=3, handlelength=1.4, columnspacing=1.2)
    _name(axes, picture, unit, edge)


def draw_measured(axes: "Axes", found: MeasuredFacts, unit: float) -> None:
    """A panel of its own: the front's measured points over the resource, and FP32's line."""
    _draw_fp32(axes, _fp32({}, found))
    _draw_front(axes, _front_marks(found), unit)
    axes.set_ylabel(f"{found.score} (%)")
    axes.grid()
    axes.set_axisbelow(True)
    axes.margins(y=0.1)


def _draw_fp32(axes: "Axes", fp32: Mark | None) -> None:
    if fp32 is None:
        return
    axes.axhspan(fp32.low, fp32.high, color=MUTED, alpha=0.15, linewidth=0)
    axes.axhline(fp32.value, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), label="FP32")


def _draw_front(
    axes: "Axes", marks: tuple[Mark, ...], unit: float, name: str | None = None
) -> None:
    x = np.array([mark.total for mark in marks], dtype=np.float64) / unit
    y, low, high = (np.array([getattr(m, end) for m in marks]) for end in ("value", "low", "high"))
    if len(marks) > FEW:
        axes.fill_between(x, low, high, color=GREEN, alpha=0.25, linewidth=0)
        axes.plot(x, y, color=GREEN, linewidth=1.2, label=name)
        return
    axes.errorbar(
        x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], color=GREEN, marker="o",
        markersize=4, linewidth=1.2, elinewidth=1, capsize=2.5, label=name,
    )  # fmt: skip


def _bars(
    axes: "Axes", marks: "tuple[Mark, ...] | list[Mark]", unit: float, colour: str, marker: str,
    name: str, size: float,
) -> None:  # fmt: skip
    """Marks with their intervals; the name stands in the legend once."""
    for place, one in enumerate(marks):
        axes.errorbar(
            [one.total / unit], [one.value],
            yerr=[[max(one.value - one.low, 0)], [max(one.high - one.value, 0)]],
            color=colour, marker=marker, markersize=size, markeredgecolor=PAPER, elinewidth=1.2,
            capsize=3, linestyle="none", zorder=5 if marker == "D" else 4,
            label=None if place else name,
        )  # fmt: skip


def _name(axes: "Axes", picture: AccuracyPicture, unit: float, edge: float | None) -> None:
    """Names beside the marks; what lies below the picture stands at its edge with its value."""
    labels = []
    if picture.chosen is not None:
        one = picture.chosen
        labels.append(Label("chosen", one.total / unit, one.value, ORANGE, bold=True))
    for one in picture.uniform:
        labels.append(Label(one.name, one.total / unit, one.value, MUTED))
    below = [mark for mark in marks_of(picture) if edge is not None and mark.value < edge]
    if edge is not None and below:
        axes.plot([mark.total / unit for mark in below], [edge] * len(below), marker="v",
                  color=MUTED, linestyle="none", markersize=7, clip_on=False, zorder=6)  # fmt: skip
        kept = {(mark.total / unit, mark.value): mark for mark in below}
        labels = [
            Label(f"{label.text}: {label.y:.1f} %", label.x, edge, label.colour, label.bold)
            if (label.x, label.y) in kept
            else label
            for label in labels
        ]
    if labels:
        ends = [(mark.total / unit, end) for mark in marks_of(picture)
                for end in (mark.low, mark.high)]  # fmt: skip
        lines = [np.array(ends[place : place + 2]) for place in range(0, len(ends), 2)]
        if picture.fp32 is not None:
            lines.append(np.array([(x, picture.fp32.value) for x in axes.get_xlim()]))
        place_labels(axes, labels, [*lines, *upright(axes, picture.limit, unit)])


def upright(axes: "Axes", limit: Number | None, unit: float) -> list[NDArray[np.float64]]:
    """The line of a limit, from end to end, which names should not cover."""
    if limit is None:
        return []
    return [np.array([(limit / unit, end) for end in axes.get_ylim()])]


def _caption(picture: AccuracyPicture, facts: Facts) -> str:
    """What was measured on what, and what the marks mean."""
    text = f"Measured on {picture.where}; bars: 95 % intervals"
    text += ", the band that of FP32." if picture.fp32 is not None else "."
    marks = ["diamond: the chosen assignment"] if picture.chosen is not None else []
    marks += ["squares: one choice everywhere"] if picture.uniform else []
    if picture.front:
        other = f", measured on {picture.front_where}" if picture.front_where else ""
        marks.append(f"dots: points of the front{other}")
    marks += ["dashed: the limit"] if picture.limit is not None else []
    if marks:
        sentence = "; ".join(marks)
        text += f" {sentence[0].upper()}{sentence[1:]}."
    if lower_edge(picture) is not None:
        text += f" Triangles: more than {FAR:.0f} points lower, with their {picture.score}."
    if not picture.front and facts.front is not None:
        text += " `mpsearch evaluate --front` adds measured points of the front."
    return text


def _words(picture: AccuracyPicture) -> str:
    """The picture in words."""
    name = NAMES.get(picture.column, picture.column)
    words = [f"Measured {picture.score} against {name}."]
    named = [(mark.name, mark) for mark in picture.uniform]
    if picture.chosen is not None:
        named.insert(0, ("chosen", picture.chosen))
    for title, mark in named:
        words.append(
            f"{title.capitalize()}: {mark.value:.2f} % ({mark.low:.2f} to {mark.high:.2f} %) at "
            f"{format_amount(picture.column, mark.total).strip()}."
        )
    if picture.fp32 is not None:
        words.append(f"FP32: {picture.fp32.value:.2f} %.")
    if picture.front:
        first, last = picture.front[0], picture.front[-1]
        ends = [
            f"{one.value:.2f} % at {format_amount(picture.column, one.total).strip()}"
            for one in (first, last)
        ]
        words.append(f"{len(picture.front)} points of the front: {ends[0]} to {ends[1]}.")
    if picture.limit is not None:
        words.append(f"The limit: {format_amount(picture.column, picture.limit).strip()}.")
    return " ".join(words)
