"""A comparison's sections, and the whole of it as HTML or Markdown.

The figure of a comparison: the fronts of several runs over one resource.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpsearch.reports.compare_facts import ComparedRun, CompareFacts, Meeting
from mpsearch.reports.html import contents, section_html, table_styles
from mpsearch.reports.page import page
from mpsearch.reports.prose import NAMES
from mpsearch.reports.style import (
    BLUE,
    GREEN,
    ORANGE,
    PAPER,
    PURPLE,
    Code,
    Drawing,
    Paragraph,
    Part,
    Section,
    Table,
    axis_label,
    scale_of,
    scale_omega,
    shorten,
)
from mpsearch.reports.writing import markdown_of
from mpsearch.tables.units import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
DASHES = ((0, ()), (0, (5, 2)), (0, (1, 1.5)))


def compare_drawing(facts: CompareFacts) -> Drawing:
    """Every run a colour and, from the fifth on, a dash; diamonds: what was chosen."""
    measured = any(run.measured is not None for run in facts.runs)

    def draw(figure: "Figure") -> None:
        _draw(figure, facts, measured)

    name = NAMES.get(facts.resource, facts.resource)
    words = [
        f"{run.name}: {len(run.totals)} points, Ω {run.omega[0]:.3g} at "
        f"{format_amount(facts.resource, run.totals[0]).strip()} to {run.omega[-1]:.3g} at "
        f"{format_amount(facts.resource, run.totals[-1]).strip()}, hypervolume "
        f"{run.hypervolume:.4f}"
        for run in facts.runs
    ]
    caption = f"Total Ω against {name}; lower and further left is better. Diamonds: chosen."
    if facts.relative:
        caption += " Ω of each run as a part of that of its own smallest network."
    if measured:
        caption += " Above: what was measured, with 95 % intervals."
    return Drawing(
        name="compare",
        title="Fronts of the runs",
        text=f"{'. '.join(words)}.",
        caption=caption,
        height=(6.2 if measured else 4.1) + 0.2 * (len(facts.runs) // 2),
        draw=draw,
    )


def _draw(figure: "Figure", facts: CompareFacts, measured: bool) -> None:
    if measured:
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    else:
        above, axes = None, figure.subplots()
    largest = max(run.totals[-1] for run in facts.runs)
    unit, unit_name = scale_of(facts.resource, largest)
    for place, run in enumerate(facts.runs):
        colour = COLOURS[place % len(COLOURS)]
        dash = DASHES[place // len(COLOURS)]
        axes.step(
            np.array(run.totals, dtype=np.float64) / unit, run.omega, where="post", color=colour,
            linewidth=1.6, linestyle=dash, label=shorten(run.name, 30),
        )  # fmt: skip
        if run.chosen is not None:
            axes.plot(
                [run.chosen[0] / unit], [run.chosen[1]], marker="D", color=colour, markersize=7,
                markeredgecolor=PAPER, linestyle="none", zorder=4,
            )  # fmt: skip
        if above is not None:
            _accuracy(above, run, colour, unit)
    scale_omega(axes, "y", [omega for run in facts.runs for omega in run.omega])
    axes.set_xlabel(
        axis_label(NAMES.get(facts.resource, facts.resource), facts.resource, unit_name)
    )
    axes.set_ylabel("total Ω, part of own largest" if facts.relative else "total Ω")
    axes.grid(True)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, handlelength=2.4, columnspacing=1.2)


def _accuracy(axes: "Axes", run: ComparedRun, colour: str, unit: float) -> None:
    axes.grid(True)
    axes.set_axisbelow(True)
    if run.measured is None:
        return
    axes.set_ylabel(f"{run.measured.score} (%)")
    x = np.array(run.measured.totals, dtype=np.float64) / unit
    y, low, high = (
        100 * np.array(part)
        for part in (run.measured.accuracy, run.measured.low, run.measured.high)
    )
    axes.errorbar(x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], color=colour,
                  marker="o", markersize=4, linewidth=1.2, elinewidth=0.8, capsize=2)  # fmt: skip


TITLE = "Runs compared: mpsearch report"
MOST = 6  # changes of the lead that are spelled out


def render_comparison(facts: CompareFacts, folders: Sequence[str]) -> str:
    """The page; no script is in it."""
    made = compare_sections(facts, folders)
    sections = [contents(made), *(section_html(section) for section in made)]
    return page(TITLE, "\n".join(sections), facts.version, table_styles(made))


def comparison_markdown(
    facts: CompareFacts, folders: Sequence[str], figures: Mapping[str, str] | None = None
) -> str:
    """The same as Markdown."""
    return markdown_of(TITLE, compare_sections(facts, folders), facts.version, figures)


def compare_sections(facts: CompareFacts, folders: Sequence[str]) -> tuple[Section, ...]:
    """The runs and their hypervolumes, the fronts in one figure, where they cross, the command."""
    parts: list[Part] = [Paragraph(_lead(facts), "lead")]
    parts += [Paragraph(text, "notice") for text in compare_notices(facts)]
    name = NAMES.get(facts.resource, facts.resource)
    rows = []
    for run in sorted(facts.runs, key=lambda run: -run.hypervolume):
        ends = [format_amount(facts.resource, run.totals[end]).strip() for end in (0, -1)]
        rows.append([
            run.name,
            run.metric,
            f"{run.hypervolume:.4f}",
            f"{len(run.totals):,}{'' if run.exact else ' (not exact)'}",
            f"{run.omega[0]:.3g} to {run.omega[-1]:.3g}",
            f"{ends[0]} to {ends[1]}",
            "" if run.chosen is None
            else f"{run.chosen[1]:.3g} at {format_amount(facts.resource, run.chosen[0]).strip()}",
        ])  # fmt: skip
        if facts.judge:
            part = run.judged_hypervolume
            rows[-1].append("" if part is None else f"{part:.4f}")
    header = ["run", "metric", "hypervolume", "points", "total Ω", name, "chosen"]
    if facts.judge:
        header.append(f"hypervolume in {facts.judge}'s Ω")
    parts += [
        Table("Runs, the largest hypervolume first", header, rows),
        Paragraph(_definition(facts)),
    ]
    crossings = [
        [f"{one.first} and {one.second}", str(max(len(one.leads) - 1, 0)), _words(one, facts)]
        for one in facts.meetings
    ]
    repeat = f"mpsearch report {shlex.join(folders)}"
    return (
        Section("runs", "What is compared", parts),
        Section("fronts", "Fronts", [compare_drawing(facts)]),
        Section(
            "crossings", "Where they cross",
            [Table("Which has the lower Ω, as the limit grows",
                   ["runs", "crossings", "lower Ω"], crossings, prose=True)],
        ),
        Section("provenance", "Provenance", [Paragraph("To repeat it:"), Code([repeat])]),
    )  # fmt: skip


def compare_notices(facts: CompareFacts) -> tuple[str, ...]:
    """What a reader must know before believing the numbers."""
    texts = [f"Warning: {text}." for text in facts.warnings]
    if facts.relative:
        texts.append(
            "The runs' Ω are not on one scale, so each is shown as a part of that of the run's own "
            "smallest network: shapes can be compared, levels cannot."
        )
    where = {run.measured.data for run in facts.runs if run.measured is not None}
    if len(where) > 1:
        texts.append(f"The accuracies are of different data: {', '.join(sorted(where))}.")
    if facts.missing:
        texts.append(f"Not in these runs: {'; '.join(facts.missing)}.")
    return tuple(texts)


def _lead(facts: CompareFacts) -> str:
    best = max(facts.runs, key=lambda run: run.hypervolume)
    text = (
        f"{len(facts.runs)} Pareto fronts of total Ω against "
        f"{NAMES.get(facts.resource, facts.resource)}."
    )
    if facts.relative:  # no better, only steeper
        return f"{text} The steepest is that of {best.name}."
    return f"{text} The largest hypervolume is that of {best.name}, {best.hypervolume:.4f}."


def _definition(facts: CompareFacts) -> str:
    ideal, reference = (
        f"({format_amount(facts.resource, corner[0]).strip()}, Ω {corner[1]:.4g})"
        for corner in (facts.ideal, facts.reference)
    )
    return (
        "Hypervolume: the part of the box between the best and the worst value of any run, from "
        f"{ideal} to the reference point {reference}, that a front dominates; both axes linear; 1 "
        "is best."
        + (
            f" In {facts.judge}'s Ω: the same of the networks on each front, when the table of "
            f"{facts.judge} says what they lose; it favours {facts.judge} itself, and what the "
            "others lose to it is what trusting them costs if it is right."
            if facts.judge
            else ""
        )
    )


def _words(one: Meeting, facts: CompareFacts) -> str:
    if not one.leads:
        return "the same everywhere"
    names = (one.first, one.second)
    texts = [
        f"{names[lead.ahead]} from {format_amount(facts.resource, lead.start).strip()}"
        for lead in one.leads[:MOST]
    ]
    rest = len(one.leads) - MOST
    return ", ".join(texts) + (f", and {rest} more changes" if rest > 0 else "")
