"""The front: every non-dominated point, nothing else, and the same answers as `solve`."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import every_assignment, naive_front, omega_of, total_of
from tables import random_table

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.pareto.files import answer, read_json, write_csv, write_json
from mpsearch.pareto.front import Front, front
from mpsearch.pareto.sweep import totals
from mpsearch.search.solving import solve
from mpsearch.solvers.core import nondominated
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

small = st.integers(0, 6)


@pytest.mark.parametrize("coordinates", [2, 3])
@given(data=st.data())
def test_nondominated_agrees_with_the_definition(coordinates: int, data: st.DataObject) -> None:
    point = st.tuples(*[small] * coordinates)
    points = data.draw(st.lists(point, min_size=1, max_size=40))
    array = np.array(points).T
    kept = [tuple(column) for column in array[:, nondominated(array)].T.tolist()]
    assert len(kept) == len(set(kept))
    assert set(kept) == naive_front(points)


@given(st.lists(st.tuples(small, small, small, small), min_size=1, max_size=40))
def test_four_coordinates_lose_no_nondominated_point(points: list[tuple[int, ...]]) -> None:
    array = np.array(points).T
    kept = {tuple(column) for column in array[:, nondominated(array)].T.tolist()}
    assert naive_front(points) <= kept <= set(points)


@pytest.mark.parametrize(
    ("limited", "seed"),
    [
        *(("no", seed) for seed in range(24)),
        *(("bops", seed) for seed in range(24)),
        *(("bops, bounds", seed) for seed in range(3, 24, 3)),
    ],
)
def test_agrees_with_exhaustive_enumeration(
    monkeypatch: pytest.MonkeyPatch, seed: int, limited: str
) -> None:
    """The bounds that big limited fronts need are tried on small ones, where all is known."""
    if "bounds" in limited:
        monkeypatch.setattr("mpsearch.pareto.limited.MANY", 0)
        monkeypatch.setattr("mpsearch.pareto.limited.CELLS", 12)
    table = random_table(seed, 1 + seed % 6, 2 + seed % 3, 10.0 ** (seed - 14), seed % 2 == 0)
    limits = {}
    if limited != "no":
        low, high = (
            table.uniform_total("bops", choice) for choice in (table.choices[0], table.choices[-1])
        )
        limits["bops"] = int((low + high) // 2)
    resource = "latency_s" if seed % 4 == 3 else "size_bytes"
    found = front(table, resource, limits)
    expected = naive_front(
        [
            (float(omega_of(table, one)), float(total_of(table, one, resource)))
            for one in every_assignment(table)
            if not limits or total_of(table, one, "bops") <= limits["bops"]
        ]
    )
    assert found.exact
    assert sorted(zip(found.omega, found.totals[resource], strict=True)) == sorted(expected)
    assert (np.diff(found.omega) < 0).all()
    for point in range(len(found)):
        assignment = found.assignment(point)
        for column in table.columns:
            assert found.totals[column][point] == table.total(assignment, column)
        assert found.omega[point] == table.total(assignment, "omega")
        by_choice = [list(assignment.values()).count(choice) for choice in found.choices]
        assert found.counts[point].tolist() == by_choice


@pytest.mark.parametrize("limited", [False, True])
def test_any_budget_from_the_front_equals_solve(limited: bool) -> None:
    table = random_table(2, 20, 4, 1e-6, groups=True)
    limits = {"bops": int(table.uniform_total("bops", table.choices[2]))} if limited else {}
    found = front(table, limits=limits)
    sizes = found.totals["size_bytes"]
    assert len(found) > 50
    budgets = np.linspace(int(sizes[0]), int(sizes[-1]), 25).astype(int).tolist()
    for size in [*budgets, int(sizes[len(sizes) // 2]), int(sizes[0])]:
        point = answer(found, table.digest, {**limits, "size_bytes": size})
        assert point is not None
        solution = solve(table, Budget({**limits, "size_bytes": size}))
        assert found.omega[point] == solution.objective
    assert answer(found, table.digest, {**limits, "size_bytes": int(sizes[0]) - 1}) is None
    assert answer(found, table.digest, limits) == len(found) - 1


def test_a_front_answers_only_what_it_is_made_for() -> None:
    table = random_table(2, 8, 3, 1.0, groups=False)
    size = int(table.uniform_total("size_bytes", table.choices[1]))
    whole, cut = front(table), front(table, limits={"size_bytes": size})
    assert answer(cut, table.digest, {"size_bytes": size}) == len(cut) - 1
    few = front(table, max_states=3)
    for made, digest, limits, words in [
        (whole, "sha256:00", {}, "of another table"),
        (few, table.digest, {}, "is not exact"),
        (whole, table.digest, {"bops": 5}, "got the limits bops <= 5; the front is size_bytes"),
        (cut, table.digest, {}, "got the limits none"),
        (cut, table.digest, {"size_bytes": size + 1}, f"size_bytes <= {size}"),
    ]:
        with pytest.raises(InputError) as error:
            answer(made, digest, limits)
        assert words in str(error.value)
        assert str(error.value).count("\n") == 1


@pytest.mark.parametrize("layers", [4, 70])
def test_totals_are_exact_and_rounded_once(layers: int) -> None:
    """Numbers in one, two and three limbs, ties of rounding among them, against fractions."""
    rng = np.random.default_rng(layers)
    for bits, digits in [(30, 3), (60, 17), (75, 20), (110, 33), (70, 0), (3, 0)]:
        rows = [
            [int(rng.integers(1 << 62)) ** 2 % (1 << bits) for _ in "abc"] for _ in "l" * layers
        ]
        matrix = np.array(rows, dtype=object)
        narrow = matrix.astype(np.int64) if bits < 50 else matrix
        chosen = rng.integers(0, 3, (layers, 200)).astype(np.int8)
        found = totals([narrow], [digits], chosen)[0].tolist()
        sums = [sum(row[c] for row, c in zip(rows, one, strict=True)) for one in chosen.T.tolist()]
        assert found == [float(Fraction(n, 10**digits)) if digits else n for n in sums]
    halves = np.array([[(1 << 53) + 2 * k + 1] for k in range(9)], dtype=object) * 10**5
    for one in halves:
        found = totals([one[None]], [5], np.zeros((1, 2), dtype=np.int8))[0].tolist()
        assert found == [float(Fraction(one[0], 10**5))] * 2


@pytest.mark.slow
def test_three_hundred_layers_fit_the_default_memory() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(300):
        weights, height = int(10 ** rng.uniform(3, 6.4)), 10 ** rng.uniform(-3, 0)
        for b in (2, 3, 4, 8):
            omega = float(height * 4.0**-b * rng.uniform(0.5, 2))
            rows.append(
                Row(f"l{number}", Choice(b, b), omega, 0.0, {"size_bytes": -(-weights * b // 8)})
            )
    table = LayerTable.from_rows([Layer(f"l{n}", "conv2d", "") for n in range(300)], rows)
    found = front(table)
    assert found.exact
    assert len(found) > 200_000
    sizes = found.totals["size_bytes"]
    for size in np.linspace(int(sizes[0]), int(sizes[-1]), 5).astype(int).tolist():
        point = found.best_within(size)
        assert point is not None
        assert found.omega[point] == solve(table, Budget({"size_bytes": size})).objective


def test_a_limit_on_the_resource_itself_cuts_the_front() -> None:
    table = random_table(2, 8, 4, 1.0, groups=False)
    whole = front(table)
    limit = int(whole.totals["size_bytes"][len(whole) // 2])
    cut = front(table, limits={"size_bytes": limit})
    assert cut.omega.tolist() == whole.omega[whole.totals["size_bytes"] <= limit].tolist()
    assert len(front(table, limits={"size_bytes": 1})) == 0


def test_a_thinned_front_says_so_and_stays_feasible() -> None:
    table = random_table(2, 12, 4, 1.0, groups=False)
    whole, few = front(table), front(table, max_states=10)
    assert whole.exact
    assert not few.exact
    assert 2 <= len(few) <= 10
    for omega, size in zip(few.omega, few.totals["size_bytes"], strict=True):
        assert omega >= whole.omega[whole.best_within(size)]


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(("seed", "memory"), [(2, 300), (2, 20_000), (5, 20_000), (11, 60_000)])
def test_the_promise_of_a_front_in_little_memory(
    monkeypatch: pytest.MonkeyPatch, seed: int, memory: int, limited: bool
) -> None:
    """Every feasible assignment has a point with no more bytes and at most 1 + ε times its Ω."""
    monkeypatch.setattr("mpsearch.pareto.limited.MANY", 0)
    monkeypatch.setattr("mpsearch.pareto.limited.CELLS", 12)
    table = random_table(seed, 7, 3, 1.0, groups=False)
    limits = {"bops": int(table.uniform_total("bops", table.choices[1]))} if limited else {}
    found = front(table, limits=limits, max_memory=memory)
    assert memory > 300 or not found.exact
    for one in every_assignment(table):
        size, bops = (int(total_of(table, one, name)) for name in ("size_bytes", "bops"))
        if bops <= limits.get("bops", bops):
            point = found.best_within(size)
            if found.epsilon < np.inf:
                assert point is not None
                omega = float(omega_of(table, one)) * (1 + found.epsilon)
                assert found.omega[point] <= omega * (1 + 1e-12)
    assert (found.totals["bops"] <= limits.get("bops", np.inf)).all()


def test_files_round_trip(tmp_path: Path) -> None:
    found = front(random_table(7, 6, 3, 1.0, groups=True))
    write_json(found, tmp_path / "front.json")
    again = read_json(tmp_path / "front.json")
    assert again.omega.tolist() == found.omega.tolist()
    assert again.assignments.tolist() == found.assignments.tolist()
    assert again.choices == found.choices
    assert again.exact == found.exact
    for column, values in found.totals.items():
        assert again.totals[column].tolist() == values.tolist()
        assert again.totals[column].dtype == values.dtype
    write_csv(found, tmp_path / "front.csv")
    lines = (tmp_path / "front.csv").read_text().splitlines()
    names = [str(choice) for choice in found.choices]
    assert lines[0].split(",") == ["omega", "size_bytes", "bops", "latency_s", *names]
    assert float(lines[1].split(",")[0]) == found.omega[0]
    assert len(lines) == 1 + len(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a front.json"),
        ("[1, 2]", "is not a front.json"),
        ('{"format": "mpsearch.front", "version": 9}', "has version 9"),
        ('{"format": "mpsearch.front", "version": 1}', "damaged front.json: exact is missing"),
    ],
)
def test_foreign_fronts(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "front.json").write_text(text)
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "front.json")
    assert words in str(error.value)


@pytest.mark.parametrize("number", [5, 3000])
def test_the_picture_is_drawn_at_any_size(tmp_path: Path, number: int) -> None:
    """Zero Ω has no logarithm; many points have no room for markers."""
    from mpsearch.reports.facts import Point
    from mpsearch.reports.writing import plot_front

    found = Front(
        resource="size_bytes", layers=("a",), choices=(Choice(8, 8),),
        omega=np.linspace(1000.0, 0.0, number), totals={"size_bytes": np.arange(number) * 1000},
        assignments=np.zeros((number, 1), dtype=np.int8),
    )  # fmt: skip
    path = tmp_path / "front.png"
    plot_front(found, path, (Point("w8a8", 3.0, {"size_bytes": 2000}),))
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_prints_the_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little memory: a factor above 1, and the same one in the file; enough: exact."""
    monkeypatch.chdir(tmp_path)
    random_table(2, 12, 4, 1.0, groups=False).write_csv("profile.csv")
    assert run(["front", "--memory", "20KB", "-o", "front.csv"]) == 0
    epsilon = read_json("front.json").epsilon
    assert 0 < epsilon < np.inf
    assert f"within a factor {1 + epsilon:.8g} of the best" in capsys.readouterr().out
    assert run(["front", "--memory", "100MB"]) == 0
    assert "; exact" in capsys.readouterr().out
