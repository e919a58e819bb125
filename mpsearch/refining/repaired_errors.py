"""What assignments lose as repaired networks, sample by sample, on no more samples than it takes.

The error of a sample is what its loss grows by from the float network to the quantized one. Without
labels that is the divergence from FP32's outputs (KL for classes, squared error otherwise): the
growth that FP32's own probabilities expect. With labels it is the mean of this and of the growth on
the label. The label alone is one draw, so that some hundred samples cannot tell good assignments
apart; the divergence alone does not know where FP32 is wrong.

Two assignments see the same samples in the same order, so that their difference is known far better
than either. A candidate stops after a part of the samples once it is behind the best so far by more
than `SURE` standard errors of that difference.
"""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpsearch.data import Data, with_loss
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import one_answer
from mpsearch.evaluation.subjects import Subject
from mpsearch.losses.heads import logits as as_logits
from mpsearch.losses.loss import Loss
from mpsearch.refining.candidates import Candidate
from mpsearch.running.journal import Journal
from mpsearch.running.workers import Workers

Errors = NDArray[np.float64]

FIRST = 64  # samples, at least, before a candidate may stop
PARTS = (8, 4, 2, 1)  # it may stop after an eighth, a quarter and a half of the samples
SURE = 3.0  # standard errors
_ORDER_SEED = 0


@dataclass(frozen=True, eq=False)
class Trial:
    """One assignment measured: errors [seen], and how many of these samples are right.

    right: None without labels and for a regression. samples: how many there are; of a candidate
    that stopped, fewer were seen.
    """

    candidate: Candidate
    errors: Errors
    right: int | None
    samples: int

    @property
    def seen(self) -> int:
        return len(self.errors)

    @property
    def stopped(self) -> bool:
        """Whether it was clearly behind before the last sample."""
        return self.seen < self.samples

    @property
    def error(self) -> float:
        """The mean over the samples that were seen."""
        return float(self.errors.mean())

    @property
    def accuracy(self) -> float | None:
        """The share of right answers on the samples that were seen."""
        return None if self.right is None else self.right / self.seen


