"""The quadratic form ½ E[uᵀ H u] of the change u that a choice makes to the outputs.

u = f(W + ΔW, with the layer's input quantized) − f(W) is computed, not linearised; H is the Hessian
of the loss in the outputs (`mpsearch.losses.forms`), for softmax cross-entropy diag(p) − p pᵀ. It
is the second-order term of the loss that HAWQ's Ω approximates through a trace, and needs no labels
but for a loss of the user's own, whose H autograd gives.

Divergence of the outputs with one layer quantized from the float outputs.

For cross-entropy it is the Kullback-Leibler divergence of the predictions, for bce the mean of that
of each answer, for mse the mean squared difference (up to a factor that of two Gaussians).

Loss increase when one layer alone takes one choice, weights and activations.

Without labels the loss is the divergence from the float network's predictions.

Accuracy lost, as a share of the samples, when one layer alone takes one choice.

A sample that is answered at several positions, or with several labels, counts by its share of right
answers.

Noise-to-signal ratio of the outputs with one layer quantized: the inverse of SQNR.

Ω = E[‖u‖²] / E[‖f‖²] with u the change of the outputs f. Class logits are centred over the classes
first, because a constant added to all of them changes no prediction. Of several outputs each has
its own ratio, and Ω is their sum: an output of large numbers does not drown another one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from mpsearch.errors import InputError
from mpsearch.losses.loss import Loss
from mpsearch.sensitivity.forward_metric import ForwardMetric, LossMetric, Measure, OutputMetric
from mpsearch.sensitivity.study import Study


def _perturbation_of_samples(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    before = logits.double()
    return 0.5 * loss.curvature(before, changed.double() - before, labels)


PERTURBATION = LossMetric(
    "perturbation", "½ E[uᵀ H u] of the outputs' change u, H the loss's curvature",
    _perturbation_of_samples, needs_curvature=True,
)  # fmt: skip


def _kl_of_samples(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    return loss.divergence(logits, changed)


KL = LossMetric("kl", "E[KL(float ‖ quantized)] of the predictions", _kl_of_samples)


def _loss_of_samples(
    loss: Loss, logits: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    return loss.increase(logits, changed, labels)


_TEXT = "increase of the mean loss with one layer quantized"
LOSS = LossMetric("loss", _TEXT, _loss_of_samples, labels="used if there")
EMPIRICAL = LossMetric(
    "empirical", f"{_TEXT} (another name of loss)", _loss_of_samples, alias_of="loss",
    labels="used if there",
)  # fmt: skip


@dataclass(frozen=True)
class Accuracy(OutputMetric):
    """The `accuracy` metric."""

    name: str = "accuracy"
    description: str = "share of samples lost with one layer quantized"
    labels: str = "needed"

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


@dataclass(frozen=True)
class Sqnr(OutputMetric):
    """The `sqnr` metric."""

    name: str = "sqnr"
    description: str = "noise-to-signal ratio of the outputs with one layer quantized"

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
