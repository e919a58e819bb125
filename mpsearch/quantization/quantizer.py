"""The quantizer that Ω, apply and export share.

Weights: uniform symmetric per output channel, or per group of its weights (`scale_layout`), w ≈ s·q
with q in [-2^(b-1), 2^(b-1) - 1]; at 8 and more bits the lowest code is left out, as integer
kernels expect. Activations: uniform affine per tensor, x ≈ s·(q - z) with q in [0, 2^b - 1] and z a
code, so that zero is exact. Rounding is half to even everywhere. Scales are float32 numbers. 32
bits stand for "left in float".

Fake quantization with learned step sizes: LSQ (Esser et al., ICLR 2020, arXiv 1902.08153).

With v = x/s, codes from -Qn to Qp and x̂ = s·round(clip(v, -Qn, Qp)), the straight-through
gradients are

    ∂x̂/∂x = 1 where -Qn < v < Qp, else 0                                            (paper, eq. 5)
    ∂x̂/∂s = round(v) - v where -Qn < v < Qp, else -Qn or Qp                         (paper, eq. 3)

and the gradient of s is multiplied by 1/sqrt(n·Qp) for the n numbers that share the step. torch's
own `_fake_quantize_learnable_*` tests the rounded code instead of v, which lets gradients pass half
a step beyond both ends of the range: at 2 bits that is much of it.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer
from mpsearch.quantization.scale_layout import (
    PER_CHANNEL,
    ScaleLayout,
    by_scale,
    group_size_of,
    in_steps,
    scaled,
    whole_rows,
)
from mpsearch.tables.choice import Choice

FLOAT_BITS = 32
_BITS = (2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
# Candidate ranges per channel: the error over the range is smooth for many weights and rugged for
# few, where more candidates cost little.
_FEWEST_CLIPS, _MOST_CLIPS, _CLIPS_TIMES_WEIGHTS = 40, 400, 80_000
_WIDEST = 1.1  # beyond the largest magnitude: a few weights may happen to fit a wider step better


def check_bits(bits: int) -> int:
    """`bits` itself when it is supported. Raises InputError otherwise."""
    if bits not in _BITS:
        raise InputError(f"got {bits} bits; expected 2 to 8, 16, or 32 for float")
    return bits


def check_choice(choice: Choice) -> Choice:
    """`choice` itself when our quantizer has it. Raises InputError otherwise."""
    if choice.label:
        raise InputError(
            f"{choice} is a format of another tool, which is not computed here",
            "write that tool's own file of the assignment: `mpsearch recipe assignment.json --for "
            "TOOL`",
        )
    check_bits(choice.w_bits)
    check_bits(choice.a_bits)
    return choice


def weight_codes_range(bits: int) -> tuple[int, int]:
    """(lowest, highest) code of a weight: 4 -> (-8, 7), 8 -> (-127, 127)."""
    high = 2 ** (bits - 1) - 1
    return (-high if bits >= 8 else -high - 1), high


@dataclass(frozen=True)
class QuantizedWeight:
    """Integer codes [channels, n] (int16) and their scales (float32): [channels], or, where
    `group_size` weights of a channel share one, [channels, groups].

    What others need of the layout is asked for here: values, and what is one number for each output
    channel. `scales` may be copied, compared and trained as a whole.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    group_size: int = 0

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """s·q, [channels, n]."""
        return scaled(self.codes.to(dtype), self.scales.to(dtype), self.group_size)

    def channel_scales(self) -> torch.Tensor:
        """[channels]: what the sum of a channel's products counts in. Whoever sums codes asks for
        it, and asks `group_size` before: with groups there is no such number."""
        assert not self.group_size, "groups have no scale for each channel"
        return self.scales

    def with_channel_scales(self, scales: torch.Tensor) -> "QuantizedWeight":
        """The same codes with these scales [channels]."""
        return replace(self, scales=scales)

    def bias_steps(self, step: float | torch.Tensor) -> torch.Tensor:
        """[channels], float64: weight scale × input scale `step`, which a bias is counted in."""
        return self.channel_scales().double() * step

    @property
    def has_one_scale(self) -> bool:
        """Whether several channels share one scale, which repairs then leave one."""
        alike = not self.group_size and len(self.scales) > 1
        return alike and bool((self.scales == self.scales[0]).all())

    def spread(self, scales: torch.Tensor) -> torch.Tensor:
        """One scale for all channels as a scale for each of them; others as they are."""
        return scales.expand(len(self.codes), *scales.shape[1:])

    def to(self, device: torch.device) -> "QuantizedWeight":
        """The same on `device`."""
        return replace(self, codes=self.codes.to(device), scales=self.scales.to(device))

    def stored_scales(self, layout: ScaleLayout, layer: Layer) -> torch.Tensor:
        """The scales that a file has of it: of equal ones, as many as `layout` says."""
        return self.scales if self.group_size else self.scales[: layout.stored(layer)]

    @staticmethod
    def from_stored(
        codes: torch.Tensor, scales: torch.Tensor, channels: int, choice: Choice
    ) -> "QuantizedWeight":
        """The weight of a file's codes [channels · n] and scales. Raises ValueError for others."""
        if not scales.is_floating_point() or not bool(torch.isfinite(scales).all()):
            raise ValueError("are no finite numbers")
        codes = codes.reshape(channels, -1)
        size = group_size_of(choice, codes.shape[1])
        shape = ScaleLayout(group_size=size).shape(*codes.shape)
        if scales.shape != shape and (size or scales.shape != (1,)):
            raise ValueError(f"have shape {tuple(scales.shape)}; expected {shape}")
        scales = scales.repeat(channels) if len(scales) < channels else scales
        return QuantizedWeight(codes, scales, size)