def difference(ahead: Errors, behind: Errors) -> tuple[float, float]:
    """Mean of `behind` - `ahead`, errors of the same samples, and its standard error."""
    pairs = behind - ahead
    n = len(pairs)
    return float(pairs.mean()), float(pairs.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf


def growth(
    loss: Loss, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    """The error [N] of outputs `after`, where the float network gives `before`; float64."""
    grown = loss.increase(before, after, labels)
    if (
        not loss.uses_labels or not loss.has_exact_hessian
    ):  # of a loss by labels alone nothing else is known
        return grown
    return (grown + loss.divergence(before, after)) / 2


@dataclass(frozen=True, eq=False)
class Trials:
    """Measures assignments of one network on one set of samples; the journal keeps each.

    workers: the processes that share them.
    """

    subject: Subject
    journal: Journal
    workers: Workers = field(default_factory=Workers)

    @cached_property
    def data(self) -> Data:
        """The samples in a drawn order, the same for all: any part of them is like the whole."""
        data = with_loss(self.subject.data, self.subject.network)
        rows = torch.from_numpy(np.random.default_rng(_ORDER_SEED).permutation(len(data)))
        labels = None if data.labels is None else data.labels[rows]
        inputs = tuple(x[rows] for x in data.inputs)
        return Data(data.name, inputs, labels, data.loss)

    @property
    def loss(self) -> Loss:
        """With labels or without: what the data have decided."""
        assert self.data.loss is not None
        return self.data.loss

    @cached_property
    def float_logits(self) -> torch.Tensor:
        """Of the float network, [N, …]."""
        return torch.cat([
            as_logits(self.loss, self.subject.network(*inputs)).detach().cpu()
            for inputs, _ in self.data.batches(self.subject.batch_size)
        ])  # fmt: skip

    @cached_property
    def float_right(self) -> int | None:
        """How many samples the float network gets right, as `Trial.right`."""
        right = self._right(self.float_logits, slice(None))
        return None if right is None else int(right.sum())

    def prepare(self, candidates: Sequence[Candidate]) -> None:
        """Measure each in one of the processes, for all of them; alone there is nothing to do.

        On all samples, as the best so far is not known yet that they will be compared with.
        """
        if self.workers.size == 1:
            return
        own = [one for place, one in enumerate(candidates) if self.workers.owns(place)]
        pieces = {one.key: self._kept(one, None) for one in own}
        self.journal.adopt(self.workers.share(pieces))

    def measure(self, candidate: Candidate, best: Errors | None = None) -> Trial:
        """The errors of `candidate`; on all samples, unless `best` are those to be compared with.

        best: errors on all samples. The same, whether more samples were prepared than it takes.
        Raises InputError where an error is no finite number.
        """
        kept = self._kept(candidate, best)
        errors = np.frombuffer(base64.b64decode(kept["errors"]), dtype=np.float64)
        errors = errors[: self._stop(errors, best)]
        if not np.isfinite(errors).all():
            raise InputError(
                f"an assignment's error on {self.data.name} is no finite number "
                f"({candidate.source}); expected finite outputs and losses"
            )
        right = None if kept["right"] is None else kept["right"].count("1", 0, len(errors))
        return Trial(candidate, errors, right, len(self.data))

    def _kept(self, candidate: Candidate, best: Errors | None) -> dict[str, Any]:
        """What the journal has, or now gets: errors [seen], and `right` as ones and zeros."""
        kept: dict[str, Any] | None = self.journal.get(candidate.key)
        # A resumed run compares with the same best, so what was kept is as long as it has to be.
        if kept is None:
            kept = self._run(candidate, best)
            self.journal.put(candidate.key, kept)
        return kept

    def _run(self, candidate: Candidate, best: Errors | None) -> dict[str, Any]:
        quantized = self.subject.quantized(candidate.choices)
        errors = np.empty(0)
        right: str | None = ""
        with torch.no_grad():
            for rows in self._parts():
                inputs = [x[rows] for x in self.data.inputs]
                outputs = as_logits(self.loss, quantized(*inputs)).cpu()
                labels = None if self.data.labels is None else self.data.labels[rows]
                grown = growth(self.loss, self.float_logits[rows], outputs, labels)
                errors = np.append(errors, grown.double().numpy())
                hits = self._right(outputs, rows)
                right = None if hits is None or right is None else right + _ones(hits)
                if self._stop(errors, best) is not None:
                    break
        return {"errors": base64.b64encode(errors.tobytes()).decode(), "right": right}

    def _parts(self) -> Iterator[slice]:
        """Batches that end where a candidate may stop."""
        ends = sorted({max(1, len(self.data) // part) for part in PARTS})
        start = 0
        for end in ends:
            for first in range(start, end, self.subject.batch_size):
                yield slice(first, min(first + self.subject.batch_size, end))
            start = end

    def _stop(self, errors: Errors, best: Errors | None) -> int | None:
        """The first place where these errors are clearly behind `best`; None where they are not."""
        places = [len(self.data) // part for part in PARTS if part > 1]
        for seen in places if best is not None else ():
            if FIRST <= seen <= len(errors):
                assert best is not None
                behind, unsure = difference(best[:seen], errors[:seen])
                if behind > SURE * unsure:
                    return seen
        return None

    def _right(self, logits: torch.Tensor, rows: slice) -> torch.Tensor | None:
        """[n] whether each answer is as labelled; None without labels, and for a regression."""
        if self.data.labels is None or not one_answer(self.loss, tuple(logits.shape[1:])):
            return None
        right = self.loss.right(logits, self.data.labels[rows])
        return None if right is None else right > 0.5


def _ones(hits: torch.Tensor) -> str:
    """[True, False] -> `10`"""
    return "".join("1" if hit else "0" for hit in hits.tolist())
