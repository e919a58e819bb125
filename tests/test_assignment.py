"""`assignment.json`: exact round trips and one line for whatever is wrong with a file."""

import json
from pathlib import Path

import pytest
from tables import random_table

from mpsearch.errors import InputError
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice


def document(**changes: object) -> str:
    whole = {
        "format": "mpsearch.assignment",
        "version": 1,
        "layers": {"conv": {"w_bits": 4, "a_bits": 8}},
    }
    return json.dumps(whole | changes)


def test_round_trip(tmp_path: Path) -> None:
    table = random_table(1, 4, 3, 1e-9, groups=False)
    limit = int(table.uniform_total("size_bytes", table.choices[1]))
    solution = solve(table, Budget({"size_bytes": limit}))
    saved = Assignment.from_solution(solution, table.digest, {"pin": ("layer0=w8a8",)})
    saved.save(tmp_path / "a.json")
    assert Assignment.load(tmp_path / "a.json") == saved
    written = json.loads((tmp_path / "a.json").read_text())
    assert list(written) == [
        "format", "version", "layers", "status", "minimize", "objective", "omega", "bound", "gap",
        "solver", "seconds", "totals", "limits", "at_least", "search", "table_digest",
    ]  # fmt: skip
    assert written["format"] == "mpsearch.assignment"
    assert written["totals"]["size_bytes"] <= written["limits"]["size_bytes"] == limit
    assert written["table_digest"] == table.digest


def test_uniform_and_hand_written(tmp_path: Path) -> None:
    uniform = Assignment.uniform(["a", "b"], Choice(4, 8))
    uniform.save(tmp_path / "a.json")
    assert Assignment.load(tmp_path / "a.json") == uniform
    (tmp_path / "b.json").write_text(document(layers={"a": {"w_bits": 4, "a_bits": 8}}))
    assert Assignment.load(tmp_path / "b.json").layers == {"a": Choice(4, 8)}


def test_nothing_to_save_without_an_assignment() -> None:
    table = random_table(1, 4, 3, 1.0, groups=False)
    solution = solve(table, Budget({"size_bytes": 0}))
    with pytest.raises(InputError, match="no assignment to save: the solution is infeasible"):
        Assignment.from_solution(solution, table.digest)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an assignment.json"),
        ("\x00\x01", "is not an assignment.json"),
        (document()[:-9], "is not an assignment.json"),
        ("[]", "is not an assignment.json"),
        (document(format="other"), "is not an assignment.json"),
        (document(version=2), "has version 2; this mpsearch reads 1"),
        (document(layers={}), "assigns no layers"),
        (document(layers={"conv": 8}), "layer 'conv' has 8"),
        (document(layers={"conv": {"w_bits": 4}}), "layer 'conv' has"),
        (document(layers={"conv": {"w_bits": 4.5, "a_bits": 8}}), "layer 'conv' has"),
        (document(layers={"conv": {"w_bits": True, "a_bits": 8}}), "layer 'conv' has"),
        (document(layers={"conv": {"w_bits": 0, "a_bits": 8}}), "layer 'conv' has"),
        (document(objective="low"), "objective: got 'low'; expected a finite number"),
        (document(totals=[1]), "totals: got [1]; expected an object"),
        (document(search={"pin": "a"}), "search['pin']: got 'a'; expected a list"),
    ],
)
def test_bad_files_get_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Assignment.load(path)
    assert words in str(error.value)
    assert "a.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make one with `mpsearch solve -o"):
        Assignment.load(tmp_path / "a.json")
