"""Loss increase when one layer alone takes one choice, weights and activations.

Without labels the loss is the divergence from the float network's predictions.
"""

import torch

from mpsearch.losses import CROSS_ENTROPY, DIVERGENCE
from mpsearch.sensitivity.forward_metric import ForwardMetric


def _per_sample(
    logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    if labels is None:
        return DIVERGENCE.per_sample(changed.double(), torch.softmax(logits.double(), dim=1))
    before, after = logits.double(), changed.double()
    return CROSS_ENTROPY.per_sample(after, labels) - CROSS_ENTROPY.per_sample(before, labels)


_TEXT = "increase of the mean loss with one layer quantized"
PROFILER = ForwardMetric("loss", _TEXT, _per_sample)
EMPIRICAL = ForwardMetric("empirical", f"{_TEXT} (another name of loss)", _per_sample)
