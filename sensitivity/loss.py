"""Loss increase when one layer alone takes one choice, weights and activations.

Without labels the loss is the divergence from the float network's predictions.
"""

import torch

from mpsearch.losses.loss import Loss
from mpsearch.sensitivity.forward_metric import LossMetric


def _per_sample(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    return loss.increase(logits, changed, labels)


_TEXT = "increase of the mean loss with one layer quantized"
PROFILER = LossMetric("loss", _TEXT, _per_sample)
EMPIRICAL = LossMetric("empirical", f"{_TEXT} (another name of loss)", _per_sample, alias_of="loss")
