"""Diagonal empirical Fisher in a layer's outputs: ½ E[Σ_k (∂ℓ/∂z_k · Δz_k)²].

z are the layer's outputs, Δz how they change when the layer alone takes the choice (weights and
input), ℓ the loss. It is the score of gradient-based searches such as ModelOpt's
auto_quantize: one backward pass and one pass through each layer, no pass through the rest of the
network. Without labels the targets are drawn from the network's own predictions, which gives the
Fisher information itself: classes from softmax, answers from the sigmoid, and for mse the outputs
with a noise of variance K/2, for which the Fisher information is the Gauss-Newton matrix.

A forward pass that keeps what enters and leaves every layer, with gradients from there on.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from mpsearch.data import Batch
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.graph.sample_layout import Layouts, parts
from mpsearch.running.journal import Journal
from mpsearch.running.seeds import generator
from mpsearch.sensitivity.cells import Cell, Cells, notes_of, replacement
from mpsearch.sensitivity.forward_metric import check_finite
from mpsearch.sensitivity.study import Score, Scores, Study


class Tape(fx.Interpreter):
    """Runs the graph; `arguments` and `outputs` are those of the layers' nodes.

    The outputs require gradients and the weights do not, so a backward pass costs no weight
    gradients. Arguments are detached. An output that all samples share is there once per sample.
    """

    def __init__(self, network: Network, layouts: Layouts, samples: int) -> None:
        super().__init__(network.graph)
        self.layouts = layouts
        self.samples = samples
        self.layer_nodes = {node for layer in network.layers for node in layer.nodes}
        self.arguments: dict[fx.Node, tuple[Any, ...]] = {}
        self.outputs: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        if n.name not in self.layer_nodes:
            return super().run_node(n)
        args = self.fetch_args_kwargs_from_env(n)[0]
        self.arguments[n] = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in args)
        value = super().run_node(n)
        assert isinstance(value, torch.Tensor)
        value = self.layouts[n.name].spread(value, self.samples)
        if not value.requires_grad:
            value.requires_grad_(True)
        self.outputs[n] = value
        return value


@dataclass(frozen=True)
class Fisher:
    """The `fisher` metric."""

    name: str = "fisher"
    description: str = "½ E[(gradient · change)²] in each layer's outputs"
    labels: str = "used if there"
    cost: str = "one backward pass"

    def steps(self, study: Study) -> int:
        return study.batch_count

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        cells = Cells(study)
        for index, batch in enumerate(study.batches()):
            key = f"batch {index}"
            if study.workers.owns(index) and journal.get(key) is None:
                journal.put(key, _moments(study, batch, cells, index))
            step()
        journal.adopt(study.workers.share(journal.values()))
        return {
            (layer.name, choice): _score(study, journal, layer, position)
            for layer in study.network.layers
            for position, choice in enumerate(study.choices)
        }

    def notes(self, study: Study) -> Mapping[str, object]:
        classes = "labels" if study.loss.uses_labels else "drawn from predictions"
        return {"classes": classes, **notes_of(study)}


def _moments(study: Study, batch: Batch, cells: Cells, index: int) -> dict[str, list[list[float]]]:
    """[Σ_n, Σ_n squared] of the per-sample value for every layer and choice on one batch."""
    inputs, labels = batch
    nodes = [node for layer in study.network.layers for node in layer.nodes]
    total: dict[str, list[list[float]]] = {}
    start = 0
    for part, layouts in parts(study.network.graph, nodes, inputs):
        samples = len(part[0])
        tape = Tape(study.network, layouts, samples)
        given = None if labels is None else labels[start : start + samples]
        key = f"{study.seed} {index}" + (f" {start}" if start else "")
        for name, moments in _part_moments(study, tape, part, given, cells, key).items():
            sums = total.setdefault(name, [[0.0, 0.0] for _ in moments])
            total[name] = [
                [a + b for a, b in zip(*x, strict=True)] for x in zip(sums, moments, strict=True)
            ]
        start += samples
    return total


def _part_moments(
    study: Study,
    tape: Tape,
    inputs: tuple[torch.Tensor, ...],
    labels: torch.Tensor | None,
    cells: Cells,
    key: str,
) -> dict[str, list[list[float]]]:
    """The same for samples that pass together."""
    logits = tape.run(*inputs)
    check_finite(study, logits)
    loss = study.loss.gradient_loss(logits, labels, generator(key)).sum()
    nodes = list(tape.outputs)
    gradients = torch.autograd.grad(loss, [tape.outputs[n] for n in nodes], allow_unused=True)
    found = dict(zip(nodes, gradients, strict=True))
    return {
        layer.name: [
            _cell_moments(study, layer, cells.of(layer), position, tape, found)
            for position in range(len(study.choices))
        ]
        for layer in study.network.layers
    }


def _cell_moments(
    study: Study,
    layer: Layer,
    cells: list[Cell],
    position: int,
    tape: Tape,
    gradients: Mapping[fx.Node, torch.Tensor | None],
) -> list[float]:
    replace = replacement(study, layer, cells)
    values: torch.Tensor | None = None
    for node, gradient in gradients.items():
        if node.name not in layer.nodes or gradient is None:
            continue
        args = replace(node, tape.arguments[node], position)
        with torch.no_grad():
            change = node.target(*args, **node.kwargs) - tape.outputs[node]  # type: ignore[operator]
        products = tape.layouts[node.name].by_sample(gradient * change, tape.samples)
        part = 0.5 * products.flatten(1).double().square().sum(dim=1)
        values = part if values is None else values + part
    if values is None:
        return [0.0, 0.0]
    return [float(values.sum()), float(values.square().sum())]


def _score(study: Study, journal: Journal, layer: Layer, position: int) -> Score:
    n = len(study.data)
    parts = [
        journal.get(f"batch {index}")[layer.name][position] for index in range(study.batch_count)
    ]
    mean, squares = (math.fsum(part[k] for part in parts) / n for k in (0, 1))
    variance = max(0.0, squares - mean * mean) * n / (n - 1) if n > 1 else 0.0
    return Score(mean, math.sqrt(variance / n))


PROFILER = Fisher()
