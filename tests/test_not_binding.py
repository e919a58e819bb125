"""Limits that do not bind, and where they would, against every assignment there is."""

import json
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import tables
from oracles import every_assignment, omega_of
from test_limits import case, value_of

from mpsearch.cli import run
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.solution import Useful
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_rounded, parse_amount


def loosened(budget: Budget, keys: set[str]) -> Budget:
    return Budget(
        {key: most for key, most in budget.limits.items() if key not in keys},
        {key: least for key, least in budget.at_least.items() if f">={key}" not in keys},
    )


def given(key: str, value: float, budget: Budget, up: bool) -> Budget:
    """The budget with this limit as it is printed, rounded, and read again."""
    text = format_rounded(key.removeprefix(">=").removeprefix("max:"), value, up)
    option = f"{key.removeprefix('>=')}={text}"
    return Budget(
        {**budget.limits, **({} if ">=" in key else {key: parsed(option, False)})},
        {**budget.at_least, **({key[2:]: parsed(option, True)} if ">=" in key else {})},
    )


def parsed(option: str, lower: bool) -> float:
    column, _, text = option.partition("=")
    amount = parse_amount(column.removeprefix("max:"), text)
    assert isinstance(amount, Fraction)
    return float(amount)


def test_limits_that_do_not_bind_and_where_they_would() -> None:
    """And what this is about happens in these cases."""
    idle = [one for seed in range(24) for one in against_all(seed)]
    assert 40 < len(idle) < 70
    assert {"max", "count", ">=bops", "size_bytes"} <= {key.partition(":")[0] for key in idle}


def against_all(seed: int) -> list[str]:
    """The limits of a case that do not bind."""
    table, budget, _ = case(seed)
    few = 2 if seed % 4 == 3 else None
    if seed % 5 == 0:  # limits that are far off, and none
        loose = {key: 10 * most + 9 for key, most in budget.limits.items()}
        budget = Budget({} if seed % 2 else loose, {})
    keys = [*budget.limits, *(f">={key}" for key in budget.at_least)]
    columns = {key.removeprefix(">=") for key in keys} or {*table.columns}
    everything = [
        (omega_of(table, one), {key: value_of(table, one, key) for key in columns})
        for one in every_assignment(table)
        if few is None or len(set(one.values())) <= few
    ]

    def within(budget: Budget) -> list[tuple[Fraction, dict[str, float]]]:
        return [
            (omega, values) for omega, values in everything
            if all(values[key] <= most for key, most in budget.limits.items())
            and all(values[key] >= least for key, least in budget.at_least.items())
        ]  # fmt: skip

    def best(budget: Budget) -> Fraction:
        return min(omega for omega, _ in within(budget))

    found = solve(table, budget, max_distinct=few).not_binding
    if not within(budget):
        assert not found
        return []
    if keys:
        assert best(loosened(budget, {*found})) == best(budget)
        for key in {*keys} - {*found}:
            assert best(loosened(budget, {*found, key})) < best(budget)
    else:
        assert [*found] == [*table.columns]
    for key, useful in found.items():
        column, up = key.removeprefix(">="), ">=" not in key
        others = within(loosened(budget, {key}))
        least = min(omega for omega, _ in others)
        ends = [values[column] for _, values in others]
        as_good = [values[column] for omega, values in others if omega == least]
        tightest = min if up else max
        assert useful == Useful(tightest(ends), tightest(as_good))
        assert useful.tightest is not None
        assert useful.free is not None
        assert within(given(key, useful.tightest, budget, up))
        assert best(given(key, useful.free, budget, up)) == least
    return [*found]


def test_a_limit_that_is_printed_is_within_a_hundredth_and_on_its_side() -> None:
    rng = random.Random(5)
    for column in ("size_bytes", "bops", "latency_s", "energy_j", "cells", "omega"):
        for _ in range(150):
            value: int | float = 10 ** rng.uniform(-9, 12)
            if column in ("size_bytes", "bops", "cells"):
                value = int(value)
            for up in (True, False):
                read = parse_amount(column, format_rounded(column, value, up))
                assert isinstance(read, Fraction)
                exact = Fraction(str(value))
                assert (
                    exact <= read <= exact * 101 / 100
                    if up
                    else (exact * 99 / 100 <= read <= exact)
                )


def test_what_is_said_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tables.hand_table(tmp_path)

    def said(call: str) -> list[str]:
        assert run(call.split()) == 0
        return capsys.readouterr().out.split("\n")

    size = "limits are useful from 5.38 KB to 10.8 KB"
    every = "every layer has its largest choice"
    assert f"no limit binds: {every}; {size}" in said("solve --size 12KB")
    stored = Assignment.load("assignment.json")
    assert stored.not_binding == {"size_bytes": Useful(5500, 11000)}
    lines = said("solve")
    assert f"no limit is given: {every}" in lines
    assert f"  size_bytes: {size}" in lines
    lines = said("solve --size 9KB --bops-limit 1M")
    assert "limit bops does not bind: limits are useful from 49.6 K to 102.4 K" in lines
    assert not any("binds" in line for line in lines)
    assert not any("bind" in line for line in said("solve --size 7KB"))
    assert Assignment.load("assignment.json").not_binding == {}
    assert f"no limit binds: nothing has less Ω; {size}" not in said("solve --size 10.8KB")
    for kept in ("5.38KB", "10.8KB"):
        said(f"solve --size {kept}")
    pinned = said("solve --size 20KB --pin conv1=w4a4")
    assert any(line.startswith("no limit binds: nothing has less Ω;") for line in pinned)
    all_pinned = said("solve --size 20KB --pin *=w8a8")
    assert any("it makes no difference from 10.8 KB on" in line for line in all_pinned)
    assert f"limit size_bytes leaves no point out: {size}" in said("front --size 12KB")
    more = "limit bops leaves no point out: nothing takes more than 198.4 K"
    assert more in said("front --bops-limit 1M")
    assert not any("leaves no point" in line for line in said("front --bops-limit 190K"))
    assert run(["solve", "--size", "12KB", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["not_binding"] == {"size_bytes": {"tightest": 5500, "free": 11000}}
    table = LayerTable.read_csv("profile.csv")
    refined = replace(solve(table, Budget({"size_bytes": 12288})), status="feasible")
    from mpsearch.commands.solution_text import idle_lines

    assert idle_lines(table, refined)[0].startswith("no limit binds: the least Ω that there is")
    unknown = replace(refined, not_binding={"size_bytes": Useful(5500, None)})
    assert idle_lines(table, unknown) == [idle_lines(table, refined)[0].partition(";")[0]]
    partly = replace(unknown, limits={"size_bytes": 12288, "bops": 9})
    assert idle_lines(table, partly) == []
