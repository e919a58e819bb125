"""Divergence of the outputs with one layer quantized from the float outputs.

For cross-entropy it is the Kullback-Leibler divergence of the predictions, for bce the mean of that
of each answer, for mse the mean squared difference (up to a factor that of two Gaussians).
"""

import torch

from mpsearch.losses.loss import Loss
from mpsearch.sensitivity.forward_metric import LossMetric


def _kl_of_samples(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    return loss.divergence(logits, changed)


KL = LossMetric("kl", "E[KL(float ‖ quantized)] of the predictions; no labels", _kl_of_samples)
