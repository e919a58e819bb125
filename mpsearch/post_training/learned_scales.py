"""Learned scales: train what is few of a quantized network so that its outputs are FP32's.

Weight scales, biases and activation scales are trained together, by the error of the network's own
outputs on the calibration data, the codes of the weights fixed (the joint training of all degrees
of freedom of Finkelstein et al., "QFT: Post-training quantization via fast joint finetuning of all
degrees of freedom", arXiv 2212.02634, less the weights themselves). They are some thousands of
numbers, so that a few hundred samples without labels do not overfit them, as they do the rounding
of all weights (Li et al., "BRECQ", ICLR 2021, therefore reconstruct block by block; measured here,
that wins less: docs/quantization.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.graph.layers import EMBEDDING, Layer, packet
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import split_outputs
from mpsearch.post_training.layer_by_layer import Decision, channel_sums, has_own_bias
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    bias_codes,
    counts_bias,
    with_room_for_bias,
)
from mpsearch.quantization.quantizer import ActivationQuantizer, quantize_input

STEPS = 150
_BATCH = 32
_LEARNING_RATE = 0.01  # of a bias in its channel's size, of an activation scale's logarithm
_WEIGHT_RATE = 0.005  # of a weight scale's logarithm
_FINE = 8  # activation bits from which on ranges stay: their steps cost nothing that counts


def learn_scales(
    network: Network,
    layers: Mapping[str, QuantizedLayer],
    exact: Sequence[torch.Tensor],
    data: Data,
    seed: int,
) -> dict[str, Decision]:
    """Layers with learned scales and biases, and those biases in float; the others are left out.

    Minimises Σ over outputs of E‖f̂ - f‖² / E‖f‖² by 150 steps of Adam on batches of 32 samples,
    drawn by `seed`. `exact` are the float network's outputs, batch by batch; `network` has the
    biases to begin with. Weight scales stay as they are for embedding tables and above 8 bits,
    activation scales from 8 bits on, zero points always; biases train where no other layer reads
    them. One scale for all channels stays one.
    """
    device = network.device
    targets = torch.cat(list(exact))
    sizes = _sizes(network, tuple(x[:_BATCH].to(device) for x in data.inputs))
    trained = {
        layer.name: _trained(network, layer, layers[layer.name], sizes) for layer in network.layers
    }
    groups = [group for layer in trained.values() for group in layer.groups()]
    if not groups:
        return {}
    run = _Run(network, trained)
    signal = {
        output: float(part.double().square().mean())
        for output, part in split_outputs(network.outputs, targets).items()
    }
    optimizer = torch.optim.Adam(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(seed)
    scale = None
    for step in range(STEPS):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        rows = torch.randperm(len(data), generator=generator)[:_BATCH]
        outputs = run.run(*(x[rows].to(device) for x in data.inputs))
        difference = outputs - targets[rows.to(targets.device)]
        parts = split_outputs(network.outputs, difference).items()
        loss = torch.stack([p.square().mean() / (signal[name] or 1.0) for name, p in parts]).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            return {}
        scale = scale or value or 1.0  # gradients of any size look alike to Adam but for its ε
        optimizer.zero_grad()
        (loss / scale).backward()
        optimizer.step()
    with torch.no_grad():
        return {name: layer.decision() for name, layer in trained.items() if layer.groups()}


@dataclass(frozen=True)
class _Trained:
    """A layer's integers and what is learned of them; None for what stays.

    `gain` and `range` are logarithms of what scales are multiplied with; `shift` is added to the
    bias in units of `size`, the root mean square of its channel.
    """

    network: Network
    layer: Layer
    begun: QuantizedLayer
    gain: torch.Tensor | None
    range: torch.Tensor | None
    shift: torch.Tensor | None
    size: torch.Tensor | None

    def groups(self) -> list[dict[str, Any]]:
        """For the optimiser."""
        rates = (
            (self.gain, _WEIGHT_RATE),
            (self.range, _LEARNING_RATE),
            (self.shift, _LEARNING_RATE),
        )
        return [{"params": [p], "lr": rate} for p, rate in rates if p is not None]

    def scales(self) -> torch.Tensor:
        assert self.begun.weight is not None
        found = self.begun.weight.scales
        return found if self.gain is None else found * self.gain.exp()

    def weight(self) -> torch.Tensor:
        """In the layer's own layout."""
        if self.begun.weight is None:
            return self.network.weight(self.layer)
        _, restore = self.network.weight_rows(self.layer)
        weight = restore(replace(self.begun.weight, scales=self.scales()).dequantize())
        assert isinstance(weight, torch.Tensor)
        return weight

    def bias(self) -> torch.Tensor | None:
        bias = self.network.bias(self.layer)
        if has_own_bias(self.network, self.layer) and self.begun.bias_codes is not None:
            bias = self.begun.bias()  # of a shared one, each layer has codes of its own
        if bias is None or self.shift is None or self.size is None:
            return bias
        return bias + self.size * self.shift

    def input(self, x: torch.Tensor) -> torch.Tensor:
        """The fake-quantized input."""
        begun = self.begun.activation
        if self.range is None:
            return begun.fake_quantize(x)
        count = math.prod(x.shape[1:])
        step = begun.scale * self.range.exp()
        return quantize_input(x, step, begun.zero_point, begun.bits, count)

    def decision(self) -> Decision:
        """The integers that are nearest to what was learned."""
        choice, weight, activation = self.begun.choice, self.begun.weight, self.begun.activation
        bias = self.bias()
        if self.range is not None:
            step = float(activation.scale * self.range.exp())
            activation = ActivationQuantizer(activation.bits, step, activation.zero_point)
        if weight is None:
            return QuantizedLayer(choice, None, None, activation), bias
        weight = replace(weight, scales=self.scales().clone())
        if bias is None or not counts_bias(choice, weight):
            return QuantizedLayer(choice, weight, None, activation), bias
        rows = weight.dequantize()
        weight = with_room_for_bias(rows, weight, choice.w_bits, bias, activation.scale)
        codes = bias_codes(bias, weight, activation.scale)
        return QuantizedLayer(choice, weight, codes, activation), bias