def quantize_weight(
    rows: torch.Tensor, bits: int, layout: ScaleLayout = PER_CHANNEL
) -> QuantizedWeight:
    """Codes and the scales with the least squared error, by a search over clipped ranges.

    `rows`: [channels, n]. Every channel tries 40 to 400 ranges between 20 % (from 6 bits on 70 %)
    and 110 % of its largest magnitude and as many around the best of them, then takes the
    least-squares scale for the codes found where that lowers the error. A channel of zeros gets
    scale 1. With one scale per tensor, each of the channels has it. Groups are searched as channels
    are, each in as many tries as its whole channel would have.
    """
    rows, tries = rows.detach().float(), _tries(rows.shape[1])
    channels, size = len(rows), layout.group_size
    if layout.per_tensor:
        scale = _least_error_scales(rows.reshape(1, -1), bits, _tries(rows.numel()))
        return weight_at(rows, scale.repeat(channels), bits)
    if not size:
        return weight_at(rows, _least_error_scales(rows, bits, tries), bits)
    full = rows.shape[1] // size * size
    scales = _least_error_scales(rows[:, :full].reshape(-1, size), bits, tries)
    scales = scales.reshape(channels, -1)
    if full < rows.shape[1]:  # the last group is shorter
        last = _least_error_scales(rows[:, full:], bits, tries)
        scales = torch.cat([scales, last[:, None]], 1)
    return weight_at(rows, scales, bits, size)


