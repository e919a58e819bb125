"""Weights that turn back and forth between codes are frozen as Algorithm 1 says, and stay so."""

import math
from dataclasses import replace
from itertools import pairwise

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.finetuning.oscillations import MOMENTUM, Freezing, still, threshold
from mpsearch.finetuning.student import student
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

pytestmark = pytest.mark.kernels


def _codes_of_one_weight(codes: list[int], thresholds: list[float]) -> tuple[list[int], list[bool]]:
    """Algorithm 1 (Nagel et al.) for one weight, with the whole history at hand."""
    kept, frozen = [codes[0]], [False]
    frequency, mean = 0.0, float(codes[0])
    for t in range(1, len(codes)):
        now = kept[-1] if frozen[-1] else codes[t]
        changes = [b - a for a, b in pairwise(kept) if a != b]
        turns = now != kept[-1] and changes and (now - kept[-1]) * changes[-1] < 0
        frequency = MOMENTUM * (1 if turns else 0) + (1 - MOMENTUM) * frequency
        mean = MOMENTUM * now + (1 - MOMENTUM) * mean
        assert abs(frequency - thresholds[t]) > 1e-6, "undecided: choose another seed"
        freezes = not frozen[-1] and frequency > thresholds[t]
        if freezes:
            assert abs(mean % 1 - 0.5) > 1e-4, "undecided: choose another seed"
            now = round(mean)
        kept.append(now)
        frozen.append(frozen[-1] or freezes)
    return kept, frozen


def test_weights_are_frozen_as_one_at_a_time() -> None:
    """Jumps from -1 to +2 codes, now and then to always; every second weight wanders off besides,
    and is frozen where it did not begin."""
    generator = torch.Generator().manual_seed(3)
    steps, rows, columns = 300, 4, 10
    restless = torch.rand(rows, columns, generator=generator) ** 3
    moves = torch.randint(-1, 3, (steps, rows, columns), generator=generator)
    moving = torch.rand(steps, rows, columns, generator=generator) < restless
    drift = torch.linspace(0, 3, steps).round()[:, None, None] * (torch.arange(columns) % 2)
    codes = (moves * moving + drift - 2).to(torch.int8)
    thresholds = [threshold(t / steps) for t in range(steps)]
    state = still(codes[0])
    found, masks = [state.codes], [state.frozen]
    for t in range(1, steps):
        state = state.after(codes[t], thresholds[t])
        found.append(state.codes)
        masks.append(state.frozen)
    ends, moved = 0, 0
    for row in range(rows):
        for column in range(columns):
            wanted, frozen = _codes_of_one_weight(codes[:, row, column].tolist(), thresholds)
            assert [int(x[row, column]) for x in found] == wanted
            assert [bool(x[row, column]) for x in masks] == frozen
            ends += frozen[-1]
            moved += frozen[-1] and wanted[-1] != wanted[0]
    assert 5 < ends < rows * columns - 5
    assert moved > 2


def test_the_threshold_falls_by_a_cosine() -> None:
    assert [threshold(x) for x in (0, 0.5, 1)] == pytest.approx([0.04, 0.025, 0.01])
    assert threshold(0.25) == pytest.approx(0.025 + 0.015 * math.cos(math.pi / 4))


class Tables(nn.Module):
    """A table with one scale for all of its short rows, and one that is the head's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Embedding(7, 6)
        self.tied = nn.Embedding(5, 6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.short(tokens) + self.tied(tokens % 5))
        return functional.linear(hidden.mean(1), self.tied.weight)


def _tables() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tables().eval(), (torch.randint(0, 7, (20, 4)),)


@pytest.mark.parametrize("name", ["tables", *networks.BUILDERS])
def test_frozen_weights_keep_their_codes_whatever_moves(name: str) -> None:
    """Steps go on learning, Adam has momentum from before; layers with more bits are left alone."""
    model, inputs = _tables() if name == "tables" else networks.build(name, samples=20)[:2]
    network = Network.from_module(model, inputs)
    bits = [Choice(2, 8), Choice(4, 4), Choice(8, 8), Choice(3, 32), Choice(32, 8)]
    names = [layer.name for layer in network.layers]
    choices = {name: bits[index % len(bits)] for index, name in enumerate(names)}
    start = quantize(network, choices, calibrate(network, Data("x", inputs, None)))
    learner = student(network, start)
    optimizer = torch.optim.Adam(learner.parameters.values(), lr=0.1)
    freezing = Freezing(learner)
    assert set(freezing.layers) == {n for n in names if choices[n].w_bits <= 4}

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            learner(*inputs).sum().backward()
            optimizer.step()
            freezing.after_step(0)

    train(3)
    generator = torch.Generator().manual_seed(1)
    frozen, begun = {}, {}
    for layer_name, state in freezing.layers.items():
        where = torch.rand(state.frozen.shape, generator=generator) < 0.5
        frozen[layer_name], begun[layer_name] = where, learner.quantized().layers[layer_name].weight
        freezing.layers = {**freezing.layers, layer_name: replace(state, frozen=where)}
    train(6)
    written, moved = learner.quantized().layers, 0
    for layer_name, where in frozen.items():
        before, after = begun[layer_name], written[layer_name].weight
        assert before is not None
        assert after is not None
        assert torch.equal(after.codes[where], before.codes[where])
        assert not torch.equal(after.scales, before.scales)
        moved += int((after.codes != before.codes)[~where].sum())
    assert moved > 0
    followed = sum(where.numel() for where in frozen.values())
    assert freezing.share() == sum(int(where.sum()) for where in frozen.values()) / followed
    assert not Freezing(learner, on=False).layers