def _trained(
    network: Network, layer: Layer, begun: QuantizedLayer, sizes: Mapping[str, torch.Tensor]
) -> _Trained:
    gain = range_ = shift = None
    nodes = {node.name: node for node in network.graph.graph.nodes}
    embeds = any(packet(nodes[name]) == EMBEDDING for name in layer.nodes)
    reads = any(packet(nodes[name]) != EMBEDDING for name in layer.nodes)
    bias, weight = network.bias(layer), begun.weight
    if weight is not None and not embeds and begun.choice.w_bits <= 8:
        gain = torch.zeros_like(weight.scales[:1] if weight.has_one_scale else weight.scales)
    if reads and begun.activation.bits < _FINE:
        range_ = torch.zeros((), device=network.weight(layer).device)
    if weight is not None and bias is not None and reads and has_own_bias(network, layer):
        shift = torch.zeros_like(bias)
    for parameter in (gain, range_, shift):
        if parameter is not None:
            parameter.requires_grad_()
    return _Trained(network, layer, begun, gain, range_, shift, sizes.get(layer.name))


class _Run(fx.Interpreter):
    """The network with its trained layers in place of the float ones."""

    def __init__(self, network: Network, trained: Mapping[str, _Trained]) -> None:
        super().__init__(network.graph)
        self.trained = {
            node: trained[layer.name] for layer in network.layers for node in layer.nodes
        }

    def run_node(self, n: fx.Node) -> object:
        trained = self.trained.get(n.name)
        if trained is None:
            return super().run_node(n)
        (args, kwargs), weight = self.fetch_args_kwargs_from_env(n), trained.weight()
        if packet(n) == EMBEDDING:
            return n.target(weight, *args[1:], **kwargs)  # type: ignore[operator]
        args = (trained.input(args[0]), weight, *args[2:])
        if len(args) > 2 and args[2] is not None:
            args = (*args[:2], trained.bias(), *args[3:])
        return n.target(*args, **kwargs)  # type: ignore[operator]


def _sizes(network: Network, inputs: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """Root mean square of every channel of the layers with a bias, on a few samples."""
    layer_of = {name: layer for layer in network.layers for name in layer.nodes}
    sizes: dict[str, torch.Tensor] = {}

    class Sizes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            layer = layer_of.get(n.name)
            if layer is not None and layer.bias_name and packet(n) != EMBEDDING:
                assert isinstance(value, torch.Tensor)
                mean = channel_sums(n, value.square()) * (layer.channels / value.numel())
                sizes.setdefault(layer.name, mean.sqrt())
            return value

    with torch.no_grad():
        Sizes(network.graph).run(*inputs)
    return sizes
