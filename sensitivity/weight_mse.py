"""Squared error of the quantized weights, ‖Q_b(W) − W‖²: needs no data and sees no activations.

||Q_b(W) − W||², the squared error that quantizing a layer's weights makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.quantization.quantizer import FLOAT_BITS, layout_of, quantize_weight
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.study import Score, Scores, Study
from mpsearch.tables.choice import Choice, by_weights


def squared_weight_error(network: Network, layer: Layer, choice: Choice) -> float:
    """Squared error of the layer's weights at `choice`, summed in float64; 0 for float."""
    if choice.w_bits == FLOAT_BITS:
        return 0.0
    rows, _ = network.weight_rows(layer)
    quantized = quantize_weight(rows, choice.w_bits, layout_of(layer, choice))
    difference = quantized.dequantize().double() - rows.double()
    return float(difference.square().sum())


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


WEIGHT_MSE = WeightMse()
