"""Second moments of what reaches a layer: the error of its output as a quadratic form.

What counts of a weight's rounding is the error of the layer's output on real inputs, E‖z - Ŵ·x̂‖²,
z = W·x in FP32 and x̂ what reaches the layer. As a layer is linear, this is a quadratic form in Ŵ,
known from G = E[x̂·x̂ᵀ] and T = E[z·x̂ᵀ] alone: the sample is read once, and whatever chooses codes
uses all of it in every step.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import fx

from mpsearch.graph.layers import Layer, groups, is_transposed, output_channels_view, packet, unfold
from mpsearch.graph.network import Network
from mpsearch.post_training.layer_by_layer import Use
from mpsearch.quantization.quantizer import ActivationQuantizer

_COLUMNS = 2**14  # positions of the sample that a layer's statistics are taken from
_PRIOR = 0.01  # of the mean diagonal of G: directions that the sample never shows keep W


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer over the sample, per group of a convolution.

    G = E[x̂·x̂ᵀ] is `gram` [groups, k, k] or, with few positions for many inputs, X·Xᵀ of its
    `factor` X [groups, k, positions]; `prior` [groups] is added to its diagonal. T = E[z·x̂ᵀ], with
    prior·W added, is `targets` [channels, k].
    """

    gram: torch.Tensor | None
    factor: torch.Tensor | None
    prior: torch.Tensor
    targets: torch.Tensor

    def by_group(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [channels, …] as [groups, channels of a group, …]."""
        return rows.reshape(len(self.prior), -1, *rows.shape[1:])

    def by_channel(self, values: torch.Tensor) -> torch.Tensor:
        """Values [groups, …] of every channel's group: [channels, …]."""
        return values.repeat_interleave(len(self.targets) // len(values), 0)

    def times(self, rows: torch.Tensor, run: slice = slice(None)) -> torch.Tensor:
        """rows·G for rows [channels, k], of as many channels for every group; of rows that are 0
        but for `run` of k, given without the zeros: [channels, k]."""
        parts = self.by_group(rows)
        if self.gram is not None:
            product = torch.bmm(parts, self.gram[:, run])
        else:
            assert self.factor is not None
            product = torch.bmm(torch.bmm(parts, self.factor[:, run]), self.factor.transpose(1, 2))
        product[:, :, run] += self.prior[:, None, None] * parts
        return product.flatten(0, 1)

    @cached_property
    def optimum(self) -> torch.Tensor:
        """The rows w* = T·G⁻¹ of the least error, before rounding: [channels, k]."""
        targets = self.by_group(self.targets).double()
        prior = self.prior[:, None, None].double()
        if self.gram is not None:
            whole = self.gram.double() + prior * torch.eye(self.gram.shape[1], device=prior.device)
            found: torch.Tensor = torch.linalg.solve(whole, targets, left=False)
            return found.float().reshape(self.targets.shape)
        assert self.factor is not None
        # (X·Xᵀ + p)⁻¹ = (1 - X·(Xᵀ·X + p)⁻¹·Xᵀ) / p, Woodbury: few positions, a small system.
        x = self.factor.double()
        small = torch.bmm(x.transpose(1, 2), x)
        small += prior * torch.eye(small.shape[1], device=prior.device)
        seen = torch.linalg.solve(small, torch.bmm(targets, x), left=False)
        whole = (targets - torch.bmm(seen, x.transpose(1, 2))) / prior
        return whole.float().reshape(self.targets.shape)

    def errors(self, rows: torch.Tensor) -> torch.Tensor:
        """E‖z - w·x̂‖² of rows w, less that of the optimum: (w - w*)·G·(w - w*)ᵀ, [len(rows)].

        Every channel has as many rows, which follow each other.
        """
        each = len(rows) // len(self.optimum)
        difference = rows - self.optimum.repeat_interleave(each, 0)
        return (difference * self.times(difference)).sum(1)

    def diagonal(self) -> torch.Tensor:
        """The diagonal of G for each group: [groups, k]."""
        if self.gram is not None:
            return self.gram.diagonal(dim1=1, dim2=2) + self.prior[:, None]
        assert self.factor is not None
        return self.factor.square().sum(2) + self.prior[:, None]

    def columns(self, indices: torch.Tensor) -> torch.Tensor:
        """Column `indices[c]` of G, less the prior, for every channel c: [channels, k]."""
        parts = self.by_group(indices)
        picked = self.gram if self.gram is not None else self.factor
        assert picked is not None
        rows = picked.gather(1, parts[:, :, None].expand(-1, -1, picked.shape[2]))
        if self.gram is None:
            assert self.factor is not None
            rows = torch.bmm(rows, self.factor.transpose(1, 2))
        return rows.reshape(len(indices), -1)

    def block(self, start: int, end: int) -> torch.Tensor:
        """Rows and columns `start` to `end` of G: [groups, end - start, end - start]."""
        if self.gram is not None:
            part = self.gram[:, start:end, start:end]
        else:
            assert self.factor is not None
            few = self.factor[:, start:end]
            part = torch.bmm(few, few.transpose(1, 2))
        return part + self.prior[:, None, None] * torch.eye(end - start, device=part.device)


@dataclass(frozen=True)
class InputMoments:
    """Moments of a layer's inputs in the float network: the same for whatever its weights become.

    The covariance of x is `gram` [groups, k, k] or X·Xᵀ of its `factor` X [groups, k, positions];
    `means` [groups, k] are E[x] under None, and E[x̂] under the quantizers x̂ that were asked for.
    """

    gram: torch.Tensor | None
    factor: torch.Tensor | None
    means: Mapping[ActivationQuantizer | None, torch.Tensor]
    positions: int

    def of(self, rows: torch.Tensor, centred: bool) -> Moments:
        """The error of rounding `rows` [channels, k]; `centred` where a bias takes up the mean."""
        mean, gram, factor = self.means[None], self.gram, self.factor
        if gram is not None:
            gram = gram if centred else gram + mean[:, :, None] * mean[:, None, :]
            power = gram.diagonal(dim1=1, dim2=2).mean(1)
        else:
            assert factor is not None
            factor = factor if centred else factor + mean[:, :, None] / math.sqrt(self.positions)
            power = factor.square().sum(2).mean(1)
        without_targets = Moments(gram, factor, prior_of(power.clamp(min=0)), rows)
        return replace(without_targets, targets=without_targets.times(rows))

    def shift(
        self, rows: torch.Tensor, rounded: torch.Tensor, quantizer: ActivationQuantizer
    ) -> torch.Tensor:
        """E[W·x] - E[Ŵ·x̂] per channel, W = `rows`, Ŵ = `rounded` [channels, k]: [channels]."""
        each = len(rows) // len(self.means[None])
        exact, rough = (self.means[key].repeat_interleave(each, 0) for key in (None, quantizer))
        return (rows * exact - rounded * rough).sum(1)


class InputMomentsOf:
    """Takes what reaches a layer, batch by batch, and gives its `InputMoments`.

    At most `quota` positions of a batch are used, drawn evenly by `generator`. quantizers: whose
    E[x̂] is wanted as well.
    """

    def __init__(
        self,
        network: Network,
        layer: Layer,
        quota: int,
        generator: torch.Generator,
        quantizers: Iterable[ActivationQuantizer] = (),
    ) -> None:
        self.weight = network.weight(layer)
        self.quota, self.generator = quota, generator
        self.quantizers = tuple(dict.fromkeys(quantizers))
        self.sums: dict[ActivationQuantizer | None, torch.Tensor] = {}
        self.about: torch.Tensor | None = None
        self.factors: list[torch.Tensor] = []
        self.gram: torch.Tensor | None = None
        self.positions = 0

    def add(self, node: fx.Node, x: torch.Tensor) -> None:
        """What reaches the layer at `node`, of one batch."""
        x = self._fewer(node, x)
        patches = input_patches(node, x, self.weight)
        if patches.shape[2] > self.quota:
            kept = torch.randperm(patches.shape[2], generator=self.generator)[: self.quota]
            patches = patches[:, :, kept.to(patches.device)]
        for key in (None, *self.quantizers):
            seen = patches if key is None else key.fake_quantize(patches)
            self.sums[key] = self.sums.get(key, 0) + seen.double().sum(2)
        self.positions += patches.shape[2]
        # About a mean from the start: what hardly varies would be lost in the squares of its mean.
        if self.about is None:
            self.about = patches.mean(2, keepdim=True)
        self.factors.append(patches - self.about)
        if self.gram is not None or self.positions >= patches.shape[1] // 2:
            for factor in self.factors:
                product = torch.bmm(factor, factor.transpose(1, 2))
                self.gram = product if self.gram is None else self.gram + product
            self.factors = []

    def _fewer(self, node: fx.Node, x: torch.Tensor) -> torch.Tensor:
        """As many random samples as have four times the quota: others are unfolded for nothing."""
        shape = node.meta["shape"]
        of_one = x.numel() // x.shape[-1] // len(x)
        if packet(node) != "linear":
            of_one = math.prod(shape[2:])
        count = max(1, 4 * self.quota // max(1, of_one))
        if count >= len(x):
            return x
        return x[torch.randperm(len(x), generator=self.generator)[:count].to(x.device)]

    def result(self) -> InputMoments:
        """Moments of all that was added."""
        assert self.about is not None
        means = {key: total / self.positions for key, total in self.sums.items()}
        off = (means[None] - self.about[:, :, 0].double()).float()
        means = {key: mean.float() for key, mean in means.items()}
        if self.gram is not None:
            gram = self.gram / self.positions - off[:, :, None] * off[:, None, :]
            return InputMoments(gram, None, means, self.positions)
        factor = (torch.cat(self.factors, 2) - off[:, :, None]) / math.sqrt(self.positions)
        return InputMoments(None, factor, means, self.positions)


def moments(
    network: Network,
    layer: Layer,
    uses: Sequence[Use],
    activation: ActivationQuantizer,
    centred: bool,
    generator: torch.Generator,
) -> Moments:
    """G and T of a layer; `centred` where the bias takes up the mean anyway.

    At most 16,384 positions are used, drawn by `generator` evenly from all batches and uses.
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
    crossed = torch.zeros(groups_, len(rows) // groups_, size, device=rows.device)
    power = torch.zeros(groups_, device=rows.device)
    keep_factor = count < size // 2  # then X itself is the cheaper of the two to multiply with
    gram = None if keep_factor else torch.zeros(groups_, size, size, device=rows.device)
    factors = []
    for patches, targets in parts:
        factor = (patches - shift) / math.sqrt(count)
        power += factor.square().sum((1, 2))
        targets = targets.reshape(groups_, -1, targets.shape[1]) / math.sqrt(count)
        crossed += torch.bmm(targets, factor.transpose(1, 2))
        if gram is None:
            factors.append(factor)
        else:
            gram += torch.bmm(factor, factor.transpose(1, 2))
    prior = prior_of(power / size)
    whole = torch.cat(factors, 2) if factors else None
    targets = crossed + prior[:, None, None] * rows.reshape(crossed.shape)
    return Moments(gram, whole, prior, targets.reshape(rows.shape))


def prior_of(power: torch.Tensor) -> torch.Tensor:
    """What is added to the diagonal of G whose mean is `power` [groups]; 1 where nothing varies."""
    usable = power > torch.finfo(torch.float32).tiny / _PRIOR
    return torch.where(usable, _PRIOR * power, torch.ones_like(power))


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
