"""Noise-to-signal ratio of the outputs with one layer quantized: the inverse of SQNR.

Ω = E[‖u‖²] / E[‖f‖²] with u the change of the outputs f. Class logits are centred over the classes
first, because a constant added to all of them changes no prediction. Of several outputs each has
its own ratio, and Ω is their sum: an output of large numbers does not drown another one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mpsearch.errors import InputError
from mpsearch.losses.loss import Loss
from mpsearch.sensitivity.forward_metric import Measure, OutputMetric
from mpsearch.sensitivity.study import Study


@dataclass(frozen=True)
class Sqnr(OutputMetric):
    """The `sqnr` metric."""

    name: str = "sqnr"
    description: str = "noise-to-signal ratio of the outputs with one layer quantized; no labels"

    def measure(self, study: Study) -> Measure:
        """Noise over signal on a study; InputError where an output has no signal."""
        signals = _signals(study)
        # One output's ratio is divided at the end, so that its noise in the journal has units.
        weights = {name: 1 / value if len(signals) > 1 else 1.0 for name, value in signals.items()}

        def noise(
            logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
        ) -> torch.Tensor:
            return _power(study.loss, changed - logits, weights)

        (signal,) = signals.values() if len(signals) == 1 else (1.0,)
        return Measure(self.name, noise, signal)


def _power(loss: Loss, values: torch.Tensor, weights: Mapping[str, float]) -> torch.Tensor:
    """Σ weight · ‖output‖² of every sample [n]."""
    parts = [
        part.reshape(len(part), -1).square().sum(dim=1) * weights[name]
        for name, part in loss.centred(values).items()
    ]
    return torch.stack(parts).sum(dim=0)


def _signals(study: Study) -> dict[str, float]:
    """E[‖f‖²] of every output. Raises InputError where one has none."""
    totals: dict[str, list[float]] = {}
    with torch.no_grad():
        for inputs, _ in study.batches():
            for name, part in study.loss.centred(study.network(*inputs)).items():
                totals.setdefault(name, []).append(float(part.square().sum()))
    signals = {name: math.fsum(parts) / len(study.data) for name, parts in totals.items()}
    for name, signal in signals.items():
        if signal == 0:
            raise InputError(
                "the network returns the same logit for every class: the metric sqnr has no signal "
                "to compare the noise to"
                if len(signals) == 1
                else f"the output {name!r} has no signal: the metric sqnr has nothing to compare "
                "the noise to; leave it out with --loss NAME=none"
            )
    return signals


SQNR = Sqnr()
