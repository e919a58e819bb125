"""Hutchinson's estimate of a layer's Hessian trace, with its standard error.

Tr(H_ii) = E[vᵀ H_ii v] for v with independent random signs (Hutchinson, 1989). The probe is
restricted to one layer, so that no cross-layer term raises the variance; H_ii v comes from a second
backward pass through the gradient (Pearlmutter, 1994).
"""

from collections.abc import Sequence

import torch
from torch import fx

from mpsearch.data import Batch
from mpsearch.layers import Layer
from mpsearch.losses import Loss, target_of
from mpsearch.network import Network


def probe_sums(
    network: Network, loss: Loss, batch: Batch, layers: Sequence[Layer], probes: int, seed: int
) -> dict[str, list[float]]:
    """Σ_n v_kᵀ ∇²ℓ_n v_k over the samples of a batch, for each probe k, by layer name.

    The probes depend on `seed` and the layer only, so the sums of several batches may be added.
    """
    inputs, labels = batch
    tape = _Weights(network, layers)
    logits = tape.run(*inputs)
    total = loss.per_sample(logits, target_of(loss, logits, labels)).sum()
    weights = [tape.weights[layer.name] for layer in layers]
    gradients = torch.autograd.grad(total, weights, create_graph=True, allow_unused=True)
    sums: dict[str, list[float]] = {}
    for layer, weight, gradient in zip(layers, weights, gradients, strict=True):
        sums[layer.name] = [
            _quadratic_form(gradient, weight, _signs(weight, f"{seed} {layer.name} {probe}"))
            for probe in range(probes)
        ]
    return sums


def _quadratic_form(
    gradient: torch.Tensor | None, weight: torch.Tensor, signs: torch.Tensor
) -> float:
    if gradient is None or not gradient.requires_grad:
        return 0.0  # the loss does not depend on the layer, or only linearly
    (product,) = torch.autograd.grad(
        gradient, weight, grad_outputs=signs, retain_graph=True, allow_unused=True
    )
    return 0.0 if product is None else float((product * signs).double().sum())


def _signs(weight: torch.Tensor, key: str) -> torch.Tensor:
    """Random signs that depend on `key` alone."""
    from hashlib import sha256

    seed = int.from_bytes(sha256(key.encode()).digest()[:7], "little")
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, weight.shape, generator=generator).mul_(2).sub_(1).to(weight.dtype)


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
        return super().run_node(n)
