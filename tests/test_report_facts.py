"""The facts that a report adds to its files: against hand computation and other methods."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_runs import W4, W8, make_run, row, table
from scipy import stats
from tables import random_table

from mpsearch.evaluation.evaluation import Evaluation, Evaluations
from mpsearch.graph.network import Network
from mpsearch.models.registry import architecture, build
from mpsearch.pareto.front import front
from mpsearch.reports.accuracy_facts import NETWORKS
from mpsearch.reports.facts import to_document
from mpsearch.reports.front_facts import ALPHABET, assignments_facts, prediction_facts
from mpsearch.reports.gather import gather
from mpsearch.reports.heat_figure import confusions, most_sensitive
from mpsearch.reports.html import render
from mpsearch.reports.layer_sections import bits_rows
from mpsearch.reports.run_folder import Run, read_run
from mpsearch.reproduction.published import CASES
from mpsearch.statistics import kendall, mid_ranks, spearman
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.table import Layer, LayerTable, Row

FEW_VALUES = st.lists(st.integers(0, 6).map(float), min_size=3, max_size=12)


def test_rank_correlations_by_hand() -> None:
    assert mid_ranks([3, 1, 3]).tolist() == [2.5, 1, 2.5]
    assert spearman([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)  # 2 concordant, 1 discordant
    assert spearman([1, 2, 3], [5, 5, 5]) is None
    assert kendall([1, 1, 1], [1, 2, 3]) is None


@given(st.data())
def test_rank_correlations_agree_with_scipy(data: st.DataObject) -> None:
    first = data.draw(FEW_VALUES)
    second = data.draw(st.lists(st.integers(0, 6).map(float), min_size=len(first),
                                max_size=len(first)))  # fmt: skip
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert spearman(first, second) is None
        return
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)


def test_predicted_beside_measured_by_hand() -> None:
    made = front(table())  # Ω 3.0, 2.25, 1.5, 0.75
    assert prediction_facts(made) == ()
    nothing = math.nan
    measured = {
        "loss": np.array([0.9, nothing, 0.4, 0.5]),
        "loss_low": np.array([0.8, nothing, 0.3, 0.4]),
        "drop": np.array([0.05, nothing, 0.01, 0.0]),
    }
    loss, lost = prediction_facts(replace(made, measured=measured))
    assert (loss.measure, loss.omega, loss.measured) == ("loss", (3.0, 1.5, 0.75), (0.9, 0.4, 0.5))
    assert loss.low == (0.8, 0.3, 0.4)
    assert all(math.isnan(end) for end in loss.high)
    assert loss.spearman == pytest.approx(0.5)
    assert loss.kendall == pytest.approx(1 / 3)
    assert (lost.measure, lost.measured) == ("points lost", (5.0, 1.0, 0.0))
    assert lost.spearman == pytest.approx(1)
    assert lost.kendall == pytest.approx(1)


def test_the_price_of_each_layer_by_hand(tmp_path: Path) -> None:
    make_run(tmp_path)
    prices = gather(read_run(tmp_path)).prices
    assert prices is not None
    assert (prices.column, prices.unit) == ("size_bytes", "KB")
    # `one` has its 8 bits; `two` would save 0.75 for 424 bytes, of which 76 are free.
    (two,) = prices.layers
    assert (two.layers, two.choice, two.better, two.over) == (("two",), W4, W8, ("size_bytes",))
    assert (two.saved, two.extra) == (0.75, 424)
    assert two.per_unit == pytest.approx(0.75 * 1024 / 424)
    (limit,) = prices.limits
    assert limit.per_unit == pytest.approx(0.75 * 1024 / 424)  # the same slope in the relaxation
    assert (limit.limit, limit.step, limit.more, limit.less) == (1700, 17, 0, 0)


def test_an_assignment_that_cannot_be_explained_says_why(tmp_path: Path) -> None:
    make_run(tmp_path)
    run = read_run(tmp_path)
    assert run.assignment is not None
    other = replace(run.assignment, minimize="size_bytes")
    prices = gather(replace(run, assignment=other)).prices
    assert prices is not None
    assert "--minimize" in prices.reason
    assert "have no prices: explain reads" in render(gather(replace(run, assignment=other)))


def test_confusion_is_of_the_float_and_the_chosen_network(tmp_path: Path) -> None:
    make_run(tmp_path)
    reference, chosen = gather(read_run(tmp_path)).confusion
    assert (reference.network, reference.counts) == ("FP32", ((50, 10), (0, 40)))
    assert (chosen.network, chosen.counts) == ("assignment", ((48, 12), (0, 40)))
    assert confusions(chosen, 5) == [(0, 1, 12)]
    other = replace(chosen, counts=((1, 2, 3), (3, 1, 0), (0, 0, 1)))
    assert confusions(other, 2) == [(0, 2, 3), (1, 0, 3)]  # most first, then by class


@pytest.mark.parametrize("case", ["battlefield", "covid"])
def test_the_papers_networks_are_known_by_their_layers(case: str) -> None:
    reference = CASES[case].network
    inputs = tuple(torch.zeros(2, *shape) for shape in architecture(reference).inputs.values())
    network = Network.from_module(build(reference).eval(), inputs)
    assert NETWORKS[case] == (len(network.layers), sum(one.weights for one in network.layers))


def _shaped(layers: int, weights: int) -> LayerTable:
    made = [Layer(f"l{n}", "linear", "", weights // layers, 1) for n in range(layers - 1)]
    rest = weights - sum(layer.weights for layer in made)
    made.append(Layer("last", "linear", "", rest, 1))
    rows = [Row(layer.name, W8, 1.0, 0.0, {"size_bytes": layer.weights}) for layer in made]
    return LayerTable.from_rows(made, rows)


def test_table_4_stands_beside_the_papers_networks_only() -> None:
    rows = (
        row("FP32", [True] * 90 + [False] * 10, 1_674_000, None),
        row("w8a8", [True] * 80 + [False] * 20, 416_768, None),
        row("quantized", [True] * 70 + [False] * 30, 269 * 1024, None),
    )
    evaluations = Evaluations("test.npz", "sha256:0", True, rows)
    known = gather(Run(table=_shaped(*NETWORKS["battlefield"]), evaluations=evaluations))
    assert known.published is not None
    assert known.published.case == "battlefield"
    shown = [
        (r.name, r.paper_accuracy, r.paper_kilobytes, r.ours, r.accuracy, r.kilobytes)
        for r in known.published.rows
    ]
    assert shown == [
        ("FP32", 98.5, 1605, "FP32", 90.0, pytest.approx(1634.77, abs=0.01)),
        ("W8A8", 97.9, 407, "w8a8", 80.0, 407.0),
        ("W4/8A4/8", 96.8, 269, "quantized", 70.0, 269.0),
        ("W4A4", 91.3, 205, None, None, None),
    ]
    assert "Beside the paper" in render(known)
    other = gather(Run(table=_shaped(14, 417_985), evaluations=evaluations))
    assert other.published is None
    assert "Beside the paper" not in render(other)


@pytest.mark.parametrize("seed", range(3))
def test_the_codes_of_a_front_are_its_assignments(seed: int) -> None:
    found = front(random_table(seed, 7, 4, 1.0, groups=True))
    facts = assignments_facts(found)
    assert facts is not None
    assert len(facts.points) == len(found)
    for point, code in zip(facts.points, facts.codes, strict=True):
        named = {
            layer: facts.choices[ALPHABET.index(letter)]
            for layer, letter in zip(facts.layers, code, strict=True)
        }
        assert named == {layer: str(choice) for layer, choice in found.assignment(point).items()}


def test_many_layers_keep_the_assignments_of_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    found = front(random_table(0, 7, 4, 1.0, groups=False))
    assert len(found) > 5
    monkeypatch.setattr("mpsearch.reports.front_facts.CODED", 35)
    facts = assignments_facts(found)
    assert facts is not None
    assert len(facts.points) <= 5
    assert {facts.points[0], facts.points[-1]} == {0, len(found) - 1}
    monkeypatch.setattr("mpsearch.reports.front_facts.CODED", 13)
    assert assignments_facts(found) is None


def test_the_float_network_is_a_point(tmp_path: Path) -> None:
    make_run(tmp_path)
    run = read_run(tmp_path)
    measured = gather(run).fp32
    assert measured is not None
    assert (measured.omega, measured.totals) == (0.0, {"size_bytes": 7000})
    noted = {**run.provenance, "fp32_bytes": 5000, "macs": 100}
    from_table = gather(replace(run, provenance=noted, evaluations=None)).fp32
    assert from_table is not None
    assert from_table.totals == {"size_bytes": 5000, "bops": 102_400}
    assert "FP32: Ω 0 at 6.8 KB" in render(gather(run))


def test_values_that_are_not_finite_are_named_and_left_out(tmp_path: Path) -> None:
    make_run(tmp_path)
    run = read_run(tmp_path)
    assert run.front is not None
    assert run.evaluations is not None
    omega = run.front.omega.copy()
    omega[1] = math.nan
    first, second = run.evaluations.rows
    diverged = replace(second, loss=math.nan, loss_interval=(-math.inf, math.inf))
    broken = replace(
        run,
        front=replace(run.front, omega=omega),
        evaluations=replace(run.evaluations, rows=(first, diverged)),
    )
    facts = gather(broken)
    assert facts.front is not None
    assert facts.front.totals == (1024, 1624, 2048)
    assert "1 points of front.json" in " ".join(facts.warnings)
    assert "the loss of assignment is not a finite number" in " ".join(facts.warnings)
    assert "<svg" in render(facts)
    text = json.dumps(to_document(facts), allow_nan=False)
    assert json.loads(text)["accuracies"][1]["loss"] is None


def test_neighbours_share_a_row_where_there_are_many_layers() -> None:
    layers = [Layer(f"layer{n}") for n in range(160)]
    rows = [
        Row(layer.name, choice, 1.0, 0.0, {"size_bytes": choice.w_bits})
        for layer in layers
        for choice in (W4, W8)
    ]
    made = LayerTable.from_rows(layers, rows)
    choices = {f"layer{n}": W8 if n < 3 else W4 for n in range(160)}
    drawn = bits_rows(gather(Run(table=made, assignment=Assignment(choices))).layers)
    assert len(drawn) == 80
    assert [one.name for one in drawn[:2]] == ["1 to 2", "3 to 4"]
    assert [(one.w_bits, one.w_least, one.w_most) for one in drawn[:3]] == [
        (8, 8, 8), (6, 4, 8), (4, 4, 4)
    ]  # fmt: skip
    assert drawn[1].shares["omega"] == pytest.approx(2 / 160)
    assert drawn[1].shares["size_bytes"] == pytest.approx(12 / (3 * 8 + 157 * 4))
    assert sum(one.shares["size_bytes"] for one in drawn) == pytest.approx(1)


def test_the_most_sensitive_layers_keep_their_order() -> None:
    layers = [Layer(name) for name in "abcd"]
    rows = [
        Row(name, W8, omega, 0.0, {"size_bytes": 1})
        for name, omega in zip("abcd", (1.0, 3.0, 0.5, 2.0), strict=True)
    ]
    facts = gather(Run(table=LayerTable.from_rows(layers, rows)))
    assert [one.name for one in most_sensitive(facts.layers, 2)] == ["b", "d"]


@pytest.mark.parametrize(("classes", "drawn"), [(30, True), (31, False)])
def test_many_classes_have_their_mistakes_but_no_matrix(classes: int, drawn: bool) -> None:
    counts = np.diag([2] * classes)
    counts[0, classes - 1] = 5
    rows = tuple(tuple(map(int, line)) for line in counts)
    n = 2 * classes + 5
    hits = (True,) * (2 * classes) + (False,) * 5
    row_ = Evaluation("FP32", n, 2 * classes / n, (0, 1), 0.3, (0.2, 0.4), hits, None, None, rows)
    page = render(gather(Run(evaluations=Evaluations("t", "sha256:0", True, (row_,)))))
    assert ("confusion-title" in page) == drawn
    assert f"0 as {classes - 1}" in page
    assert f"{2 * classes} of {n} right" in page


@pytest.mark.parametrize(
    "measurement",
    [
        {"fp32": [1], "samples": "many"},
        {"fp32": {"accuracy": "all", "accuracy_interval": [1]}},
        {"fp32": {"accuracy_interval": ["a", "b"], "size_bytes": "small"}, "data": ["x"]},
    ],
)
def test_a_strange_measurement_is_no_stumbling_block(measurement: dict[str, object]) -> None:
    found = front(table())
    accuracy = np.array([0.5, 0.6, math.nan, 0.7])
    strange = replace(found, measured={"accuracy": accuracy}, measurement=measurement)
    facts = gather(Run(front=strange))
    assert facts.front is not None
    assert facts.front.measured is not None
    assert facts.front.measured.fp32 is None
    assert facts.front.measured.accuracy == (0.5, 0.6, 0.7)
    assert "Measured at 3 points" in render(facts)
