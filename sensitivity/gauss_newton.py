"""Traces of the layers' Gauss-Newton blocks, without second derivatives: exact, or sampled.

The Gauss-Newton block of layer i is G_i = (1/N) Σ_n J_niᵀ H_n J_ni with H_n the Hessian of the loss
in the outputs, diag(p) − p pᵀ for softmax cross-entropy (Schraudolph, Neural Computation 2002).
With H_n = S_n S_nᵀ its trace is (1/N) Σ_n Σ_c ||J_niᵀ s_nc||², a sum of squared per-sample
gradients: one backward pass per column of S_n gives the traces of all layers at once. For the exact
trace of cross-entropy S_n is the Cholesky factor of diag(p) − p pᵀ, which is known in closed form
(Tanabe & Sagae, J. R. Statist. Soc. B 1992) and has C − 1 columns for C classes. For many classes
||J_niᵀ S_n ε||² with random signs ε is an unbiased estimate of a sample's part at one backward
pass.
"""

from collections.abc import Sequence

import torch

from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.losses.loss import CROSS_ENTROPY, Loss
from mpsearch.running.seeds import generator
from mpsearch.sensitivity.gradient_norms import GradientNorms
from mpsearch.sensitivity.probing import Moments


def trace_sums(
    network: Network, inputs: tuple[torch.Tensor, ...], loss: Loss = CROSS_ENTROPY
) -> dict[str, float]:
    """Σ_n Tr(J_niᵀ H_n J_ni) over the samples of one batch, by layer name. Exact.

    A layer that does not reach the output has 0. A weight that is used more than once has its
    per-sample gradients summed over the uses before squaring, as J demands.
    """
    columns = loss.columns(network.output_shape)
    norms = GradientNorms(network, network.layers, inputs, columns)
    factor = loss.factor(norms.logits)
    shape = norms.logits.shape
    sums = {layer.name: 0.0 for layer in network.layers}
    for column in range(columns):
        for name, squares in norms.squares(factor[:, :, column].reshape(shape)).items():
            sums[name] += float(squares.sum())
    return sums


def sampled_traces(
    network: Network,
    inputs: tuple[torch.Tensor, ...],
    layers: Sequence[Layer],
    keys: Sequence[str],
    loss: Loss = CROSS_ENTROPY,
) -> dict[str, Moments]:
    """Estimates of the same sums, one backward pass per key, by layer name. Unbiased.

    Samples have signs of their own, so their errors are independent and the variance is estimated
    from all of them, not only from the few probes' sums.
    """
    norms = GradientNorms(network, layers, inputs, len(keys))
    draws = [norms.squares(loss.direction(norms.logits, generator(key))) for key in keys]
    return {
        layer.name: Moments.of(torch.stack([draw[layer.name] for draw in draws]))
        for layer in layers
    }
