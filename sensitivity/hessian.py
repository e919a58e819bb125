"""HAWQ's Ω: average Hessian trace of a layer times the squared error of its quantized weights.

Ω_i(b) = Tr(H_i)/n_i · ||Q_b(W_i) − W_i||² (Dong et al., HAWQ-V2, NeurIPS 2020; Yao et al., HAWQ-V3,
ICML 2021), H_i the Hessian of the mean loss in the batch-norm-folded weights of layer i. The trace
is exact where the outputs are piecewise linear in the weights (there the Hessian block equals the
Gauss-Newton block), and Hutchinson's estimate with its standard error elsewhere. Only the weights'
error counts: choices that differ in `a_bits` alone have the same Ω.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mpsearch.journal import Journal
from mpsearch.layers import Layer
from mpsearch.profiler import Score, Scores, Study
from mpsearch.sensitivity.gauss_newton import trace_sums
from mpsearch.sensitivity.hutchinson import probe_sums
from mpsearch.sensitivity.linearity import piecewise_linear
from mpsearch.sensitivity.weight_error import squared_weight_error


@dataclass(frozen=True)
class Hessian:
    """The `hessian` metric."""

    name: str = "hessian"
    description: str = "HAWQ's Ω: Tr(H)/n · ||ΔW||²; exact traces where the theory allows"

    def steps(self, study: Study) -> int:
        batches = math.ceil(len(study.data) / study.batch_size)
        return batches + len(study.network.layers)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        traces = _traces(study, journal, step)
        scores = {}
        for layer in study.network.layers:
            mean, stderr = traces[layer.name]
            for choice in study.choices:
                error = squared_weight_error(study.network, layer, choice.w_bits) / layer.weights
                scores[layer.name, choice] = Score(max(0.0, mean) * error, stderr * error)
            step()
        return scores

    def notes(self, study: Study) -> Mapping[str, object]:
        exact, estimated = _split(study)
        return {
            "exact_traces": [layer.name for layer in exact],
            "estimated_traces": [layer.name for layer in estimated],
            "probes": study.probes if estimated else 0,
        }


def _split(study: Study) -> tuple[list[Layer], list[Layer]]:
    exact: list[Layer] = []
    estimated: list[Layer] = []
    for layer in study.network.layers:
        target = exact if piecewise_linear(study.network.graph, layer) else estimated
        target.append(layer)
    return exact, estimated


def _traces(
    study: Study, journal: Journal, step: Callable[[], None]
) -> dict[str, tuple[float, float]]:
    """(trace, standard error) by layer: sums per batch, so that a killed run loses one batch."""
    exact, estimated = _split(study)
    exact_sums = {layer.name: 0.0 for layer in exact}
    probe_totals = {layer.name: np.zeros(study.probes) for layer in estimated}
    for index, batch in enumerate(study.data.batches(study.batch_size)):
        key = f"batch {index}"
        sums = journal.get(key)
        if sums is None:
            traces = trace_sums(study.network, batch[0]) if exact else {}
            probes = {}
            if estimated:
                probes = probe_sums(
                    study.network, study.loss, batch, estimated, study.probes, study.seed
                )
            sums = {"traces": traces, "probes": probes}
            journal.put(key, sums)
        for name in exact_sums:
            exact_sums[name] += sums["traces"][name]
        for name in probe_totals:
            probe_totals[name] += sums["probes"][name]
        step()
    n = len(study.data)
    result = {name: (total / n, 0.0) for name, total in exact_sums.items()}
    for name, totals in probe_totals.items():
        values = totals / n
        result[name] = (float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))
    return result


PROFILER = Hessian()
