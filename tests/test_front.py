"""The front: every non-dominated point, nothing else, and the same answers as `solve`."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import every_assignment, naive_front, omega_of, total_of
from tables import random_table

from mpsearch.budget import Budget
from mpsearch.dominance import nondominated
from mpsearch.errors import InputError
from mpsearch.front import front
from mpsearch.front_files import read_json, write_csv, write_json
from mpsearch.solving import solve

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
        monkeypatch.setattr("mpsearch.front.MANY", 0)
        monkeypatch.setattr("mpsearch.front_bounds.CELLS", 12)
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


def test_any_budget_from_the_front_equals_solve() -> None:
    table = random_table(2, 20, 4, 1e-6, groups=True)
    found = front(table)
    sizes = found.totals["size_bytes"]
    assert len(found) > 50
    for limit in np.linspace(int(sizes[0]), int(sizes[-1]), 25).astype(int).tolist():
        point = found.best_within(limit)
        assert point is not None
        solution = solve(table, Budget({"size_bytes": limit}))
        assert found.omega[point] == pytest.approx(solution.objective, rel=1e-13, abs=0)
    assert found.best_within(int(sizes[0]) - 1) is None


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


def test_a_thinned_limited_front_keeps_the_best_of_every_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten states are hopeless, the assignments behind the bounds are not."""
    monkeypatch.setattr("mpsearch.front.MANY", 0)
    table = random_table(2, 12, 4, 1.0, groups=False)
    limits = {"bops": int(table.uniform_total("bops", table.choices[2]))}
    found = front(table, limits=limits, max_states=10)
    assert not found.exact
    assert (found.totals["bops"] <= limits["bops"]).all()
    for size in found.totals["size_bytes"][:: max(1, len(found) // 8)].tolist():
        solution = solve(table, Budget({**limits, "size_bytes": size}))
        point = found.best_within(size)
        assert point is not None
        assert solution.objective is not None
        assert solution.objective <= found.omega[point] <= 1.2 * solution.objective


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
        ('{"format": "mpsearch.front", "version": 1}', "damaged front.json: KeyError"),
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
    from mpsearch.reports.figures import plot_front

    resource = np.arange(number) * 1000
    omega = np.linspace(1000.0, 0.0, number)
    path = tmp_path / "front.png"
    plot_front(resource, omega, "size_bytes", path, {"w8a8": (2e3, 3.0)}, (1e3, 5.0))
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert list(tmp_path.iterdir()) == [path]
