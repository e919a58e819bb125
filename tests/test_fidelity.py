"""Agreement, KL and SQNR against FP32's outputs, by loops in numpy; their intervals and file."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluations, load_evaluations, save_evaluations
from mpsearch.evaluation.fidelity import fidelity_of, fitting
from mpsearch.evaluation.measuring import evaluate
from mpsearch.evaluation.metric_choice import chosen
from mpsearch.evaluation.metrics import Statistic, measured
from mpsearch.graph.outputs import lay_out
from mpsearch.losses.forms import Bernoulli, Softmax, Squared
from mpsearch.losses.loss import DIVERGENCE, Loss, PlainLoss
from mpsearch.losses.sum_loss import Share, SumLoss
from mpsearch.statistics import wilson_interval

N = 23
Array = np.ndarray
CLASSES, NUMBERS = DIVERGENCE, PlainLoss("mse-to-fp32", False, Squared())
ANSWERS = PlainLoss("bce-to-fp32", False, Bernoulli(), "sigmoid")  # its outputs are probabilities
CLASS, BOX = lay_out(["class", "box"], [(3,), (2, 2)])
HEADS = SumLoss(tuple(Share(one, 1.0, CLASSES) for one in lay_out(["a", "b"], [(3,), (4,)])))
BOTH = SumLoss((Share(CLASS, 1.0, CLASSES), Share(BOX, 0.5, NUMBERS)))


def _pair(*shape: int, noise: float = 0.4, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """FP32's outputs, and those of another network near them; float64."""
    random = np.random.default_rng(seed)
    before = random.normal(size=(N, *shape))
    return torch.from_numpy(before), torch.from_numpy(
        before + noise * random.normal(size=(N, *shape))
    )


