"""Kullback-Leibler divergence of the outputs with one layer quantized from the float outputs."""

import torch

from mpsearch.losses import DIVERGENCE
from mpsearch.sensitivity.forward_metric import ForwardMetric


def _per_sample(
    logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    return DIVERGENCE.per_sample(changed.double(), torch.softmax(logits.double(), dim=1))


PROFILER = ForwardMetric(
    "kl", "E[KL(float ‖ quantized)] of the predictions; no labels", _per_sample
)
