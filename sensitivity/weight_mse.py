"""Squared error of the quantized weights, ‖Q_b(W) − W‖²: needs no data and sees no activations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mpsearch.running.journal import Journal
from mpsearch.sensitivity.study import Score, Scores, Study
from mpsearch.sensitivity.weight_error import squared_weight_error
from mpsearch.tables.choice import by_weights


@dataclass(frozen=True)
class WeightMse:
    """The `weight-mse` metric; choices that differ in `a_bits` alone have the same Ω."""

    name: str = "weight-mse"
    description: str = "‖ΔW‖² of the quantized weights; data-free, blind to activations"

    def steps(self, study: Study) -> int:
        return len(study.network.layers)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        scores = {}
        for layer in study.network.layers:
            errors = {
                weights: squared_weight_error(study.network, layer, choice)
                for weights, choice in by_weights(study.choices).items()
            }
            for choice in study.choices:
                scores[layer.name, choice] = Score(errors[choice.weights])
            step()
        return scores

    def notes(self, study: Study) -> Mapping[str, object]:
        return {"activations": "not scored"}


PROFILER = WeightMse()