def _raised(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All above 0, which the range of a quantizer holds nevertheless."""
    before, after = _pair(*shape, noise=0.03)
    return before + 9, after + 9


def _shares(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    before, after = _pair(*shape)
    return before.sigmoid(), after.sigmoid()


def _same_class(r: Array, q: Array) -> float:
    places = [(n, *rest) for n in range(N) for rest in np.ndindex(*r.shape[2:])]
    hits = [
        max(range(r.shape[1]), key=lambda c: r[n, c, *rest])
        == max(range(q.shape[1]), key=lambda c: q[n, c, *rest])
        for n, *rest in places
    ]
    return sum(hits) / len(hits)


def _kl(r: Array, q: Array) -> float:
    def shares(logits: Array) -> Array:
        raised = np.array([math.exp(value) for value in logits])
        return np.asarray(raised / raised.sum())

    found = []
    for n in range(N):
        for rest in np.ndindex(*r.shape[2:]):
            p, other = shares(r[n, :, *rest]), shares(q[n, :, *rest])
            found.append(sum(a * math.log(a / b) for a, b in zip(p, other, strict=True)))
    return float(np.mean(found))


def _kl_of_answers(r: Array, q: Array) -> float:
    return float(np.mean(r * np.log(r / q) + (1 - r) * np.log((1 - r) / (1 - q))))


def _within_step(r: Array, q: Array) -> float:
    step = (max(r.max(), 0) - min(r.min(), 0)) / 255
    return float(np.mean(np.abs(q - r) <= step))


def _ratio(r: Array, q: Array) -> float:
    """Of noise to signal."""
    return float(np.linalg.norm((q - r).ravel()) ** 2 / np.linalg.norm(r.ravel()) ** 2)


def _decibels(r: Array, q: Array) -> float:
    return -10 * math.log10(_ratio(r, q))


def _of_both(kind: str) -> Callable[[Array, Array], float]:
    def together(r: Array, q: Array) -> float:
        (a, b), (c, d) = (r[:, :3], q[:, :3]), (r[:, 3:], q[:, 3:])
        if kind == "agreement":
            return (_same_class(a, b) + _within_step(c, d)) / 2
        return _kl(a, b) if kind == "kl" else -10 * math.log10((_ratio(a, b) + _ratio(c, d)) / 2)

    return together


CASES: list[tuple[str, Loss, tuple[torch.Tensor, torch.Tensor], Callable[[Array, Array], Any]]] = [
    ("agreement", CLASSES, _pair(4), _same_class),
    ("agreement", CLASSES, _pair(4, 2, 3), _same_class),
    ("kl", CLASSES, _pair(4), _kl),
    ("kl", CLASSES, _pair(4, 2, 3), _kl),
    ("sqnr", CLASSES, _pair(4), _decibels),
    ("agreement", NUMBERS, _pair(5, 2, noise=0.03), _within_step),
    ("agreement", NUMBERS, _raised(5, 2), _within_step),
    ("sqnr", NUMBERS, _pair(5, 2), _decibels),
    ("kl", HEADS, _pair(7), lambda r, q: _kl(r[:, :3], q[:, :3]) + _kl(r[:, 3:], q[:, 3:])),
    ("agreement", ANSWERS, _shares(3),
     lambda r, q: np.mean((r > 0.5) == (q > 0.5))),
    ("kl", ANSWERS, _shares(3), _kl_of_answers),
    ("agreement", BOTH, _pair(7, noise=0.02), _of_both("agreement")),
    ("kl", BOTH, _pair(7), _of_both("kl")),
    ("sqnr", BOTH, _pair(7), _of_both("sqnr")),
    ("box.sqnr", BOTH, _pair(7), lambda r, q: _decibels(r[:, 3:], q[:, 3:])),
    ("class.kl", BOTH, _pair(7), lambda r, q: _kl(r[:, :3], q[:, :3])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "loss", "pair", "definition"), CASES)
def test_definitions_also_on_a_draw_with_replacement(
    name: str, loss: Loss, pair: tuple[torch.Tensor, torch.Tensor],
    definition: Callable[[Array, Array], Any],
) -> None:  # fmt: skip
    """Weights count samples: those of weight 2 stand in the data twice. The step of `agreement` is
    that of all samples, whichever are drawn."""
    before, after = pair
    statistic = fidelity_of([name], loss, after, before)[name]
    expected = definition(before.numpy(), after.numpy())
    assert statistic.value == pytest.approx(expected, rel=1e-9)
    if name == "agreement" and loss is not CLASSES:
        assert 0.05 < expected < 0.95  # neither is told by all or nothing
        return
    rows = np.sort(np.random.default_rng(8).integers(0, N, N))
    drawn = statistic.at(np.bincount(rows, minlength=N).astype(float))
    assert drawn == pytest.approx(definition(before.numpy()[rows], after.numpy()[rows]), rel=1e-9)


def _interval(name: str, loss: Loss, pair: tuple[torch.Tensor, torch.Tensor]) -> Any:
    before, after = pair
    return measured(fidelity_of([name], loss, after, before)[name], None)


def test_samples_are_the_units_of_intervals() -> None:
    """A position that stands in every sample 50 times makes nothing surer."""
    before, after = _pair(4, 1)
    once = _interval("agreement", CLASSES, (before, after))
    often = _interval("agreement", CLASSES, (before.repeat(1, 1, 50), after.repeat(1, 1, 50)))
    assert once == often
    assert once.method == "wilson"
    assert once.interval == wilson_interval(round(once.value * N), N)
    for name in ("kl", "sqnr"):
        once = _interval(name, CLASSES, (before, after))
        often = _interval(name, CLASSES, (before.repeat(1, 1, 50), after.repeat(1, 1, 50)))
        assert often.interval == pytest.approx(once.interval, rel=1e-9)
        assert once.interval[0] < once.value < once.interval[1]
    mixed = _interval("agreement", CLASSES, _pair(4, 6))
    assert mixed.method == "bootstrap of 1000"
    (alone,) = fidelity_of(["sqnr"], NUMBERS, after[:1], before[:1]).values()
    assert measured(alone, None).interval == (-math.inf, math.inf)  # one sample says nothing


def test_equal_outputs_have_no_noise_and_the_file_keeps_that(tmp_path: Path) -> None:
    x = _pair(4)[0]
    data = Data("d", (x,), None)
    row = evaluate("same", lambda one: one.clone(), data, reference=x)
    assert {name: one.value for name, one in row.metrics.items()} == {
        "agreement": 1.0, "kl": 0.0, "sqnr": math.inf,
    }  # fmt: skip
    assert not row.classifies
    assert row.loss == pytest.approx(0, abs=1e-12)
    assert evaluate("FP32", lambda one: one, data, reference=x).loss >= 0
    path = tmp_path / "evaluation.json"
    save_evaluations(Evaluations("d", data.digest, True, (row,), labelled=False), path)
    kept = load_evaluations(path)
    assert kept.rows[0].metrics == row.metrics
    assert not kept.labelled
    document = json.loads(path.read_text())
    assert document["rows"][0]["metrics"]["sqnr"]["value"] is None
    for metric, value in (("kl", None), ("kl", -0.1), ("agreement", 1.1)):
        document["rows"][0]["metrics"][metric]["value"] = value
        path.write_text(json.dumps(document))
        with pytest.raises(InputError, match=metric):
            load_evaluations(path)
        document["rows"][0]["metrics"][metric]["value"] = row.metrics[metric].value


def test_one_loud_output_does_not_hide_another() -> None:
    """Noise on the quiet one counts whatever the loud one's scale."""
    before, after = _pair(7)
    loud = torch.tensor([1.0] * 3 + [1000.0] * 4)
    plain, scaled = (
        fidelity_of(["sqnr"], BOTH, after * s, before * s)["sqnr"].value for s in (1.0, loud)
    )
    assert scaled == pytest.approx(plain, rel=1e-9)


def test_which_fit_and_what_is_refused() -> None:
    assert fitting(CLASSES) == ("agreement", "kl", "sqnr")
    assert chosen(NUMBERS, (), labelled=False) == ("agreement", "sqnr")
    assert chosen(BOTH, (), labelled=False) == (
        "agreement", "kl", "sqnr", "class.agreement", "class.kl", "class.sqnr", "box.agreement",
        "box.sqnr",
    )  # fmt: skip
    half = SumLoss((Share(CLASS, 1.0, PlainLoss("cross-entropy", True, Softmax()), CLASS),
                    Share(BOX, 1.0, NUMBERS)))  # fmt: skip
    assert chosen(half, ()) == ("class.accuracy", "box.agreement", "box.sqnr")
    assert chosen(BOTH, ("sqnr", "box=sqnr")) == ("sqnr", "box.sqnr")
    before, after = _pair(4)
    with pytest.raises(InputError, match="kl compares classes"):
        fidelity_of(["kl"], NUMBERS, after, before)
    with pytest.raises(InputError, match=r"sqnr has no value: FP32's output is 0"):
        fidelity_of(["sqnr"], NUMBERS, after, torch.zeros_like(after))
    with pytest.raises(InputError, match="no finite numbers"):
        fidelity_of(["sqnr"], NUMBERS, after / 0, before)
    with pytest.raises(InputError, match="f1 needs labels, and the data have none"):
        chosen(CLASSES, ("kl", "f1"), labelled=False)
    data = Data("d", (before,), None)
    with pytest.raises(InputError, match=r"d has no labels \(array y\), and there is no FP32"):
        evaluate("n", lambda one: one, data)
    labelled = Data("d", (before,), torch.zeros(N, dtype=torch.int64))
    with pytest.raises(InputError, match="agreement compares with the float network; name it"):
        evaluate("n", lambda one: one, labelled, metrics=("agreement",))
    row = evaluate("n", lambda one: one, labelled, metrics=("agreement", "f1"), reference=after)
    assert row.metrics["f1"].difference is not None
    assert row.metrics["agreement"].difference is None


def test_the_bootstrap_covers() -> None:
    """Of 150 seeded sets of samples the 95 % interval holds the truth in nearly all."""
    random = np.random.default_rng(5)
    truth, covered = 10 * math.log10(1 / 0.04), 0
    for _ in range(150):
        signal, noise = random.normal(size=(2, 1, 200, 16))
        power, error = (signal**2).sum(2), (0.04 * noise**2).sum(2)

        def at(w: Array, power: Array = power, error: Array = error) -> float:
            return float(10 * np.log10(power @ w / (error @ w))[0])

        low, high = measured(Statistic(200, at), None, 200).interval
        covered += low <= truth <= high
    assert covered >= 135


def test_one_number_for_each_sample_is_an_output() -> None:
    """Outputs [N], of a scorer or detector of voices, count as [N, 1]."""
    before = torch.linspace(-1, 1, 9)
    after = before + 0.1 * torch.arange(9)
    for name in ("agreement", "sqnr"):
        flat = fidelity_of([name], NUMBERS, after, before)[name]
        assert (
            flat.value == fidelity_of([name], NUMBERS, after[:, None], before[:, None])[name].value
        )
