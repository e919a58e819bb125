"""Accuracies, their intervals and the file that keeps them."""

import json
import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluations, load_evaluations, save_evaluations
from mpsearch.evaluation.measuring import evaluate
from mpsearch.statistics import drop_interval, paired_drop, wilson_interval

DATA = Data("d", (torch.eye(3).repeat(4, 1),), torch.tensor([0, 1, 2, 0, 1, 1] * 2))


def _identity(x: torch.Tensor) -> torch.Tensor:
    return 5 * x


def _first_class(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([1.0, 0.0, 0.0]).repeat(len(x), 1)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (915, 1000), (1, 2), (37, 286)])
def test_wilson_interval_agrees_with_scipy(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_accuracy_and_loss_by_hand() -> None:
    row = evaluate("net", _identity, DATA, batch_size=5)
    assert row.accuracy == 10 / 12
    assert row.correct == (True, True, True, True, True, False) * 2
    right = -math.log(math.exp(5) / (math.exp(5) + 2))
    wrong = -math.log(1 / (math.exp(5) + 2))
    assert row.loss == pytest.approx((10 * right + 2 * wrong) / 12, rel=1e-6)
    low, high = row.loss_interval
    assert low < row.loss < high


def test_paired_drop_counts_pairs_and_covers_the_truth() -> None:
    drop, (low, high) = paired_drop([True] * 90 + [False] * 10, [True] * 80 + [False] * 20)
    assert drop == pytest.approx(0.1)
    assert (low, high) == drop_interval(10, 0, 100)  # published tables: test_gate_statistics
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):  # 5 % lost, 2 % won: the truth is 3 points
        u = torch.rand(800, generator=generator)
        before = (u < 0.90) | (u > 0.98)
        after = (u < 0.85) | ((u > 0.90) & (u < 0.92)) | (u > 0.98)
        _, (low, high) = paired_drop(before.tolist(), after.tolist())
        covered += low <= 0.03 <= high
    assert 0.92 * 400 <= covered <= 0.98 * 400


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    rows = (
        evaluate("FP32", _identity, DATA, size_bytes=100, bops=7),
        evaluate("w4a4", _first_class, DATA),
    )
    kept = Evaluations("d", DATA.digest, False, rows)
    save_evaluations(kept, tmp_path / "e.json")
    assert load_evaluations(tmp_path / "e.json") == kept


@pytest.mark.parametrize("damage", ["text", "format", "accuracy", "missing"])
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    if damage == "missing":
        with pytest.raises(InputError, match="no such file"):
            load_evaluations(path)
        return
    rows = (evaluate("n", _identity, DATA),)
    save_evaluations(Evaluations("d", DATA.digest, True, rows), path)
    document = json.loads(path.read_text())
    if damage == "format":
        document["format"] = "other"
    else:
        document["rows"][0]["accuracy"] = 0.99  # more than its own samples say
    path.write_text("{" if damage == "text" else json.dumps(document))
    with pytest.raises(InputError, match=r"e\.json"):
        load_evaluations(path)


def test_accuracy_without_labels_is_an_error() -> None:
    with pytest.raises(InputError, match="no labels"):
        evaluate("n", _identity, Data("d", DATA.inputs, None))


def test_the_confusion_matrix_counts_true_against_predicted(tmp_path: Path) -> None:
    row = evaluate("net", _identity, DATA, batch_size=5)
    # Classes 0, 1, 2 come in turn and are all found, but for the last of six: a 2 labelled 1.
    assert row.confusion == ((4, 0, 0), (0, 4, 2), (0, 0, 2))
    path = tmp_path / "evaluation.json"
    save_evaluations(Evaluations("d", DATA.digest, True, (row,)), path)
    assert load_evaluations(path).rows == (row,)

    document = json.loads(path.read_text())
    assert document["rows"][0]["confusion"] == ["4 0 0", "0 4 2", "0 0 2"]
    for wrong in (["4 0 0", "0 4 2", "0 0 3"], ["4 0 0", "0 2 4", "0 2 0"], ["4 0", "0 4 2"]):
        document["rows"][0]["confusion"] = wrong
        path.write_text(json.dumps(document))
        with pytest.raises(InputError, match="confusion matrix"):
            load_evaluations(path)
    del document["rows"][0]["confusion"]  # as files were before
    path.write_text(json.dumps(document))
    assert load_evaluations(path).rows[0].confusion is None


def test_many_classes_have_no_confusion_matrix() -> None:
    data = Data("d", (torch.eye(101),), torch.arange(101))
    assert evaluate("net", _identity, data).confusion is None
