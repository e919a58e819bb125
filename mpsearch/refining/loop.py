"""Refining an answer: measure the assignments that metrics prefer, then exchanges around the best.

Ω of a whole assignment is a sum over layers, which ranks assignments well and not perfectly, and no
metric is the best for every network. What is measured here is the network that would be shipped: an
assignment quantized with its repairs, on the samples that were profiled.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpsearch
from mpsearch.evaluation.subjects import Subject
from mpsearch.files.whole import digest
from mpsearch.quantization.quantized import check_layers
from mpsearch.refining.candidates import Asked, Candidate, Choices, exchanges, next_best, optima
from mpsearch.refining.repaired_errors import Trial, Trials, difference
from mpsearch.running.journal import Journal
from mpsearch.running.workers import Workers
from mpsearch.statistics import normal_quantile
from mpsearch.tables.solution import Solution

COUNT = 24  # assignments measured where nobody says how many
_ROUND = 3  # exchanges measured before those around the best are asked for anew


@dataclass(frozen=True, eq=False)
class Refined:
    """Which assignments were measured, and which was chosen: `trials[chosen]`."""

    subject: Subject
    """Network, samples and repairs that they were measured with."""
    asked: int
    """How many were to be measured."""
    trials: tuple[Trial, ...]
    """In the order of measuring: the optima of the table's columns, `trials[0]` that of Ω, then
    what was tried beside them."""
    optima: int
    """How many of the first trials are optima; all samples were measured of these."""
    chosen: int
    """The position of the one that is taken, never with a larger error than an optimum's."""
    loss: str
    """Which loss the errors are of, by name."""
    float_right: int | None
    """Of the samples, how many the float network gets right; None without labels and for a
    regression."""
    seconds: float
    """How long it took."""
    solution: Solution | None = None
    """The one to take, as a Solution, where `mpsearch.refine` was asked."""

    def __repr__(self) -> str:
        sure = "surely better" if self.is_surely_better else "may be luck"
        found = "nothing better" if self.chosen == 0 else f"gain {self.gain[0]:.3g}, {sure}"
        return f"Refined({len(self.trials)} assignments measured: {found}; {self.solution})"

    @property
    def best(self) -> Trial:
        return self.trials[self.chosen]

    @property
    def first(self) -> Trial:
        """The optimum of Ω."""
        return self.trials[0]

    @property
    def comparisons(self) -> int:
        """How many assignments the optimum of Ω was compared with."""
        return len(self.trials) - 1

    @property
    def gain(self) -> tuple[float, float, float]:
        """(mean, low, high): how much smaller the error is than that of Ω's optimum.

        Of paired differences over n samples with standard deviation s: mean ± z s/√n, with z the
        1 - 0.025/m quantile of the normal distribution for m comparisons (Bonferroni), so that
        the intervals of all m are right at once with 95 %, whichever of them is looked at.
        """
        if self.chosen == 0:
            return 0.0, 0.0, 0.0
        mean, error = difference(self.best.errors, self.first.errors)
        z = normal_quantile(0.95, self.comparisons)
        return mean, mean - z * error, mean + z * error

    @property
    def is_surely_better(self) -> bool:
        """Whether the whole interval of `gain` is above zero."""
        return self.gain[1] > 0


