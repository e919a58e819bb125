"""The gate's report as JUnit XML, in the form of Jenkins' junit-10.xsd, which CI systems show."""

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from mpsearch.gating.words import needed, row_of, sentence
from mpsearch.running.foreign_text import shown

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
    ElementTree.SubElement(suite, "system-out").text = "\n".join(map(shown, lines))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
