"""HAWQ's Ω: average Hessian trace of a layer times the squared error of its quantized weights.

Ω_i(b) = Tr(H_i)/n_i · ||Q_b(W_i) − W_i||² (Dong et al., HAWQ-V2, NeurIPS 2020; Yao et al., HAWQ-V3,
ICML 2021), H_i the Hessian of the mean loss in the batch-norm-folded weights of layer i. Only the
weights' error counts: choices that differ in `a_bits` alone have the same Ω.

Squared error of the quantized weights, ‖Q_b(W) − W‖²: needs no data and sees no activations.

||Q_b(W) − W||², the squared error that quantizing a layer's weights makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.quantization.quantizer import FLOAT_BITS, quantize_weight
from mpsearch.quantization.scale_layout import layout_of
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.study import Score, Scores, Study
from mpsearch.sensitivity.traces import Trace, is_sampled, split, steps, traces, within_bound
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
    description: str = "‖ΔW‖² of the quantized weights; blind to activations"
    labels: str = "not used"
    cost: str = "none: weights alone"

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


@dataclass(frozen=True)
class Hessian:
    """The `hessian` metric."""

    name: str = "hessian"
    description: str = "HAWQ's Ω: Tr(H)/n · ||ΔW||²; exact traces where the theory allows"
    labels: str = "used if there"
    cost: str = "backward passes, until --rtol is met"

    def steps(self, study: Study) -> int:
        return steps(study)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        errors = mean_squared_errors(study)
        weights = largest_errors(study, errors)
        found = traces(study, weights, journal, step)
        study.findings.update(_notes(study, found, weights))
        return omegas(study, {k: (v.value, v.stderr) for k, v in found.items()}, errors)

    def notes(self, study: Study) -> Mapping[str, object]:
        return study.findings


def mean_squared_errors(study: Study) -> dict[tuple[str, Choice], float]:
    """||Q_b(W_i) − W_i||²/n_i by layer name and choice: Ω per unit of trace."""
    per_weight = {
        (layer.name, weights): squared_weight_error(study.network, layer, choice) / layer.weights
        for layer in study.network.layers
        for weights, choice in by_weights(study.choices).items()
    }
    return {
        (layer.name, choice): per_weight[layer.name, choice.weights]
        for layer in study.network.layers
        for choice in study.choices
    }


def largest_errors(study: Study, errors: Mapping[tuple[str, Choice], float]) -> dict[str, float]:
    """The largest of a layer's errors over its choices, by layer name."""
    return {
        layer.name: max(errors[layer.name, choice] for choice in study.choices)
        for layer in study.network.layers
    }


def omegas(
    study: Study,
    traces: Mapping[str, tuple[float, float]],
    errors: Mapping[tuple[str, Choice], float],
) -> Scores:
    """Ω and its standard error from (trace, standard error); a negative trace counts as 0."""
    return {
        (name, choice): Score(max(0.0, traces[name][0]) * error, traces[name][1] * error)
        for (name, choice), error in errors.items()
    }


def _notes(
    study: Study, found: Mapping[str, Trace], weights: Mapping[str, float]
) -> dict[str, object]:
    equal, smooth = split(study)
    estimated = [name for name, trace in found.items() if trace.probes]
    return {
        "exact_traces": [name for name in found if name not in estimated],
        "estimated_traces": estimated,
        "probes": {name: found[name].probes for name in estimated},
        "hit_max_probes": [
            name for name in estimated if not within_bound(name, found, weights, study.rtol)
        ],
        "gauss_newton": (
            "sampled"
            if is_sampled(study)
            else "exact"
            if study.loss.has_exact_hessian
            else "not taken apart"
        ),
        "hessian_equals_gauss_newton": [layer.name for layer in equal],
        "traces_of_smooth_layers": {
            layer.name: {
                "hessian": found[layer.name].value,
                "stderr": found[layer.name].stderr,
                "gauss_newton": found[layer.name].gauss_newton,
                "gauss_newton_stderr": found[layer.name].gauss_newton_stderr,
            }
            for layer in smooth
        },
    }


PROFILER = Hessian()
