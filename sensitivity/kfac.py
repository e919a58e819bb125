"""½ ΔWᵀ H ΔW of the weights as they are rounded to be shipped, H by K-FAC with a diagonal factor.

Martens, Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML
2015; for convolutions Grosse, Martens, ICML 2016: derivatives at different positions and of
different channels are taken as uncorrelated. For output channel c with z = W·x at positions t:

    Ω = ½ Σ_c E[Σ_t (∂ℓ/∂z_tc)²] · Δw_c E[x·xᵀ] Δw_cᵀ

Rounding that keeps a layer's output raises ‖ΔW‖² while the loss falls: this form sees it, HAWQ's
does not. Where a corrected bias takes the mean out, E[x·xᵀ] is the covariance of x.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from mpsearch.data import Batch
from mpsearch.graph.layers import EMBEDDING, Layer, packet
from mpsearch.graph.sample_layout import parts
from mpsearch.post_training.layer_by_layer import channel_sums, has_own_bias
from mpsearch.post_training.layer_moments import InputMoments
from mpsearch.running.journal import Journal
from mpsearch.running.seeds import generator
from mpsearch.sensitivity.cells import input_moments, notes_of, rounded_weights, together
from mpsearch.sensitivity.fisher import Tape
from mpsearch.sensitivity.forward_metric import check_finite
from mpsearch.sensitivity.study import Score, Scores, Study


@dataclass(frozen=True)
class KFac:
    """The `kfac` metric; choices that differ in `a_bits` alone have the same Ω.

    An embedding table has none: what it reads is not multiplied.
    """

    name: str = "kfac"
    description: str = "½ ΔWᵀ H ΔW of the rounded weights, H by K-FAC"
    labels: str = "used if there"
    cost: str = "one backward pass"

    def steps(self, study: Study) -> int:
        return study.batch_count

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        for index, batch in enumerate(study.batches()):
            key = f"batch {index}"
            if study.workers.owns(index) and journal.get(key) is None:
                journal.put(key, _squared_gradients(study, batch, index))
            step()
        journal.adopt(study.workers.share(journal.values()))
        found = {}
        left = list(study.network.layers)
        while left:
            layers = together(study, left)
            left = left[len(layers) :]
            moments = input_moments(study, layers, {layer.name: () for layer in layers})
            for layer in layers:
                forms = _forms(study, journal, layer, moments.pop(layer.name, None))
                for choice in study.choices:
                    found[layer.name, choice] = Score(forms.get(choice.weights, 0.0))
        return found

    def notes(self, study: Study) -> Mapping[str, object]:
        targets = "labels" if study.loss.uses_labels else "drawn from predictions"
        return {"classes": targets, "activations": "not scored", **notes_of(study)}


def _forms(
    study: Study, journal: Journal, layer: Layer, seen: InputMoments | None
) -> dict[str, float]:
    """Ω of a layer by `Choice.weights`; none for an embedding, and where no loss reaches it."""
    parts_ = [journal.get(f"batch {index}").get(layer.name) for index in range(study.batch_count)]
    if seen is None or None in parts_:
        return {}
    sums = [math.fsum(values) for values in zip(*parts_, strict=True)]
    squared = torch.tensor(sums, dtype=torch.float64) / len(study.data)
    rows, _ = study.network.weight_rows(layer)
    centred = study.correct_bias and has_own_bias(study.network, layer)
    moments = seen.of(rows, centred)
    moments = replace(moments, prior=torch.zeros_like(moments.prior))
    forms = {}
    for weights, weight in rounded_weights(study, layer, seen, centred).items():
        change = weight.dequantize() - rows
        variance = (change * moments.times(change)).sum(1).clamp(min=0)
        forms[weights] = 0.5 * float((squared * variance.double().cpu()).sum())
    return forms


def _squared_gradients(study: Study, batch: Batch, index: int) -> dict[str, list[float]]:
    """Σ_n Σ_t (∂ℓ/∂z)² of every layer's channels on one batch."""
    inputs, labels = batch
    nodes = [node for layer in study.network.layers for node in layer.nodes]
    layer_of = {node: layer.name for layer in study.network.layers for node in layer.nodes}
    total: dict[str, torch.Tensor] = {}
    start = 0
    for part, layouts in parts(study.network.graph, nodes, inputs):
        samples = len(part[0])
        tape = Tape(study.network, layouts, samples)
        logits = tape.run(*part)
        check_finite(study, logits)
        given = None if labels is None else labels[start : start + samples]
        key = f"{study.seed} {index}" + (f" {start}" if start else "")
        loss = study.loss.gradient_loss(logits, given, generator(key)).sum()
        outputs = {node: z for node, z in tape.outputs.items() if packet(node) != EMBEDDING}
        found = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
        for node, gradient in zip(outputs, found, strict=True):
            if gradient is not None:
                sums = channel_sums(node, gradient.double().square())
                total[layer_of[node.name]] = total.get(layer_of[node.name], 0) + sums
        start += samples
    return {name: sums.tolist() for name, sums in total.items()}


PROFILER = KFac()
