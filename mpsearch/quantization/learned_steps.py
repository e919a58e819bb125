"""Fake quantization with learned step sizes: LSQ (Esser et al., ICLR 2020, arXiv 1902.08153).

With v = x/s, codes from -Qn to Qp and x̂ = s·round(clip(v, -Qn, Qp)), the straight-through
gradients are

    ∂x̂/∂x = 1 where -Qn < v < Qp, else 0                                            (paper, eq. 5)
    ∂x̂/∂s = round(v) - v where -Qn < v < Qp, else -Qn or Qp                         (paper, eq. 3)

and the gradient of s is multiplied by 1/sqrt(n·Qp) for the n numbers that share the step. torch's
own `_fake_quantize_learnable_*` tests the rounded code instead of v, which lets gradients pass half
a step beyond both ends of the range: at 2 bits that is much of it.
"""

import math
from typing import Any

import torch

from mpsearch.quantization.quantizer import by_scale, weight_codes_range


def quantize_rows(rows: torch.Tensor, scales: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights [channels, n] on the steps `scales`, those of a `QuantizedWeight`, with LSQ's
    gradients for both."""
    low, high = weight_codes_range(bits)
    parts, steps = by_scale(rows, scales)
    factor = gradient_factor(parts.shape[1], high)
    return _on_steps(parts, steps, low, high, factor).reshape(rows.shape)


def quantize_input(
    x: torch.Tensor, scale: torch.Tensor, zero_point: int, bits: int, count: int
) -> torch.Tensor:
    """Activations on the step `scale` [], a zero of code `zero_point`, LSQ's gradients.

    `count` are the numbers of one sample; its dimension need not be the first.
    """
    low, high = -zero_point, 2**bits - 1 - zero_point
    factor = gradient_factor(count, max(high, -low))
    return _on_steps(x, scale, low, high, factor)


def gradient_factor(count: int, highest: int) -> float:
    """1/sqrt(n·Qp): it makes the step's relative update as large as that of the n numbers."""
    return 1 / math.sqrt(count * highest)


def _on_steps(
    x: torch.Tensor, scale: torch.Tensor, low: int, high: int, factor: float
) -> torch.Tensor:
    result = _Steps.apply(x, scale, low, high, factor)  # type: ignore[no-untyped-call]
    assert isinstance(result, torch.Tensor)
    return result


class _Steps(torch.autograd.Function):
    """x̂ and its two gradients, in as few passes over x as there can be."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int, factor: float
    ) -> torch.Tensor:
        quantized = (x / scale).round_().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x, scale, quantized)
        ctx.constants = (low, high, factor)
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, scale, quantized = ctx.saved_tensors
        low, high, factor = ctx.constants
        if scale.numel() == 1:  # one pass instead of four
            ends = (float(scale) * low, float(scale) * high)
            passed = torch.ops.aten.hardtanh_backward(gradient, x, *ends)
        else:
            passed = gradient * ((x > scale * low) & (x < scale * high))
        # s·∂x̂/∂s is x̂ - x inside and x̂ outside, where nothing passed to x
        change = (quantized - x).mul_(gradient).add_((gradient - passed).mul_(x))
        step = change.sum_to_size(scale.shape) / scale
        return passed, step * factor, None, None, None
