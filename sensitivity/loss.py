"""Loss increase when one layer alone takes one choice, weights and activations.

Without labels the loss is the divergence from the float network's predictions.
"""

import torch

from mpsearch.losses.loss import Loss
from mpsearch.sensitivity.forward_metric import LossMetric


def _loss_of_samples(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    return loss.increase(logits, changed, labels)


_TEXT = "increase of the mean loss with one layer quantized"
LOSS = LossMetric("loss", _TEXT, _loss_of_samples)
EMPIRICAL = LossMetric(
    "empirical", f"{_TEXT} (another name of loss)", _loss_of_samples, alias_of="loss"
)
