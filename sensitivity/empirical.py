"""Loss increase when one layer alone takes one choice, weights and activations."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mpsearch.choice import Choice
from mpsearch.journal import Journal
from mpsearch.losses import target_of
from mpsearch.profiler import Score, Scores, Study
from mpsearch.quantized import quantize
from mpsearch.quantizer import FLOAT_BITS

_FLOAT = Choice(FLOAT_BITS, FLOAT_BITS)


@dataclass(frozen=True)
class Empirical:
    """The `empirical` metric: Ω = max(0, mean loss with the layer quantized − mean loss in
    float)."""

    name: str = "empirical"
    description: str = "loss increase with one layer quantized, weights and activations"

    def steps(self, study: Study) -> int:
        return len(study.network.layers) * len(study.choices)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        float_losses: torch.Tensor | None = None
        scores = {}
        for layer in study.network.layers:
            for choice in study.choices:
                key = f"{layer.name} {choice}"
                cell = journal.get(key)
                if cell is None:
                    if float_losses is None:
                        float_losses = _losses(study, {})
                    increase = _losses(study, {layer.name: choice}) - float_losses
                    n = len(increase)
                    stderr = float(increase.std() / math.sqrt(n)) if n > 1 else 0.0
                    cell = [float(increase.mean()), stderr]
                    journal.put(key, cell)
                scores[layer.name, choice] = Score(max(0.0, cell[0]), cell[1])
                step()
        return scores

    def notes(self, study: Study) -> Mapping[str, object]:
        return {"negative_increases": "counted as 0"}


def _losses(study: Study, choices: Mapping[str, Choice]) -> torch.Tensor:
    """Loss of every sample, float64, with the named layers quantized and the others in float."""
    complete = {layer.name: choices.get(layer.name, _FLOAT) for layer in study.network.layers}
    quantized = quantize(study.network, complete, study.histograms)
    parts = []
    with torch.no_grad():
        for inputs, labels in study.data.batches(study.batch_size):
            target = labels if study.loss.uses_labels else None
            reference = study.network(*inputs) if target is None else torch.empty(0)
            target = target_of(study.loss, reference, target)
            parts.append(study.loss.per_sample(quantized(*inputs), target).double())
    return torch.cat(parts)


PROFILER = Empirical()
