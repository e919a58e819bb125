"""Metrics and their intervals against definitions by loops, and scipy; the file that keeps them."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import (
    Evaluations,
    check_classifies,
    load_evaluations,
    save_evaluations,
)
from mpsearch.evaluation.measuring import evaluate
from mpsearch.evaluation.metric_choice import chosen, statistics_of
from mpsearch.evaluation.metrics import Statistic, auc, mean_of, measured
from mpsearch.graph.outputs import lay_out
from mpsearch.losses.forms import Bernoulli, Softmax, Squared
from mpsearch.losses.loss import Loss, PlainLoss
from mpsearch.losses.sum_loss import Share, SumLoss
from mpsearch.statistics import wilson_interval

N = 37
RANDOM = np.random.default_rng(4)
CE, BCE = PlainLoss("cross-entropy", True, Softmax()), PlainLoss("bce", True, Bernoulli())
MSE = PlainLoss("mse", True, Squared())
Array = np.ndarray


def _rows(*shape: int) -> torch.Tensor:
    """Rounded, so that there are ties."""
    return torch.from_numpy(RANDOM.normal(size=(N, *shape))).mul(3).round().div(3)


SCORES, CLASSES = _rows(4), torch.from_numpy(RANDOM.integers(0, 4, N))
UNTIED = torch.from_numpy(RANDOM.normal(size=(N, 4)))
PAIR, TWO = _rows(2), torch.from_numpy(RANDOM.integers(0, 2, N))
ANSWERS, TICKS = _rows(3), torch.from_numpy(RANDOM.integers(0, 2, (N, 3))).float()
NUMBERS, TARGETS = _rows(2, 2), _rows(2, 2)


def _recalls(z: Array, y: Array) -> float:
    found = [np.mean(z.argmax(1)[y == c] == c) for c in range(4) if (y == c).any()]
    return float(np.mean(found))


def _f1_of(guess: Array, true: Array) -> float:
    tp = sum(bool(g and t) for g, t in zip(guess, true, strict=True))
    return 2 * tp / (sum(map(bool, guess)) + sum(map(bool, true)))


def _auc_of(score: Array, true: Array) -> float:
    """scipy's Mann-Whitney U over the number of pairs."""
    u = stats.mannwhitneyu(score[true], score[~true]).statistic
    return float(u / (true.sum() * (~true).sum()))


def _softmax(z: Array) -> Array:
    e = np.exp(z)
    return np.asarray(e / e.sum(1, keepdims=True))


def _r2(z: Array, y: Array) -> float:
    z, y = z.reshape(N, -1), y.reshape(N, -1)
    parts = [
        1 - ((y[:, k] - z[:, k]) ** 2).sum() / ((y[:, k] - y[:, k].mean()) ** 2).sum()
        for k in range(y.shape[1])
    ]
    return float(np.mean(parts))


DEFINITIONS: list[tuple[str, Loss, torch.Tensor, torch.Tensor, Callable[[Array, Array], Any]]] = [
    ("accuracy", CE, SCORES, CLASSES, lambda z, y: np.mean(z.argmax(1) == y)),
    ("balanced-accuracy", CE, SCORES, CLASSES, _recalls),
    ("top2", CE, SCORES, CLASSES,
     lambda z, y: np.mean([sum(row >= row[c]) <= 2 for row, c in zip(z, y, strict=True)])),
    ("f1", CE, SCORES, CLASSES,
     lambda z, y: np.mean([_f1_of(z.argmax(1) == c, y == c) for c in range(4)])),
    ("f1", CE, PAIR, TWO, lambda z, y: _f1_of(z.argmax(1) == 1, y == 1)),
    ("auc", CE, PAIR, TWO, lambda z, y: _auc_of(z[:, 1] - z[:, 0], y == 1)),
    ("auc", CE, UNTIED, CLASSES,  # rounding in softmax may break ties
     lambda z, y: np.mean([_auc_of(_softmax(z)[:, c], y == c) for c in range(4)])),
    ("accuracy", BCE, ANSWERS, TICKS, lambda z, y: np.mean((z > 0) == (y > 0.5))),
    ("f1", BCE, ANSWERS, TICKS,
     lambda z, y: np.mean([_f1_of(z[:, k] > 0, y[:, k] > 0.5) for k in range(3)])),
    ("auc", BCE, ANSWERS, TICKS,
     lambda z, y: np.mean([_auc_of(z[:, k], y[:, k] > 0.5) for k in range(3)])),
    ("balanced-accuracy", BCE, ANSWERS[:, :1], TICKS[:, :1],
     lambda z, y: np.mean([np.mean((z > 0)[y > 0.5]), np.mean((z <= 0)[y < 0.5])])),
    ("mae", MSE, NUMBERS, TARGETS, lambda z, y: np.abs(z - y).mean()),
    ("mse", MSE, NUMBERS, TARGETS, lambda z, y: ((z - y) ** 2).mean()),
    ("rmse", MSE, NUMBERS, TARGETS, lambda z, y: math.sqrt(((z - y) ** 2).mean())),
    ("r2", MSE, NUMBERS, TARGETS, _r2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "loss", "outputs", "labels", "definition"), DEFINITIONS)
