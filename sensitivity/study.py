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
    """Ω of one layer at one choice."""

    omega: float
    """Its Ω, not negative."""
    stderr: float = 0.0
    """Its standard error; 0 when the value is not estimated."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else was found on the way, of either sign, by the column of the table that it goes to
    (`omega_kl`); the same columns for every layer and choice."""


@dataclass(frozen=True)
class Study:
    """Everything that a metric may look at."""

    network: Network
    """The float network, on `device` already."""
    data: Data
    """The samples; `batches` puts them on the device."""
    loss: Loss
    """The loss that sensitivity is measured on."""
    choices: tuple[Choice, ...]
    """What every layer is scored at."""
    batch_size: int
    """Samples per batch; fewer where their values would pass the memory limit."""
    seed: int
    """Makes every random draw repeatable."""
    rtol: float
    """The standard error that is wanted, relative to what a layer contributes."""
    max_probes: int
    """Per layer, however large its error still is."""
    memory_limit: int = MEMORY_LIMIT
    """Bytes of intermediate values that are kept at once, by smaller batches."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where passes are computed."""
    workers: Workers = field(default_factory=Workers)
    """The processes that share the work."""
    keep_outputs: int = 0
    """For how many samples the changed outputs of every cell are kept in the journal, for
    interactions; 0 keeps none."""
    beside: "tuple[OutputMetric, ...]" = ()
    """Metrics of the outputs that a metric of the outputs takes from the same passes."""
    rounding: Literal["nearest", "adaptive"] = "nearest"
    """How a layer is quantized whose outputs are looked at, as `PostTraining` has it."""
    correct_bias: bool = False
    """The same of its bias."""
    ranges: str = "mse"
    """The same of the range of its input."""
    findings: dict[str, object] = field(default_factory=dict)
    """What `score` found out, for `notes`."""

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
    """A metric.

    `score` asks the journal before it computes anything and tells it what it has computed, so that
    a killed run goes on where it was. `notes` says how the values were obtained, for the
    provenance, for example which layers are exact. `steps` is how many times `score` will call
    `step`, for the progress bar.
    """

    name: str
    """As `--metric` takes it."""
    description: str
    """One line about it. `mpsearch metrics` also shows the attributes `labels` (`needed`, `used if
    there`, `not used`) and `cost`, one line each, of a metric that has them."""

    def steps(self, study: Study) -> int: ...

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores: ...

    def notes(self, study: Study) -> Mapping[str, object]: ...
