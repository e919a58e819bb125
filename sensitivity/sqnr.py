"""Noise-to-signal ratio of the outputs with one layer quantized: the inverse of SQNR.

Ω = E[‖u‖²] / E[‖f‖²] with u the change of the logits f, each centred over the classes, because a
constant added to all logits changes no prediction.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mpsearch.errors import InputError
from mpsearch.journal import Journal
from mpsearch.profiler import Score, Scores, Study
from mpsearch.sensitivity.forward_metric import ForwardMetric


def _centred(values: torch.Tensor) -> torch.Tensor:
    return values.double() - values.double().mean(dim=1, keepdim=True)


def _noise(
    logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    return _centred(changed - logits).square().sum(dim=1)


_NOISE = ForwardMetric("sqnr", "", _noise)


@dataclass(frozen=True)
class Sqnr:
    """The `sqnr` metric."""

    name: str = "sqnr"
    description: str = "noise-to-signal ratio of the outputs with one layer quantized; no labels"

    def steps(self, study: Study) -> int:
        return _NOISE.steps(study)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        noise = _NOISE.score(study, journal, step)
        with torch.no_grad():
            signal = math.fsum(
                float(_centred(study.network(*inputs)).square().sum())
                for inputs, _ in study.batches()
            ) / len(study.data)
        if signal == 0:
            raise InputError(
                "the network returns the same logit for every class: the metric sqnr has no signal "
                "to compare the noise to"
            )
        return {
            key: Score(score.omega / signal, score.stderr / signal) for key, score in noise.items()
        }

    def notes(self, study: Study) -> Mapping[str, object]:
        return {"batch_rows": study.rows}


PROFILER = Sqnr()
