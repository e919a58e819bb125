"""Moments of what random probes measure, and the estimate of a sum from them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Moments:
    """What K probes of a sum of independent parts gave.

    `total` is the sum over probes and parts, `scatter` the squared deviations of each part's K
    values from their mean, summed over the parts.
    """

    probes: int
    total: float
    scatter: float

    @staticmethod
    def of(values: torch.Tensor) -> "Moments":
        """From values [probes, independent parts]."""
        scatter = (values - values.mean(0)).square().sum()
        return Moments(len(values), float(values.sum()), float(scatter))


def estimate(rounds: Iterable[Sequence[Moments]]) -> tuple[float, float]:
    """(estimate of the sum of all parts, its standard error) from rounds of batches.

    The batches of a round had equally many probes and their draws are independent. With K probes in
    all, the variance of a part's mean is its variance / K, which is pooled over rounds.
    """
    probes, freedom, total, scatter = 0, 0, 0.0, 0.0
    for batches in rounds:
        probes += batches[0].probes
        freedom += batches[0].probes - 1
        total += math.fsum(batch.total for batch in batches)
        scatter += math.fsum(batch.scatter for batch in batches)
    return total / probes, math.sqrt(scatter / freedom / probes) if freedom else math.inf
