"""Traces of the layers' Gauss-Newton blocks, without second derivatives: exact, or sampled.

The Gauss-Newton block of layer i is G_i = (1/N) Σ_n J_niᵀ H_n J_ni with H_n = diag(p) − p pᵀ, the
Hessian of softmax cross-entropy in the logits (Schraudolph, Neural Computation 2002). With H_n =
S_n S_nᵀ its trace is (1/N) Σ_n Σ_c ||J_niᵀ s_nc||², a sum of squared per-sample gradients: one
backward pass per column of S_n gives the traces of all layers at once. For the exact trace S_n is
the Cholesky factor of diag(p) − p pᵀ, which is known in closed form (Tanabe & Sagae, J. R. Statist.
Soc. B 1992) and has C − 1 columns for C classes. For many classes ||J_niᵀ S_n ε||² with random
signs ε is an unbiased estimate of a sample's part at one backward pass.
"""

from collections.abc import Sequence

import torch

from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.sensitivity.gradient_norms import GradientNorms
from mpsearch.sensitivity.probing import Moments, generator, signs


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
    """S ε [N, C] for signs ε [N, C] and S = diag(√p) − p √pᵀ, for which S Sᵀ = diag(p) − p pᵀ.

    This square root needs no [N, C, C] array. Signs vary less than classes drawn from p: where the
    network is sure, a draw is almost always the sure class, which says nothing.
    """
    p = torch.softmax(logits.detach().double(), dim=1)
    scaled = p.sqrt() * signs(p, random)
    return (scaled - p * scaled.sum(1, keepdim=True)).to(logits.dtype)


def trace_sums(network: Network, inputs: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Σ_n Tr(J_niᵀ H_n J_ni) over the samples of one batch, by layer name. Exact.

    A layer that does not reach the output has 0. A weight that is used more than once has its
    per-sample gradients summed over the uses before squaring, as J demands.
    """
    columns = network.output_shape[0] - 1
    norms = GradientNorms(network, network.layers, inputs, columns)
    factor = output_factor(norms.logits)
    sums = {layer.name: 0.0 for layer in network.layers}
    for column in range(columns):
        for name, squares in norms.squares(factor[:, :, column]).items():
            sums[name] += float(squares.sum())
    return sums


def sampled_traces(
    network: Network,
    inputs: tuple[torch.Tensor, ...],
    layers: Sequence[Layer],
    keys: Sequence[str],
) -> dict[str, Moments]:
    """Estimates of the same sums, one backward pass per key, by layer name. Unbiased.

    Samples have signs of their own, so their errors are independent and the variance is estimated
    from all of them, not only from the few probes' sums.
    """
    norms = GradientNorms(network, layers, inputs, len(keys))
    draws = [norms.squares(random_direction(norms.logits, generator(key))) for key in keys]
    return {
        layer.name: Moments.of(torch.stack([draw[layer.name] for draw in draws]))
        for layer in layers
    }
