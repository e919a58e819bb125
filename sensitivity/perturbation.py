"""The quadratic form ½ E[uᵀ H u] of the change u that a choice makes to the outputs.

u = f(W + ΔW, with the layer's input quantized) − f(W) is computed, not linearised; H = diag(p) − p
pᵀ is the Hessian of softmax cross-entropy in the logits. It is the second-order term of the loss
that HAWQ's Ω approximates through a trace, and needs no labels.
"""

import torch

from mpsearch.sensitivity.forward_metric import ForwardMetric
from mpsearch.sensitivity.output_hessian import centred


def _per_sample(
    logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    probabilities = torch.softmax(logits.double(), dim=1)
    return 0.5 * centred(probabilities, changed.double() - logits.double()).square().sum(dim=1)


PROFILER = ForwardMetric(
    "perturbation", "½ E[uᵀ H u] of the outputs' change u; no labels, one partial pass", _per_sample
)
