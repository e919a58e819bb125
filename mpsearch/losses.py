"""The loss that sensitivity is measured on, per sample."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from mpsearch.errors import InputError
from mpsearch.network import Network


@dataclass(frozen=True)
class Loss:
    """`per_sample(logits [N, C], target) -> [N]`, where target is labels [N] or probabilities [N,
    C].

    Without labels the target is the network's own predictive distribution: the loss is then the
    Kullback-Leibler divergence from the float network, zero for the float network itself.
    """

    name: str
    uses_labels: bool
    per_sample: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def _divergence(logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    log_q = functional.log_softmax(logits, dim=1)
    return functional.kl_div(log_q, probabilities, reduction="none").sum(dim=1)


CROSS_ENTROPY = Loss("cross-entropy", True, _cross_entropy)
DIVERGENCE = Loss("kl-to-fp32", False, _divergence)


def loss_for(network: Network, labels: torch.Tensor | None) -> Loss:
    """Cross-entropy where there are labels, otherwise divergence from the network's own outputs.

    Raises InputError unless the network returns one row of at least two logits per sample.
    """
    if len(network.output_shape) != 1 or network.output_shape[0] < 2:
        raise InputError(
            f"the network returns {network.output_shape} per sample; expected one row of two or "
            "more class logits"
        )
    return DIVERGENCE if labels is None else CROSS_ENTROPY


def target_of(loss: Loss, logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """The loss's target: the labels, or the distribution of the float network's `logits`."""
    if loss.uses_labels:
        assert labels is not None
        return labels
    return functional.softmax(logits.detach(), dim=1)
