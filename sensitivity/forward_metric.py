"""Metrics that compare the network's outputs with one layer quantized to its float outputs.

A metric is a function of float outputs, changed outputs and labels, per sample; Ω is its mean over
the data, and the standard error that of a mean over samples. `LossMetric` is one that also asks the
loss. Only what depends on the changed layer is recomputed (mpsearch.graph.partial_forward), and all
metrics of a study (`Study.beside`) are taken from the same passes.

Changes of outputs as text: float16 with one scale per array, for the journal.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.losses.loss import Loss, check_curvature
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.cells import Cells, notes_of, replacement
from mpsearch.sensitivity.study import Score, Scores, Study


def encode(change: torch.Tensor) -> dict[str, object]:
    """A change [n, C] as base64 of float16 and the scale that keeps it within float16's range."""
    values = change.detach().cpu().double().numpy()
    largest = float(np.abs(values).max(initial=0.0))
    scale = largest if largest > 0 else 1.0
    packed = (values / scale).astype("<f2").tobytes()
    return {"scale": scale, "shape": list(values.shape), "data": base64.b64encode(packed).decode()}


def decode(document: dict[str, object]) -> np.ndarray:
    """The change [n, C] in float32 that `encode` wrote, to 11 bits of its largest element."""
    packed = base64.b64decode(str(document["data"]))
    shape = document["shape"]
    assert isinstance(shape, list)
    values = np.frombuffer(packed, dtype="<f2").reshape(shape).astype(np.float32)
    return values * np.float32(str(document["scale"]))


# (float outputs [n, …], changed outputs [n, …], labels or None) -> [n]
PerSample = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]
OfLoss = Callable[[Loss, torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


@dataclass(frozen=True)
class Measure:
    """A metric on one study: mean of `per_sample` over `unit`; its column is omega_NAME."""

    name: str
    per_sample: PerSample
    unit: float = 1.0

    @property
    def column(self) -> str:
        return f"omega_{self.name}"


class OutputMetric:
    """What all metrics of the outputs have in common; `measure` is what tells them apart."""

    name: str
    """As `--metric` takes it; its column of a table is omega_NAME."""
    description: str
    """One line about it."""
    labels: str = "not used"
    """Whether it looks at labels: `needed`, `used if there` or `not used`."""
    cost: ClassVar[str] = "a partial pass per layer and choice"
    """What it computes, in passes over the samples."""

    def measure(self, study: Study) -> Measure:
        """Raises InputError where data, loss or outputs have no such number."""
        raise NotImplementedError

    def steps(self, study: Study) -> int:
        """One for each batch and layer."""
        return study.batch_count * len(study.network.layers)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        """Ω, and the means of all metrics of the study."""
        return score(self.measure(study), study, journal, step)

    def notes(self, study: Study) -> Mapping[str, object]:
        """For the provenance."""
        return {"batch_rows": study.rows, "negative_means": "counted as 0", **notes_of(study)}


@dataclass(frozen=True)
class ForwardMetric(OutputMetric):
    """A metric of the outputs. A mean below zero counts as zero, as Ω cannot be negative."""

    name: str
    """As `--metric` takes it; its column of a table is omega_NAME."""
    description: str
    """One line about it."""
    per_sample: PerSample
    """(float outputs [n, …], changed outputs [n, …], labels or None) -> [n]."""
    needs_labels: bool = False
    """Whether data without labels are refused."""

    def measure(self, study: Study) -> Measure:
        """The metric on a study; InputError without labels where it needs them."""
        if self.needs_labels and study.data.labels is None:
            raise InputError(
                f"the metric {self.name} needs labels (array y), and {study.data.name} has none; "
                "expected labelled data or another metric, such as perturbation"
            )
        return Measure(self.name, self.per_sample)


@dataclass(frozen=True)
class LossMetric(OutputMetric):
    """A metric of loss, outputs and labels. `needs_curvature`: it is 0 for a loss without one.

    `alias_of`: the metric that it is another name of. `labels`: as of an OutputMetric.
    """

    name: str
    description: str
    per_sample: OfLoss
    needs_labels: bool = False
    needs_curvature: bool = False
    alias_of: str = ""
    labels: str = "not used"

    def measure(self, study: Study) -> Measure:
        """The metric on a study; InputError without the labels or the curvature that it needs."""
        if self.needs_curvature:
            check_curvature(study.loss, self.name)
        function = partial(self.per_sample, study.loss)
        own = ForwardMetric(self.name, self.description, function, self.needs_labels)
        return Measure(self.alias_of or self.name, own.measure(study).per_sample)


def score(chosen: Measure, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
    """Ω of the chosen metric, and the signed mean of every metric of the study beside it.

    A metric beside it whose mean is no finite number in some cell is left out.
    """
    measures = {chosen.name: chosen}
    for metric in study.beside:
        try:
            measures.setdefault(metric.name, metric.measure(study))
        except InputError:  # the data, the loss or the outputs have no such number
            continue
    order = [metric.name for metric in study.beside if metric.name in measures]
    together = [measures[name] for name in dict.fromkeys([*order, chosen.name])]
    visit(study, journal, step, partial(_moments, together))
    cells = [
        (layer, index, choice)
        for layer in study.network.layers
        for index, choice in enumerate(study.choices)
    ]
    means = {
        measure.column: [_mean(study, journal, measure, layer, i)[0] for layer, i, _ in cells]
        for measure in together
    }
    finite = {
        column: values
        for column, values in means.items()
        if column == chosen.column or all(map(math.isfinite, values))
    }
    found = {}
    for number, (layer, index, choice) in enumerate(cells):
        mean, error = _mean(study, journal, chosen, layer, index)
        beside = {column: values[number] for column, values in finite.items()}
        found[layer.name, choice] = Score(max(0.0, mean), error, beside)
    return found


def _moments(
    measures: Sequence[Measure],
    study: Study,
    batch: int,
    logits: torch.Tensor,
    changed: list[torch.Tensor],
    labels: torch.Tensor | None,
) -> dict[str, Any]:
    """Σ and Σ of squares of each metric by choice and, where kept, the outputs' changes."""
    moments: dict[str, list[list[float]]] = {measure.name: [] for measure in measures}
    for outputs in changed:
        for measure in measures:
            values = measure.per_sample(logits, outputs, labels).double()
            moments[measure.name].append([float(values.sum()), float(values.square().sum())])
    kept = max(0, min(len(logits), study.keep_outputs - batch * study.rows))
    if not kept:
        return {"moments": moments}
    changes = [encode(outputs[:kept] - logits[:kept]) for outputs in changed]
    return {"moments": moments, "changes": changes}


def _mean(
    study: Study, journal: Journal, measure: Measure, layer: Layer, index: int
) -> tuple[float, float]:
    """A metric's mean over the samples at one cell, and its standard error."""
    n = len(study.data)
    parts = [
        journal.get(piece(b, layer))["moments"][measure.name][index]
        for b in range(study.batch_count)
    ]
    total, squares = (math.fsum(part[k] for part in parts) for k in (0, 1))
    mean = total / n
    variance = max(0.0, squares / n - mean * mean) * n / (n - 1) if n > 1 else 0.0
    return mean / measure.unit, math.sqrt(variance / n) / measure.unit


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
    cells = Cells(study)
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
                replace = replacement(study, layer, cells.of(layer))
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
