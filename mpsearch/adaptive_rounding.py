"""Adaptive rounding: choose up or down for every weight so that the layer's output is kept.

Nagel, Amjad, van Baalen, Louizos, Blankevoort: "Up or Down? Adaptive Rounding for Post-Training
Quantization", ICML 2020. Rounding to the nearest code minimises the error of the weights; what
counts is the error of the layer's output on real inputs, E‖z - Ŵ·x̂‖², z = W·x in FP32 and x̂ what
reaches the layer in the quantized network. As a layer is linear, this is a quadratic form in Ŵ,
known from G = E[x̂·x̂ᵀ] and T = E[z·x̂ᵀ] alone: the sample is read once, and every step of the
optimiser uses all of it, where the paper draws a batch per step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from mpsearch.layer_by_layer import Use
from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.operators import groups, is_transposed, output_channels_view, packet
from mpsearch.quantizer import ActivationQuantizer, QuantizedWeight, weight_codes_range
from mpsearch.sensitivity.unfolding import unfold

STEPS = 300
_WARM_UP = 0.2  # of the steps without the regulariser
_LEARNING_RATE = 0.05
_STRETCH_LOW, _STRETCH_HIGH = -0.1, 1.1  # the rectified sigmoid reaches 0 and 1
_FIRST_BETA, _LAST_BETA = 20.0, 2.0
_REGULARIZER = 0.1
_MOST_TURNS = 500  # per channel, of single weights at the end
_COLUMNS = 2**15  # positions of the sample that a layer's statistics are taken from
_PRIOR = 0.01  # of the mean diagonal of G: directions that the sample never shows keep W


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer over the sample, per group of a convolution.

    G = E[x̂·x̂ᵀ] is `gram` [groups, k, k] or, with few positions for many inputs, X·Xᵀ of its
    `factor` X [groups, k, positions]; `prior` is added to its diagonal. T = E[z·x̂ᵀ], with prior·W
    added, is `targets` [channels, k].
    """

    gram: torch.Tensor | None
    factor: torch.Tensor | None
    prior: float
    targets: torch.Tensor

    def times(self, rows: torch.Tensor) -> torch.Tensor:
        """rows·G for rows [channels, k]."""
        known = self.factor if self.gram is None else self.gram
        assert known is not None
        parts = rows.reshape(len(known), -1, rows.shape[1])
        if self.gram is not None:
            product = torch.bmm(parts, self.gram)
        else:
            product = torch.bmm(torch.bmm(parts, known), known.transpose(1, 2))
        return product.reshape(rows.shape) + self.prior * rows

    def errors(self, rows: torch.Tensor) -> torch.Tensor:
        """E‖z - w·x̂‖² of each row w, less a constant that does not depend on w: [channels]."""
        return (rows * (self.times(rows) - 2 * self.targets)).sum(1)

    def diagonal(self) -> torch.Tensor:
        """The diagonal of G for each group: [groups, k]."""
        if self.gram is not None:
            return self.gram.diagonal(dim1=1, dim2=2) + self.prior
        assert self.factor is not None
        return self.factor.square().sum(2) + self.prior

    def columns(self, indices: torch.Tensor) -> torch.Tensor:
        """Column `indices[c]` of G, less the prior, for every channel c: [channels, k]."""
        parts = indices.reshape(len(self.diagonal()), -1)
        if self.gram is not None:
            picked = self.gram.transpose(1, 2)
        else:
            assert self.factor is not None
            picked = self.factor
        rows = picked.gather(1, parts[:, :, None].expand(-1, -1, picked.shape[2]))
        if self.gram is None:
            assert self.factor is not None
            rows = torch.bmm(rows, self.factor.transpose(1, 2))
        return rows.reshape(len(indices), -1)


