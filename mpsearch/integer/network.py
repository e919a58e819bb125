"""`IntegerNetwork`: floats in, floats out, integers between; it can stand for the network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import IntegerGraph, IntegerTensor
from mpsearch.integer.inference import run
from mpsearch.integer.lowering import lower
from mpsearch.quantization.quantized import QuantizedNetwork


@dataclass(frozen=True)
class IntegerNetwork:
    """Calls like the quantized network: inputs [N, …] -> outputs [N, …], float32 logits.

    An output of arg-max is int64. The border is the only place with floating point.
    """

    graph: IntegerGraph
    exact_blas: bool = True

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        codes = [quantize_input(inputs[e.index].numpy(), e.tensor) for e in self.graph.inputs]
        output = self.graph.output
        values = run(self.graph, *codes, exact_blas=self.exact_blas)
        if self.graph.gives_classes:
            return torch.from_numpy(values.astype(np.int64))
        real = (values.astype(np.float64) - output.zero_point) * output.scale
        return torch.from_numpy(real.astype(np.float32))


def integer_network(
    quantized: QuantizedNetwork, calibration: Data, batch_size: int = 64, wide_bits: int = 32
) -> IntegerNetwork:
    """Lower `quantized`, with ranges of wide tensors from `calibration`. Raises as `lower`.

    Integers are computed on the CPU, wherever `quantized` is.
    """
    quantized = quantized.to(torch.device("cpu"))
    return IntegerNetwork(lower(quantized, calibration, batch_size, wide_bits))


def ranges_from(calibration: Data | None) -> Data:
    """`calibration` itself; InputError where a command found none."""
    if calibration is None:
        raise InputError(
            "integers need data for the ranges of sums and outputs; give --calibration, or --fp32 "
            "with a model that carries a sample"
        )
    return calibration


def quantize_input(x: np.ndarray, tensor: IntegerTensor) -> Integers:
    """Codes of real inputs, as torch's fake-quantizer has them.

    round(float32(x) · float32(1/scale)) + zero point for codes, in float64 with the exact scale
    for a signed (wide) tensor; half to even, saturated.
    """
    if tensor.signed:
        rounded = np.rint(x.astype(np.float64) / tensor.scale)
    else:
        inverse = np.float32(1) / np.float32(tensor.scale)
        rounded = np.rint(x.astype(np.float32) * inverse).astype(np.float64)
    codes: Integers = np.clip(rounded + tensor.zero_point, tensor.low, tensor.high)
    return codes.astype(tensor.dtype)


def outputs(network: Callable[..., torch.Tensor], data: Data, batch_size: int = 64) -> torch.Tensor:
    """The outputs of any network over `data`, batch by batch: [N, …]."""
    with torch.no_grad():
        return torch.cat([network(*inputs) for inputs, _ in data.batches(batch_size)])
