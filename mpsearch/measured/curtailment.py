"""Deciding whether a network gets enough samples right, on no more samples than that takes.

Deterministic curtailment: of n samples k have to be right, so a network fails for certain once
n - k + 1 of them are wrong, and the rest need not be run. The samples that the float network gets
wrong or is least sure of come first, because the wrong ones are found among them. The decision is
that of all samples, whatever their order.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import Callee, labels_of


@dataclass(frozen=True)
class Hardest:
    """Labelled data with the hardest samples first; `order[i]` is the number of sample i before."""

    data: Data
    order: torch.Tensor

    def in_old_order(self, values: torch.Tensor) -> torch.Tensor:
        """Values [N, …] of these samples as those of the data before."""
        back = torch.empty_like(values)
        back[self.order] = values
        return back


@dataclass(frozen=True)
class Decision:
    """Whether enough samples are right, and after how many samples it was clear.

    logits: [N, classes] where all samples were run, which is always so where it holds.
    """

    holds: bool
    seen: int
    right: int
    logits: torch.Tensor | None


def hardest_first(data: Data, logits: torch.Tensor) -> Hardest:
    """Order `data` by how far a network's outputs [N, classes] put the label before the others."""
    labels = labels_of(data)
    if labels.dtype != torch.int64 or labels.dim() != 1 or logits.dim() != 2:
        raise InputError(
            f"the smallest assignment that holds is searched by accuracy, over one row of class "
            f"logits per sample; this network returns {tuple(logits.shape[1:])} per sample: solve "
            "for a size and compare metrics with `mpsearch evaluate --metric`"
        )
    labels = labels[:, None]
    label = logits.gather(1, labels)[:, 0]
    others = logits.scatter(1, labels, -math.inf).amax(dim=1)
    order = torch.argsort(label - others, stable=True)
    inputs = tuple(x[order] for x in data.inputs)
    return Hardest(Data(data.name, inputs, labels[order, 0], data.loss), order)


def needed(share: Fraction, samples: int) -> int:
    """How many samples have to be right for an accuracy of at least `share`: (0.88, 1000) -> 880"""
    return math.ceil(share * samples)


def decide(network: Callee, data: Data, least: int, batch_size: int = 64) -> Decision:
    """Run `network` over labelled data until at least `least` right ones are out of reach."""
    allowed = len(data) - least
    seen = right = 0
    outputs = []
    with torch.no_grad():
        for inputs, labels in data.batches(batch_size):
            if seen - right > allowed:
                return Decision(False, seen, right, None)
            assert labels is not None
            outputs.append(network(*inputs).cpu())
            right += int((outputs[-1].argmax(dim=1) == labels).sum())
            seen += len(outputs[-1])
    return Decision(right >= least, seen, right, torch.cat(outputs))
