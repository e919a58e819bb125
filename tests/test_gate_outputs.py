"""The gate's reports for CI systems: well formed, escaped, and saying what the exit code says."""

import html
import json
import re
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_gate import CHOSEN, FP32, ROW, TABLE, TOTALS, evaluations, measured

from mpsearch.assignment import Assignment
from mpsearch.choice import Choice
from mpsearch.cli import run
from mpsearch.evaluation import save_evaluations
from mpsearch.gate_evidence import Evidence
from mpsearch.gate_front import HEIGHT, WIDTH, picture, plot
from mpsearch.gate_github import command, commands, escaped, markdown
from mpsearch.gate_gitlab import code_quality
from mpsearch.gate_junit import junit
from mpsearch.gate_report import Report
from mpsearch.gate_verdict import Paired, Policy, Verdict
from mpsearch.table import LayerTable

NASTY = "a|b`c`<img src=x onerror=alert(1)>&\"'\x1b[31m\x00]]>\n::error::no\r\n%0A$(id)"
SIZE = Verdict("size_bytes", 1448, 1024, False)
BOPS = Verdict("bops", 22400, 22400, True)
UNSURE = Verdict(
    "drop", Fraction(2), Fraction(5, 2), True, (0.8, 3.4), 1000, 0.95, 6486,
    Paired(NASTY, 30, 10, 0.001),
)  # fmt: skip
MISSED = Verdict("accuracy", Fraction(88, 100), Fraction(89, 100), False, (0.86, 0.9), 1000)


def report(*verdicts: Verdict, policy: Policy = "measured", config: str | None = None) -> Report:
    return Report(verdicts, Evidence(), policy, 0.95, config)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "profile.csv").write_text(TABLE)
    Assignment(CHOSEN, totals=TOTALS).save("assignment.json")
    save_evaluations(evaluations(FP32, ROW), "evaluation.json")
    return tmp_path


