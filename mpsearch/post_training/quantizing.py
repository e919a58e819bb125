"""Assignments to networks: one (`apply`), or many that share what they have in common.

Adaptive rounding that will take minutes says so while it begins, and how to do without it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.post_training.repairing import PLAIN, PostTraining, Shared, quantize_after_training
from mpsearch.post_training.stored_tensors import store_tensors
from mpsearch.quantization.calibration import Histogram, calibrate
from mpsearch.quantization.kept_sample import kept_sample
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    check_layers,
    quantize_layer,
)
from mpsearch.quantization.quantizer import FLOAT_BITS, quantize_weight
from mpsearch.quantization.scale_layout import layout_of
from mpsearch.running.streams import say
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution


def apply(
    network: Network,
    assignment: Assignment | Solution | Mapping[str, Choice],
    data: Data,
    settings: PostTraining | None = None,
    batch_size: int = 64,
    on_step: Callable[[], None] | None = None,
    keep_sample: bool = True,
) -> QuantizedNetwork:
    """Quantize `network` as an assignment says, calibrated on `data`, as `mpsearch apply` does.

    assignment: one that was saved, what `solve` returned, or choices by layer name. data: needs no
    labels. settings: ranges and repairs, by default those of the command line. on_step: called once
    per layer. keep_sample: whether it remembers some of the data and FP32's outputs for them
    (`QuantizedNetwork.sample`). The integers of a layer are those of `quantize` unless a repair
    changes them. Raises InputError for a solution without an assignment and for an assignment of
    another network.
    """
    if isinstance(assignment, Solution):
        if not assignment.choices:
            raise InputError(
                f"there is no assignment to apply: the solution is {assignment.status}"
            )
        choices = assignment.choices
    else:
        choices = assignment.layers if isinstance(assignment, Assignment) else assignment
    found = quantize_after_training(network, choices, data, settings, batch_size, on_step)
    return replace(found, sample=kept_sample(network, data)) if keep_sample else found


MINUTE = 60.0
_SEEN = 3.0  # seconds after which a share of the work tells how long the whole takes
# A layer of c rows of k weights: a matrix [k, k] from some 16,000 positions, its factors, and c
# rows at 31 scales against it; what every layer takes besides, in the same multiplications.
_POSITIONS, _SCALES, _BLOCK, _EACH = 16_384, 31, 1024, 10**9


def work_of(layer: Layer) -> float:
    """Multiplications of rounding one layer, roughly: which share of all layers' it is, counts."""
    k = layer.weights / layer.channels
    block = min(k, _BLOCK)  # wide layers have few positions, and are factorised in blocks
    return k * block * (_SCALES * layer.channels + _POSITIONS + 2 * block) + _EACH


def with_notice(
    layers: Sequence[Layer],
    step: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[], None]:
    """`step`, to be called as each layer begins, which prints one line on standard error once the
    first layers show that all of them take more than a minute; once, for any number of networks."""
    works, starts, told = [work_of(layer) for layer in layers], list[float](), False

    def begins() -> None:
        nonlocal told
        step()
        if told or len(starts) == len(works):  # of the first network alone
            return
        starts.append(clock())
        seconds, done = starts[-1] - starts[0], sum(works[: len(starts) - 1])
        told = seconds >= _SEEN and seconds * sum(works) > MINUTE * done
        if told:
            say(
                "note: adaptive rounding takes about "
                f"{max(2, round(seconds * sum(works) / done / MINUTE))} minutes for this network; "
                "--rounding nearest does without, and may lose accuracy"
            )

    return begins


@dataclass(frozen=True)
class Quantizing:
    """How choices become networks: the one place where what is measured is quantized.

    `Quantizing(network, calibration)(choices)` is what `quantize_after_training` gives: repairs of
    a layer depend on those before it, and assignments that begin alike share them. `PLAIN` repairs
    nothing: then it equals `quantize(network, choices, histograms)` with the histograms of
    `calibration`, which are made at the first call; between assignments that share layers only the
    others are quantized anew, and choices that differ in the activations alone share the search
    for the weights' scales. So it is where `wide` differs from `PLAIN` alone.
    """

    network: Network
    calibration: Data
    batch_size: int = 64
    post_training: PostTraining = field(default_factory=PostTraining)
    _layers: dict[tuple[str, Choice], QuantizedLayer] = field(default_factory=dict, repr=False)
    _scales: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What else than network and data decides the result, for digests; empty for `PLAIN`, the
        only way of the first version."""
        return {} if self.post_training == PLAIN else self.post_training.to_json()

    @cached_property
    def _shared(self) -> Shared:
        return Shared(self.network, self.calibration, self.batch_size)

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """What reaches each layer on the calibration data."""
        return calibrate(self.network, self.calibration, self.batch_size)

    @cached_property
    def _step(self) -> Callable[[], None] | None:
        """Says of the first network if rounding it takes minutes."""
        adaptive = self.post_training.rounding == "adaptive"
        return with_notice(self.network.layers) if adaptive else None

    def __call__(self, choices: Mapping[str, Choice]) -> QuantizedNetwork:
        """The quantized network. Raises InputError as `check_layers`."""
        if replace(self.post_training, wide=PLAIN.wide) != PLAIN:
            return quantize_after_training(
                self.network, choices, self.calibration, self.post_training, self.batch_size,
                self._step,
                shared=self._shared,
            )  # fmt: skip
        check_layers(self.network, choices)
        layers = {
            layer.name: self._layer(layer, choices[layer.name]) for layer in self.network.layers
        }
        quantized = store_tensors(
            self.network, layers, self.calibration, self.post_training.wide,
            lambda found: self._shared.yardstick.noise(found), self.batch_size,
        )  # fmt: skip
        quantized = quantized.made_from(self.network)
        return replace(quantized, post_training=self.post_training.to_json())

    def _layer(self, layer: Layer, choice: Choice) -> QuantizedLayer:
        key = (layer.name, choice)
        if key not in self._layers:
            histogram = self.histograms[layer.name]
            scales = None if choice.w_bits == FLOAT_BITS else self._weight_scales(layer, choice)
            self._layers[key] = quantize_layer(self.network, layer, choice, histogram, scales)
        return self._layers[key]

    def _weight_scales(self, layer: Layer, choice: Choice) -> torch.Tensor:
        key = (layer.name, choice.weights)
        if key not in self._scales:
            rows, _ = self.network.weight_rows(layer)
            layout = layout_of(layer, choice)
            self._scales[key] = quantize_weight(rows, choice.w_bits, layout).scales
        return self._scales[key]
