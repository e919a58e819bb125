"""Convolutions and linear layers: integer constants, DequantizeLinear, the float operator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import fx

from mpsearch.exporters.onnx.call import Call, Tensor, Written
from mpsearch.exporters.onnx.graph_builder import (
    GraphBuilder,
    convolution_attributes,
    shape,
    stored_bits,
)
from mpsearch.graph.layers import EMBEDDING, Layer, groups, is_transposed, layer_input, packet
from mpsearch.integer.operators import MOVES
from mpsearch.quantization.quantized import QuantizedLayer, QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer, QuantizedWeight
from mpsearch.tables.stored_widths import ONNX_BITS


@dataclass
class LayerWriter:
    """Writes the layers of one network; constants of a layer that is used twice are stored once.

    Every use has a DequantizeLinear of its own, as runtimes expect. Constants are LAYER/weight/…,
    LAYER/weight_by_input/… (for MatMul) and LAYER/bias/…; NODE/weight, NODE/bias, NODE/input and
    NODE/input/… belong to a use, NODE/stored/… to what is stored. No name of a layer or node has a
    slash.
    """

    builder: GraphBuilder
    network: QuantizedNetwork
    quantizers: Mapping[str, ActivationQuantizer]
    inputs: dict[tuple[str, ActivationQuantizer], str] = field(default_factory=dict)
    domains: ClassVar[tuple[str, ...]] = ()
    """Of operators that are not ONNX's own."""

    def write(self, call: Call, layer: Layer) -> str:
        """The node's output tensor."""
        node, quantized = call.node, self.network.layers[layer.name]
        source = call.as_tensor(layer_input(node)).name
        if packet(node) == EMBEDDING:  # its input are indices
            weight, _ = self.constants(node, layer, quantized)
            return self.builder.add("Gather", [weight, source], node.name, axis=0)
        read = self.quantized(node.name, source, quantized.activation)
        weight, bias = self.constants(node, layer, quantized)
        operands = [read, weight, *([bias] if bias else [])]
        if packet(node) == "linear":
            return self.linear(node, operands)
        return self.convolution(call, layer, operands)

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
        result = build.add("DequantizeLinear", [codes, scale, zero], f"{name}/input")
        self.inputs[key] = self.inputs[result, quantizer] = result  # twice is once
        return result

    def stored(
        self, node: fx.Node, written: Written, quantizer: ActivationQuantizer | None
    ) -> Written:
        """What is read of a node that is stored in codes of its own."""
        if quantizer is None or not isinstance(written, Tensor):
            return written
        name = self.quantized(f"{node.name}/stored", written.name, quantizer)
        return Tensor(name, written.form)

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
        elif quantized.weight.group_size:
            read = self.in_groups(own, node, layer, quantized.choice.w_bits, quantized.weight)
        else:
            by_rows = is_transposed(node) and groups(node) > 1
            codes = quantized.weight.codes.cpu().numpy()
            if not by_rows:
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
                f"{node.name}/weight{'/rows' if by_rows else ''}",
                axis=0 if by_rows else _channels_axis(node),
            )
            if by_rows:
                read = self.in_layout(node, layer, read)
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

    def in_groups(
        self, own: str, node: fx.Node, layer: Layer, bits: int, weight: QuantizedWeight
    ) -> str:
        """Blocked dequantization, of opset 21: a scale for each `block_size` codes along an axis.

        A kernel's rows [out, n] are put into its shape behind it.
        """
        build = self.builder
        codes = _in_order(node, weight.codes.cpu().numpy())
        stored = build.codes(f"{own}/codes", codes, bits, True)
        scales = build.array(f"{own}/scales", _in_order(node, _array(weight.scales)))
        shape = tuple(self.network.source.weight(layer).shape)
        whole = len(shape) == 2
        read = build.add(
            "DequantizeLinear", [stored, scales], f"{node.name}/weight{'' if whole else '/rows'}",
            axis=0 if over_positions(node) else 1, block_size=weight.group_size,
        )  # fmt: skip
        if whole:
            return read
        if is_transposed(node):
            return self.in_layout(node, layer, read)
        kernel = build.whole(f"{layer.name}/weight/shape", shape)
        return build.add("Reshape", [read, kernel], f"{node.name}/weight")

    def in_layout(self, node: fx.Node, layer: Layer, rows: str) -> str:
        """[in, out/groups, …] of a transposed convolution from its output channels' rows.

        Where it is grouped, or its weights are, the scales of that layout lie along no single axis,
        so that its codes are stored by output channel and ordered behind DequantizeLinear, once,
        when a runtime loads the model.
        """
        build, count = self.builder, groups(node)
        inputs, outputs, *kernel = self.network.source.weight(layer).shape
        split = build.whole(
            f"{layer.name}/weight/split", (count, outputs, inputs // count, *kernel)
        )
        parts = build.add("Reshape", [rows, split], f"{node.name}/weight/split")
        order = [0, 2, 1, *range(3, 3 + len(kernel))]
        turned = build.add("Transpose", [parts], f"{node.name}/weight/turned", perm=order)
        whole = build.whole(f"{layer.name}/weight/shape", (inputs, outputs, *kernel))
        return build.add("Reshape", [turned, whole], f"{node.name}/weight")

    def linear(self, node: fx.Node, operands: list[str]) -> str:
        """Gemm for one row per sample, MatMul and Add over positions."""
        if not over_positions(node):
            return self.builder.add("Gemm", operands, node.name, transB=1)
        if len(operands) == 2:
            return self.builder.add("MatMul", operands, node.name)
        product = self.builder.add("MatMul", operands[:2], f"{node.name}/product")
        return self.builder.add("Add", [product, operands[2]], node.name)

    def convolution(self, call: Call, layer: Layer, operands: list[str]) -> str:
        """Conv or ConvTranspose of any number of dimensions, also without a batch dimension."""
        kernel = list(self.network.source.weight(layer).shape[2:])
        attributes = convolution_attributes(call.node, kernel)
        operator = "ConvTranspose" if is_transposed(call.node) else "Conv"
        if call.result.rank == len(kernel) + 2:
            return self.builder.add(operator, operands, call.node.name, **attributes)
        ahead = call.whole_list([0])
        image = call.add("Unsqueeze", [operands[0], ahead])
        made = call.add(operator, [image, *operands[1:]], **attributes)
        return self.builder.add("Squeeze", [made, ahead], call.node.name)


def over_positions(node: fx.Node) -> bool:
    """True for a linear layer that is applied at several positions of a sample."""
    return packet(node) == "linear" and len(shape(node)) != 2


def _in_order(node: fx.Node, weight: np.ndarray) -> np.ndarray:
    """MatMul reads [in, out], everything else torch's own layout."""
    return np.ascontiguousarray(weight.T if over_positions(node) else weight)


def _channels_axis(node: fx.Node) -> int:
    return 1 if over_positions(node) or is_transposed(node) else 0


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().to(torch.float32).numpy()
