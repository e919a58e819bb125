"""A quantized network evaluated in float64: what its codes and scales mean, nearly exactly.

torch's float32 evaluation of the same graph rounds every sum; with activations close to the middle
between two codes it then decides by its own rounding error. float64 leaves next to none.
"""

from typing import Any

import numpy as np
import torch
from torch import fx

from mpsearch.graph.layers import packet
from mpsearch.graph.network import copy_graph
from mpsearch.graph.tensors import set_tensor, tensor_nodes
from mpsearch.quantization.quantized import QuantizedNetwork


class Float64Reference:
    """Calls like the quantized network; outputs are float64."""

    def __init__(self, quantized: QuantizedNetwork) -> None:
        self.graph = copy_graph(quantized.graph)
        for _, name, tensor in list(tensor_nodes(self.graph)):
            if tensor.is_floating_point():
                set_tensor(self.graph, name, tensor.double())
        for layer in quantized.source.layers:
            integers = quantized.layers[layer.name]
            assert integers.weight is not None
            _, restore = quantized.source.weight_rows(layer)
            rows = integers.weight.dequantize(torch.float64)
            set_tensor(self.graph, layer.weight_name, restore(rows))
            if integers.bias_codes is not None:
                bias = integers.bias_codes.double() * integers.weight.bias_steps(
                    integers.activation.scale
                )
                set_tensor(self.graph, layer.bias_name, bias)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            outputs = _Exact(self.graph).run(
                *(x.double() if x.is_floating_point() else x for x in inputs)
            )
        assert isinstance(outputs, torch.Tensor)
        return outputs


class _Exact(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        if packet(n) != "fake_quantize_per_tensor_affine":
            return super().run_node(n)
        (x, scale, zero_point, low, high), _ = self.fetch_args_kwargs_from_env(n)
        assert isinstance(x, torch.Tensor)
        # torch multiplies by the reciprocal in float32: that product defines the code.
        codes = torch.round(x * float(np.float32(1) / np.float32(scale))) + zero_point
        return (codes.clamp(low, high) - zero_point) * scale
