"""Every output of an export is judged on its own range, and on what the network does to itself."""

from typing import Any

import integer_networks
import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.data import Data
from mpsearch.exporters.agreement_of_outputs import Part, Reference, judge
from mpsearch.exporters.reference_outputs import output_parts, reference_of
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

BOX, SCORE = Part("box", (0, 1, 2, 3)), Part("score", (4, 5, 6))


def _outputs(seed: int = 0, samples: int = 200) -> np.ndarray:
    """Boxes of some hundred pixels beside scores of about ±2."""
    source = np.random.default_rng(seed)
    box = source.uniform(0, 320, (samples, 4))
    return np.concatenate([box, source.normal(0, 1, (samples, 3))], 1).astype(np.float32)


def _rounded_to(values: np.ndarray, step: float) -> np.ndarray:
    return (np.rint(values / step) * step).astype(np.float32)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_small_output_does_not_hide_behind_a_large_one(rounded: bool) -> None:
    expected = _outputs()
    shared = _rounded_to(expected, 320 / 255)
    (whole,) = judge(Reference(expected, (Part("all", tuple(range(7))),)), shared, rounded)
    assert whole.ok
    assert whole.assigned.same_class == 1
    box, score = judge(Reference(expected, (BOX, SCORE)), shared, rounded)
    assert box.ok
    assert not score.ok
    assert score.assigned.same_class is not None
    assert score.assigned.same_class < 0.9
    assert score.line().startswith("score: ")
    assert "DIFFERS" in score.line()
    assert score.figures()["ok"] is False


def test_each_output_at_a_scale_of_its_own_agrees() -> None:
    expected = _outputs()
    own = np.concatenate(
        [_rounded_to(expected[:, :4], 320 / 255), _rounded_to(expected[:, 4:], 6 / 255)], 1
    )
    for entry in judge(Reference(expected, (BOX, SCORE)), own):
        assert entry.ok
        assert entry.assigned.largest_steps <= 0.6
        assert "100.0% of 200 within one" in entry.line()


def _with_jumps(expected: np.ndarray, share: float, seed: int) -> np.ndarray:
    """What borders between codes do: some samples move by several steps, either way."""
    source = np.random.default_rng(seed)
    moved = source.random(len(expected)) < share
    return (expected + moved[:, None] * source.normal(0, 0.08, expected.shape)).astype(np.float32)


def test_a_network_that_differs_from_itself_may_differ_from_its_export_as_much() -> None:
    expected = _outputs()[:, 4:]
    part = (Part("score", (0, 1, 2)),)
    asked: list[int] = []

    def ways(share: float) -> Reference:
        def compute() -> list[np.ndarray]:
            asked.append(1)
            return [_with_jumps(expected, share, seed) for seed in (1, 2)]

        return Reference(expected, part, compute)

    got = _with_jumps(expected, 0.4, 3)
    (refused,) = judge(ways(0.02), got)
    assert not refused.ok
    (taken,) = judge(ways(0.3), got)
    assert taken.ok, taken.line()
    assert taken.spread is not None
    assert "computed in another order" in taken.line()
    (shifted,) = judge(ways(0.3), (got + np.float32(0.05)))
    assert not shifted.ok
    assert len(asked) == 3
    (near,) = judge(ways(0.9), _with_jumps(expected, 0.1, 3))
    assert near.ok
    assert len(asked) == 3  # nobody measures a spread that decides nothing


def test_a_shift_is_seen_where_most_samples_jump() -> None:
    """All samples move by float rounding alone: only their mean tells a wrong graph."""
    expected = _outputs()[:, 4:]
    reference = Reference(
        expected,
        (Part("score", (0, 1, 2)),),
        lambda: [_with_jumps(expected, 0.95, seed) for seed in (1, 2)],
    )
    got = _with_jumps(expected, 0.95, 3)
    (taken,) = judge(reference, got)
    assert taken.ok, taken.line()
    (refused,) = judge(reference, got + np.float32(0.06))
    assert [fault[:12] for fault in refused.faults] == ["the mean is "]


def test_class_numbers_and_what_is_not_a_number() -> None:
    numbers = np.arange(100)[:, None] % 7
    wrong = numbers.copy()
    wrong[:5] += 1
    part = (Part("output", (0,)),)
    assert judge(Reference(numbers, part), wrong, rounded=True)[0].ok
    wrong[5] += 1
    assert not judge(Reference(numbers, part), wrong, rounded=True)[0].ok
    expected = _outputs()
    broken = expected.copy()
    broken[3, 5] = np.nan
    assert [e.ok for e in judge(Reference(expected, (BOX, SCORE)), broken)] == [True, False]
    assert judge(Reference(broken, (SCORE,)), broken)[0].ok
    with pytest.raises(ValueError, match=r"got outputs \(200, 4\)"):
        judge(Reference(expected, (BOX,)), expected[:, :4])


def test_the_distance_is_to_what_was_assigned_and_the_limit_to_what_was_meant() -> None:
    """More activation bits change the outputs on purpose: said, and not held against the export."""
    expected = _outputs()
    meant = _with_jumps(expected, 1.0, 5) + np.float32(0.3)
    (_, score) = judge(Reference(expected, (BOX, SCORE)), meant, meant=meant)
    assert score.ok
    assert score.assigned.rms_steps > 4
    assert score.meant.rms_steps == 0
    assert "from the network at its finer bits" in score.line()


ARRANGED: dict[str, tuple[Any, list[tuple[str, list[int]]]]] = {
    "one": (lambda b, s: s, [("output", [0, 1, 2])]),
    "two": (lambda b, s: (b, s), [("output0", [0, 1, 2, 3]), ("output1", [4, 5, 6])]),
    "cat": (
        lambda b, s: torch.cat([b, s], 1),
        [("output", list(range(7))), ("output, part 1 of 2", [0, 1, 2, 3]),
         ("output, part 2 of 2", [4, 5, 6])],
    ),
    "turned": (
        lambda b, s: torch.relu(
            torch.cat([b.unflatten(1, (2, 2)), s[:, None, :2]], 1).transpose(1, 2)
        ),
        [("output", list(range(6))), ("output, part 1 of 2", [0, 1, 3, 4]),
         ("output, part 2 of 2", [2, 5])],
    ),
    "cat and one": (
        lambda b, s: {"both": torch.cat([s, b], 1), "s": s},
        [("both", list(range(7))), ("both, part 1 of 2", [0, 1, 2]),
         ("both, part 2 of 2", [3, 4, 5, 6]), ("s", [7, 8, 9])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARRANGED)
def test_operands_of_a_concatenation_are_parts_of_their_output(kind: str) -> None:
    arrange, wanted = ARRANGED[kind]
    model = integer_networks.Function(
        lambda m, x: arrange(m.box(x), m.score(x)), box=nn.Linear(5, 4), score=nn.Linear(5, 3)
    ).eval()
    network = Network.from_module(model, (torch.randn(2, 5),))
    assert [(part.name, list(part.columns)) for part in output_parts(network)] == wanted


def test_the_other_ways_are_the_same_network() -> None:
    model, inputs = integer_networks.build("option-a", 20)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    reference = reference_of(quantize(network, choices, calibrate(network, data)), data)
    ways = reference.ways()
    assert len(ways) == 3
    assert ways[2].dtype == np.float64
    for way in ways:
        assert all(entry.ok for entry in judge(reference, way))
        assert np.abs(way - reference.expected).max() < 0.1
    assert np.abs(ways[2] - reference.expected).max() > 0
