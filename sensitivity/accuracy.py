"""Accuracy lost, as a share of the samples, when one layer alone takes one choice.

A sample that is answered at several positions, or with several labels, counts by its share of right
answers.
"""

import torch

from mpsearch.errors import InputError
from mpsearch.losses import Loss
from mpsearch.sensitivity.forward_metric import LossMetric


def _per_sample(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    assert labels is not None
    before, after = loss.right(logits, labels), loss.right(changed, labels)
    if before is None or after is None:
        raise InputError(
            f"the metric accuracy needs answers that are right or wrong, and the loss {loss.name} "
            "has none; expected another metric, such as sqnr, or --loss cross-entropy or bce"
        )
    return before - after


PROFILER = LossMetric(
    "accuracy", "share of samples lost with one layer quantized; needs labels", _per_sample, True
)