# Jenkins' junit-10.xsd: attributes (! required), and children in this order.
SCHEMA: dict[str, tuple[set[str], list[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors", "disabled"}, ["testsuite"]),
    "testsuite": (
        {"name!", "tests!", "failures!", "errors!", "time", "skipped", "timestamp", "hostname"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "testcase": ({"name!", "classname", "time", "assertions"}, ["skipped", "error", "failure"]),
    "failure": ({"type", "message"}, []),
    "skipped": ({"type", "message"}, []),
    "system-out": (set(), []),
}


def check_schema(element: ElementTree.Element) -> None:
    attributes, children = SCHEMA[element.tag]
    assert set(element.attrib) <= {name.rstrip("!") for name in attributes}
    assert {name.rstrip("!") for name in attributes if name.endswith("!")} <= set(element.attrib)
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order)
    for child in element:
        check_schema(child)


@pytest.mark.parametrize("policy", ["measured", "strict", "lenient"])
def test_junit_has_a_case_per_condition_and_the_counts_are_right(policy: Policy) -> None:
    made = report(SIZE, BOPS, UNSURE, MISSED, policy=policy)
    root = ElementTree.fromstring(junit(made))
    check_schema(root)
    (suite,) = root
    cases = suite.findall("testcase")
    failures = [case.get("name") for case in cases if case.find("failure") is not None]
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    drop, accuracy = "points lost <= 2.5 points", "accuracy >= 89 %"
    assert (
        failures
        == {
            "measured": ["size <= 1,024 B (1.0 KB)", accuracy],
            "strict": ["size <= 1,024 B (1.0 KB)", drop, accuracy],
            "lenient": ["size <= 1,024 B (1.0 KB)"],
        }[policy]
    )
    assert skipped == {"measured": [drop], "strict": [], "lenient": [drop, accuracy]}[policy]
    for element in (root, suite):
        assert element.get("tests") == "4"
        assert element.get("failures") == str(len(failures))
    assert suite.get("skipped") == str(len(skipped))


def test_junit_holds_any_name() -> None:
    text = junit(report(UNSURE))
    root = ElementTree.fromstring(text)  # well formed in spite of \x00, \x1b and ]]>
    out = root.findtext("testsuite/system-out")
    assert out is not None
    assert "<img src=x onerror=alert(1)>&\"'�[31m�]]>" in out
    assert b"<img" not in text


def test_the_reports_of_one_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gate", "--max-size", "1KB", "--min-accuracy", "85%", "--max-drop", "2.5"]
    assert run([*words, "--junit", "junit.xml", "--gitlab", "gitlab.json"]) == 1
    root = ElementTree.parse("junit.xml").getroot()
    check_schema(root)
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("message") == "size 1,448 B (1.4 KB) misses <= 1,024 B (1.0 KB)"
    findings = json.loads(Path("gitlab.json").read_text())
    assert [(f["check_name"], f["severity"]) for f in findings] == [
        ("mpsearch-gate-size-bytes", "major"),
        ("mpsearch-gate-drop", "minor"),
    ]
    assert "::" not in capsys.readouterr().out


def test_gitlabs_findings_have_what_it_needs() -> None:
    """GitLab ignores a report where one of these is missing."""
    made = json.loads(code_quality(report(SIZE, UNSURE, BOPS, MISSED, config="pyproject.toml")))
    for finding in made:
        assert set(finding) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert finding["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert finding["location"] == {"path": "pyproject.toml", "lines": {"begin": 1}}
        assert re.fullmatch("[0-9a-f]{64}", finding["fingerprint"])
    assert len({finding["fingerprint"] for finding in made}) == len(made) == 3
    assert json.loads(code_quality(report(BOPS))) == []


def test_the_same_condition_has_the_same_fingerprint_on_every_branch() -> None:
    """Another value is no new finding for the merge request."""
    worse = Verdict("size_bytes", 5000, 1024, False)
    prints = [json.loads(code_quality(report(v)))[0]["fingerprint"] for v in (SIZE, worse)]
    assert prints[0] == prints[1]


def decoded(line: str) -> tuple[str, dict[str, str], str]:
    """As the runner reads a line: actions/runner, ActionCommand.cs, TryParseV2."""
    match = re.fullmatch(r"::(\w+) ([^:\n\r]*)::([^\n\r]*)", line)
    assert match is not None
    name, pairs, data = match.groups()

    def plain(text: str) -> str:
        for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","),
                                ("%25", "%")):  # fmt: skip
            text = text.replace(code, character)
        return text

    properties = dict(pair.split("=", 1) for pair in pairs.split(","))
    return name, {key: plain(value) for key, value in properties.items()}, plain(data)


def test_annotations_are_one_line_each_and_decode_to_the_text() -> None:
    assert command("error", "50% of a\r\n::set-env") == (
        "::error title=mpsearch gate::50%25 of a%0D%0A::set-env"
    )
    for text in ("plain", "100 %", "a\nb\rc", "::error::x", "a:b,c"):
        assert decoded(command("notice", text)) == ("notice", {"title": "mpsearch gate"}, text)
    lines = commands(report(SIZE, BOPS, UNSURE, MISSED))
    assert [decoded(line)[0] for line in lines] == ["error", "warning", "error"]
    assert decoded(lines[0])[2] == "size 1,448 B (1.4 KB) misses <= 1,024 B (1.0 KB)"
    (only,) = commands(report(BOPS))
    assert decoded(only) == ("notice", {"title": "mpsearch gate"}, "the gate says yes")


def test_in_github_actions_annotations_and_summary_come_by_themselves(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    (folder / "summary.md").write_text("### Another step\n\n")
    assert run(["gate", "--max-size", "1KB", "--max-bops", "22400"]) == 1
    assert capsys.readouterr().out.startswith("::error title=mpsearch gate::size 1,448 B")
    summary = (folder / "summary.md").read_text()
    assert summary.startswith("### Another step\n\n### mpsearch gate: no\n")
    assert "| ❌ FAIL | size | 1,448 B" in summary
    assert "| ✅ PASS | BOPS | 22,400" in summary
    assert "● judged" in summary
    # JSON stays alone on standard output, and what cannot be judged is annotated, too
    assert run(["gate", "--max-size", "1KB", "--json"]) == 1
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert printed.err.startswith("::error")
    assert run(["gate", "--max-size", "145"]) == 2
    assert capsys.readouterr().out.startswith("::error title=mpsearch gate::the size '145' has no")
    assert run(["gate", "--max-size", "1KB", "--no-github"]) == 1
    assert "::" not in capsys.readouterr().out


def test_markdown_shows_any_name_as_it_is() -> None:
    text = markdown(report(UNSURE, config=NASTY))
    assert "<img" not in text
    assert all(character.isprintable() or character == "\n" for character in text)
    row = next(line for line in text.splitlines() if line.startswith("| ❔"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
    shown = re.sub(r"\\([^\w\s])", r"\1", html.unescape(escaped("a|b <i> [x](y) `c` *d* &amp;")))
    assert shown == "a|b <i> [x](y) `c` *d* &amp;"
    assert "\n" not in escaped("a\n\n# b")


def test_the_pictures_marks_stand_where_they_belong() -> None:
    lines = plot([("a", 1000.0, 100.0), ("b", 3000.0, 1.0), ("c", 2000.0, 10.0)])
    grid = [line.split("│", 1)[1].ljust(WIDTH) for line in lines[:HEIGHT]]
    assert grid[0][0] == "a"
    assert grid[-1][WIDTH - 1] == "b"
    places = [(y, x) for y in range(HEIGHT) for x in range(WIDTH) if grid[y][x] == "c"]
    ((y, x),) = places
    assert abs(y - (HEIGHT - 1) / 2) <= 0.5
    assert abs(x - (WIDTH - 1) / 2) <= 0.5
    assert lines[0].split()[0] == "1e+02"
    assert lines[-1].split() == ["1000", "B", "2.9", "KB"]
    assert plot([("a", 1.0, 1.0)])[0].endswith("a")


def test_the_picture_of_the_judged_assignment(folder: Path) -> None:
    table = LayerTable.read_csv("profile.csv")
    drawn = picture(Evidence(assignment=Assignment(CHOSEN), table=table))
    assert drawn is not None
    text = "\n".join(drawn)
    assert "4 w4a4 everywhere   8 w8a8 everywhere" in text
    assert text.count("●") == 2  # in the picture and in the legend
    assert picture(Evidence(table=table)) is None
    other = Assignment({"three": Choice(4, 4)})
    assert picture(Evidence(assignment=other, table=table)) is None


def test_without_omega_there_is_no_picture_and_still_a_summary(folder: Path) -> None:
    (folder / "profile.csv").write_text(re.sub(r",\d\.\d,", ",0,", TABLE))
    made = Report(
        (SIZE,),
        Evidence(Assignment(CHOSEN), LayerTable.read_csv("profile.csv")),
    )
    assert "```" not in markdown(made)
    assert "FAIL" in markdown(made)


def test_a_measurement_with_a_strange_name_breaks_no_report(folder: Path) -> None:
    row = measured(NASTY, list(ROW.correct), **TOTALS)
    save_evaluations(evaluations(FP32, row), "evaluation.json")
    words = ["gate", "--assignment", "assignment.json", "--network", NASTY, "--max-drop", "9"]
    assert run([*words, "--junit", "j.xml", "--gitlab", "g.json", "--github"]) == 0
    check_schema(ElementTree.parse("j.xml").getroot())
