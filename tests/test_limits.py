"""Every kind of limit and minimand against exhaustive search, through the same solvers."""

import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from oracles import by_layer, every_assignment, exact, omega_of, total_of
from tables import random_table

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Smallest
from mpsearch.tables.table import LayerTable, Row, TableLayer

SOLVERS = ["dp", "pulp", "ortools"]
Chosen = dict[str, Choice]


def peak_of(table: LayerTable, chosen: Chosen, column: str) -> Fraction:
    rows = by_layer(table)
    return max(exact(rows[name][choice].resources[column]) for name, choice in chosen.items())


def count_of(chosen: Chosen, bits: int) -> int:
    return sum(choice.w_bits == bits for choice in chosen.values())


def case(seed: int) -> tuple[LayerTable, Budget, list[Chosen]]:
    """A table, a budget of mixed kinds, and every assignment within it by the definitions."""
    rng = random.Random(seed)
    table = random_table(seed, rng.randint(2, 5), rng.randint(2, 4), 1e-5, groups=seed % 3 == 0)
    everything = list(every_assignment(table))
    some = rng.choice(everything)  # limits that this one meets, so that most cases are feasible
    bits = rng.choice(table.choices).w_bits
    limits: dict[str, int | float] = {}
    lower: dict[str, int | float] = {}
    if rng.random() < 0.6:
        limits["max:bops"] = int(peak_of(table, some, "bops"))
    if rng.random() < 0.5:
        limits["max:latency_s"] = float(peak_of(table, some, "latency_s"))
    if rng.random() < 0.6:
        limits[f"count:w{bits}"] = count_of(some, bits)
    if rng.random() < 0.4:
        limits["size_bytes"] = int(total_of(table, some, "size_bytes"))
    if rng.random() < 0.5:
        lower["latency_s"] = float(total_of(table, some, "latency_s"))
    if rng.random() < 0.5:
        lower["bops"] = int(total_of(table, some, "bops"))
    if rng.random() < 0.3:
        lower[f"count:w{bits}"] = count_of(some, bits) + rng.choice([0, 0, 1])
    budget = Budget(limits, lower)
    return table, budget, [one for one in everything if fits(table, one, budget)]


def value_of(table: LayerTable, chosen: Chosen, key: str) -> float:
    if key.startswith("max:"):
        return float(peak_of(table, chosen, key[4:]))
    if key.startswith("count:"):
        return count_of(chosen, int(key[7:]))
    return float(total_of(table, chosen, key))


