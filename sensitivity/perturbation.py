"""The quadratic form ½ E[uᵀ H u] of the change u that a choice makes to the outputs.

u = f(W + ΔW, with the layer's input quantized) − f(W) is computed, not linearised; H is the Hessian
of the loss in the outputs (`mpsearch.losses.forms`), for softmax cross-entropy diag(p) − p pᵀ. It
is the second-order term of the loss that HAWQ's Ω approximates through a trace, and needs no labels
but for a loss of the user's own, whose H autograd gives.
"""

import torch

from mpsearch.losses.loss import Loss
from mpsearch.sensitivity.forward_metric import LossMetric


def _perturbation_of_samples(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    before = logits.double()
    return 0.5 * loss.curvature(before, changed.double() - before, labels)


PERTURBATION = LossMetric(
    "perturbation", "½ E[uᵀ H u] of the outputs' change u; no labels, one partial pass",
    _perturbation_of_samples, needs_curvature=True,
)  # fmt: skip
