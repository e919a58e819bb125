"""The gate's report as GitLab's Code Quality JSON, which merge requests show in every tier."""

from typing import TYPE_CHECKING

from mpsearch.files.writing import digest
from mpsearch.gating.words import sentence
from mpsearch.running.foreign_text import json_text, shown

if TYPE_CHECKING:
    from mpsearch.gating.report import Report


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
