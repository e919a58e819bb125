"""Random integer graphs whose tensors share memory: sums at scales of their own, few bits.

They are put together step by step, without a network: what torch takes to export one would take
longer than all kernels together.
"""

import random
from dataclasses import dataclass, field
from math import prod
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from mpsearch.integer.arithmetic import affine
from mpsearch.integer.fixed_point import Integers, rescale_of
from mpsearch.integer.graph import (
    Clamp,
    Concatenate,
    Convolution,
    IntegerGraph,
    IntegerInput,
    IntegerTensor,
    Linear,
    MaxPool,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Shape,
    Slice,
    Step,
    Weights,
    reciprocal,
)
from mpsearch.quantization.quantized import QuantizedNetwork

BITS = (2, 3, 4, 2, 3, 4, 5, 8, 16)


@dataclass
class TightGraph:
    """Steps so far; every tensor that nothing reads is an output in the end."""

    source: random.Random
    numbers: np.random.Generator
    inputs: list[IntegerInput] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    layers: dict[str, Any] = field(default_factory=dict)

    def tensor(self, shape: Shape, bits: int, signed: bool = False) -> IntegerTensor:
        """A tensor with a name, a scale and a zero point of its own."""
        zero = 0 if signed else self.source.randrange(1 << bits)
        scale = float(np.float32(self.source.uniform(0.5, 2)))
        return IntegerTensor(
            f"t{len(self.steps) + len(self.inputs)}", shape, bits, signed, scale, zero
        )

    def enter(self, shape: Shape, bits: int) -> IntegerTensor:
        """Codes that come in."""
        tensor = self.tensor(shape, bits)
        self.inputs.append(IntegerInput(len(self.inputs), tensor))
        return tensor

    def add(self, step: Step) -> IntegerTensor:
        """The step's output."""
        self.steps.append(step)
        return step.output

    def layer(
        self, x: IntegerTensor, outputs: int, bits: int, signed: bool, kernel: int = 1,
        stride: int = 1, groups: int = 1,
    ) -> IntegerTensor:  # fmt: skip
        """A convolution of an image, or a linear layer of rows, whose results spread over the
        range of its output."""
        image = len(x.shape) == 3
        w_bits = self.source.choice((2, 3, 4, 6, 8, 8, 8, 16))
        inputs = x.shape[0] // groups if image else x.shape[-1]
        shape = (outputs, inputs, kernel, kernel) if image else (outputs, inputs)
        most = (1 << (w_bits - 1)) - 1
        codes = self.numbers.integers(-most, most + 1, shape).astype(np.int16)
        spread = most * max(x.zero_point, x.high - x.zero_point) * np.sqrt(prod(shape[1:])) / 3
        limit = int(min(spread, 2**30)) + 1
        bias = self.numbers.integers(-limit, limit + 1, outputs).astype(np.int32)
        pads = kernel // 2
        size = tuple((n + 2 * pads - kernel) // stride + 1 for n in x.shape[1:])
        output = self.tensor((outputs, *size) if image else (*x.shape[:-1], outputs), bits, signed)
        scales = self.numbers.uniform(0.3, 1, outputs) * (output.high - output.low) / spread
        scales = (scales / 2 * output.scale / x.scale).astype(np.float32)
        reach = max(x.zero_point, x.high - x.zero_point)
        sums = np.abs(codes.astype(np.int64)).reshape(outputs, -1).sum(axis=1) * reach
        bound = int((sums + np.abs(bias.astype(np.int64))).max())
        factors = scales.astype(np.float64) * x.scale * reciprocal(output)
        name = f"layer{len(self.layers)}"
        weight = SimpleNamespace(channel_scales=lambda: torch.from_numpy(scales))
        self.layers[name] = SimpleNamespace(weight=weight, bias_codes=bias)
        low, high = self.ends(output)
        common: dict[str, Any] = {
            "sources": (x.name,), "output": output, "low": low, "high": high,
            "weights": Weights(name, w_bits, codes, bias, x.zero_point, bound),
            "rescale": rescale_of(factors, pre_shift=max(0, bound.bit_length() - 31)),
        }  # fmt: skip
        if not image:
            return self.add(Linear(**common))
        common |= {"stride": (stride, stride), "padding": (pads,) * 4, "dilation": (1, 1)}
        return self.add(Convolution(**common, groups=groups))

    def ends(self, output: IntegerTensor) -> tuple[int, int]:
        """What a step clips to: the whole range, or what a ReLU leaves."""
        low = output.low if self.source.random() < 0.5 else output.zero_point
        return low, output.high

    def sum(self, a: IntegerTensor, b: IntegerTensor, bits: int, signed: bool) -> IntegerTensor:
        """Two tensors of one shape, each with a factor."""
        output = self.tensor(a.shape, bits, signed)
        factors = [
            np.array(self.source.choice((-1, 1)) * (output.high - output.low) * output.scale
                     / (t.high - t.low) / t.scale / 1.5)
            for t in (a, b)
        ]  # fmt: skip
        step = affine([a, b], factors, np.array(output.high * output.scale / 3), output)
        return self.add(step)

    def requantize(self, x: IntegerTensor, bits: int) -> IntegerTensor:
        """Signed numbers as codes."""
        output = self.tensor(x.shape, bits)
        factor = rescale_of(np.array(output.high / x.high))
        return self.add(Requantize((x.name,), output, factor, *self.ends(output)))

    def like(self, x: IntegerTensor, shape: Shape | None = None) -> IntegerTensor:
        """For what only moves or clips codes."""
        return IntegerTensor(
            f"t{len(self.steps) + len(self.inputs)}", x.shape if shape is None else shape,
            x.bits, x.signed, x.scale, x.zero_point,
        )  # fmt: skip

    def moved(self, x: IntegerTensor) -> IntegerTensor:
        """An image that is pooled, clipped, cut, padded, or put beside itself."""
        names, (channels, height, width) = (x.name,), x.shape
        kind = self.source.choice(("pool", "pool", "clip", "cut", "channels", "pad", "beside"))
        if kind == "clip":
            return self.add(Clamp(names, self.like(x), x.low + 1, x.high - 1))
        if kind == "cut":
            output = self.like(x, (channels, height - 1, width))
            return self.add(Slice(names, output, 1, 1, height, 1))
        if kind == "channels" and channels > 2:
            output = self.like(x, (channels - 2, height, width))
            return self.add(Slice(names, output, 0, 2, channels, 1))
        if kind == "pad":
            output = self.like(x, (channels, height, width + 1))
            return self.add(Pad(names, output, ((0, 0), (1, -1), (0, 1)), x.zero_point))
        if kind == "beside":
            output = self.like(x, (2 * channels, height, width))
            return self.add(Concatenate((x.name, x.name), output, 0))
        kernel, stride = self.source.choice((2, 3)), self.source.choice((1, 2, 2))
        size = tuple((n + 2 - kernel) // stride + 1 for n in (height, width))
        output = self.like(x, (channels, *size))
        return self.add(MaxPool(names, output, (kernel,) * 2, (stride,) * 2, (1, 1), (1, 1)))

    def images(self, channels: int) -> None:
        """A chain of layers with sums, from an image to a vector."""
        pick = self.source.choice
        shape = (pick((6, 7)), pick((5, 8)))
        if pick((True, False)):
            x = self.enter((pick((1, 3, channels)), *shape), pick((4, 8)))
        else:  # channels that already lie innermost
            entry = self.enter((*shape, pick((2, channels))), pick((4, 8)))
            output = self.like(entry, (entry.shape[2], *shape))
            x = self.add(Permute((entry.name,), output, (2, 0, 1)))
        x = self.layer(x, channels, pick(BITS), False, kernel=pick((1, 3)))
        for _ in range(4):
            kind = pick(("sum", "sum", "two", "chain", "move", "wide"))
            channels = x.shape[0]
            groups = pick([g for g in (1, 1, 2, 3, channels) if channels % g == 0])
            how: Any = {"kernel": pick((1, 3)), "groups": groups}
            if kind == "sum":
                own = self.layer(x, channels, 16, True, **how)
                x = self.sum(*((x, own) if pick((True, False)) else (own, x)), pick(BITS), False)
            elif kind == "two":  # the addend dies in the sum, whose bits it may have
                bits = pick(BITS)
                other = self.layer(x, channels, bits, False, kernel=pick((1, 3)))
                own = self.layer(x, channels, 16, True, **how)
                x = self.sum(other, own, bits if pick((True, False)) else pick(BITS), False)
            elif kind == "chain":
                more = groups * pick((1, 2, 3))
                outputs = channels if groups == channels else more
                x = self.layer(x, outputs, pick(BITS), False, stride=pick((1, 2)), **how)
            elif kind == "wide":  # what two readers with different bits read
                x = self.requantize(self.layer(x, channels, 16, True, **how), pick(BITS))
            elif min(x.shape[1:]) > 1:
                x = self.moved(x)
        flat = self.add(Reshape((x.name,), self.like(x, (prod(x.shape),))))
        self.layer(flat, 3, 16, True)

    def rows(self, rows: int, length: int) -> None:
        """Linear layers over rows of a vector."""
        pick = self.source.choice
        x = self.enter((rows * length,), pick((2, 4, 8)))
        x = self.add(Reshape((x.name,), self.like(x, (rows, length))))
        for _ in range(2):
            y = self.layer(x, length, pick(BITS), False)
            x = self.sum(y, self.layer(y, length, 16, True), pick(BITS), False)
        self.layer(x, 5, 16, True)

    def graph(self) -> IntegerGraph:
        """All tensors that nothing reads, as 16-bit numbers one after the other."""
        read = {name for step in self.steps for name in step.sources}
        parts = [step.output for step in self.steps if step.output.name not in read]
        flat = [self.add(Reshape((x.name,), self.like(x, (prod(x.shape),)))) for x in parts]
        count = sum(prod(x.shape) for x in flat)
        output = self.like(flat[0], (count,))
        self.add(Concatenate(tuple(x.name for x in flat), output, 0))
        return IntegerGraph(tuple(self.inputs), tuple(self.steps), output, 1.0)


def build_tight(seed: int, branches: int = 18) -> tuple[IntegerGraph, QuantizedNetwork]:
    """A graph, and what the export asks of the network that it stands for."""
    source = random.Random(seed)
    made = TightGraph(source, np.random.default_rng(seed))
    channels = (2, 3, 4, 6, 8, 12, 16, 18, 20, 24, 32, 40)
    for place in range(branches):
        if place % 6 == 5:
            made.rows(source.choice((1, 3)), source.choice((8, 10, 64)))
        else:
            made.images(channels[place % len(channels)])
    graph = made.graph()
    shapes = [(1, *entry.tensor.shape) for entry in made.inputs]
    network = SimpleNamespace(layers=made.layers, source=SimpleNamespace(input_shapes=shapes))
    return graph, cast(QuantizedNetwork, network)


def random_codes(graph: IntegerGraph, samples: int, seed: int) -> list[Integers]:
    """Codes for every entry, [samples, …]."""
    numbers = np.random.default_rng(seed)
    return [
        numbers.integers(0, e.tensor.high + 1, (samples, *e.tensor.shape)).astype(e.tensor.dtype)
        for e in graph.inputs
    ]
