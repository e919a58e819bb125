"""Compensated rounding: codes and scales that keep a layer's output, in closed form.

Weights are rounded one after the other, and the error of each is made up for by those that are not
rounded yet: with H = E[x̂·x̂ᵀ] and U the upper Cholesky factor of H⁻¹, after weight i is rounded to q
the others change by -(w_i - q)/U_ii · U_i (Hassibi, Stork, NIPS 1992; Frantar et al., "GPTQ", ICLR
2023; the start W* = E[z·x̂ᵀ]·H⁻¹ makes up for the errors of the layers before as well). What GPTQ
leaves open is searched here: each channel's scale by the error that its own codes have in the end,
and single codes one step up or down as long as the error falls, the scale fitted again in between.
The scales of a channel's groups are searched together, all by the same factor, and fitted one after
the other.
"""

from collections.abc import Callable

import torch

from mpsearch.post_training.layer_moments import Moments
from mpsearch.quantization.quantizer import QuantizedWeight, weight_codes_range
from mpsearch.quantization.scale_layout import (
    PER_CHANNEL,
    ScaleLayout,
    each_scale,
    in_steps,
    scaled,
)

_NARROWEST, _WIDEST = 0.4, 1.6  # times the scale of the least weight error
_MOST_SCALES, _FEWEST_SCALES, _PRODUCTS = 30, 8, 2**33
_AT_ONCE = 2**25  # weights, of all scales that are tried at once
_COLUMNS = 64  # between two updates of all others: matrix products instead of outer ones
_LARGEST = 4096  # columns of one factorisation; of wider layers, blocks of so many are independent
_LARGEST_OF_FEW = 1024  # where positions are few beside columns, and a block holds what they tell
_FITS = 4  # of the scale, each with codes turned after it
_MOST_TURNS = 200  # of single codes, per channel and fit


def round_to_outputs(
    scales: torch.Tensor,
    bits: int,
    moments: Moments,
    layout: ScaleLayout = PER_CHANNEL,
    search: bool = True,
) -> QuantizedWeight:
    """Codes and scales with a small error of the layer's output; `moments` are the layer's.

    scales: those of the least weight error. They are where the search begins, or stay as they are
    without `search`. layout: which weights share one.
    """
    low, high = weight_codes_range(bits)
    rounding = _Rounding(moments, low, high, layout)
    size = layout.group_size
    if not search:
        codes = rounding.turned(rounding.compensated(scales), scales)
        return QuantizedWeight(codes.to(torch.int16), scales, size)
    codes, best = _best_of(
        scales, _factors(moments).to(scales), layout, moments, rounding.compensated
    )
    codes = rounding.turned(codes, best)
    for _ in range(_FITS):
        best = rounding.fitted(codes, best)
        codes = rounding.turned(codes, best)
    return QuantizedWeight(codes.to(torch.int16), best, size)