def fits(table: LayerTable, chosen: Chosen, budget: Budget) -> bool:
    below = all(value_of(table, chosen, key) <= most for key, most in budget.limits.items())
    return below and all(
        value_of(table, chosen, key) >= least for key, least in budget.at_least.items()
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(25))
def test_every_kind_of_limit(seed: int, solver: str) -> None:
    table, budget, feasible = case(seed)
    solution = solve(table, budget, solver=solver)
    if not feasible:
        assert solution.status == "infeasible"
        return
    assert solution.status == "optimal"
    assert solution.objective == float(min(omega_of(table, one) for one in feasible))
    assert fits(table, dict(solution.choices), budget)
    for key in (*budget.limits, *budget.at_least):
        assert solution.totals[key] == value_of(table, dict(solution.choices), key)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_few_distinct_choices(most: int, solver: str) -> None:
    for seed in range(60, 66):
        table, budget, feasible = case(seed)
        few = [one for one in feasible if len(set(one.values())) <= most]
        solution = solve(table, budget, solver=solver, max_distinct=most)
        if not few:
            assert solution.status == "infeasible"
            continue
        assert solution.status == "optimal"
        assert solution.objective == float(min(omega_of(table, one) for one in few))
        assert len(set(solution.choices.values())) <= most


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(12))
def test_the_other_way_round(seed: int, solver: str) -> None:
    """Least size within a limit on Ω; and a weighted sum."""
    table = random_table(seed, 5, 3, 1e-7, groups=seed % 2 == 0)
    everything = list(every_assignment(table))
    some = random.Random(seed).choice(everything)
    limit = float(omega_of(table, some))
    solution = solve(
        table,
        Budget({"omega": limit}),
        solver=solver,
        minimize=Minimand.parse(table, "size_bytes"),
    )
    within = [one for one in everything if float(omega_of(table, one)) <= limit]
    assert solution.objective == float(min(total_of(table, one, "size_bytes") for one in within))
    assert solution.omega is not None
    assert solution.omega <= limit

    minimand = Minimand.parse(table, "2.5*omega + 3e-15*bops+ .1*latency_s")
    solution = solve(table, solver=solver, minimize=minimand)
    least = min(
        Fraction("2.5") * omega_of(table, one)
        + Fraction("3e-15") * total_of(table, one, "bops")
        + Fraction("0.1") * total_of(table, one, "latency_s")
        for one in everything
    )
    assert solution.objective == float(least)
    assert solution.minimize == "2.5*omega + 3e-15*bops + .1*latency_s"


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(8))
def test_metrics_of_either_sign_are_minimised(seed: int, solver: str) -> None:
    """Alone and in a sum, within a size limit; the least total may be below zero."""
    rng = random.Random(seed)
    table = random_table(seed, 5, 3, 1e-2, groups=seed % 2 == 0)
    rows = [
        replace(row, metrics={"omega_loss": rng.uniform(-1, 0.4) * 10 ** rng.uniform(-9, 3)})
        for row in table.rows()
    ]
    table = LayerTable.from_rows(table.layers, rows)
    everything = list(every_assignment(table))
    most = int(total_of(table, rng.choice(everything), "size_bytes"))
    found = by_layer(table)

    def signed(one: Chosen) -> Fraction:
        values = (exact(found[name][c].metrics["omega_loss"]) for name, c in one.items())
        return sum(values, Fraction(0))

    within = [one for one in everything if total_of(table, one, "size_bytes") <= most]
    for text, value in (
        ("omega_loss", signed),
        ("omega + 0.5*omega_loss", lambda one: omega_of(table, one) + signed(one) / 2),
    ):
        minimand = Minimand.parse(table, text)
        solution = solve(table, Budget({"size_bytes": most}), solver=solver, minimize=minimand)
        assert solution.status == "optimal"
        assert solution.objective == pytest.approx(float(min(map(value, within))), rel=1e-13)
        assert solution.gap is not None
        assert 0 <= solution.gap <= 1e-12