def test_metrics_agree_with_their_definitions_also_on_a_draw_with_replacement(
    name: str, loss: Loss, outputs: torch.Tensor, labels: torch.Tensor,
    definition: Callable[[Array, Array], Any],
) -> None:  # fmt: skip
    """Weights are counts: a sample of weight 2 stands in the data twice."""
    statistic = statistics_of([name], loss, outputs, labels)[name]
    expected = definition(outputs.numpy(), labels.numpy())
    assert statistic.value == pytest.approx(expected, rel=1e-12)
    rows = np.sort(np.random.default_rng(8).integers(0, N, N))
    again = statistics_of([name], loss, outputs[rows], labels[rows])[name]
    drawn = statistic.at(np.bincount(rows, minlength=N).astype(float))
    assert drawn == pytest.approx(again.value, rel=1e-12)


def test_auc_is_the_share_of_pairs_in_order_and_ties_count_half() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.4, 0.1])
    positive = np.array([False, True, False, True, True, True])
    pairs = list(itertools.product(scores[positive], scores[~positive]))
    expected = sum(1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs) / len(pairs)
    assert auc(scores, positive).value == pytest.approx(expected)
    assert math.isnan(auc(scores, np.ones(6, bool)).value)


def test_intervals_are_wilsons_the_normals_and_bootstraps() -> None:
    right = np.array([1.0] * 30 + [0.0] * 7)
    found = measured(mean_of(right), None)
    assert (found.interval, found.method) == (wilson_interval(30, 37), "wilson")
    values = RANDOM.gamma(2.0, size=400)
    normal = measured(mean_of(values), None)
    half = stats.norm.ppf(0.975) * stats.sem(values)
    assert normal.interval == pytest.approx((values.mean() - half, values.mean() + half))
    # the bootstrap of a mean is close to the normal interval, and repeats to the bit
    boot = Statistic(400, lambda w: float(w @ values / w.sum()))
    first, second = measured(boot, None), measured(boot, None)
    assert first == second
    assert first.method == "bootstrap of 1000"
    assert first.interval == pytest.approx(normal.interval, rel=0.03)
    root = measured(mean_of(values, np.sqrt), None)
    assert root.interval == pytest.approx(tuple(math.sqrt(end) for end in normal.interval))


def test_costly_statistics_have_fewer_draws() -> None:
    values = RANDOM.normal(size=5)
    costly = Statistic(5, lambda w: float(w @ values / w.sum()), work=10**7)
    assert measured(costly, None).method == "bootstrap of 200"
    hopeless = Statistic(5, lambda w: float(w @ values / w.sum()), work=10**12)
    assert measured(hopeless, None).method == "bootstrap of 100"


def test_differences_are_paired() -> None:
    """A constant shift is known exactly, however much the values scatter."""
    values = RANDOM.normal(10, 5, size=50)
    shift = measured(mean_of(values + 1), mean_of(values))
    assert shift.difference == pytest.approx(1)
    assert shift.difference_interval == pytest.approx((1, 1))
    before, after = np.array([1.0] * 30 + [0.0] * 7), np.array([1.0] * 26 + [0.0] * 8 + [1.0] * 3)
    found = measured(mean_of(after), mean_of(before))
    assert found.difference == pytest.approx((29 - 30) / 37)
    assert found.difference_interval is not None
    low, high = found.difference_interval
    assert low < (29 - 30) / 37 < high
    z, y = SCORES.numpy(), CLASSES.numpy()
    one = statistics_of(["f1"], CE, SCORES, CLASSES)["f1"]
    same = measured(one, one)
    assert (same.difference, same.difference_interval) == (0, (0, 0))
    assert same.value == pytest.approx(
        np.mean([_f1_of(z.argmax(1) == c, y == c) for c in range(4)])
    )


# --- which metrics --------------------------------------------------------------------------------


def _two() -> SumLoss:
    of, label = lay_out(["class", "box"], [(4,), (2, 2)]), lay_out(["class", "box"], [(), (2, 2)])
    return SumLoss((Share(of[0], 1.0, CE, label[0]), Share(of[1], 1.0, MSE, label[1])))