def nearest_to_outputs(
    rows: torch.Tensor,
    scales: torch.Tensor,
    bits: int,
    moments: Moments,
    layout: ScaleLayout = PER_CHANNEL,
) -> QuantizedWeight:
    """The nearest codes of `rows` [channels, k] at the scales with the least output error.

    Arguments as those of `round_to_outputs`. Where the lowest code -2^(b-1) does harm, the channel
    does without: positive inputs and a code more on one side shift the mean.
    """
    low, high = weight_codes_range(bits)
    size = layout.group_size
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    for least in dict.fromkeys((low, -high)):

        def nearest(tried: torch.Tensor, least: int = least) -> torch.Tensor:
            repeated = rows.repeat_interleave(len(tried) // len(rows), 0)
            return torch.round(in_steps(repeated, tried, size)).clamp_(least, high)

        codes, best = _best_of(scales, _factors(moments).to(scales), layout, moments, nearest)
        error = layout.pooled(moments.errors(scaled(codes, best, size)))
        if found is None:
            found = codes, best, error
            continue
        better = error < found[2]
        codes = torch.where(better[:, None], codes, found[0])
        found = codes, torch.where(_like(better, best), best, found[1]), error
    assert found is not None
    return QuantizedWeight(found[0].to(torch.int16), found[1], size)


def _factors(moments: Moments) -> torch.Tensor:
    """Of the first scale, what is tried: fewer for large layers, where each costs more."""
    channels, inputs = moments.targets.shape
    fitting = _PRODUCTS // max(1, channels * inputs**2)
    count = max(_FEWEST_SCALES, min(_MOST_SCALES, fitting)) | 1  # odd: the first scale is in it
    return torch.linspace(_NARROWEST, _WIDEST, count)


def _best_of(
    start: torch.Tensor,
    factors: torch.Tensor,
    layout: ScaleLayout,
    moments: Moments,
    codes_at: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [channels, k] and scales of the least error, of factors x `start`, the scales.

    codes_at: of scales, as many for each channel as follow each other, to [their number, k].
    """
    best, codes = start, torch.zeros_like(moments.targets)
    least = torch.full_like(codes[:, 0], torch.inf)
    for some in factors.split(max(1, _AT_ONCE // codes.numel())):
        tried = (start[:, None] * _like(some, start)).flatten(0, 1)
        found = codes_at(tried)
        errors = moments.errors(scaled(found, tried, layout.group_size)).reshape(len(start), -1)
        error, index = layout.pooled(errors).min(1)
        picked = torch.arange(len(start), device=start.device) * len(some) + index
        better = error < least
        codes = torch.where(better[:, None], found[picked], codes)
        best = torch.where(_like(better, best), tried[picked], best)
        least = torch.minimum(error, least)
    return codes, best


def _like(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Values [k] that go with scales [k] or [k, groups]."""
    return values.reshape(-1, *(1 for _ in scales.shape[1:]))


class _Rounding:
    """One layer's moments, factorised once, its range of codes, and which weights share a scale."""

    def __init__(
        self, moments: Moments, low: int, high: int, layout: ScaleLayout = PER_CHANNEL
    ) -> None:
        self.moments, self.low, self.high, self.layout = moments, low, high, layout
        width = moments.targets.shape[1]
        largest = _LARGEST if moments.factor is None else min(_LARGEST, _LARGEST_OF_FEW)
        self.blocks = [
            (start, *_factorised(moments.block(start, min(start + largest, width))))
            for start in range(0, width, largest)
        ]

    def compensated(self, scales: torch.Tensor) -> torch.Tensor:
        """Codes at `scales`, of every channel as many as follow each other: [len(scales), k]."""
        optimum = self.moments.optimum
        rows = optimum.repeat_interleave(len(scales) // len(optimum), 0)
        size = self.layout.group_size
        wanted = self.moments.by_group(rows)
        steps = self.moments.by_group(each_scale(scales, rows.shape[1], size))
        codes = torch.empty_like(wanted)
        for start, order, factor in self.blocks:
            part = slice(start, start + order.shape[1])
            index = order[:, None, :].expand(-1, wanted.shape[1], -1)
            ordered = steps[:, :, part].gather(2, index) if size else steps[:, :, part]
            found = self._in_order(wanted[:, :, part].gather(2, index), ordered, factor)
            codes[:, :, part] = torch.empty_like(found).scatter_(2, index, found)
        return codes.reshape(rows.shape)

    def _in_order(
        self, wanted: torch.Tensor, scales: torch.Tensor, factor: torch.Tensor
    ) -> torch.Tensor:
        """Round `wanted` [groups, rows, k] at `scales`, as many, column by column,
        U = `factor` [groups, k, k]."""
        codes = torch.empty_like(wanted)
        for start in range(0, wanted.shape[2], _COLUMNS):
            end = min(start + _COLUMNS, wanted.shape[2])
            part = wanted[:, :, start:end]
            changes = torch.empty_like(part)
            for column in range(end - start):
                exact, row = part[:, :, column], factor[:, start + column, None, start:end]
                step = scales[:, :, start + column]
                code = torch.round(exact / step).clamp_(self.low, self.high)
                change = (exact - code * step) / row[:, :, column]
                codes[:, :, start + column], changes[:, :, column] = code, change
                part[:, :, column:] -= change[:, :, None] * row[:, :, column:]
            wanted[:, :, end:] -= torch.bmm(changes, factor[:, start:end, end:])
        return codes

    def fitted(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """argmin over s > 0 of the error of s·codes: (q·G·w*ᵀ) / (q·G·qᵀ) for the codes q that
        share it, one after the other, with w* less what the others give."""
        others = scaled(codes, scales, self.layout.group_size)
        found = scales.reshape(len(scales), -1).clone()
        for place, run in enumerate(self.layout.runs(codes.shape[1])):
            part, scale = codes[:, run], found[:, place]
            others[:, run] = 0
            seen = self.moments.times(part, run)
            above = self.layout.pooled((seen * (self.moments.optimum - others)).sum(1))
            below = self.layout.pooled((seen[:, run] * part).sum(1))
            usable = (above > 0) & (below > 0)
            best = above / below.clamp(min=torch.finfo(below.dtype).tiny)
            found[:, place] = torch.where(usable, best, scale)
            others[:, run] = part * found[:, place, None]
        return found.reshape(scales.shape)

    def turned(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """In each channel the one step of one code that lowers its error most, until none does."""
        moments, codes = self.moments, codes.clone()
        steps = each_scale(scales, codes.shape[1], self.layout.group_size)
        slope = 2 * moments.times(codes * steps - moments.optimum)
        curvature = moments.by_channel(moments.diagonal())
        # Rounding in float32 must not make two codes change places for ever.
        enough = -1e-6 * curvature.mean(1) * steps.amin(1).square()
        channels = torch.arange(len(codes), device=codes.device)
        for _ in range(_MOST_TURNS):
            step = -slope.sign()
            inside = (codes + step <= self.high) & (codes + step >= self.low)
            change = step * steps
            gains = torch.where(inside, change * (slope + change * curvature), torch.inf)
            gain, index = gains.min(1)
            helps = gain < enough
            if not bool(helps.any()):
                break
            picked = torch.where(helps, step[channels, index], 0.0)
            codes[channels, index] += picked
            picked = 2 * picked * steps[channels, index]
            slope += picked[:, None] * moments.columns(index)
            slope[channels, index] += picked * moments.by_channel(moments.prior)
        return codes


def _factorised(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(order [groups, k], U [groups, k, k]) of H = `gram`, the largest diagonal first."""
    order = gram.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    size = gram.shape[1]
    sorted_ = gram.gather(1, order[:, :, None].expand(-1, -1, size))
    sorted_ = sorted_.gather(2, order[:, None, :].expand(-1, size, -1)).double()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(sorted_))
    return order, torch.linalg.cholesky(inverse, upper=True).to(gram.dtype)
