"""`mpsearch explain` against exhaustive search, an LP solver and the definitions."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import by_layer, every_assignment, exact, omega_of, total_of
from scipy.optimize import linprog
from tables import HAND, hand_table, random_limits, random_table

from mpsearch.cli import run
from mpsearch.commands.solution_text import print_ranges
from mpsearch.errors import InputError
from mpsearch.explaining.explaining import Explanation, explain, what_if
from mpsearch.search.feasible_limits import ranges
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

ROOT = Path(__file__).parent.parent
CASES = [(seed, number) for seed in range(12) for number in (1, 2, 3)]
TINY = 1e-9  # of the largest Ω: what doubles in the oracles lose


class Exhaustive:
    """Every assignment of a table with its exact totals."""

    def __init__(self, table: LayerTable) -> None:
        self.all = list(every_assignment(table))
        self.omega = [omega_of(table, one) for one in self.all]
        self.totals = {
            column: [total_of(table, one, column) for one in self.all] for column in table.columns
        }

    def within(self, limits: Mapping[str, float]) -> list[int]:
        return [
            n
            for n in range(len(self.all))
            if all(float(self.totals[c][n]) <= limit for c, limit in limits.items())
        ]

    def best(
        self,
        limits: Mapping[str, float],
        keep: Callable[[dict[str, Choice]], bool] = lambda assignment: True,
    ) -> Fraction | None:
        found = (self.omega[n] for n in self.within(limits) if keep(self.all[n]))
        return min(found, default=None)


@cache
def case(seed: int, number: int) -> tuple[LayerTable, dict[str, float], Assignment, Exhaustive]:
    """A table, feasible limits of which some may not bind, and the optimum."""
    scale = [1e-9, 1.0, 1e5][seed % 3]
    table = random_table(seed, 5, 3, scale, groups=seed % 2 == 1)
    exhaustive = Exhaustive(table)
    for attempt in range(100):
        limits = random_limits(100 * seed + attempt, table, number)
        solution = solve(table, Budget(limits))
        if solution.choices:
            return table, limits, Assignment.from_solution(solution, table.digest), exhaustive
    raise AssertionError("no feasible limits")


def lp_optimum(table: LayerTable, limits: Mapping[str, float]) -> float:
    """The LP relaxation by HiGHS, in units of the largest Ω and of each limit."""
    rows = by_layer(table)
    units: dict[str, list[str]] = {}
    for layer in table.layers:
        units.setdefault(layer.group or f"layer {layer.name}", []).append(layer.name)
    cells = [
        (unit, choice)
        for unit, names in enumerate(units.values())
        for choice in sorted(set.intersection(*(set(rows[name]) for name in names)))
    ]
    names = list(units.values())

    def column(name: str) -> list[float]:
        taken = [[rows[layer][c] for layer in names[unit]] for unit, c in cells]
        return [sum(r.omega if name == "omega" else r.resources[name] for r in t) for t in taken]

    top = float(table.omega.max()) or 1.0
    found = linprog(
        [omega / top for omega in column("omega")],
        A_ub=[[weight / limit for weight in column(c)] for c, limit in limits.items()] or None,
        b_ub=[1.0] * len(limits) or None,
        A_eq=[[float(unit == row) for unit, _ in cells] for row in range(len(names))],
        b_eq=[1.0] * len(names),
    )
    assert found.status == 0
    return float(found.fun) * top


@pytest.mark.parametrize(("seed", "number"), CASES)
def test_prices_are_those_of_the_lp_and_bound_every_other_limit(seed: int, number: int) -> None:
    """q(p) is the LP's optimum, and q(p) - p . d stays below the LP's and the true optimum."""
    table, limits, assignment, exhaustive = case(seed, number)
    found = explain(table, assignment)
    assert found.status == "optimal"
    assert found.lp_bound is not None
    tolerance = TINY * float(table.omega.max())
    assert found.lp_bound == pytest.approx(lp_optimum(table, limits), rel=1e-7, abs=tolerance)
    assert found.lp_bound <= found.omega
    price = {one.column: one.price for one in found.marginals}
    assert set(price) == set(limits)
    for column in limits:
        for factor in (0.8, 0.95, 0.999, 1.001, 1.05, 1.3, 3.0):
            moved = {**limits, column: limits[column] * factor}
            line = found.lp_bound - price[column] * (moved[column] - limits[column])
            best = exhaustive.best(moved)
            if best is not None:
                assert float(best) >= line - tolerance
                assert lp_optimum(table, moved) >= line - tolerance
    free = [column for column in limits if price[column] == 0]
    bound = lp_optimum(table, {c: limit for c, limit in limits.items() if c not in free})
    assert found.lp_bound == pytest.approx(bound, rel=1e-7, abs=tolerance)
    for column in set(limits) - set(free):  # and a limit with a price binds
        bound = lp_optimum(table, {c: limit for c, limit in limits.items() if c != column})
        assert bound < found.lp_bound


def test_some_prices_are_zero_and_some_are_not() -> None:
    prices = [one.price for seed, number in CASES for one in _explained(seed, number).marginals]
    assert sum(price == 0 for price in prices) > 5
    assert sum(price > 0 for price in prices) > 20


@cache
def _explained(seed: int, number: int) -> Explanation:
    table, _, assignment, _ = case(seed, number)
    return explain(table, assignment)


@pytest.mark.parametrize(("seed", "number"), CASES)
def test_steps_are_true_changes_of_the_optimum(seed: int, number: int) -> None:
    table, limits, assignment, exhaustive = case(seed, number)
    optimum = exhaustive.best(limits)
    assert optimum is not None
    for one in explain(table, assignment).marginals:
        assert one.limit == limits[one.column]
        assert 0 < one.step <= max(1, one.limit / 100)
        for change, moved in ((one.more, one.limit + one.step), (one.less, one.limit - one.step)):
            best = exhaustive.best({**limits, one.column: moved})
            if best is None:
                assert change is None
            else:
                assert change == pytest.approx(float(best - optimum), rel=1e-9, abs=1e-15 * 1e5)


@pytest.mark.parametrize(("seed", "number"), CASES)
def test_decisions_follow_their_definitions(seed: int, number: int) -> None:
    """Alternatives, what they change, whether they fit, and the least that any other one costs."""
    table, limits, assignment, exhaustive = case(seed, number)
    found = explain(table, assignment)
    rows = by_layer(table)
    assert sorted(name for one in found.decisions for name in one.layers) == sorted(rows)
    for one in found.decisions:

        def cost(choice: Choice, column: str, names: tuple[str, ...] = one.layers) -> Fraction:
            if column == "omega":
                return sum((exact(rows[name][choice].omega) for name in names), Fraction(0))
            values = (rows[name][choice].resources[column] for name in names)
            return sum((exact(value) for value in values), Fraction(0))

        choices = [c for c in rows[one.layers[0]] if c != one.choice]
        now = cost(one.choice, "omega")
        assert one.omega == float(now)
        point = {c: tuple(cost(c, k) for k in ("omega", *limits)) for c in choices}
        better = [p[0] for p in point.values() if p[0] < now and not any(
            q[0] < p[0] and all(a <= b for a, b in zip(q, p, strict=True)) for q in point.values()
        )]  # fmt: skip
        cheaper = [
            cost(c, "omega")
            for c in choices
            if any(cost(c, column) < cost(one.choice, column) for column in limits)
        ]
        assert (one.better is not None) == bool(better)
        assert (one.cheaper is not None) == bool(cheaper)
        if one.better:
            assert cost(one.better.choice, "omega") == max(better)
        if one.cheaper:
            assert cost(one.cheaper.choice, "omega") == min(cheaper)
        for other in (one.better, one.cheaper):
            if other is None:
                continue
            assert other.omega == float(cost(other.choice, "omega") - now)
            changed = {**assignment.layers, **dict.fromkeys(one.layers, other.choice)}
            for column in table.columns:
                by = cost(other.choice, column) - cost(one.choice, column)
                assert other.changes[column] == float(by)
            over = {c for c in limits if float(total_of(table, changed, c)) > limits[c]}
            assert set(other.over) == over
            for column, excess in other.over.items():
                whole = float(total_of(table, changed, column))
                assert excess == pytest.approx(whole - limits[column], rel=1e-6, abs=1e-12)
        if one.better:
            assert one.better.over  # a better choice that fits would contradict the optimum

        price = {m.column: m.price for m in found.marginals}
        reduced = {
            c: float(cost(c, "omega")) + sum(price[k] * float(cost(c, k)) for k in limits)
            for c in [one.choice, *choices]
        }
        size = max(reduced.values())
        assert one.margin is not None
        assert one.rival is not None
        assert one.at_least is not None
        lead = min(reduced[c] for c in choices) - reduced[one.choice]
        assert one.margin == pytest.approx(lead, rel=1e-6, abs=1e-9 * size)
        assert reduced[one.rival] == pytest.approx(min(reduced[c] for c in choices), rel=1e-9)

        member, chosen = one.layers[0], one.choice
        best = exhaustive.best(limits, lambda a, m=member, c=chosen: a[m] != c)  # type: ignore[misc]
        if best is not None:
            assert float(best) - found.omega >= one.at_least - 1e-12 * float(best)


def test_some_layers_are_settled_by_prices_alone() -> None:
    settled = [one.at_least for seed, number in CASES for one in _explained(seed, number).decisions]
    assert sum(bool(value) for value in settled) > 20


@pytest.mark.parametrize(("seed", "number"), CASES)
def test_what_if_is_exhaustive_search_with_the_pin(seed: int, number: int) -> None:
    table, limits, assignment, exhaustive = case(seed, number)
    optimum = exhaustive.best(limits)
    assert optimum is not None
    for layer in table.layer_names:
        for choice in table.choices:
            found = what_if(table, assignment, {layer: choice})
            best = exhaustive.best(limits, lambda a, n=layer, c=choice: a[n] == c)  # type: ignore[misc]
            if best is None:
                assert found.solution.status == "infeasible"
                assert found.omega is None
                continue
            then = {
                **assignment.layers,
                **{name: after for name, (_, after) in found.changed.items()},
            }
            assert then[layer] == choice
            assert omega_of(table, then) == best
            assert found.omega == float(best - optimum)
            for column in table.columns:
                by = total_of(table, then, column) - total_of(table, assignment.layers, column)
                assert found.changes[column] == float(by)
            if assignment.layers[layer] == choice:
                assert not found.changed


def test_what_ifs_hold_together_and_replace_pins() -> None:
    table, limits, assignment, exhaustive = case(2, 1)
    first, second = table.layer_names[:2]
    low = table.choices[0]
    both = what_if(table, assignment, {first: low, second: low}, pins={first: table.choices[-1]})
    best = exhaustive.best(limits, lambda a: a[first] == low == a[second])
    assert best is not None
    assert both.solution.objective == float(best)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("number", [0, 1, 2])
def test_ranges_are_exhaustive(seed: int, number: int) -> None:
    table = random_table(seed, 5, 3, 1.0, groups=seed % 2 == 1)
    limits = random_limits(seed, table, number)
    layer = table.layer_names[seed % 5]
    pins = {layer: table.choices[-1]} if seed % 3 == 0 else {}
    everything = Exhaustive(table)
    left = [n for n, a in enumerate(everything.all) if all(a[k] == c for k, c in pins.items())]
    best = min(everything.omega[n] for n in left)
    for column, one in ranges(table, pins, None, limits).items():
        totals = everything.totals[column]
        others = {c: limit for c, limit in limits.items() if c != column}
        within = set(everything.within(others))
        assert one.least == float(min(totals[n] for n in left))
        assert one.most == float(max(totals[n] for n in left))
        assert one.useful == float(min(totals[n] for n in left if everything.omega[n] == best))
        least = min((float(totals[n]) for n in left if n in within), default=None)
        assert one.with_others == least


def test_printed_ranges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exact beside rounded; what no assignment can keep is said."""
    table = LayerTable.read_csv(hand_table(tmp_path))
    print_ranges(ranges(table), {})
    rows = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    least, most = "5.4 KB (5500 B)", "10.7 KB (11000 B)"
    assert ["size_bytes", least, least, most, most] in rows
    limits = {"size_bytes": 7168, "bops": 100}
    print_ranges(ranges(table, limits=limits), limits)
    rows = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert ["size_bytes", least, "none found", most, most, "7.0 KB (7168 B)"] in rows
    assert [row[-1] for row in rows if row[0] == "bops"] == ["100"]


