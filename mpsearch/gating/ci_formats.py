"""The gate's report as JUnit XML, in the form of Jenkins' junit-10.xsd, which CI systems show.

The gate's report as GitLab's Code Quality JSON, which merge requests show in every tier.

A small front of characters, for places that show no pictures.

The gate in GitHub Actions: annotations through workflow commands, and a step summary.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from mpsearch.errors import InputError, MpsearchError
from mpsearch.files.whole import digest
from mpsearch.gating.evidence import Evidence
from mpsearch.gating.words import needed, percent, row_of, sentence
from mpsearch.running.streams import annotation, json_text, markdown_code, markdown_text, shown
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_size

if TYPE_CHECKING:
    from mpsearch.gating.report import Report


def junit(report: "Report") -> bytes:
    """One test case per condition: a failure where it stops the network, skipped where it is
    inconclusive and does not. Notes go to system-out."""
    stopped = sum(verdict.stops(report.policy) for verdict in report.verdicts)
    open_ = sum(not v.decided and not v.stops(report.policy) for v in report.verdicts)
    counts = {
        "tests": str(len(report.verdicts)),
        "failures": str(stopped),
        "errors": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "mpsearch gate", **counts})
    named = {"name": "mpsearch gate", **counts, "skipped": str(open_)}
    suite = ElementTree.SubElement(root, "testsuite", named)
    for verdict in report.verdicts:
        row = row_of(verdict)
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {
                "classname": "mpsearch.gate",
                "name": shown(f"{row.condition} {row.limit}"),
                "time": "0",
            },
        )
        if verdict.stops(report.policy):
            text = shown(sentence(verdict))
            attributes = {"message": text, "type": verdict.outcome}
            ElementTree.SubElement(case, "failure", attributes).text = text
        elif not verdict.decided:
            attributes = {"message": shown(f"inconclusive, {needed(verdict)}")}
            ElementTree.SubElement(case, "skipped", attributes)
    lines = [report.conclusion, *(f"note: {note}" for note in report.notes)]
    lines += [f"next: {step}" for step in report.next_steps]
    ElementTree.SubElement(suite, "system-out").text = "\n".join(map(shown, lines))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def code_quality(report: "Report") -> str:
    """One finding per condition that stops the network (`major`) or is inconclusive (`minor`).

    GitLab compares the fingerprints of two branches: they depend on the condition alone, so that a
    finding of the target branch is not new. Its place is the file with the conditions, or the
    assignment. An empty list where all conditions are met.
    """
    place = report.config or "assignment.json"
    findings = [
        {
            "description": f"mpsearch gate: {shown(sentence(verdict))}",
            "check_name": f"mpsearch-gate-{verdict.quantity.replace('_', '-')}",
            "fingerprint": digest("mpsearch gate", verdict.quantity, place).removeprefix("sha256:"),
            "severity": "major" if verdict.stops(report.policy) else "minor",
            "location": {"path": place, "lines": {"begin": 1}},
        }
        for verdict in report.verdicts
        if verdict.stops(report.policy) or not verdict.decided
    ]
    return json_text(findings, indent=2) + "\n"


WIDTH, HEIGHT = 60, 12
EXACT = 400  # layers; the exact front of more would take longer than the rest of the gate
STATES = 20_000
PRICES = 300
COLUMN = "size_bytes"


def picture(evidence: Evidence) -> list[str] | None:
    """Ω against size: the front, the judged assignment and one choice everywhere; None without an
    assignment, its table and sizes."""
    table, assignment = evidence.table, evidence.assignment
    if table is None or assignment is None or COLUMN not in table.columns:
        return None
    try:
        return _drawn(table, assignment)
    except InputError:  # no front, no picture: it is not what the gate is for
        return None


def _drawn(table: LayerTable, assignment: Assignment) -> list[str] | None:
    found = _front(table) if len(table.layers) <= EXACT else supported(table)
    points = [("·", size, omega) for size, omega in found]
    legend = []
    for choice, other in zip(_everywhere(table), "abcd", strict=False):
        mark = other if choice.label or choice.group_size else str(choice.w_bits)[-1]
        size = float(table.uniform_total(COLUMN, choice))
        points.append((mark, size, float(table.uniform_total("omega", choice))))
        legend.append(f"{mark} {choice} everywhere")
    own = float(table.total(assignment.layers, COLUMN))
    points.append(("●", own, float(table.total(assignment.layers, "omega"))))
    positive = [(mark, size, omega) for mark, size, omega in points if omega > 0]
    if not positive:
        return None
    return [*plot(positive), "· front   ● judged   " + "   ".join(legend)]


def _front(table: LayerTable) -> list[tuple[float, float]]:
    from mpsearch.pareto.front import front

    found = front(table, COLUMN, max_states=STATES)
    return list(zip(found.totals[COLUMN].tolist(), found.omega.tolist(), strict=True))


def supported(table: LayerTable) -> list[tuple[float, float]]:
    """(size, Ω) of points on the front's convex hull: for each of many prices p the choices that
    minimise Ω + p size, layer by layer (Everett, Operations Research 11, 1963). Where there are
    hundreds of layers the hull is as good as the front."""
    from mpsearch.knapsack.instance import Instance

    instance = Instance.build(table, {}, extra_columns=(COLUMN,), paid=(COLUMN,))
    allowed = instance.allowed
    omega = instance.omega.astype(np.float64) / 10.0 ** instance.digits[0]
    size = instance.resources[0].astype(np.float64) / 10.0 ** instance.digits[1]
    rows = np.arange(len(allowed))
    span = size.max(axis=1, where=allowed, initial=0) - size.min(
        axis=1, where=allowed, initial=np.inf
    )
    worth = omega.max(axis=1, where=allowed, initial=0)[span > 0] / span[span > 0]
    worth = worth[worth > 0]
    if not len(worth):
        return []
    points = set()
    for price in np.geomspace(worth.min() * 1e-4, worth.max() * 1e2, PRICES):
        best = np.where(allowed, omega + price * size, np.inf).argmin(axis=1)
        points.add((float(size[rows, best].sum()), float(omega[rows, best].sum())))
    return sorted(points)


def _everywhere(table: LayerTable) -> list[Choice]:
    """At most four choices that every layer has, with other weights each."""
    by_weights = {
        choice.weights: choice for position, choice in enumerate(table.choices)
        if (table.row_index[:, position] >= 0).all()
    }  # fmt: skip
    return sorted(by_weights.values())[:4]


def plot(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Marks at (size, Ω), Ω on a logarithmic axis; later marks lie over earlier ones."""
    sizes = [size for _, size, _ in points]
    logs = [math.log10(omega) for _, _, omega in points]
    left, right, low, high = min(sizes), max(sizes), min(logs), max(logs)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for (mark, size, _), log in zip(points, logs, strict=True):
        x = round((size - left) / (right - left or 1) * (WIDTH - 1))
        y = round((high - log) / (high - low or 1) * (HEIGHT - 1))
        grid[y][x] = mark
    labels = [""] * HEIGHT
    labels[0], labels[-1] = f"{10**high:.2g}", f"{10**low:.2g}"
    labels[HEIGHT // 2] = "Ω"
    lines = [
        f"{label:>8} │{''.join(row)}".rstrip() for label, row in zip(labels, grid, strict=True)
    ]
    first, last = format_size(left), format_size(right)
    return [*lines, f"{'':>8} └{'─' * WIDTH}", f"{'':>10}{first}{last:>{WIDTH - len(first)}}"]


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
    if report.next_steps:
        lines += ["", *(f"- next: {markdown_text(step)}" for step in report.next_steps)]
    if report.config is not None:
        lines += ["", f"Conditions from {markdown_text(report.config)}"]
    drawn = picture(report.evidence)
    if drawn is not None:
        lines += ["", markdown_code(drawn, "text")]
    return "\n".join(lines) + "\n\n"