def moments(
    network: Network,
    layer: Layer,
    uses: Sequence[Use],
    activation: ActivationQuantizer,
    centred: bool,
    generator: torch.Generator,
) -> Moments:
    """G and T of a layer; `centred` where the bias takes up the mean anyway.

    At most 32,768 positions are used, drawn by `generator` evenly from all batches and uses.
    """
    rows, _ = network.weight_rows(layer)
    bias = network.bias(layer)
    quota = max(1, _COLUMNS // sum(len(use.inputs) for use in uses))
    parts = []
    for use in uses:
        for x, z in zip(use.inputs, use.targets, strict=True):
            x, z = _fewer_samples(x, z, layer.channels, 4 * quota, generator)
            patches = input_patches(use.node, activation.fake_quantize(x), network.weight(layer))
            targets = _channels_first(use.node, z)
            if targets.shape[1] > quota:
                kept = torch.randperm(targets.shape[1], generator=generator)[:quota].to(z.device)
                patches, targets = patches[:, :, kept], targets[:, kept]
            parts.append((patches, targets if bias is None else targets - bias[:, None]))
    return _moments(rows, parts, centred)


def _fewer_samples(
    x: torch.Tensor, z: torch.Tensor, channels: int, positions: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """As many random samples as have `positions`: unfolding the others would be for nothing."""
    count = max(1, positions * channels * len(z) // z.numel())
    if count >= len(z):
        return x, z
    kept = torch.randperm(len(z), generator=generator)[:count].to(z.device)
    return x[kept], z[kept]


def _moments(
    rows: torch.Tensor, parts: Sequence[tuple[torch.Tensor, torch.Tensor]], centred: bool
) -> Moments:
    """Moments from patches [groups, k, n] and FP32 outputs [channels, n], batch by batch."""
    count = sum(targets.shape[1] for _, targets in parts)
    groups_, size, _ = parts[0][0].shape
    shift = torch.zeros(groups_, size, 1, device=rows.device)
    if centred:  # then z·(x̂ - E[x̂])ᵀ has the mean of z taken out as well
        shift = torch.stack([patches.sum(2, keepdim=True) for patches, _ in parts]).sum(0) / count
    prior = 0.0
    crossed = torch.zeros(groups_, len(rows) // groups_, size, device=rows.device)
    keep_factor = count < size // 2  # then X itself is the cheaper of the two to multiply with
    gram = None if keep_factor else torch.zeros(groups_, size, size, device=rows.device)
    factors = []
    for patches, targets in parts:
        factor = (patches - shift) / math.sqrt(count)
        prior += _PRIOR * float(factor.square().sum()) / (groups_ * size)
        targets = targets.reshape(groups_, -1, targets.shape[1]) / math.sqrt(count)
        crossed += torch.bmm(targets, factor.transpose(1, 2))
        if gram is None:
            factors.append(factor)
        else:
            gram += torch.bmm(factor, factor.transpose(1, 2))
    whole = torch.cat(factors, 2) if factors else None
    return Moments(gram, whole, prior, crossed.reshape(rows.shape) + prior * rows)


def input_patches(node: fx.Node, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What the rows of the weight are multiplied with: [groups, k, positions]."""
    if packet(node) == "linear":
        return x.reshape(-1, x.shape[-1]).T[None]
    count = groups(node)
    if is_transposed(node):
        patches = _by_identity(node, x, weight).flatten(2)
    else:
        patches = unfold(node, x, weight, node.meta["shape"][2:]).flatten(1, 2)
    samples, size, positions = patches.shape
    parts = patches.reshape(samples, count, size // count, positions)
    return parts.permute(1, 2, 0, 3).reshape(count, size // count, samples * positions)


def _by_identity(node: fx.Node, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The patches of a transposed convolution: its outputs with one weight at a time set to 1."""
    count, (inputs, _, *kernel) = groups(node), weight.shape
    size = inputs // count * math.prod(kernel)
    shape = torch.empty(inputs, size, *kernel, device=weight.device)
    _, restore = output_channels_view(node, shape)
    identity = restore(torch.eye(size, device=weight.device).repeat(count, 1))
    rest = (None, *node.args[3:]) if len(node.args) > 2 else ()
    output = node.target(x, identity, *rest, **node.kwargs)  # type: ignore[operator]
    assert isinstance(output, torch.Tensor)
    return output


def _channels_first(node: fx.Node, z: torch.Tensor) -> torch.Tensor:
    """Outputs as [channels, positions], in the order of `input_patches`."""
    if packet(node) == "linear":
        return z.reshape(-1, z.shape[-1]).T
    return z.flatten(2).transpose(0, 1).flatten(1)


def round_adaptively(
    rows: torch.Tensor, nearest: QuantizedWeight, bits: int, moments: Moments, steps: int = STEPS
) -> QuantizedWeight:
    """Codes next to `rows`/scale with a smaller output error than the nearest ones.

    Minimises the error + λ Σ (1 - |2h - 1|^β) over V with h = clip(1.2·sigmoid(V) - 0.1, 0, 1),
    w = s·(floor(w/s) + h), by Adam, β falling from 20 to 2; then turns single weights over as long
    as that helps. A channel keeps its nearest codes where the outcome is not better.
    """
    low, high = weight_codes_range(bits)
    scales = nearest.scales[:, None]
    exact = rows / scales
    down, up = exact.floor().clamp(low, high), (exact.floor() + 1).clamp(low, high)
    span = up - down  # 0 where the weight lies outside of the range and has no choice
    fraction = (exact - exact.floor()).clamp(1e-3, 1 - 1e-3)
    width = _STRETCH_HIGH - _STRETCH_LOW
    v = -torch.log(width / (fraction - _STRETCH_LOW) - 1)
    difference = nearest.dequantize() - rows
    usual = (difference * moments.times(difference)).sum(1, keepdim=True) / rows.shape[1]
    weight = scales * span / usual.clamp(min=torch.finfo(torch.float32).tiny)
    mean, square = torch.zeros_like(v), torch.zeros_like(v)
    for step in range(1, steps + 1):
        sigmoid = torch.sigmoid(v)
        stretched = sigmoid * width + _STRETCH_LOW
        h = stretched.clamp(0, 1)
        slope = 2 * (moments.times(scales * (down + span * h)) - moments.targets) * weight
        progress = step / steps
        if progress > _WARM_UP:
            beta = _beta((progress - _WARM_UP) / (1 - _WARM_UP))
            t = 2 * h - 1
            slope -= _REGULARIZER * 2 * beta * t.abs().pow(beta - 1) * t.sign()
        slope *= width * sigmoid * (1 - sigmoid) * (stretched == h)
        mean.lerp_(slope, 0.1)
        square.lerp_(slope.square(), 0.001)
        corrected = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
        v -= _LEARNING_RATE * mean / (1 - 0.9**step) / corrected
    chosen = torch.where(torch.sigmoid(v) >= 0.5, up, down)
    chosen = _descend(chosen, down, up, scales, moments)
    before, after = moments.errors(nearest.dequantize()), moments.errors(chosen * scales)
    codes = torch.where((after < before)[:, None], chosen, nearest.codes.float())
    return QuantizedWeight(codes.to(torch.int16), nearest.scales)


def _descend(
    codes: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    scales: torch.Tensor,
    moments: Moments,
) -> torch.Tensor:
    """Turn over, in each channel, the weight that lowers its error most, until none does."""
    codes = codes.clone()
    slope = 2 * (moments.times(codes * scales) - moments.targets)
    diagonal = moments.diagonal()
    curvature = diagonal.repeat_interleave(len(codes) // len(diagonal), 0)
    channels = torch.arange(len(codes), device=codes.device)
    for _ in range(_MOST_TURNS):
        step = (down + up - 2 * codes) * scales
        gain, index = (step * (slope + step * curvature)).min(1)
        # Rounding in float32 must not make two codes change places for ever.
        helps = gain < -1e-6 * curvature[channels, index] * scales[:, 0].square()
        if not bool(helps.any()):
            break
        change = torch.where(helps, step[channels, index], 0.0)
        slope += 2 * change[:, None] * moments.columns(index)
        slope[channels, index] += 2 * moments.prior * change
        other = (down + up - codes)[channels, index]
        codes[channels, index] = torch.where(helps, other, codes[channels, index])
    return codes


def _beta(progress: float) -> float:
    """From 20 to 2 along half a cosine, as the authors' code has it."""
    return _LAST_BETA + 0.5 * (_FIRST_BETA - _LAST_BETA) * (1 + math.cos(progress * math.pi))
