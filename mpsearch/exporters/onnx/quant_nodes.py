"""Layers in QONNX form: a `Quant` node of any bits where the network quantizes.

`Quant(x, scale, zero point, bits) = (clip(round(x / scale + zero point)) - zero point) · scale`
(the domain `qonnx.custom_op.general`; Pappalardo et al., arXiv 2206.07527). Weights are stored as
real numbers that their node leaves as they are, biases as real numbers without one.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import fx

from mpsearch.exporters.onnx.layers import LayerWriter, over_positions
from mpsearch.graph.layers import Layer, groups, is_transposed
from mpsearch.quantization.quantized import QuantizedLayer
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer

DOMAIN = "qonnx.custom_op.general"


class QuantWriter(LayerWriter):
    """`LayerWriter` with Quant nodes in place of integers and QDQ pairs."""

    domains: ClassVar[tuple[str, ...]] = (DOMAIN,)

    def quantized(self, name: str, source: str, quantizer: ActivationQuantizer) -> str:
        """`source` through a Quant of unsigned codes with a zero point."""
        if quantizer.bits == FLOAT_BITS:
            return source
        key = (source, quantizer)
        if key not in self.inputs:
            scale = np.array(quantizer.scale, dtype=np.float32)
            result = self._quant(
                source, f"{name}/input", scale, quantizer.zero_point, quantizer.bits, False
            )
            self.inputs[key] = self.inputs[result, quantizer] = result  # twice is once
        return self.inputs[key]

    def constants(self, node: fx.Node, layer: Layer, quantized: QuantizedLayer) -> tuple[str, str]:
        """(weight, bias) as real tensors; the bias is empty where there is none."""
        network, turned, name = self.network.source, over_positions(node), layer.name
        by_rows = is_transposed(node) and groups(node) > 1  # see `in_layout`
        own = f"{name}/weight{'_by_input' if turned else ''}/values"
        if quantized.weight is None:
            values = _array(network.weight(layer))
            read = self.builder.array(own, values.T if turned else values)
        else:
            codes = quantized.weight.codes
            _, restore = network.weight_rows(layer)
            values = _array(codes if by_rows else restore(codes))
            values = np.ascontiguousarray(values.T) if turned else values
            scales = _array(quantized.weight.channel_scales())
            axis = int(not by_rows and (turned or is_transposed(node)))
            scales = scales.reshape([-1 if d == axis else 1 for d in range(values.ndim)])
            read = self._quant(
                self.builder.array(own, values * scales),
                f"{node.name}/weight{'/rows' if by_rows else ''}",
                scales, 0, quantized.choice.w_bits, True,
            )  # fmt: skip
            read = self.in_layout(node, layer, read) if by_rows else read
        bias = network.bias(layer)
        if bias is None:
            return read, ""
        stood_for = quantized.bias()
        bias = bias if stood_for is None else stood_for
        return read, self.builder.array(f"{name}/bias/values", _array(bias))

    def _quant(
        self, source: str, result: str, scale: np.ndarray, zero: int, bits: int, signed: bool
    ) -> str:
        operands = {"scale": scale, "zero_point": np.array(zero), "bits": np.array(bits)}
        inputs = [
            self.builder.array(f"{result}/{key}", value.astype(np.float32))
            for key, value in operands.items()
        ]
        return self.builder.add(
            "Quant", [source, *inputs], result, domain=DOMAIN, signed=int(signed), narrow=0,
            rounding_mode="ROUND",
        )  # fmt: skip


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().to(torch.float32).numpy()
