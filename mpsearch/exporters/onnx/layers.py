"""Convolutions and linear layers: integer constants, DequantizeLinear, the float operator."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import fx

from mpsearch.exporters.onnx.graph_builder import (
    GraphBuilder,
    convolution_pads,
    shape,
    spread,
    stored_bits,
    unsupported,
)
from mpsearch.graph.layers import Layer, argument, groups, is_transposed, packet
from mpsearch.integer.operators import MOVES
from mpsearch.quantization.quantized import QuantizedLayer, QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer
from mpsearch.tables.targets import ONNX_BITS


@dataclass
class LayerWriter:
    """Writes the layers of one network; constants of a layer that is used twice are stored once.

    Every use has a DequantizeLinear of its own, as runtimes expect. Constants are LAYER/weight/…,
    LAYER/weight_by_input/… (for MatMul) and LAYER/bias/…; NODE/weight, NODE/bias, NODE/input and
    NODE/input/… belong to a use. No name of a layer or node has a slash.
    """

    builder: GraphBuilder
    network: QuantizedNetwork
    quantizers: Mapping[str, ActivationQuantizer]
    inputs: dict[tuple[str, ActivationQuantizer], str] = field(default_factory=dict)

    def write(self, node: fx.Node, layer: Layer, source: str) -> str:
        """The node's output tensor; `source` is what it reads, in float."""
        quantized = self.network.layers[layer.name]
        read = self.quantized(node.name, source, quantized.activation)
        weight, bias = self.constants(node, layer, quantized)
        operands = [read, weight, *([bias] if bias else [])]
        if packet(node) == "linear":
            return self.linear(node, operands)
        return self.convolution(node, layer, operands)

    def quantized(self, name: str, source: str, quantizer: ActivationQuantizer) -> str:
        """`source` quantized and dequantized again.

        QuantizeLinear saturates at the ends of its type; narrower codes are clipped before it.
        """
        if quantizer.bits == FLOAT_BITS:
            return source
        key = (source, quantizer)
        if key in self.inputs:
            return self.inputs[key]
        build, read = self.builder, source
        if quantizer.bits not in ONNX_BITS:
            largest = (2**quantizer.bits - 1 - quantizer.zero_point) * quantizer.scale
            read = build.clamp(read, None, largest, f"{name}/input/clipped")
        scale = build.real(f"{name}/input/scale", quantizer.scale)
        zero = build.codes(
            f"{name}/input/zero_point", np.array(quantizer.zero_point), quantizer.bits, False
        )
        codes = build.add("QuantizeLinear", [read, scale, zero], f"{name}/input/codes")
        self.inputs[key] = build.add("DequantizeLinear", [codes, scale, zero], f"{name}/input")
        return self.inputs[key]

    def quantized_early(self, node: fx.Node, sources: list[str]) -> list[str]:
        """The sources of a concatenation with QDQ pairs, where its readers have one quantizer.

        Quantizing twice is quantizing once, and onnxruntime has integer kernels only between pairs;
        it moves them back through pooling by itself, but not through a concatenation.
        """
        quantizer = self.reader(node)
        if quantizer is None or stored_bits(quantizer.bits) != 8:
            return sources
        return [
            self.quantized(f"{node.name}/{place}", source, quantizer)
            for place, source in enumerate(sources)
        ]

    def reader(self, node: fx.Node) -> ActivationQuantizer | None:
        """The one quantizer through which all users read, behind what only moves elements."""
        found = {
            self.quantizers[user.name]
            if user.name in self.quantizers
            else self.reader(user)
            if packet(user) in MOVES
            else None
            for user in node.users
        }
        only = found.pop() if len(found) == 1 else None
        return None if only is None or only.bits == FLOAT_BITS else only

    def constants(self, node: fx.Node, layer: Layer, quantized: QuantizedLayer) -> tuple[str, str]:
        """(weight, bias) as real tensors; the bias is empty where there is none."""
        build, name = self.builder, layer.name
        own = f"{name}/weight{'_by_input' if over_positions(node) else ''}"
        bias = self.network.source.bias(layer)
        if quantized.weight is None:
            weight = _array(self.network.source.weight(layer))
            read = build.array(f"{own}/values", _in_order(node, weight))
        else:
            _, restore = self.network.source.weight_rows(layer)
            codes = _in_order(node, restore(quantized.weight.codes).cpu().numpy())
            stored = build.codes(f"{own}/codes", codes, quantized.choice.w_bits, True)
            scales = build.array(f"{own}/scales", _array(quantized.weight.channel_scales()))
            zero = build.codes(
                f"{own}/zero_points",
                np.zeros(layer.channels, dtype=np.int8),
                quantized.choice.w_bits,
                True,
            )
            read = build.add(
                "DequantizeLinear",
                [stored, scales, zero],
                f"{node.name}/weight",
                axis=_channels_axis(node),
            )
        if bias is None:
            return read, ""
        if quantized.bias_codes is None or quantized.weight is None:
            return read, build.array(f"{name}/bias/values", _array(bias))
        steps = quantized.weight.bias_steps(quantized.activation.scale)
        stored = build.array(
            f"{name}/bias/codes", quantized.bias_codes.cpu().numpy().astype(np.int32)
        )
        scales = build.array(f"{name}/bias/scales", _array(steps))
        return read, build.add("DequantizeLinear", [stored, scales], f"{node.name}/bias", axis=0)

    def linear(self, node: fx.Node, operands: list[str]) -> str:
        """Gemm for one row per sample, MatMul and Add over positions."""
        if not over_positions(node):
            return self.builder.add("Gemm", operands, node.name, transB=1)
        if len(operands) == 2:
            return self.builder.add("MatMul", operands, node.name)
        product = self.builder.add("MatMul", operands[:2], f"{node.name}/product")
        return self.builder.add("Add", [product, operands[2]], node.name)

    def convolution(self, node: fx.Node, layer: Layer, operands: list[str]) -> str:
        """Conv or ConvTranspose of any number of dimensions."""
        kernel = list(self.network.source.weight(layer).shape[2:])
        if shape(node)[2:] == () or len(shape(node)) != len(kernel) + 2:
            raise unsupported(node, "has no batch dimension")
        strides, dilations = (
            spread(argument(node, name), len(kernel)) for name in ("stride", "dilation")
        )
        common = {
            "kernel_shape": kernel,
            "strides": strides,
            "dilations": dilations,
            "group": groups(node),
            "pads": convolution_pads(node, kernel, dilations),
        }
        if not is_transposed(node):
            return self.builder.add("Conv", operands, node.name, **common)
        if groups(node) > 1:
            # the scales of [in, out/groups, …] lie along no single axis
            raise unsupported(node, "is transposed and has groups, which QDQ cannot describe")
        extra = spread(argument(node, "output_padding"), len(kernel))
        return self.builder.add(
            "ConvTranspose", operands, node.name, output_padding=extra, **common
        )


def over_positions(node: fx.Node) -> bool:
    """True for a linear layer that is applied at several positions of a sample."""
    return packet(node) == "linear" and len(shape(node)) > 2


def _in_order(node: fx.Node, weight: np.ndarray) -> np.ndarray:
    """MatMul reads [in, out], everything else torch's own layout."""
    return np.ascontiguousarray(weight.T if over_positions(node) else weight)


def _channels_axis(node: fx.Node) -> int:
    return 1 if over_positions(node) or is_transposed(node) else 0


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().to(torch.float32).numpy()