def refine(
    asked: Asked,
    best: Choices,
    subject: Subject,
    output: str | os.PathLike[str] | None,
    count: int = COUNT,
    seconds: float | None = None,
    step: Callable[[], None] = lambda: None,
    workers: Workers | None = None,
) -> Refined:
    """Measure `count` assignments within what was asked, at least the optimum of every column.

    best: the optimum of Ω, or what the search found instead. subject: network, samples to measure
    on, calibration data and repairs. output: where the answer will be written; what was measured is
    kept beside it, so that a killed run goes on. seconds: for the search of each column's optimum.
    `step` is called after each assignment. Half of the budget goes to optima and what comes next,
    the rest to exchanges around the best, three at a time. workers: processes that share what is
    measured; all of them return the answer of one. Raises InputError for a table of other
    layers than the network's.
    """
    started, workers = time.monotonic(), workers or Workers()
    best = workers.same(best)  # a search with a time limit finds what it finds
    check_layers(subject.network, best)
    run = _run_digest(asked, best, subject, count)
    with Journal(output, run, workers.rank) as journal:
        trials = Trials(subject, journal, workers)
        found = _Found(trials, step)
        first = optima(asked, best, seconds)
        found.measure(first, len(first), to_the_end=True)
        found.measure(next_best(asked, count), count // 2)
        while len(found.trials) < count:
            before = len(found.trials)
            wanted = before + _ROUND  # by each column: so many that not all can be known
            near = exchanges(asked, found.best.candidate.choices, wanted)
            found.measure(near, min(count, wanted))
            if len(found.trials) == before:  # all neighbours are measured
                found.measure(next_best(asked, count), count)
                break
        journal.discard()
    return Refined(
        subject=subject,
        asked=count,
        trials=tuple(found.trials),
        optima=len(first),
        chosen=choose(found.trials, len(first)),
        loss=trials.loss.name,
        float_right=trials.float_right,
        seconds=time.monotonic() - started,
    )


def choose(trials: Sequence[Trial], optima: int) -> int:
    """Which of the trials is taken, never one with a larger error than any of the first `optima`.

    That is the best of the optima, unless another is better by more than luck: of k others that
    were measured on all samples, the best one's lead has to exceed z standard errors of the paired
    difference, z the 1 - 1/(2k) quantile of the normal distribution. If all were equally good, one
    of them would get that far in at most half of the cases (Bonferroni).
    """
    best = min(range(optima), key=lambda place: trials[place].error)
    others = [place for place in range(optima, len(trials)) if not trials[place].stopped]
    if not others:
        return best
    ahead = min(others, key=lambda place: trials[place].error)
    lead, error = difference(trials[ahead].errors, trials[best].errors)
    z = normal_quantile(0.0, len(others))
    return ahead if lead > z * error else best


def _run_digest(asked: Asked, best: Choices, subject: Subject, count: int) -> str:
    """Everything that decides what is measured, and against which best so far."""
    quantizing, table = subject.quantizing, asked.table
    limits = {
        "limits": dict(asked.budget.limits), "at_least": dict(asked.budget.at_least),
        "pins": {name: str(choice) for name, choice in asked.pins.items()},
        "exclude": {name: sorted(map(str, some)) for name, some in asked.exclude.items()},
        "max_distinct": asked.max_distinct, "count": count, "batch": subject.batch_size,
        "device": subject.network.device.type,
        "settings": dict(quantizing.settings), "best": Candidate(asked.in_order(best), "").key,
    }  # fmt: skip
    metrics = [part for name, values in table.metrics.items() for part in (name, values.tobytes())]
    return digest(
        mpsearch.__version__, subject.network.digest, subject.data.digest,
        quantizing.calibration.digest, table.digest, json.dumps(limits, sort_keys=True), *metrics,
    )  # fmt: skip


class _Found:
    """What was measured so far."""

    def __init__(self, trials: Trials, step: Callable[[], None]) -> None:
        self.measurer, self.step = trials, step
        self.trials: list[Trial] = []

    @property
    def best(self) -> Trial:
        """The least error of those that were measured on all samples; the first of equal ones."""
        return min((one for one in self.trials if not one.stopped), key=lambda one: one.error)

    def measure(
        self, candidates: Sequence[Candidate], until: int, to_the_end: bool = False
    ) -> None:
        """Measure those that are new, until there are so many trials."""
        known = {one.candidate.key for one in self.trials}
        new = [one for one in candidates if one.key not in known]
        new = self.measurer.workers.same(new[: max(0, until - len(known))])
        self.measurer.prepare(new)
        for candidate in new:
            best = None if to_the_end else self.best.errors
            self.trials.append(self.measurer.measure(candidate, best))
            self.step()
