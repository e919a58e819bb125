"""What a loss is on one output: its value, its Hessian in the output, its divergence from a target.

For a sample's output z with K elements (in whatever shape) and H = ∂²ℓ/∂z²:

    softmax    ℓ = −log softmax(z)_y, mean over positions    H = diag(p) − p pᵀ per position
    Bernoulli  ℓ = mean of log(1 + eᶻ) − y z                 H = diag(p (1 − p))/K, p = sigmoid(z)
    squared    ℓ = mean of (z − y)²                          H = 2/K · I
    absolute   ℓ = mean of |z − y|                           none: it is 0 or not defined

The first two are the canonical losses of their distributions, so H does not depend on the target.

The Hessian of softmax cross-entropy in the logits, H = diag(p) − p pᵀ: as a form, its roots.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from mpsearch.graph.outputs import Shape
from mpsearch.running.seeds import signs


def centred(probabilities: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """v [n, C] with v·v' = uᵀ H u' for changes u, u' of the logits [n, C] at probabilities [n, C].

    v = √p ∘ (u − pᵀu): the probability-weighted covariance of u and u'.
    """
    mean = (probabilities * change).sum(dim=1, keepdim=True)
    return probabilities.sqrt() * (change - mean)


def output_factor(logits: torch.Tensor) -> torch.Tensor:
    """S [N, C, C-1] with S Sᵀ = diag(p) − p pᵀ for p = softmax(logits [N, C]).

    Column j is zero above row j, sqrt(p_j q_{j+1}/q_j) in row j and −p_i sqrt(p_j/(q_j q_{j+1}))
    below, where q_j = p_j + … + p_C. The sums run from the small end, so nothing is subtracted.
    """
    p = torch.softmax(logits.detach().double(), dim=1)
    tails = p.flip(1).cumsum(1).flip(1)  # q_1 … q_C
    ahead, behind = tails[:, :-1], tails[:, 1:]
    columns = p.shape[1] - 1
    root = torch.sqrt(p[:, :-1] / (ahead * behind))
    root = torch.where(behind > 0, root, torch.zeros_like(root))
    factor = (-p[:, :, None] * root[:, None, :]).tril(-1)
    index = torch.arange(columns, device=logits.device)
    factor[:, index, index] = torch.sqrt(p[:, :-1] * behind / ahead)
    return factor.to(logits.dtype)


def random_direction(logits: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """S ε [N, C, …] for signs ε and S = diag(√p) − p √pᵀ, for which S Sᵀ = diag(p) − p pᵀ.

    This square root needs no [N, C, C] array. Signs vary less than classes drawn from p: where the
    network is sure, a draw is almost always the sure class, which says nothing.
    """
    p = torch.softmax(logits.detach().double(), dim=1)
    scaled = p.sqrt() * signs(p, random)
    return (scaled - p * scaled.sum(1, keepdim=True)).to(logits.dtype)


class Form(Protocol):
    """A loss on outputs [N, *shape]; all results are per sample, [N, …].

    Where the Hessian is not exact only `per_sample`, `right`, `centred` and `curvature` are asked
    for, and the last only where there is curvature.
    """

    @property
    def name(self) -> str: ...
    @property
    def has_exact_hessian(self) -> bool:
        """Whether the Hessian in the outputs is known in closed form and positive semidefinite."""
        ...

    @property
    def has_curvature(self) -> bool:
        """Whether second derivatives say anything: those of the absolute error are 0."""
        ...

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """[N]"""
        ...

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        """What these outputs predict: the target of a divergence from them."""
        ...

    def divergence(self, outputs: torch.Tensor, expectation: torch.Tensor) -> torch.Tensor:
        """[N]: how much larger the mean loss is than that of the outputs that were expected."""
        ...

    def spread(self, outputs: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """v [N, k] with v·v' = uᵀ H u' for changes u, u' of the outputs."""
        ...

    def curvature(
        self, outputs: torch.Tensor, change: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        """uᵀ H u [N]; `target` is None where H does not depend on it."""
        return self.spread(outputs, change).square().sum(dim=1)

    def columns(self, shape: Shape) -> int:
        """How many columns `factor` has: one for each element, where H is diagonal."""
        return math.prod(shape)

    def factor(self, outputs: torch.Tensor) -> torch.Tensor:
        """S [N, K, columns] with S Sᵀ = H."""
        ...

    def direction(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """S ε of the outputs' shape, for random signs ε: its second moment is H."""
        ...

    def on_drawn(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """[N]: the loss on targets drawn from what the outputs predict, scaled so that the second
        moment of its gradient is H."""
        ...

    def centred(self, values: torch.Tensor) -> torch.Tensor:
        """Outputs without what no prediction depends on, float64."""
        return values.double()

    def right(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
        """The share of a sample's answers that are right, float64 [N]; None: it gives none."""
        ...


@dataclass(frozen=True)
class Softmax(Form):
    """Classes along dimension 1: logits [N, C] with class numbers [N], or [N, C, …] with [N, …]."""

    name: str = "cross-entropy"
    has_exact_hessian: bool = True
    has_curvature: bool = True

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return _mean(functional.cross_entropy(outputs, target.long(), reduction="none"))

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        return functional.softmax(outputs, dim=1)

    def divergence(self, outputs: torch.Tensor, expectation: torch.Tensor) -> torch.Tensor:
        log_q = functional.log_softmax(outputs, dim=1)
        return _mean(functional.kl_div(log_q, expectation, reduction="none").sum(dim=1))

    def spread(self, outputs: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        rows = centred(torch.softmax(outputs, dim=1), change).flatten(1)
        positions = math.prod(outputs.shape[2:])
        return rows if positions == 1 else rows / math.sqrt(positions)

    def columns(self, shape: Shape) -> int:
        return (shape[0] - 1) * math.prod(shape[1:])

    def factor(self, outputs: torch.Tensor) -> torch.Tensor:
        if outputs.dim() == 2:
            return output_factor(outputs)
        n, classes, *rest = outputs.shape
        positions = math.prod(rest)
        rows = outputs.reshape(n, classes, positions).transpose(1, 2)
        blocks = output_factor(rows.reshape(n * positions, classes)) / math.sqrt(positions)
        whole = outputs.new_zeros(n, classes, positions, positions, classes - 1)
        index = torch.arange(positions, device=outputs.device)
        whole[:, :, index, index] = blocks.reshape(n, positions, classes, -1).transpose(1, 2)
        return whole.reshape(n, classes * positions, -1)

    def direction(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        found = random_direction(outputs, random)
        positions = math.prod(outputs.shape[2:])
        return found if positions == 1 else found / math.sqrt(positions)

    def on_drawn(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        p = torch.softmax(outputs.detach().double().cpu(), dim=1).movedim(1, -1)
        classes = torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=random)[:, 0]
        target = classes.reshape(p.shape[:-1]).to(outputs.device)
        # The gradient of a mean over P independent draws has a second moment of H/P.
        return self.per_sample(outputs, target) * math.sqrt(math.prod(outputs.shape[2:]))

    def centred(self, values: torch.Tensor) -> torch.Tensor:
        return values.double() - values.double().mean(dim=1, keepdim=True)

    def right(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return _mean((outputs.argmax(dim=1) == target).double())


@dataclass(frozen=True)
class Bernoulli(Form):
    """Independent yes-or-no answers: logits [N, …] with targets of that shape from 0 to 1."""

    name: str = "bce"
    has_exact_hessian: bool = True
    has_curvature: bool = True

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        wanted = target.reshape(outputs.shape).to(outputs.dtype)
        return _mean(functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none"))

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(outputs)

    def divergence(self, outputs: torch.Tensor, expectation: torch.Tensor) -> torch.Tensor:
        p = expectation
        entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
        return self.per_sample(outputs, p) - _mean(entropy)

    def spread(self, outputs: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        return (_bernoulli_deviation(outputs) * change).reshape(len(change), -1)

    def factor(self, outputs: torch.Tensor) -> torch.Tensor:
        deviation = _bernoulli_deviation(outputs.detach().double())
        return torch.diag_embed(deviation.reshape(len(outputs), -1)).to(outputs.dtype)

    def direction(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        deviation = _bernoulli_deviation(outputs.detach().double())
        return (deviation * signs(deviation, random)).to(outputs.dtype)

    def on_drawn(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        p = torch.sigmoid(outputs.detach().double().cpu())
        target = torch.bernoulli(p, generator=random).to(outputs.device)
        return self.per_sample(outputs, target) * math.sqrt(math.prod(outputs.shape[1:]))

    def right(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return _mean(((outputs > 0) == (target.reshape(outputs.shape) > 0.5)).double())


def _bernoulli_deviation(outputs: torch.Tensor) -> torch.Tensor:
    """√(p (1 − p)/K): the root of H's diagonal, from logits of one dtype to the same."""
    k = max(1, math.prod(outputs.shape[1:]))
    return torch.sqrt(torch.sigmoid(outputs) * torch.sigmoid(-outputs) / k)


@dataclass(frozen=True)
class Squared(Form):
    """Mean squared error: outputs [N, …] with targets of that shape."""

    name: str = "mse"
    has_exact_hessian: bool = True
    has_curvature: bool = True

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return _mean((outputs - target.reshape(outputs.shape).to(outputs.dtype)).square())

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    def divergence(self, outputs: torch.Tensor, expectation: torch.Tensor) -> torch.Tensor:
        return self.per_sample(outputs, expectation)

    def spread(self, outputs: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        return change.reshape(len(change), -1) * _root(change)

    def factor(self, outputs: torch.Tensor) -> torch.Tensor:
        k = max(1, math.prod(outputs.shape[1:]))
        unit = torch.eye(k, dtype=outputs.dtype, device=outputs.device) * _root(outputs)
        return unit.expand(len(outputs), k, k)

    def direction(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        return signs(outputs.detach(), random) * _root(outputs)

    def on_drawn(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        # The gradient 2 (z − y)/K has the second moment 4 σ²/K², which is 2/K for σ² = K/2.
        k = max(1, math.prod(outputs.shape[1:]))
        noise = torch.randn(outputs.shape, dtype=torch.float64, generator=random)
        return self.per_sample(outputs, outputs.detach() + (math.sqrt(k / 2) * noise).to(outputs))

    def right(self, outputs: torch.Tensor, target: torch.Tensor) -> None:
        return None


def _root(outputs: torch.Tensor) -> float:
    """√(2/K): the root of H's diagonal."""
    return math.sqrt(2 / max(1, math.prod(outputs.shape[1:])))


@dataclass(frozen=True)
class Absolute(Squared):
    """Mean absolute error: it has gradients and no curvature."""

    name: str = "mae"
    has_exact_hessian: bool = False
    has_curvature: bool = False

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return _mean((outputs - target.reshape(outputs.shape).to(outputs.dtype)).abs())


def _mean(values: torch.Tensor) -> torch.Tensor:
    """Mean over everything but the samples: [N, …] -> [N]."""
    return values if values.dim() == 1 else values.flatten(1).mean(dim=1)
