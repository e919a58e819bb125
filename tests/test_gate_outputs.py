"""The gate's reports for CI systems: well formed, escaped, and saying what the exit code says."""

import json
import re
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from test_gate import CHOSEN, FP32, ROW, TABLE, TOTALS, evaluations, measured, with_evidence

from mpsearch.cli import run
from mpsearch.evaluation.evaluation import save_evaluations
from mpsearch.gating.ci_formats import (
    HEIGHT,
    TITLE,
    WIDTH,
    code_quality,
    commands,
    junit,
    markdown,
    picture,
    plot,
    supported,
)
from mpsearch.gating.evidence import Evidence
from mpsearch.gating.report import Report
from mpsearch.gating.words import Paired, Policy, Verdict, row_of
from mpsearch.pareto.front import front
from mpsearch.running.streams import annotation, shown
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

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
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return with_evidence(tmp_path, monkeypatch)


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
    assert shown(NASTY) in out
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
    assert annotation("error", TITLE, "50% of a\r\n::set-env", "second") == (
        r"::error title=mpsearch gate::50%25 of a\r\n::set-env%0Asecond"
    )
    for text in ("plain", "100 %", "a%0Ab", "::error::x", "a:b,c"):
        assert decoded(annotation("notice", TITLE, text)) == ("notice", {"title": TITLE}, text)
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


def rendered(text: str) -> ElementTree.Element:
    """As GitHub's Markdown does it: CommonMark with tables and HTML passed through."""
    made = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    return ElementTree.fromstring(f"<page>{made}</page>")


def texts(page: ElementTree.Element, tag: str) -> list[str]:
    return ["".join(element.itertext()) for element in page.iter(tag)]


def test_markdown_shows_any_name_as_it_is() -> None:
    made = report(SIZE, BOPS, UNSURE, MISSED, config=NASTY)
    page = rendered(markdown(made))
    assert {element.tag for element in page.iter()} == set(
        "page h3 table thead tbody tr th td p ul li".split()
    )
    assert texts(page, "h3") == ["mpsearch gate: no"]
    rows = [row_of(verdict) for verdict in made.verdicts]
    assert texts(page, "td") == [
        cell
        for mark, row in zip("❌✅❔❌", rows, strict=True)
        for cell in (f"{mark} {row.outcome}", row.condition, row.measured, row.limit,
                     row.interval, row.samples)
    ]  # fmt: skip
    assert texts(page, "p")[-1] == f"Conditions from {shown(NASTY)}"
    assert any(shown(NASTY) in note for note in texts(page, "li"))


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


def random_table(layers: int, seed: int) -> LayerTable:
    random = np.random.default_rng(seed)
    rows = []
    for layer in range(layers):
        weights, scale = int(random.integers(50, 500)), 10 ** random.normal()
        for bits in (2, 4, 8):
            omega = scale * 4.0**-bits * random.uniform(0.5, 2)
            rows.append(
                Row(f"l{layer}", Choice(bits, bits), omega, 0.0, {"size_bytes": weights * bits})
            )
    return LayerTable.from_rows([Layer(f"l{layer}") for layer in range(layers)], rows)


@pytest.mark.parametrize("seed", range(8))
def test_the_supported_points_lie_on_the_front_and_follow_its_hull(seed: int) -> None:
    table = random_table(7, seed)
    exact = front(table)
    points = set(zip(exact.totals["size_bytes"].tolist(), exact.omega.tolist(), strict=True))
    found = supported(table)
    for size, omega in found:
        assert any(s == size and omega == pytest.approx(o) for s, o in points)
    # no point of the front lies below the lines between them, but for vertices between two prices
    sizes, omegas = zip(*found, strict=True)
    assert (min(sizes), max(sizes)) == (min(points)[0], max(points)[0])
    for size, omega in points:
        assert omega >= 0.99 * np.interp(size, sizes, omegas)


def test_a_table_of_thousands_of_layers_has_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the exact front, which takes a minute there."""
    monkeypatch.delattr("mpsearch.pareto.front.front")
    table = random_table(5000, 0)
    chosen = Assignment.uniform(table.layer_names, Choice(4, 4))
    drawn = picture(Evidence(assignment=chosen, table=table))
    assert drawn is not None
    assert "\n".join(drawn).count("·") > 50


def test_a_measurement_with_a_strange_name_breaks_no_report(folder: Path) -> None:
    row = measured(NASTY, list(ROW.correct), **TOTALS)
    save_evaluations(evaluations(FP32, row), "evaluation.json")
    words = ["gate", "--assignment", "assignment.json", "--row", NASTY, "--max-drop", "9"]
    assert run([*words, "--junit", "j.xml", "--gitlab", "g.json", "--github"]) == 0
    check_schema(ElementTree.parse("j.xml").getroot())


def test_a_strange_name_in_an_error_starts_no_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = measured("x\n::error::no\x1b[31m", list(ROW.correct))
    save_evaluations(evaluations(row), "evaluation.json")
    assert run(["gate", "--max-drop", "1", "--github"]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == len(printed.out.splitlines()) == 1
    assert "\x1b" not in printed.err
