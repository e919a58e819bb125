"""What a sensitivity metric sees and returns: the protocol of the `mpsearch.profilers` plug-ins."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from mpsearch.data import Batch, Data
from mpsearch.graph.network import Network
from mpsearch.graph.partial_forward import activation_bytes
from mpsearch.losses.loss import Loss
from mpsearch.post_training.activation_ranges import choose_quantizers
from mpsearch.quantization.calibration import Histogram, calibrate
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer
from mpsearch.running.journal import Journal
from mpsearch.running.workers import Workers
from mpsearch.tables.choice import Choice

if TYPE_CHECKING:
    from mpsearch.sensitivity.forward_metric import OutputMetric

Scores = Mapping[tuple[str, Choice], "Score"]

MEMORY_LIMIT = 2**29  # bytes of intermediate values that a metric keeps at once


@dataclass(frozen=True)
class Score:
    """Ω of one layer at one choice, and its standard error (0 when the value is not estimated).

    `metrics`: what else was found on the way, of either sign, by the column of the table that it
    goes to (`omega_kl`); the same columns for every layer and choice.
    """

    omega: float
    stderr: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Everything that a metric may look at. `seed` makes every random draw repeatable.

    `network` is on `device` already; `batches` puts the data there. `memory_limit` bounds the bytes
    of intermediate values that are kept at once, by smaller batches. `workers` are the processes
    that share the work. `keep_outputs` is for how many samples the changed outputs of every cell
    are kept in the journal, for interactions; 0 keeps none. `beside` are the metrics of the outputs
    that a metric of the outputs takes from the same passes. `rounding`, `correct_bias` and
    `ranges` say how a layer is quantized whose outputs are looked at, as in `post_training`.
    """

    network: Network
    data: Data
    loss: Loss
    choices: tuple[Choice, ...]
    batch_size: int
    seed: int
    rtol: float  # standard error that is wanted, relative to what a layer contributes
    max_probes: int  # per layer, however large its error still is
    memory_limit: int = MEMORY_LIMIT
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: Workers = field(default_factory=Workers)
    keep_outputs: int = 0
    beside: "tuple[OutputMetric, ...]" = ()
    rounding: Literal["nearest", "adaptive"] = "nearest"
    correct_bias: bool = False
    ranges: str = "mse"
    findings: dict[str, object] = field(default_factory=dict)  # of `score`, for `notes`

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Input activations of every layer on the study's data, from which ranges are set."""
        return calibrate(self.network, self.data, self.batch_size)

    @cached_property
    def quantizers(self) -> Mapping[str, Mapping[int, ActivationQuantizer]]:
        """Of every layer's input, by bits."""
        found: dict[str, dict[int, ActivationQuantizer]] = {}
        for bits in sorted({choice.a_bits for choice in self.choices}):
            wanted = {layer.name: Choice(FLOAT_BITS, bits) for layer in self.network.layers}
            by_layer = choose_quantizers(
                self.network, wanted, self.histograms, self.ranges, self.data, self.rows
            )
            for name, quantizer in by_layer.items():
                found.setdefault(name, {})[bits] = quantizer
        return found

    @cached_property
    def rows(self) -> int:
        """Samples per batch: `batch_size`, or fewer where their values would pass the limit."""
        fitting = self.memory_limit // max(1, activation_bytes(self.network.graph))
        return max(1, min(self.batch_size, fitting))

    def batches(self) -> Iterator[Batch]:
        """The data in batches of `rows` samples, on the study's device."""
        for inputs, labels in self.data.batches(self.rows):
            moved = None if labels is None else labels.to(self.device)
            yield tuple(x.to(self.device) for x in inputs), moved

    @property
    def batch_count(self) -> int:
        """How many batches there are."""
        return -(-len(self.data) // self.rows)


class Profiler(Protocol):
    """A metric. `steps` is how many times `score` will call `step`, for the progress bar.

    `score` asks the journal before it computes anything and tells it what it has computed, so
    that a killed run goes on where it was. `notes` says how the values were obtained, for the
    provenance, for example which layers are exact.
    """

    name: str
    description: str

    def steps(self, study: Study) -> int: ...

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores: ...

    def notes(self, study: Study) -> Mapping[str, object]: ...
