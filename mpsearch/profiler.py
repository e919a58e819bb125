"""What a sensitivity metric sees and returns: the protocol of the `mpsearch.profilers` plug-ins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from mpsearch.calibration import Histogram, calibrate
from mpsearch.choice import Choice
from mpsearch.data import Data
from mpsearch.journal import Journal
from mpsearch.losses import Loss
from mpsearch.network import Network

Scores = Mapping[tuple[str, Choice], "Score"]


@dataclass(frozen=True)
class Score:
    """Ω of one layer at one choice, and its standard error (0 when the value is not estimated)."""

    omega: float
    stderr: float = 0.0


@dataclass(frozen=True)
class Study:
    """Everything that a metric may look at. `seed` makes every random draw repeatable."""

    network: Network
    data: Data
    loss: Loss
    choices: tuple[Choice, ...]
    batch_size: int
    seed: int
    rtol: float  # standard error that is wanted, relative to what a layer contributes
    max_probes: int  # per layer, however large its error still is
    findings: dict[str, object] = field(default_factory=dict)  # of `score`, for `notes`

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Input activations of every layer on the study's data, from which ranges are set."""
        return calibrate(self.network, self.data, self.batch_size)


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
