"""Accuracy lost, as a share of the samples, when one layer alone takes one choice.

A sample that is answered at several positions, or with several labels, counts by its share of right
answers.
"""

from dataclasses import dataclass
from functools import partial

import torch

from mpsearch.errors import InputError
from mpsearch.losses.loss import Loss
from mpsearch.sensitivity.forward_metric import ForwardMetric, Measure, OutputMetric
from mpsearch.sensitivity.study import Study


@dataclass(frozen=True)
class Accuracy(OutputMetric):
    """The `accuracy` metric."""

    name: str = "accuracy"
    description: str = "share of samples lost with one layer quantized; needs labels"

    def measure(self, study: Study) -> Measure:
        """Right answers lost; InputError without labels, or where no answer is right or wrong."""
        found = ForwardMetric(self.name, "", partial(_lost, study.loss), needs_labels=True)
        measure = found.measure(study)
        inputs, labels = next(study.batches())
        assert labels is not None
        with torch.no_grad():
            right = study.loss.right(study.network(*inputs), labels)
        if right is None:
            raise InputError(
                "the metric accuracy needs answers that are right or wrong, and the loss "
                f"{study.loss.name} has none; expected another metric, such as sqnr, or --loss "
                "cross-entropy or bce"
            )
        return measure


def _lost(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    assert labels is not None
    before, after = loss.right(logits, labels), loss.right(changed, labels)
    assert before is not None
    assert after is not None
    return before - after


ACCURACY = Accuracy()