def test_a_hand_edited_assignment_is_told_from_the_optimum() -> None:
    """Not optimal: with the gap. Outside: with what is broken. The layers are explained anyway."""
    table, limits, assignment, exhaustive = case(4, 1)
    optimum = exhaustive.best(limits)
    assert optimum is not None
    smallest = replace(assignment, layers=dict.fromkeys(table.layer_names, table.choices[0]))
    found = explain(table, smallest)
    worse = omega_of(table, smallest.layers)
    assert worse > optimum
    assert (found.status, found.optimum) == ("not optimal", float(optimum))
    assert found.gap == pytest.approx(float((worse - optimum) / worse))
    largest = replace(assignment, layers=dict.fromkeys(table.layer_names, table.choices[-1]))
    found = explain(table, largest)
    (column, limit), *_ = limits.items()
    assert found.status == "outside"
    assert found.gap is None
    assert found.slack[column] == pytest.approx(limit - float(table.total(largest.layers, column)))
    assert found.slack[column] < 0
    assert len(found.decisions) == 5


def test_pins_and_excludes_of_the_search_are_taken_over() -> None:
    """A pinned optimum is not the free one; with the pin it is, and that layer has no rival."""
    table, limits, _, _ = case(4, 1)
    free = solve(table, Budget(limits)).choices
    layer = next(n for n, c in free.items() if c != table.choices[0])
    pins = {layer: table.choices[0]}
    assignment = Assignment.from_solution(solve(table, Budget(limits), pins=pins), table.digest)
    assert explain(table, assignment).status == "not optimal"
    found = explain(table, assignment, pins)
    assert found.status == "optimal"
    (pinned,) = [one for one in found.decisions if layer in one.layers]
    assert (pinned.better, pinned.cheaper, pinned.rival) == (None, None, None)
    with pytest.raises(InputError, match="which --pin or --exclude rules out"):
        explain(table, assignment, exclude={layer: {table.choices[0]}})


