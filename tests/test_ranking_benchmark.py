"""The ranking benchmark: statistics by hand and by scipy, a whole run on a small network."""

import json
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import pytest
import ranking_measuring
import ranking_metrics
from click.testing import CliRunner
from ranking import Settings, main, rank_metrics
from ranking_measuring import BOTH, REGIMES, WEIGHTS, draw
from ranking_statistics import (
    Integers,
    kendall,
    resampled_kendall,
    resampled_spearman,
    resamples,
    spearman,
)
from ranking_subjects import Subject
from ranking_tables import markdown, summary
from scipy import stats

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate
from mpsearch.graph.network import Network
from mpsearch.losses.loss import CROSS_ENTROPY
from mpsearch.quantization.quantized import quantize
from mpsearch.running import plugins
from mpsearch.sensitivity.study import Score, Study
from mpsearch.tables.choice import Choice

TIED = ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7])


def test_correlations_by_hand() -> None:
    # ranks of y: 1, 2, 3.5, 5, 3.5; of ten pairs eight agree, one disagrees, one is tied in y
    assert spearman(*TIED) == pytest.approx(8 / np.sqrt(10 * 9.5))
    assert kendall(*TIED) == pytest.approx((8 - 1) / np.sqrt(10 * 9))
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert kendall([1, 2, 3], [-1, 0, 1e9]) == pytest.approx(1)


@pytest.mark.parametrize("statistic", [spearman, kendall])
def test_a_constant_orders_nothing(
    statistic: Callable[[list[float], list[float]], float],
) -> None:
    assert statistic([1, 1, 1], [1, 2, 3]) == 0
    assert statistic([1, 2, 3], [0, 0, 0]) == 0


def _one_by_one(name: str, x: list[int], y: list[int], rows: Integers) -> list[float]:
    reference = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}[name]
    values = [reference(np.array(x)[row], np.array(y)[row]).statistic for row in rows]
    return [0.0 if np.isnan(value) else float(value) for value in values]


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_resampled_correlations_are_those_of_scipy() -> None:
    random = np.random.default_rng(3)
    x, y = random.integers(0, 6, 15).tolist(), random.integers(0, 6, 15).tolist()
    rows = resamples(15, 40, seed=1)
    expected = _one_by_one("spearman", x, y, rows)
    assert resampled_spearman(x, y, rows) == pytest.approx(expected)
    assert resampled_kendall(x, y, rows) == pytest.approx(_one_by_one("kendall", x, y, rows))
    rows = resamples(2, 20, seed=1)  # half of these draw one item twice: no order, 0
    expected = _one_by_one("kendall", [1, 2], [1, 2], rows)
    assert resampled_kendall([1, 2], [1, 2], rows) == pytest.approx(expected)


def test_bootstrap_interval_covers() -> None:
    """Normal pairs with r = 0.6 have Kendall's τ = 2/π·asin r; 95 % cover it in 88 % or more."""
    true = 2 / np.pi * np.arcsin(0.6)
    covered = 0
    for seed in range(100):
        normal = np.random.default_rng(seed).standard_normal((2, 60))
        x, y = normal[0], 0.6 * normal[0] + 0.8 * normal[1]
        low, high = np.quantile(resampled_kendall(x, y, resamples(60, 300, seed)), (0.025, 0.975))
        covered += bool(low <= true <= high)
    assert covered >= 88


def test_assignments_are_repeatable_and_spread() -> None:
    layers, choices = [f"l{index}" for index in range(20)], REGIMES[BOTH]
    drawn = draw(layers, choices, 200, seed=0)
    assert drawn[:50] == draw(layers, choices, 50, seed=0)
    assert drawn != draw(layers, choices, 200, seed=1)
    means = [np.mean([choice.w_bits for choice in one.values()]) for one in drawn]
    independent = np.std([2, 3, 4, 8]) / np.sqrt(20)  # with one probability for all
    assert np.std(means) > 1.5 * independent


@pytest.fixture(scope="module")
def subject() -> Subject:
    model, inputs, labels = networks.build("smooth", samples=90)
    network = Network.from_module(model, inputs)
    profiling = Data("profiling", tuple(x[:30] for x in inputs), labels[:30])
    unseen = Data("unseen", tuple(x[30:] for x in inputs), labels[30:])
    return Subject("small", network, profiling, unseen)


def test_whole_run(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path, assignments=16, times=50)
    first = rank_metrics(subject, WEIGHTS, ["empirical", "hessian"], settings)

    study = Study(subject.network, subject.profiling, CROSS_ENTROPY, (), 30, 0, 0.05, 32)
    for assignment, measured in list(zip(first.assignments, first.measured, strict=True))[:4]:
        whole = quantize(subject.network, assignment, study.histograms)
        expected = evaluate("", whole, subject.unseen)
        assert measured.accuracy == expected.accuracy
        assert measured.loss == pytest.approx(expected.loss, rel=1e-5)

    def measured_again(*_: object) -> list[float]:
        raise AssertionError("measured again")

    monkeypatch.setattr(ranking_measuring, "_evaluate", measured_again)
    again = rank_metrics(subject, WEIGHTS, ["empirical"], settings)
    assert again.measured == first.measured
    assert again.predictions[0].values == first.predictions[0].values
    monkeypatch.undo()

    both = rank_metrics(subject, BOTH, ["empirical"], settings)
    text = markdown(both) + summary([first, both])
    assert "| `empirical` |" in text
    assert "60 unseen samples" in text
    assert json.loads(json.dumps(both.to_json()))["assignments"][0].keys() == {
        layer.name for layer in subject.network.layers
    }
    by_name = {row.metric: row for row in first.rows}
    beyond = by_name["hessian"].beyond_baseline
    assert beyond is not None
    assert (beyond.value, beyond.low, beyond.high) == (0, 0, 0)


def test_a_metric_that_cannot_serve_is_said(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses:
        description = "refuses everything"

        def score(self, *_: object) -> None:
            raise InputError("needs something else")

    def load(group: str, name: str, noun: str) -> object:
        return Refuses() if name == "refuses" else plugins.load(group, name, noun)

    monkeypatch.setattr("ranking_metrics.load", load)
    settings = Settings(tmp_path, assignments=4, times=20)
    ranking = rank_metrics(subject, WEIGHTS, ["hessian", "refuses"], settings)
    together = {"gram", "superposed-kl", "superposed-loss"}  # need no metric of their own
    assert {row.metric for row in ranking.rows} - together == {"hessian"}
    assert "`refuses` does not apply: needs something else" in markdown(ranking)


def test_predictions_are_sums_over_layers() -> None:
    four, eight = Choice(4, 4), Choice(8, 8)
    scores = {("a", four): Score(2.0), ("a", eight): Score(0.5), ("b", eight): Score(0.25)}
    assert ranking_metrics.total(scores, {"a": four, "b": eight}) == 2.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "nothing"], "unknown network 'nothing'; expected one of tinym2net-"),
        (["--metrics", "guess"], "unknown metric 'guess'; installed: "),
    ],
)
def test_unknown_names_are_said(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*arguments, "--cache", str(tmp_path)])
    assert result.exit_code == 1
    assert message in result.output