def _tries(weights: int) -> int:
    return min(_MOST_CLIPS, max(_FEWEST_CLIPS, _CLIPS_TIMES_WEIGHTS // max(1, weights)))


def _least_error_scales(rows: torch.Tensor, bits: int, clips: int) -> torch.Tensor:
    """One scale for each of the `rows` [s, m]: [s]."""
    low, high = weight_codes_range(check_bits(bits))
    largest = rows.abs().amax(dim=1)
    # The channel's extreme value may sit on the negative side, which has one code more.
    steps = torch.where(rows.amin(dim=1) == -largest, -low, high).to(rows)
    best_scale = torch.where(largest > 0, largest / steps, torch.ones_like(largest))
    best_error = _squared_error(rows, best_scale, low, high)
    smallest = 0.2 if bits < 6 else 0.7
    spacing = (_WIDEST - smallest) / (clips - 1)
    ranges = torch.linspace(smallest, _WIDEST, clips).to(rows)
    coarse = ranges[:, None] * (largest / high)
    best_scale, best_error = _better(rows, coarse, best_scale, best_error, low, high)
    around = torch.linspace(-spacing, spacing, clips).to(rows)
    fine = best_scale + around[:, None] * (largest / high)
    best_scale, _ = _better(rows, fine, best_scale, best_error, low, high)
    return _refit(rows, best_scale, low, high)


def weight_at(
    rows: torch.Tensor, scales: torch.Tensor, bits: int, group_size: int = 0
) -> QuantizedWeight:
    """The codes of `rows` [channels, n] at given scales, those of a `QuantizedWeight`."""
    low, high = weight_codes_range(bits)
    codes = torch.round(in_steps(rows.detach().float(), scales, group_size)).clamp_(low, high)
    return QuantizedWeight(codes.to(torch.int16), scales, group_size)


def _better(
    rows: torch.Tensor,
    candidates: torch.Tensor,
    scale: torch.Tensor,
    error: torch.Tensor,
    low: int,
    high: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of `scale` [channels] and `candidates` [k, channels] for each channel, its error."""
    for candidate in candidates:
        usable = torch.where(candidate > 0, candidate, scale)
        found = _squared_error(rows, usable, low, high)
        scale = torch.where(found < error, usable, scale)
        error = torch.minimum(found, error)
    return scale, error


def _squared_error(rows: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    codes = torch.round(rows / scale[:, None]).clamp_(low, high)
    return codes.mul_(scale[:, None]).sub_(rows).square_().sum(dim=1)


def _refit(rows: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """argmin over s of ||s·q - w||² for the codes of `scale`, kept where it helps after
    rounding."""
    codes = torch.round(rows / scale[:, None]).clamp_(low, high)
    squares = codes.square().sum(dim=1)
    fitted = torch.where(squares > 0, (codes * rows).sum(dim=1) / squares.clamp(min=1), scale)
    fitted = torch.where(fitted > 0, fitted, scale)
    better = _squared_error(rows, fitted, low, high) < _squared_error(rows, scale, low, high)
    return torch.where(better, fitted, scale)


@dataclass(frozen=True)
class ActivationQuantizer:
    """x ≈ scale·(q - zero_point) with q in [0, 2^bits - 1]."""

    bits: int
    scale: float
    zero_point: int

    def fake_quantize(self, x: torch.Tensor) -> torch.Tensor:
        """Quantize and dequantize; the gradient passes inside the range (straight-through)."""
        if self.bits == FLOAT_BITS:
            return x
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, 0, 2**self.bits - 1
        )


def activation_quantizer(
    bits: int, counts: np.ndarray, low: float, high: float
) -> ActivationQuantizer:
    """The range with the least squared error on a histogram of the tensor.

    `counts`: occurrences in equal bins over [low, high]. The range always holds zero and is
    one-sided where the data are (after ReLU: zero_point 0). Both ends are searched in turn.
    """
    if check_bits(bits) == FLOAT_BITS:
        return ActivationQuantizer(bits, 1.0, 0)
    edges = np.linspace(low, high, len(counts) + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    used = counts > 0
    centres, weights = centres[used], counts[used].astype(np.float64)
    bottom, top = min(low, 0.0), max(high, 0.0)
    if bottom == top:
        return affine(bits, 0.0, 0.0)
    best = (np.inf, bottom, top)
    fractions = np.linspace(1.0, 0.1, 91) if bits < 8 else np.linspace(1.0, 0.5, 51)
    for _ in range(2 if bottom < 0 < top else 1):
        for low_end, high_end in ((False, True), (True, False)):
            for fraction in fractions:
                lo = bottom * fraction if low_end else best[1]
                hi = top * fraction if high_end else best[2]
                if hi - lo <= 0:
                    continue
                error = histogram_error(centres, weights, affine(bits, lo, hi))
                if error < best[0]:
                    best = (error, lo, hi)
    return affine(bits, best[1], best[2])


def affine(bits: int, low: float, high: float) -> ActivationQuantizer:
    """The quantizer whose codes span [low, high], zero included: scale rounded to float32.

    [0, 1] where all was zero, or too narrow for float32: the layer's bias, which counts steps of
    this scale, is all that matters then.
    """
    levels = 2**bits - 1
    scale = float(np.float32((high - low) / levels))
    if not scale >= np.finfo(np.float32).tiny:
        return ActivationQuantizer(bits, float(np.float32(1 / levels)), 0)
    return ActivationQuantizer(bits, scale, int(np.clip(np.rint(-low / scale), 0, levels)))


def histogram_error(
    centres: np.ndarray, weights: np.ndarray, quantizer: ActivationQuantizer
) -> float:
    """Σ weight · (x̂ - x)² with x the centres of a histogram's bins."""
    scale, zero = quantizer.scale, quantizer.zero_point
    codes = np.clip(np.rint(centres / scale) + zero, 0, 2**quantizer.bits - 1)
    return float(weights @ np.square((codes - zero) * scale - centres))


def quantize_rows(
    rows: torch.Tensor, scales: torch.Tensor, bits: int, group_size: int = 0
) -> torch.Tensor:
    """Weights [channels, n] on the steps `scales`, those of a `QuantizedWeight`, with LSQ's
    gradients for both."""
    low, high = weight_codes_range(bits)
    parts, steps = by_scale(rows, scales, group_size)
    factor = gradient_factor(parts.shape[1], high)
    return whole_rows(_on_steps(parts, steps, None, low, high, factor), rows)


def quantize_input(
    x: torch.Tensor, scale: torch.Tensor, zero_point: int, bits: int, count: int
) -> torch.Tensor:
    """Activations on the step `scale` [], a zero of code `zero_point`, LSQ's gradients.

    The numbers are those of `ActivationQuantizer.fake_quantize`, bit for bit. `count` are the
    numbers of one sample; its dimension need not be the first.
    """
    low, high = -zero_point, 2**bits - 1 - zero_point
    factor = gradient_factor(count, max(high, -low))
    x = x.float() if x.dtype.itemsize < 4 else x  # autocast: steps are float32
    return _on_steps(x, scale, zero_point, low, high, factor)


def gradient_factor(count: int, highest: int) -> float:
    """1/sqrt(n·Qp): it makes the step's relative update as large as that of the n numbers."""
    return 1 / math.sqrt(count * highest)


def _on_steps(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: int | None,
    low: int,
    high: int,
    factor: float,
) -> torch.Tensor:
    result = _Steps.apply(x, scale, zero_point, low, high, factor)  # type: ignore[no-untyped-call]
    assert isinstance(result, torch.Tensor)
    return result


class _Steps(torch.autograd.Function):
    """x̂ and its two gradients, in as few passes over x as there can be.

    Weights have no zero point: their codes are round(x / s). Activations are rounded by torch's
    operator, which runs and exported networks have, too: round(x·(1/s) + z) goes the other way at
    ties, which averages of codes meet often.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor,
        zero_point: int | None,
        low: int,
        high: int,
        factor: float,
    ) -> torch.Tensor:
        if zero_point is None:
            # + 0: a code has no sign of zero
            quantized = (x / scale).round_().clamp_(low, high).add_(0.0).mul_(scale)
        else:
            zero = torch.full((), zero_point, dtype=torch.int32, device=x.device)
            quantized = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, high - low)
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
            clipped = x.clamp(*ends)
        else:
            passed = gradient * ((x > scale * low) & (x < scale * high))
            clipped = x.clamp(scale * low, scale * high)
        # s·∂x̂/∂s is x̂ - x inside and x̂ outside, where nothing passed to x, which may be infinite
        change = (quantized - clipped).mul_(gradient).add_((gradient - passed).mul_(quantized))
        step = change.sum_to_size(scale.shape) / scale
        return passed, step * factor, None, None, None, None
