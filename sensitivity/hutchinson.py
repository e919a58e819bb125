"""Hutchinson's estimate of what a Hessian block has beyond its Gauss-Newton part.

H_i = G_i + R_i with R_i = ∇² (1/N) Σ_n r_nᵀ f_n(W_i), r_n = ∂ℓ/∂f_n held fixed (Schraudolph, Neural
Computation 2002). The trace of G_i is known without second derivatives; Tr(R_i) = E[vᵀ R_i v] for v
with independent random signs (Hutchinson, 1989). R_i is small in a trained network, so its
estimate scatters less than one of the whole block. The probe is restricted to one layer, so that no
cross-layer term raises the variance; R_i v comes from a second backward pass through the gradient
(Pearlmutter, 1994).

Of a loss of the user's own G_i is not known in closed form, and need not be positive: there the
whole block is estimated, H_i in place of R_i.

Moments of what random probes measure, and the estimate of a sum from them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from mpsearch.data import Batch
from mpsearch.graph.layers import Layer, packet
from mpsearch.graph.network import Network
from mpsearch.losses.loss import Loss, target_of
from mpsearch.running.seeds import generator, signs


@dataclass(frozen=True)
class Moments:
    """What K probes of a sum of independent parts gave.

    `total` is the sum over probes and parts, `scatter` the squared deviations of each part's K
    values from their mean, summed over the parts.
    """

    probes: int
    total: float
    scatter: float

    @staticmethod
    def of(values: torch.Tensor) -> "Moments":
        """From values [probes, independent parts]."""
        scatter = (values - values.mean(0)).square().sum()
        return Moments(len(values), float(values.sum()), float(scatter))


def estimate(rounds: Iterable[Sequence[Moments]]) -> tuple[float, float]:
    """(estimate of the sum of all parts, its standard error) from rounds of batches.

    The batches of a round had equally many probes and their draws are independent. With K probes in
    all, the variance of a part's mean is its variance / K, which is pooled over rounds.
    """
    probes, freedom, total, scatter = 0, 0, 0.0, 0.0
    for batches in rounds:
        probes += batches[0].probes
        freedom += batches[0].probes - 1
        total += math.fsum(batch.total for batch in batches)
        scatter += math.fsum(batch.scatter for batch in batches)
    return total / probes, math.sqrt(scatter / freedom / probes) if freedom else math.inf


def residual_traces(
    network: Network, loss: Loss, batch: Batch, layers: Sequence[Layer], keys: Sequence[str]
) -> dict[str, Moments]:
    """Σ_n v_kᵀ ∇²(r_nᵀ f_n) v_k over the samples of a batch, one v_k per key, by layer name.

    Added to the sum of the Gauss-Newton traces, the mean over k is unbiased for Σ_n Tr(∇²ℓ_n). For
    a loss without `has_exact_hessian` it is so by itself: v_kᵀ ∇²ℓ_n v_k is what is summed.
    """
    inputs, labels = batch
    tape = _Weights(network, layers)
    # The fused kernels of attention have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits: torch.Tensor = tape.run(*inputs)
        outputs = logits.detach().requires_grad_(True) if loss.has_exact_hessian else logits
        total = loss.per_sample(outputs, target_of(loss, outputs, labels)).sum()
    weights = [tape.weights[layer.name] for layer in layers]
    gradients: Sequence[torch.Tensor | None] = [None] * len(layers)
    if logits.requires_grad and loss.has_exact_hessian:
        (residual,) = torch.autograd.grad(total, outputs)
        gradients = torch.autograd.grad(
            logits, weights, residual, create_graph=True, allow_unused=True
        )
    elif total.requires_grad and not loss.has_exact_hessian:
        gradients = torch.autograd.grad(total, weights, create_graph=True, allow_unused=True)
    return {
        layer.name: _moments(gradient, weight, [f"{key} {layer.name}" for key in keys])
        for layer, weight, gradient in zip(layers, weights, gradients, strict=True)
    }


def _moments(gradient: torch.Tensor | None, weight: torch.Tensor, keys: Sequence[str]) -> Moments:
    values = [_quadratic_form(gradient, weight, signs(weight, generator(key))) for key in keys]
    return Moments.of(torch.tensor(values, dtype=torch.float64)[:, None])


def _quadratic_form(
    gradient: torch.Tensor | None, weight: torch.Tensor, probe: torch.Tensor
) -> float:
    if gradient is None or not gradient.requires_grad:
        return 0.0  # the outputs do not depend on the layer, or only linearly
    (product,) = torch.autograd.grad(
        gradient, weight, grad_outputs=probe, retain_graph=True, allow_unused=True
    )
    return 0.0 if product is None else float((product * probe).sum(dtype=torch.float64))


class _Weights(fx.Interpreter):
    """Runs the graph with the layers' weights as leaves that gradients reach."""

    def __init__(self, network: Network, layers: Sequence[Layer]) -> None:
        super().__init__(network.graph)
        self.layer_of = {layer.weight_name: layer.name for layer in layers}
        self.weights = {
            layer.name: network.weight(layer).detach().requires_grad_(True) for layer in layers
        }

    def run_node(self, n: fx.Node) -> object:
        if n.op == "get_attr" and str(n.target) in self.layer_of:
            return self.weights[self.layer_of[str(n.target)]]
        if packet(n) == "hardsigmoid":  # torch's own has no second derivative
            (x,) = self.fetch_args_kwargs_from_env(n)[0]
            return torch.clamp(x / 6 + 0.5, 0, 1)
        return super().run_node(n)
