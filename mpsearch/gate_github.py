"""The gate in GitHub Actions: annotations through workflow commands, and a step summary."""

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mpsearch.gate_front import picture
from mpsearch.gate_text import percent, row_of, sentence

if TYPE_CHECKING:
    from mpsearch.gate_report import Report

TITLE = "mpsearch gate"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~:-])")


def commands(report: "Report") -> list[str]:
    """An `::error` for each condition that stops the network, a `::warning` for each other one that
    is inconclusive, and a `::notice` with the conclusion where nothing stops."""
    lines = []
    for verdict in report.verdicts:
        if verdict.stops(report.policy):
            lines.append(command("error", sentence(verdict)))
        elif not verdict.decided:
            lines.append(command("warning", sentence(verdict)))
    if report.verdicts and not report.says_no:
        lines.append(command("notice", report.conclusion))
    return lines


def error_command(message: str) -> str:
    """What could not be judged (exit code 2)."""
    return command("error", message)


def command(level: str, message: str) -> str:
    """`error`, `50% of "a"` -> `::error title=mpsearch gate::50%25 of "a"`.

    The runner takes everything after `::` up to the end of the line and decodes %25, %0D and %0A
    (actions/toolkit, command.ts): so no text of ours can end the line and start another command.
    """
    data = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} title={TITLE}::{data}"


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
        lines.append(f"| {mark} {row.outcome} | {' | '.join(map(escaped, cells))} |")
    lines += ["", escaped(report.conclusion)]
    lines += ["", *(f"- {escaped(note)}" for note in report.notes)]
    if report.config is not None:
        lines += ["", f"Conditions from {escaped(report.config)}"]
    drawn = picture(report.evidence)
    if drawn is not None:
        lines += ["", "```text", *drawn, "```"]
    return "\n".join(lines) + "\n\n"


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is: no table cell, link or tag comes out of it."""
    flat = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return html.escape(_MARKDOWN.sub(r"\\\1", flat), quote=False)