def spread(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float((outputs - targets).abs().max())


def both(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> float:
    assert outputs["box"].shape == targets["box"].shape
    return float((outputs["class"].argmax(1) == targets["class"]).double().mean())


def broken(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    raise ValueError("no")


def test_several_outputs_have_metrics_of_their_own() -> None:
    loss = _two()
    outputs = torch.cat([SCORES, NUMBERS.flatten(1)], 1)
    labels = torch.cat([CLASSES[:, None].double(), TARGETS.flatten(1)], 1)
    assert chosen(loss, ()) == ("class.accuracy", "box.mse", "box.mae")
    names = chosen(loss, ("class=f1", "box=rmse", "box.mae", "test_evaluation_metrics:both",
                          "box=test_evaluation_metrics:spread"))  # fmt: skip
    found = statistics_of(names, loss, outputs, labels)
    alone = statistics_of(["f1"], CE, SCORES, CLASSES)["f1"].value
    assert found["class.f1"].value == pytest.approx(alone)
    assert found["box.mae"].value == pytest.approx(float((NUMBERS - TARGETS).abs().mean()))
    accuracy = float((SCORES.argmax(1) == CLASSES).double().mean())
    assert found["test_evaluation_metrics:both"].value == pytest.approx(accuracy)
    largest = float((NUMBERS - TARGETS).abs().max())
    assert found["box.test_evaluation_metrics:spread"].value == pytest.approx(largest)


@pytest.mark.parametrize(
    ("loss", "wanted", "message"),
    [
        (CE, "nonsense", "got the metric 'nonsense'; expected accuracy"),
        (CE, "top0", "got the metric 'top0'"),
        (CE, "mae", "the metric mae does not fit the loss cross-entropy"),
        (MSE, "f1", "the metric f1 does not fit the loss mse"),
        (CE, "box=f1", "outputs are none with a name"),
        (_two(), "f1", "name the output, as in class=f1"),
        (_two(), "nothing=f1", "the network's outputs are class, box"),
        (CE, "test_evaluation_metrics:broken", "failed: ValueError: no"),
        (CE, "test_evaluation_metrics:N", "is int; expected a function"),
    ],
)
def test_a_metric_that_does_not_fit_is_named(loss: Loss, wanted: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _value(loss, wanted)


def _value(loss: Loss, wanted: str) -> float:
    names = chosen(loss, (wanted,))
    found = statistics_of(names, loss, SCORES, CLASSES if loss is CE else SCORES)
    return found[names[0]].value


def test_labels_of_one_kind_give_no_auc() -> None:
    with pytest.raises(InputError, match="the metric auc has no value"):
        statistics_of(["auc"], CE, PAIR, torch.zeros(N).long())


# --- rows and files -------------------------------------------------------------------------------


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


def test_a_regression_has_metrics_and_no_accuracy_also_in_the_file(tmp_path: Path) -> None:
    data = Data("d", (NUMBERS.float(),), TARGETS.float(), MSE)
    row = evaluate("FP32", _identity, data)
    assert not row.classifies
    assert set(row.metrics) == {"mse", "mae"}
    assert row.loss == pytest.approx(float((NUMBERS - TARGETS).square().mean()), rel=1e-6)
    changed = evaluate("w4a4", lambda x: x + 0.5, data, metrics=("r2", "mae"), reference=NUMBERS)
    path = tmp_path / "evaluation.json"
    kept = Evaluations("d", data.digest, True, (row, changed), "mse")
    save_evaluations(kept, path)
    document = json.loads(path.read_text())
    assert document["loss"] == "mse"
    assert [one["accuracy"] for one in document["rows"]] == [None, None]
    back = load_evaluations(path)
    assert back.rows[1].metrics == changed.metrics
    assert back.rows[1].metrics["mae"].difference is not None
    assert math.isnan(back.rows[0].accuracy)
    assert back.rows[0].loss_interval == row.loss_interval
    with pytest.raises(InputError, match="a front needs the accuracy of a network that classifies"):
        check_classifies(back.rows[0], "a front")


def test_one_logit_classifies(tmp_path: Path) -> None:
    """Its accuracy, samples and confusion are those of a network with two classes."""
    labels = torch.from_numpy(RANDOM.integers(0, 2, (N, 1))).float()
    row = evaluate("FP32", _identity, Data("d", (ANSWERS[:, :1],), labels, BCE))
    expected = ((ANSWERS[:, 0] > 0) == (labels[:, 0] > 0.5)).tolist()
    assert row.classifies
    assert list(row.correct) == expected
    assert row.confusion is not None
    assert sum(map(sum, row.confusion)) == N
    assert row.confusion[0][0] + row.confusion[1][1] == sum(expected)
    assert row.metrics == {}


@pytest.mark.parametrize(
    "damage",
    [
        {"value": math.nan},
        {"interval": [1]},
        {"method": None, "interval": None},
        {"against_fp32": {"difference": 1}},
    ],
)
def test_damaged_metrics_are_refused(damage: dict[str, object], tmp_path: Path) -> None:
    data = Data("d", (NUMBERS.float(),), TARGETS.float(), MSE)
    path = tmp_path / "evaluation.json"
    rows = (evaluate("n", _identity, data),)
    save_evaluations(Evaluations("d", data.digest, True, rows), path)
    document = json.loads(path.read_text())
    document["rows"][0]["metrics"]["mae"].update(damage)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="not an evaluation"):
        load_evaluations(path)


def test_a_file_of_an_older_version_still_reads(tmp_path: Path) -> None:
    data = Data("d", (SCORES,), CLASSES)
    path = tmp_path / "evaluation.json"
    rows = (evaluate("n", _identity, data),)
    save_evaluations(Evaluations("d", data.digest, True, rows), path)
    document = json.loads(path.read_text())
    del document["loss"]
    assert "metrics" not in document["rows"][0]
    path.write_text(json.dumps(document))
    assert load_evaluations(path).rows[0].metrics == {}
