"""`solve --from-front`, `--interactions`, `--rerank` and `--ranges` as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pytest

from mpsearch.assignment import Assignment
from mpsearch.choice import Choice
from mpsearch.cli import run
from mpsearch.interactions import Interactions, gram_matrix, save_interactions


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert run(["solve", *arguments, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("size", ["5.5KB", "6500B", "7KB", "9KB", "20KB"])
def test_a_stored_front_answers_as_solve_does(
    folder: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert run(["front", "-o", "front.csv"]) == 0
    capsys.readouterr()
    searched = document(capsys, "--size", size)
    looked_up = document(capsys, "--size", size, "--from-front", "front.json", "-o", "b.json")
    for key in ("status", "layers", "objective", "bound", "gap", "totals", "limits", "omega"):
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


def test_cross_terms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The least quadratic form among the eight assignments, found here by listing them."""
    from mpsearch.interactions import load_interactions, predict

    store(folder, 1)
    found = document(capsys, "--size", "9KB", "--interactions")
    stored = load_interactions("profile.interactions.npz")
    sizes = {"conv1": (1000, 2000), "conv2": (4000, 8000), "fc": (500, 1000)}
    values = []
    for code in range(8):
        bits = {name: code >> n & 1 for n, name in enumerate(sizes)}
        if sum(sizes[name][one] for name, one in bits.items()) <= 9 * 1024:
            choices = {name: Choice(8, 8) if one else Choice(4, 4) for name, one in bits.items()}
            values.append(predict(stored, choices).quadratic)
    assert found["objective"] == pytest.approx(min(values), rel=1e-9)
    assert (found["status"], found["minimize"]) == ("optimal", "interactions")
    assert run(["solve", "--size", "9KB", "--rerank", "4"]) == 0
    out = capsys.readouterr().out
    assert "re-ranked the 4 best by Ω" in out
    assert "re-ranked" in str(Assignment.load("assignment.json").solver)


def test_interactions_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", "--interactions"]) == 2
    assert "mpsearch profile MODEL --interactions" in capsys.readouterr().err
    store(folder, 1)
    assert run(["solve", "--interactions", "--minimize", "bops"]) == 2


def test_ranges(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--ranges", "--at-least", "count:w8=1", "--limit", "bops=120K")
    assert found["size_bytes"] == {
        "least": 5500, "with_others": 6000, "useful": 11000, "most": 11000,
    }  # fmt: skip
    assert not Path("assignment.json").exists()
