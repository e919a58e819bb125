"""Steps that are affine per channel go into the layers, exactly; what is left is one batch norm."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network


class Steps(nn.Module):
    """`body`, with per-channel numbers, a convolution and a linear layer at hand."""

    mean: torch.Tensor
    std: torch.Tensor
    row: torch.Tensor

    def __init__(self, body: Callable[["Steps", torch.Tensor], torch.Tensor], **conv: Any) -> None:
        super().__init__()
        self.body = body
        self.norm, self.behind = nn.BatchNorm2d(4), nn.BatchNorm1d(4)
        for norm in (self.norm, self.behind):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.get_buffer("running_mean").normal_()
            norm.get_buffer("running_var").uniform_(0.5, 2)
        self.conv, self.head = nn.Conv2d(4, 4, **{"kernel_size": 3, **conv}), nn.Linear(4, 3)
        self.wide, self.up = nn.Linear(4 * 36, 4), nn.ConvTranspose2d(4, 6, 2, groups=2)
        self.register_buffer("mean", torch.rand(4, 1, 1))
        self.register_buffer("std", torch.rand(1, 4, 1, 1) + 0.5)
        self.register_buffer("row", torch.randn(1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)

    def rest(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(functional.relu(x).mean((2, 3)))


VALID: dict[str, Any] = {}
SAME, GROUPS = {"padding": 1}, {"groups": 2}
# What is done, the convolution's options, and the operators that are left beside the layers.
CASES: dict[
    str, tuple[Callable[[Steps, torch.Tensor], torch.Tensor], dict[str, Any], list[str]]
] = {
    "normalized": (lambda s, x: s.rest(s.conv((x - s.mean) / s.std)), VALID, []),
    "normalized, groups": (lambda s, x: s.rest(s.conv((x - s.mean) / s.std)), GROUPS, []),
    "norm first": (lambda s, x: s.rest(s.conv(s.norm(x))), VALID, []),
    "norm and a 1x1": (lambda s, x: s.rest(s.conv(s.norm(x))), {"kernel_size": 1}, []),
    "bytes": (lambda s, x: s.rest(s.conv(functional.relu(x / 255))), SAME, []),
    "bytes through zeros and a pool": (
        lambda s, x: s.rest(s.conv(functional.max_pool2d(functional.pad(x / 255, (1,) * 4), 2))),
        SAME, ["pad", "max_pool2d"],
    ),
    "own padding": (
        lambda s, x: s.rest(s.conv(functional.pad(s.norm(x), (1,) * 4, "reflect"))), VALID, ["pad"]
    ),
    "behind a convolution": (
        lambda s, x: s.rest(s.norm(2 - (s.conv(x) * s.std + s.mean) * 3) / s.std), SAME, []
    ),
    "behind and before": (lambda s, x: s.head(s.behind(s.conv(x).mean((2, 3)))), SAME, []),
    "means": (lambda s, x: s.head(s.norm(functional.relu(x)).mean((2, 3))), VALID, []),
    "flattened": (lambda s, x: s.wide(s.norm(x).flatten(1)), VALID, ["flatten"]),
    "row": (lambda s, x: functional.linear(x.mean((2, 3)), s.head.weight) + s.row, SAME, []),
    "sequence": (lambda s, x: s.head(x.flatten(2).transpose(1, 2) * 2 + 1) / 7, VALID,
                 ["flatten", "transpose"]),
    "a number for each sample": (
        lambda s, x: s.head(x.mean((2, 3))).sum(1) * 2 + 1, VALID, ["sum"],
    ),
    "transposed": (lambda s, x: s.up(x * s.std) - 0.5, VALID, []),
    # not exactly, so one norm remains
    "zeros around": (lambda s, x: s.rest(s.conv(s.norm(x))), SAME, ["batch_norm"]),
    "input, zeros around": (
        lambda s, x: s.rest(s.conv((x + 0.5) * 2 - 1)), SAME, ["batch_norm"]
    ),
    "chain behind relu": (
        lambda s, x: s.rest(s.conv(functional.relu((s.norm(functional.relu(x)) * s.std) - s.mean))),
        VALID, ["batch_norm"],
    ),
    "concatenated": (
        lambda s, x: s.rest(s.conv(functional.relu(s.norm(torch.cat((x[:, :2], x[:, 2:]), 1))))),
        VALID, ["cat", "batch_norm"],
    ),
    "transposed, shifted": (lambda s, x: s.up(x * s.std - s.mean), VALID, ["batch_norm"]),
    "read twice": (
        lambda s, x: s.rest(s.conv(y := s.norm(x))) + s.rest(y), VALID, ["batch_norm"]
    ),
    "the layer is read twice": (
        lambda s, x: s.rest((y := s.conv(x)) - s.mean) + s.rest(y), VALID, ["batch_norm"]
    ),
    "the weight is used twice": (
        lambda s, x: s.rest(s.conv(s.norm(x))) + s.rest(s.conv(x)), VALID, ["batch_norm"]
    ),
    "numbers inside stay": (
        lambda s, x: s.rest(torch.sigmoid(s.conv(x)) * 2 - 0.5), VALID, ["sigmoid", "mul", "sub"]
    ),
}  # fmt: skip
PLAIN = {"relu", "mean", "add", "mul", "slice"}


@pytest.mark.parametrize("name", CASES)
def test_steps_fold_and_the_outputs_stay(name: str) -> None:
    body, conv, left = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Steps(body, **conv).eval()
        x = torch.randn(3, 4, 6, 6)
    network = Network.from_module(model, (x,))
    nodes = [node for node in network.graph.graph.nodes if node.op == "call_function"]
    layers = {place for layer in network.layers for place in layer.nodes}
    found = [packet(node) for node in nodes if node.name not in layers]
    ignored = PLAIN - set(left)
    assert [name for name in found if name not in ignored] == left
    unfolded = {name.removesuffix(".weight") for name, _ in model.named_parameters()}
    assert {layer.name for layer in network.layers} <= unfolded
    with torch.no_grad():
        wanted = model.double()(x.double())
        difference = (network(x) - wanted).abs().max() / wanted.abs().max()
    assert difference < 2e-6
    for node in nodes:
        if packet(node) == "batch_norm":
            assert node.args[5] is False
            assert node.target is torch.ops.aten.batch_norm.default
