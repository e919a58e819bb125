"""Metrics that compare the network's outputs with one layer quantized to its float outputs.

A metric is a function of float outputs, changed outputs and labels, per sample; Ω is its mean over
the data, and the standard error that of a mean over samples. `LossMetric` is one that also asks the
loss. Only what depends on the changed layer
is recomputed (mpsearch.partial_forward).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mpsearch.errors import InputError
from mpsearch.journal import Journal
from mpsearch.layers import Layer
from mpsearch.losses import Loss, check_curved
from mpsearch.partial_forward import PartialForward
from mpsearch.profiler import Score, Scores, Study
from mpsearch.sensitivity.cells import Cell, cells_of, replacement
from mpsearch.sensitivity.changes import encode

# (float outputs [n, …], changed outputs [n, …], labels or None) -> [n]
PerSample = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]
OfLoss = Callable[[Loss, torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


@dataclass(frozen=True)
class ForwardMetric:
    """A metric of the outputs. A mean below zero counts as zero, as Ω cannot be negative."""

    name: str
    description: str
    per_sample: PerSample
    needs_labels: bool = False

    def steps(self, study: Study) -> int:
        return study.batch_count * len(study.network.layers)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        if self.needs_labels and study.data.labels is None:
            raise InputError(
                f"the metric {self.name} needs labels (array y), and {study.data.name} has none; "
                "expected labelled data or another metric, such as perturbation"
            )
        visit(study, journal, step, self._measure)
        return {
            (layer.name, choice): self._score(study, journal, layer, index)
            for layer in study.network.layers
            for index, choice in enumerate(study.choices)
        }

    def notes(self, study: Study) -> Mapping[str, object]:
        return {"batch_rows": study.rows, "negative_means": "counted as 0"}

    def _measure(
        self,
        study: Study,
        batch: int,
        logits: torch.Tensor,
        changed: list[torch.Tensor],
        labels: torch.Tensor | None,
    ) -> dict[str, Any]:
        """Σ and Σ of squares of the metric for each choice and, where kept, the outputs'
        changes."""
        moments = []
        for outputs in changed:
            values = self.per_sample(logits, outputs, labels).double()
            moments.append([float(values.sum()), float(values.square().sum())])
        kept = max(0, min(len(logits), study.keep_outputs - batch * study.rows))
        if not kept:
            return {"moments": moments}
        changes = [encode(outputs[:kept] - logits[:kept]) for outputs in changed]
        return {"moments": moments, "changes": changes}

    def _score(self, study: Study, journal: Journal, layer: Layer, index: int) -> Score:
        n = len(study.data)
        parts = [journal.get(piece(b, layer))["moments"][index] for b in range(study.batch_count)]
        total, squares = (math.fsum(part[k] for part in parts) for k in (0, 1))
        mean = total / n
        variance = max(0.0, squares / n - mean * mean) * n / (n - 1) if n > 1 else 0.0
        return Score(max(0.0, mean), math.sqrt(variance / n))


@dataclass(frozen=True)
class LossMetric:
    """A metric of loss, outputs and labels. `needs_curvature`: it is 0 for a loss without one."""

    name: str
    description: str
    per_sample: OfLoss
    needs_labels: bool = False
    needs_curvature: bool = False

    def steps(self, study: Study) -> int:
        return self._of(study).steps(study)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        if self.needs_curvature:
            check_curved(study.loss, self.name)
        return self._of(study).score(study, journal, step)

    def notes(self, study: Study) -> Mapping[str, object]:
        return self._of(study).notes(study)

    def _of(self, study: Study) -> ForwardMetric:
        function = partial(self.per_sample, study.loss)
        return ForwardMetric(self.name, self.description, function, self.needs_labels)


def piece(batch: int, layer: Layer) -> str:
    """The journal's key for all choices of a layer on one batch."""
    return f"batch {batch} {layer.name}"


def visit(
    study: Study,
    journal: Journal,
    step: Callable[[], None],
    measure: Callable[[Study, int, torch.Tensor, list[torch.Tensor], torch.Tensor | None], Any],
) -> None:
    """Call `measure(study, batch, float logits, logits per choice, labels)` per batch and layer.

    Its JSON value is kept in the journal under `piece(batch, layer)`; what the journal has is not
    computed again. With several processes each computes its share and receives the others'.
    """
    layers = study.network.layers
    cells: dict[str, list[Cell]] = {}
    engine: PartialForward | None = None
    number = 0
    for index, (inputs, labels) in enumerate(study.batches()):
        values = None
        engine = engine or PartialForward(study.network.graph, inputs)
        for layer in layers:
            mine = study.workers.owns(index if study.batch_count >= study.workers.size else number)
            number += 1
            if mine and journal.get(piece(index, layer)) is None:
                if values is None:
                    values = engine.run(inputs)
                    check_finite(study, engine.logits(values))
                if layer.name not in cells:
                    cells[layer.name] = cells_of(study, layer)
                replace = replacement(study, layer, cells[layer.name])
                changed = engine.rerun(layer, values, replace, len(study.choices))
                found = measure(study, index, engine.logits(values), changed, labels)
                journal.put(piece(index, layer), found)
            step()
    journal.adopt(study.workers.share(journal.values()))


def check_finite(study: Study, logits: torch.Tensor) -> None:
    """Raise InputError when the float network's outputs are not numbers."""
    if not bool(torch.isfinite(logits).all()):
        raise InputError(
            f"the network returns NaN or infinity on {study.data.name}; expected finite outputs"
        )
