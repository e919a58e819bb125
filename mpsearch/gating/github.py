"""The gate in GitHub Actions: annotations through workflow commands, and a step summary."""

from pathlib import Path
from typing import TYPE_CHECKING

from mpsearch.errors import MpsearchError
from mpsearch.gating.front import picture
from mpsearch.gating.words import percent, row_of, sentence
from mpsearch.running.foreign_text import annotation, markdown_code, markdown_text

if TYPE_CHECKING:
    from mpsearch.gating.report import Report

TITLE = "mpsearch gate"


def commands(report: "Report") -> list[str]:
    """An `::error` for each condition that stops the network, a `::warning` for each other one that
    is inconclusive, and a `::notice` with the conclusion where nothing stops."""
    lines = []
    for verdict in report.verdicts:
        if verdict.stops(report.policy):
            lines.append(annotation("error", TITLE, sentence(verdict)))
        elif not verdict.decided:
            lines.append(annotation("warning", TITLE, sentence(verdict)))
    if report.verdicts and not report.says_no:
        lines.append(annotation("notice", TITLE, report.conclusion))
    return lines


def error_command(error: MpsearchError) -> str:
    """What could not be judged (exit code 2)."""
    return annotation("error", TITLE, *error.lines)


def summarize(report: "Report", path: str) -> None:
    """Append the Markdown to the file that $GITHUB_STEP_SUMMARY names, as other steps do."""
    with Path(path).open("a", encoding="utf-8") as stream:
        stream.write(markdown(report))


def markdown(report: "Report") -> str:
    """Heading, table, notes and the front as text.

    GitHub removes `data:` images and inline SVG from a summary, so the picture is characters.
    """
    lines = [f"### {TITLE}: {'no' if report.says_no else 'yes'}", ""]
    if report.verdicts:
        interval = f"{percent(report.confidence)} interval"
        lines += [
            f"| | condition | measured | limit | {interval} | samples |",
            "|---|---|---:|---:|---:|---:|",
        ]
    for verdict in report.verdicts:
        row = row_of(verdict)
        mark = "❌" if verdict.stops(report.policy) else "✅" if verdict.decided else "❔"
        cells = (row.condition, row.measured, row.limit, row.interval, row.samples)
        lines.append(f"| {mark} {row.outcome} | {' | '.join(map(markdown_text, cells))} |")
    lines += ["", markdown_text(report.conclusion)]
    lines += ["", *(f"- {markdown_text(note)}" for note in report.notes)]
    if report.config is not None:
        lines += ["", f"Conditions from {markdown_text(report.config)}"]
    drawn = picture(report.evidence)
    if drawn is not None:
        lines += ["", markdown_code(drawn, "text")]
    return "\n".join(lines) + "\n\n"
