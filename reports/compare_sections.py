"""A comparison's sections, and the whole of it as HTML or Markdown."""

import shlex
from collections.abc import Mapping, Sequence

from mpsearch.reports.compare_facts import CompareFacts, Meeting
from mpsearch.reports.compare_figure import compare_drawing
from mpsearch.reports.html import section_html, table_styles
from mpsearch.reports.markdown import markdown_of
from mpsearch.reports.page import page
from mpsearch.reports.parts import Code, Paragraph, Part, Section, Table
from mpsearch.reports.prose import NAMES
from mpsearch.tables.units import format_amount

TITLE = "Runs compared: mpsearch report"
MOST = 6  # changes of the lead that are spelled out


def render_comparison(facts: CompareFacts, folders: Sequence[str]) -> str:
    """The page; no script is in it."""
    made = compare_sections(facts, folders)
    sections = "\n".join(section_html(section) for section in made)
    return page(TITLE, sections, facts.version, table_styles(made))


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
