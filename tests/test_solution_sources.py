"""`solve --from-front`, `--rerank` and `--limit-ranges` as a user calls them."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsearch.cli import run
from mpsearch.interactions.interactions import (
    Interactions,
    gram_matrix,
    load_interactions,
    predict,
    save_interactions,
)
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["solve", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("size", ["5.5KB", "6500B", "7KB", "9KB", "20KB"])
def test_a_stored_front_answers_as_solve_does(
    folder: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert run(["front", "-o", "front.csv"]) == 0
    capsys.readouterr()
    searched = document(capsys, "--size", size)
    looked_up = document(capsys, "--size", size, "--from-front", "front.json", "-o", "b.json")
    keys = ("status", "layers", "objective", "bound", "gap", "totals", "limits", "omega")
    for key in (*keys, "not_binding"):
        assert looked_up[key] == searched[key]
    assert Assignment.load("b.json").solver == "front"


@pytest.mark.parametrize(
    ("front", "solve", "words"),
    [
        ([], ["--size", "5KB"], "no point within the limits"),
        ([], ["--bops-limit", "100K"], "the front is size_bytes against Ω"),
        ([], ["--pin", "fc=w8a8"], "a front has its pins and excludes already"),
        ([], ["--max-distinct", "1"], "do not go with --from-front"),
        ([], ["--at-least", "bops=60K"], "got the limits bops >= 60000"),
        (["--pin", "fc=w8a8"], [], "the front was made with --pin fc=w8a8"),
        (["--bops-limit", "90K"], ["--bops-limit", "95K"], "with bops <= 90000"),
    ],
)
def test_fronts_that_cannot_answer(
    folder: Path, capsys: pytest.CaptureFixture[str], front: list[str], solve: list[str], words: str
) -> None:
    assert run(["front", "-o", "front.csv", *front]) == 0
    assert run(["solve", "--from-front", "front.json", *solve]) == 2
    assert words in capsys.readouterr().err
    assert not Path("assignment.json").exists()


def test_a_front_within_a_lower_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--at-least", "count:w4=2", "--allow", "fc=w4a4"]
    assert run(["front", "-o", "front.csv", *call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["size_bytes"] == [5500, 6500]
    assert run(["front", "--at-least", "size_bytes=1MB"]) == 1


def store(folder: Path, seed: int) -> None:
    """Interactions of the table's six cells, with changes that partly cancel."""
    rng = np.random.default_rng(seed)
    names = ("conv1", "conv1", "conv2", "conv2", "fc", "fc")
    choices = (Choice(4, 4), Choice(8, 8)) * 3
    logits = rng.normal(size=(40, 4)).astype(np.float32)
    changes = rng.normal(size=(6, 40, 4)).astype(np.float16)
    changes[4] = -changes[2]  # fc at 4 bits undoes what conv2 at 4 bits does
    scales = np.array([1.0, 0.3, 0.8, 0.2, 0.8, 0.1])
    gram = gram_matrix(logits, changes, scales)
    labels = rng.integers(0, 4, 40)
    path = folder / "profile.interactions.npz"
    save_interactions(
        Interactions(names, choices, logits, changes, scales, gram, labels, "sha256:x"), path
    )


def test_the_best_of_the_k_best_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its Ω is the objective, its bound stays the least Ω; the winner is found here by listing."""
    store(folder, 1)
    additive = document(capsys, "--size", "9KB")
    found = document(capsys, "--size", "9KB", "--rerank", "4")
    stored = load_interactions("profile.interactions.npz")
    table = LayerTable.read_csv("profile.csv")
    within = []
    for picks in itertools.product((Choice(4, 4), Choice(8, 8)), repeat=3):
        choices = dict(zip(table.layer_names, picks, strict=True))
        if table.total(choices, "size_bytes") <= 9 * 1024:
            within.append(choices)
    within.sort(key=lambda choices: table.total(choices, "omega"))
    best = min(within[:4], key=lambda choices: predict(stored, choices).loss or 0.0)
    assert best != within[0]
    assert Assignment.load("assignment.json").layers == best
    omega = float(table.total(best, "omega"))
    least = additive["objective"]
    assert (found["objective"], found["bound"], found["minimize"]) == (omega, least, "omega")
    assert found["gap"] == pytest.approx((omega - least) / omega)
    assert set(found["interactions"]) == {"additive", "ranking"}
    assert run(["solve", "--size", "9KB", "--rerank", "4"]) == 0
    assert "re-ranked the 4 best by Ω" in capsys.readouterr().out
    assert "re-ranked" in str(Assignment.load("assignment.json").solver)


def test_what_cannot_be_reranked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", "--rerank", "4"]) == 2
    assert "mpsearch profile MODEL --interactions" in capsys.readouterr().err
    store(folder, 1)
    assert run(["solve", "--rerank", "4", "--minimize", "bops"]) == 2
    assert "do not go with --from-front or --rerank" in capsys.readouterr().err
    assert run(["solve", "--interactions"]) == 2
    error = capsys.readouterr().err
    assert "no such option" in error
    assert "--interactions" in error


def test_assignments_of_the_quadratic_search_are_still_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.1 had `solve --interactions`, which named itself as solver and objective."""
    assert run(["solve", "--size", "9KB"]) == 0
    content = json.loads(Path("assignment.json").read_text())
    content |= {"minimize": "interactions", "solver": "interactions", "objective": 0.25, "gap": 0.0}
    Path("assignment.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert run(["gate", "--max-size", "9KB"]) == 0
    assert run(["report"]) == 0
    capsys.readouterr()
    assert run(["explain"]) == 2
    assert "--interactions of 0.1" in capsys.readouterr().err


def test_ranges(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--limit-ranges", "--at-least", "count:w8=1", "--limit", "bops=120K")
    assert found["size_bytes"] == {
        "least": 5500, "with_others": 6000, "useful": 11000, "most": 11000,
    }  # fmt: skip
    assert not Path("assignment.json").exists()