def test_without_limits_every_layer_has_its_least() -> None:
    table = random_table(3, 5, 3, 1.0, groups=False)
    assignment = Assignment.from_solution(solve(table), table.digest)
    found = explain(table, assignment)
    assert found.status == "optimal"
    assert found.lp_bound == pytest.approx(found.omega)
    assert not found.marginals
    assert all(one.better is None for one in found.decisions)
    assert any(one.cheaper is not None for one in found.decisions)


def test_hundreds_of_layers() -> None:
    """200 layers: all but a few have the choice that the price alone would give them."""
    table = random_table(5, 200, 4, 1.0, groups=False)
    limits = {"size_bytes": int(table.uniform_total("size_bytes", table.choices[1]))}
    assignment = Assignment.from_solution(solve(table, Budget(limits)), table.digest)
    found = explain(table, assignment)
    assert found.status == "optimal"
    assert found.lp_bound == pytest.approx(lp_optimum(table, limits), rel=1e-7)
    margins = np.array([one.margin for one in found.decisions])
    assert (margins >= 0).sum() > 180


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table of `tables.HAND` with its optimum under two limits."""
    hand_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["solve", "--size", "7KB", "--bops-limit", "120K"]) == 0
    return tmp_path


def edit(**changes: Any) -> None:
    document = json.loads(Path("assignment.json").read_text())
    document.update(changes)
    Path("assignment.json").write_text(json.dumps(document))


def test_printed_explanation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    at = next(n for n, row in enumerate(cells) if row[0] == "conv2")
    assert cells[at][:6] == ["conv2", "now", "w4a4", "0.25", "3.9 KB", "32.000 K"]
    assert cells[at + 1] == ["next better", "w8a8", "-0.2", "+3.9 KB", "+96.000 K",
                             "no: size +3.7 KB, BOPS +78.400 K"]  # fmt: skip
    assert cells[at + 2] == ["next cheaper", "none"]
    size = next(row for row in cells if row[0] == "size_bytes")
    assert size[:3] == ["size_bytes", "7.0 KB", "+168 B"]
    assert lines[-1].startswith("Ω total 0.375: optimal within the limits, proven")
    with contextlib.chdir(folder.parent):  # the table beside the assignment
        assert run(["explain", f"{folder.name}/assignment.json"]) == 0
        assert capsys.readouterr().out.splitlines() == lines


def test_json_has_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["explain", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "optimal"
    assert document["slack"] == {"size_bytes": 168, "bops": 17600}
    second = document["decisions"][1]
    assert second["layers"] == ["conv2"]
    assert second["better"]["over"] == {"size_bytes": 3832, "bops": 78400}
    for price in document["prices"]:
        assert price["per_unit"] == price["price"] * price["unit"]
    assert run(["explain", "--layer", "fc", "--what-if", "fc=w4a4"]) == 2
    assert "leave one out" in capsys.readouterr().err
    assert run(["explain", "--json", "--layer", "f?"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["decisions"]
    assert only["layers"] == ["fc"]
    assert run(["explain", "--json", "--what-if", "conv1=w4a4", "--what-if", "fc=w4a4"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers"] == {"conv1": "w4a4", "conv2": "w4a4", "fc": "w4a4"}
    assert document["changed"] == {"conv1": ["w8a8", "w4a4"], "fc": ["w8a8", "w4a4"]}
    assert document["omega_change"] == 0.5
    assert document["changes"] == {"size_bytes": -1500, "bops": -52800}


def test_what_if_prints_changes_or_why_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["explain", "--what-if", "fc=w4a4"]) == 0
    out = capsys.readouterr().out
    assert "with fc=w4a4: Ω total 0.475 (+0.1), optimal, proven" in out
    assert run(["explain", "--what-if", "fc=w8a8"]) == 0
    assert "no layer changes" in capsys.readouterr().out
    assert run(["explain", "--what-if", "conv2=w8a8"]) == 1
    err = capsys.readouterr().err
    assert "infeasible: with conv2=w8a8 no assignment is within the limits" in err
    assert "size_bytes: limit 7.0 KB (7168 B); smallest feasible 9.28 KB (9500 B) alone" in err
    assert "the other limits are infeasible without it" in err
    assert run(["explain", "--what-if", "conv2=w8a8", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "infeasible"
    assert document["smallest_feasible"]["size_bytes"]["alone"] == 9500


def test_edited_files_are_judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low, high = {"w_bits": 4, "a_bits": 4}, {"w_bits": 8, "a_bits": 8}
    capsys.readouterr()
    edit(layers={"conv1": low, "conv2": low, "fc": low})
    assert run(["explain"]) == 0
    out = capsys.readouterr().out
    assert "Ω total 0.875: not optimal: 0.375 is within the limits (gap 57.1 %)" in out
    assert "--pin or --exclude" in out
    edit(layers={"conv1": high, "conv2": high, "fc": high})
    assert run(["explain"]) == 0
    assert "outside the limits: size_bytes by 3.7 KB, bops by 78.400 K too much" in (
        capsys.readouterr().out
    )
    edit(limits={"size_bytes": 100, "bops": 120000})
    assert run(["explain"]) == 1
    captured = capsys.readouterr()
    assert "outside the limits" in captured.out
    assert "infeasible: no assignment is within the limits" in captured.err
    assert "5.38 KB (5500 B) with the other limits" in captured.err
    edit(limits={})
    assert run(["explain"]) == 0
    assert "the assignment has no limits" in capsys.readouterr().out


def test_time_that_is_too_short_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit of 0 leaves what the dual finds: unproven, or nothing; never called optimal."""
    table = random_table(5, 60, 4, 1.0, groups=False)
    table.write_csv("profile.csv")
    limit = int(table.uniform_total("size_bytes", table.choices[1]))
    assignment = Assignment.from_solution(solve(table, Budget({"size_bytes": limit})), table.digest)
    assignment.save("assignment.json")
    capsys.readouterr()
    code = run(["explain", "--time-limit", "0"])
    out, err = capsys.readouterr()
    assert "nothing better found in time; bound" in out or "no assignment found in time" in err
    assert "proven" not in out
    assert code == (1 if "no assignment found" in err else 0)


