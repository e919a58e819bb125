"""Accuracy lost, as a share of the samples, when one layer alone takes one choice."""

import torch

from mpsearch.sensitivity.forward_metric import ForwardMetric


def _per_sample(
    logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    assert labels is not None
    right_before = (logits.argmax(dim=1) == labels).double()
    return right_before - (changed.argmax(dim=1) == labels).double()


PROFILER = ForwardMetric(
    "accuracy", "share of samples lost with one layer quantized; needs labels", _per_sample, True
)
