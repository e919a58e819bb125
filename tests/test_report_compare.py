"""Comparing runs: hypervolume and crossings against counting, scales, names, the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import HOSTILE, make_run
from tables import random_table

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.pareto.front import front
from mpsearch.reports.compare_facts import Lead, compare, hypervolume, leads, omega_in, run_names
from mpsearch.reports.compare_sections import comparison_markdown, render_comparison
from mpsearch.reports.run_folder import Run, read_run
from mpsearch.tables.table import LayerTable

POINTS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=10, unique=True
)


def staircase(points: list[tuple[int, int]]) -> tuple[list[float], list[float]]:
    """The non-dominated ones, by rising total."""
    kept = [
        (x, y) for x, y in points if not any(a <= x and b <= y and (a, b) != (x, y)
                                             for a, b in points)
    ]  # fmt: skip
    return [float(x) for x, _ in sorted(kept)], [float(y) for _, y in sorted(kept)]


@given(POINTS)
def test_hypervolume_agrees_with_counting_cells(points: list[tuple[int, int]]) -> None:
    """On whole numbers the dominated area is a number of unit cells."""
    totals, omega = staircase(points)
    cells = sum(
        any(x <= column and y <= row for x, y in zip(totals, omega, strict=True))
        for column in range(2, 11)
        for row in range(1, 11)
    )
    got = hypervolume(totals, omega, (2.0, 1.0), (11.0, 11.0))
    assert got == pytest.approx(cells / 90)


def test_hypervolume_by_hand() -> None:
    # The box is 2 x 2; the point in its middle dominates a quarter, the ideal corner all of it.
    assert hypervolume([1.0], [1.0], (0, 0), (2, 2)) == 0.25
    assert hypervolume([0.0], [0.0], (0, 0), (2, 2)) == 1
    assert hypervolume([0.0, 1.0], [1.0, 0.0], (0, 0), (2, 2)) == 0.75
    assert hypervolume([3.0], [0.0], (0, 0), (2, 2)) == 0
    assert hypervolume([1.0], [1.0], (1, 1), (1, 2)) == 0


@given(POINTS, POINTS)
def test_leads_agree_with_asking_at_every_total(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    fronts = staircase(first), staircase(second)
    expected: list[Lead] = []
    for limit in range(14):
        least = [
            min((y for x, y in zip(*one, strict=True) if x <= limit), default=1000)
            for one in fronts
        ]
        ahead = None if least[0] == least[1] else int(least[1] < least[0])
        if ahead is not None and (not expected or expected[-1].ahead != ahead):
            expected.append(Lead(float(limit), ahead))
    assert leads(*fronts) == tuple(expected)


def halved(made: LayerTable, factor: float) -> LayerTable:
    return replace(made, omega=made.omega * factor)


def two_runs(tmp_path: Path, metric: str = "hessian") -> dict[str, Run]:
    """Ω of the second is twice the first's, but its only front is cut to its first two points."""
    make_run(tmp_path)
    first = read_run(tmp_path)
    assert first.table is not None
    other = halved(first.table, 2.0)
    found = front(other, limits={"size_bytes": 1500})
    provenance = {**first.provenance, "metric": metric}
    second = replace(first, table=other, front=found, assignment=None, provenance=provenance)
    return {"first": first, "second": second}


def test_two_runs_by_hand(tmp_path: Path) -> None:
    facts = compare(two_runs(tmp_path))
    first, second = facts.runs
    assert not facts.relative
    assert first.totals == (1024, 1448, 1624, 2048)
    assert first.omega == (3.0, 2.25, 1.5, 0.75)
    assert (second.totals, second.omega) == ((1024, 1448), (6.0, 4.5))
    assert first.chosen == (1624, 1.5)
    assert second.chosen is None
    assert (facts.ideal, facts.reference) == ((1024, 0.75), (2048, 6.0))
    box = 1024 * 5.25
    area = 424 * 3.0 + 176 * 3.75 + 424 * 4.5
    assert first.hypervolume == pytest.approx(area / box)
    assert second.hypervolume == pytest.approx(600 * 1.5 / box)
    (meeting,) = facts.meetings
    assert meeting.leads == (Lead(1024, 0),)