def test_smallest_feasible_values_of_every_kind() -> None:
    """Infeasible budgets name the least peak, and the largest lower limit, by exhaustive search."""
    seen = 0
    for seed in range(100, 160):
        table, budget, feasible = case(seed)
        if feasible:
            continue
        solution = solve(table, budget)
        assert solution.status == "infeasible"
        everything = list(every_assignment(table))
        for key, found in solution.smallest.items():
            name = key.removeprefix(">=")
            best = min if key == name else max
            limits = {k: v for k, v in budget.limits.items() if k != key}
            lower = {k: v for k, v in budget.at_least.items() if f">={k}" != key}
            others = [one for one in everything if fits(table, one, Budget(limits, lower))]
            values = [value_of(table, one, name) for one in others]
            expected = Smallest(
                best(value_of(table, one, name) for one in everything),
                best(values) if values else None,
            )
            assert found == expected
            seen += 1
    assert seen > 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "max:energy_j=1"], "no resource column 'energy_j'"),
        (["--limit", "count:w7=1"], "has no choice w7; it has w4a4, w8a8"),
        (["--limit", "count:eight=1"], "expected count:w8 or count:w4a8"),
        (["--limit", "max:size_bytes=50%"], "expected an absolute value"),
        (["--at-least", "max:size_bytes=1KB"], "peaks have upper limits only"),
        (["--at-least", "bops=1", "--at-least", "bops=2"], "it is there twice"),
        (["--minimize", "speed"], "no resource column 'speed'"),
        (["--minimize", "omega+omega"], "names omega twice"),
        (["--minimize", "0*omega"], "weights above zero"),
        (["--minimize", "2*3*omega"], "expected a column or a sum"),
        (["--minimize", ""], "expected a column or a sum"),
        (["--omega-limit", "1"], "omega is minimised and cannot be limited"),
        (["--max-distinct", "0"], "expected at least 1"),
        (["--allow", "conv1"], "expected LAYER=CHOICE,CHOICE"),
        (["--allow", "conv1=w2a2"], "has no choice w2a2"),
    ],
)
def test_wrong_calls(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(["solve", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not Path("assignment.json").exists()


def test_a_metric_is_no_resource(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("profile.csv").read_text().splitlines()
    Path("profile.csv").write_text("".join(f"{line},omega_kl\n" for line in lines[:1]))
    with Path("profile.csv").open("a") as file:
        file.writelines(f"{line},{n - 3}\n" for n, line in enumerate(lines[1:]))
    why = "omega_kl is a metric, which is minimised (--minimize omega_kl) and not limited; expected"
    for call in (
        ["solve", "--limit", "omega_kl=1"],
        ["solve", "--limit", "max:omega_kl=1"],
        ["solve", "--at-least", "omega_kl=50%"],
        ["front", "--resource", "omega_kl"],
    ):
        assert run(call) == 2
        assert why in capsys.readouterr().err
    assert run(["solve", "--minimize", "omega_kl", "--size", "8KB"]) == 0
    assert "least omega_kl -3, Ω total 0.875: optimal" in capsys.readouterr().out
    assert Assignment.load("assignment.json").objective == -3


def test_too_many_subsets() -> None:
    table = random_table(1, 2, 6, 1.0, groups=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpsearch.search.proof.MOST_SUBSETS", 10)
        with pytest.raises(InputError, match="6 choices have 20 subsets of 3; exclude"):
            solve(table, max_distinct=3)


def test_the_least_peak_where_so_few_choices_never_do() -> None:
    """Layers without a common choice: no peak is feasible with one choice, and what layers have is
    said, as of sums."""
    rows = [Row("a", Choice(4, 8), 1.0, resources={"size_bytes": 7})]
    rows += [Row("b", Choice(w, 8), 1.0, resources={"size_bytes": w}) for w in (2, 8)]
    table = LayerTable.from_rows([TableLayer("a"), TableLayer("b")], rows)
    found = solve(replace(table, partial=True), Budget({"max:size_bytes": 9}), max_distinct=1)
    assert found.status == "infeasible"
    assert found.smallest["max:size_bytes"] == Smallest(7, None)


def test_the_assignment_records_what_was_asked(folder: Path) -> None:
    call = ["solve", "--minimize", "size_bytes", "--omega-limit", "0.6", "--allow", "conv1=w8a8"]
    assert run([*call, "--exclude", "fc=w8a8", "--max-distinct", "2"]) == 0
    saved = Assignment.load("assignment.json")
    assert saved.minimize == "size_bytes"
    assert (saved.objective, saved.omega) == (6500, 0.475)
    assert saved.limits == {"omega": 0.6}
    assert saved.search == {
        "exclude": ("fc=w8a8",),
        "allow": ("conv1=w8a8",),
        "max-distinct": ("2",),
    }


def test_printed_limits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", "--limit", "count:w8=1", "--at-least", "size_bytes=6KB"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["count:w8", "1", "1", "0"] in lines
    assert any(line[:3] == ["size_bytes", "6.3", "KB"] and ">=" in line for line in lines)
    assert run(["solve", "--at-least", "size_bytes=20KB"]) == 1
    err = capsys.readouterr().err
    assert "limit at least 20.0 KB (20480 B); largest feasible 10.7 KB (11000 B)" in err