BAD_CALLS = {
    "no assignment": (["none.json"], "there is no assignment none.json"),
    "no table": (["--profile", "none.csv"], "there is no table none.csv"),
    "form": (["--what-if", "conv1"], "expected LAYER=CHOICE"),
    "choice": (["--what-if", "conv1=8"], "expected the form w4a8"),
    "lacks": (["--what-if", "conv1=w2a2"], "layer 'conv1' has no choice w2a2; it has w4a4, w8a8"),
    "unknown": (["--what-if", "conv9=w4a4"], "no layer 'conv9'; did you mean"),
    "twice": (["--what-if", "fc=w4a4", "--what-if", "fc=w8a8"], "--what-if for layer 'fc' twice"),
    "pin form": (["--pin", "conv1"], "expected LAYER=CHOICE"),
    "ruled out": (["--exclude", "conv1=w8a8"], "conv1=w8a8, which --pin or --exclude rules out"),
    "pinned away": (["--pin", "conv1=w4a4"], "conv1=w8a8, which --pin or --exclude rules out"),
    "layer": (["--layer", "conv9"], "no layer 'conv9'; did you mean"),
    "exclude": (["--exclude", "w2a2"], "cannot exclude w2a2"),
    "time": (["--time-limit", "-1"], "got the time limit -1.0"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments, words = BAD_CALLS[name]
    refused(capsys, arguments, words)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    """Exit code 2 in one or two lines."""
    capsys.readouterr()
    assert run(["explain", *arguments]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert not out
    assert len(err.splitlines()) <= 2


CHOICE = {"w_bits": 8, "a_bits": 8}
BAD_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "another table": ({"table_digest": "0" * 64}, "was searched in another table than profile.csv"),
    "a layer less": (
        {"layers": {"conv1": CHOICE}},
        "the assignment has no choice for layer 'conv2'",
    ),
    "a layer more": (
        {"layers": dict.fromkeys(("conv1", "conv2", "fc", "fc2"), CHOICE)},
        "profile.csv has no layer 'fc2'; did you mean 'fc'?",
    ),
    "a choice more": (
        {"layers": {"conv1": CHOICE, "conv2": CHOICE, "fc": {"w_bits": 3, "a_bits": 3}}},
        "layer 'fc' has no choice w3a3",
    ),
    "unknown limit": ({"limits": {"latency_s": 1}}, "no resource column 'latency_s'"),
    "limit null": ({"limits": {"bops": None}}, "limits['bops']: got None; expected a finite"),
    "limit nan": ({"limits": {"bops": float("nan")}}, "NaN, which is no number of JSON"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("arguments", [[], ["--what-if", "fc=w4a4"]])
def test_bad_files(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str]
) -> None:
    changes, words = BAD_FILES[name]
    edit(**changes)
    refused(capsys, arguments, words)


def test_groups_are_one_decision(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = HAND.splitlines()
    grouped = [f"{row},{'' if row.startswith('fc') else 'block'}" for row in rows]
    Path("profile.csv").write_text("\n".join([f"{header},group", *grouped]) + "\n")
    edit(table_digest=None)
    refused(capsys, [], "layers of one group different choices: conv1=w8a8, conv2=w4a4")
    assert run(["solve", "--size", "7KB"]) == 0
    capsys.readouterr()
    assert run(["explain", "--json"]) == 0
    both, single = json.loads(capsys.readouterr().out)["decisions"]
    assert (both["layers"], single["layers"]) == (["conv1", "conv2"], ["fc"])
    assert both["omega"] == 0.75
    assert both["better"]["changes"] == {"size_bytes": 5000, "bops": 144000}
    assert run(["explain", "--what-if", "conv1=w8a8"]) == 1
    assert run(["explain", "--what-if", "conv1=w8a8", "--what-if", "conv2=w4a4"]) == 2
    assert "conv1, conv2: no common choice" in capsys.readouterr().err


def test_the_commands_of_the_page_print_what_it_shows(tmp_path: Path) -> None:
    """docs/explain.md: its table, its commands in order, and after each what it prints."""
    page = (ROOT / "docs" / "explain.md").read_text()
    (table,) = re.findall(r"```csv\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "profile.csv").write_text(table)
    pairs = re.findall(r"```sh\n(mpsearch [^\n]*)\n```\n+(?:```text\n(.*?)```)?", page, re.DOTALL)
    assert len(pairs) >= 4
    for command, shown in pairs:
        arguments = [sys.executable, "-m", *command.split()]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
        printed = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        for line in filter(None, map(str.strip, shown.splitlines())):
            assert any(one.startswith(line) for one in printed), f"{command}: {line}"