def test_other_metrics_are_compared_by_shape_only(tmp_path: Path) -> None:
    facts = compare(two_runs(tmp_path, "fisher"))
    first, second = facts.runs
    assert facts.relative
    assert first.omega == (1.0, 0.75, 0.5, 0.25)
    assert second.omega == (1.0, 0.75)
    assert first.chosen == (1624, 0.5)
    # In the first one's Ω the second one's points are those of the first front.
    assert facts.judge == "first"
    assert (first.judged, second.judged) == ((3.0, 2.25, 1.5, 0.75), (3.0, 2.25))
    box = 1024 * 2.25
    assert first.judged_hypervolume == pytest.approx((424 * 0 + 176 * 0.75 + 424 * 1.5) / box)
    assert second.judged_hypervolume == pytest.approx(600 * 0.75 / box)
    page = render_comparison(facts, ["a", "b"])
    assert "hypervolume in first&#x27;s Ω" in page
    assert "not on one scale" in page
    assert "largest hypervolume is" not in page


@pytest.mark.parametrize("seed", range(3))
def test_omega_in_another_table_is_its_own_sum(seed: int) -> None:
    made = random_table(seed, 6, 3, 1.0, groups=False)
    judge = halved(made, 3.0)
    found = front(made)
    expected = [judge.total(found.assignment(point), "omega") for point in range(len(found))]
    assert omega_in(judge, found) == pytest.approx(expected)
    assert omega_in(random_table(seed, 5, 3, 1.0, groups=False), found) is None


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    third = replace(runs["first"], table=None, front=None)
    facts = compare({**runs, "third": third})
    assert len(facts.runs) == 2
    assert "third has no front of size_bytes and is left out" in facts.warnings
    with pytest.raises(InputError, match="at least two runs"):
        compare({"first": runs["first"], "third": third})
    with pytest.raises(InputError, match="at most 12"):
        compare({str(n): third for n in range(13)})
    assert runs["second"].table is not None
    by_bops = replace(runs["second"], front=front(runs["second"].table, "bops"))
    assert compare({"first": runs["first"], "second": by_bops}).runs[1].totals[0] == 1024


def test_names_are_the_shortest_that_differ() -> None:
    assert run_names(["x/a/run", "x/b/run/"]) == ("a/run", "b/run")
    assert run_names(["hessian", "fisher"]) == ("hessian", "fisher")
    with pytest.raises(InputError, match="twice"):
        run_names(["a", "./a"])


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    facts = compare({HOSTILE: runs["first"], f"2{HOSTILE}": runs["second"]})
    page = render_comparison(facts, [HOSTILE])
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    text = comparison_markdown(facts, ["a"])
    assert "\\<script\\>alert(1)" in text


def test_the_command_compares_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        make_run(tmp_path / name)
    (tmp_path / "c" / "evaluation.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert run(["report", "a", "b", "c", "--figures", "pictures"]) == 0
    out = capsys.readouterr().out
    assert "wrote compare.html" in out
    assert "c: what cannot be read: c/evaluation.json" in out
    assert sorted(path.name for path in Path("pictures").iterdir()) == [
        "compare.pdf", "compare.png", "compare.svg"
    ]  # fmt: skip
    page = Path("compare.html").read_text()
    assert "the same everywhere" in page
    assert "mpsearch report a b c" in page
    assert run(["report", "a", "b", "--json", "-o", "x.md"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["facts"]["runs"]] == ["a", "b"]
    assert Path("x.md").read_text().startswith("# Runs compared")
    assert run(["report", "a", "b", "--profile", "a/profile.csv"]) == 2
    assert "go with one run" in capsys.readouterr().err
    assert run(["report", "a", "a"]) == 2
