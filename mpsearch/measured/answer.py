"""The smallest assignment of a front whose measured accuracy meets a target, and how sure that is.

Deciding whether a network gets enough samples right, on no more samples than that takes.

Deterministic curtailment: of n samples k have to be right, so a network fails for certain once
n - k + 1 of them are wrong, and the rest need not be run. The samples that the float network gets
wrong or is least sure of come first, because the wrong ones are found among them. The decision is
that of all samples, whatever their order.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

import mpsearch
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, row_from_json, row_to_json
from mpsearch.evaluation.measuring import Callee, evaluate, from_logits, labels_of, logits_of
from mpsearch.evaluation.subjects import FLOAT, Subject, float_bops
from mpsearch.files.whole import digest
from mpsearch.losses.forms import Softmax
from mpsearch.losses.loss import CROSS_ENTROPY, PlainLoss
from mpsearch.measured.min_accuracy import Search, search, thin
from mpsearch.pareto.front import Front
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized import check_layers
from mpsearch.quantization.quantizer import check_choice
from mpsearch.running.journal import Journal
from mpsearch.statistics import paired_drop, wilson_interval
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import network_digest


@dataclass(frozen=True)
class Hardest:
    """Labelled data with the hardest samples first; `order[i]` is the number of sample i before."""

    data: Data
    order: torch.Tensor

    def in_old_order(self, values: torch.Tensor) -> torch.Tensor:
        """Values [N, …] of these samples as those of the data before."""
        back = torch.empty_like(values)
        back[self.order] = values
        return back


@dataclass(frozen=True)
class Decision:
    """Whether enough samples are right, and after how many samples it was clear.

    logits: [N, classes] where all samples were run, which is always so where enough are right.
    """

    holds: bool
    seen: int
    right: int
    logits: torch.Tensor | None


def decided_by_fp32(data: Data, logits: torch.Tensor) -> Data:
    """The samples with the float network's classes as labels: right is what agrees with it.

    logits: the float network's outputs. Raises InputError for other outputs than a row of classes.
    """
    loss = data.loss
    head = loss.head if isinstance(loss, PlainLoss) and isinstance(loss.form, Softmax) else ""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise InputError(
            f"an agreement is searched over one row of class logits per sample; this network "
            f"returns {tuple(logits.shape[1:])} per sample: measure points of a front with "
            "`mpsearch evaluate --front`"
        )
    decided = replace(CROSS_ENTROPY, head=head)
    return Data(data.name, data.inputs, logits.argmax(dim=1), decided)


def hardest_first(data: Data, logits: torch.Tensor) -> Hardest:
    """Order `data` by how far a network's outputs [N, classes] put the label before the others."""
    labels = labels_of(data)
    if labels.dtype != torch.int64 or labels.dim() != 1 or logits.dim() != 2:
        raise InputError(
            f"the smallest assignment that holds is searched by accuracy, over one row of class "
            f"logits per sample; this network returns {tuple(logits.shape[1:])} per sample: solve "
            "for a size and compare metrics with `mpsearch evaluate --metric`"
        )
    labels = labels[:, None]
    label = logits.gather(1, labels)[:, 0]
    others = logits.scatter(1, labels, -math.inf).amax(dim=1)
    order = torch.argsort(label - others, stable=True)
    inputs = tuple(x[order] for x in data.inputs)
    return Hardest(Data(data.name, inputs, labels[order, 0], data.loss), order)


def needed(share: Fraction, samples: int) -> int:
    """How many samples have to be right for an accuracy of at least `share`: (0.88, 1000) -> 880"""
    return math.ceil(share * samples)


def decide(network: Callee, data: Data, least: int, batch_size: int = 64) -> Decision:
    """Run `network` over labelled data until at least `least` right ones are out of reach."""
    allowed = len(data) - least
    seen = right = 0
    outputs = []
    with torch.no_grad():
        for inputs, labels in data.batches(batch_size):
            if seen - right > allowed:
                return Decision(False, seen, right, None)
            assert labels is not None
            outputs.append(network(*inputs).cpu())
            right += int((outputs[-1].argmax(dim=1) == labels).sum())
            seen += len(outputs[-1])
    return Decision(right >= least, seen, right, torch.cat(outputs))


@dataclass(frozen=True)
class Target:
    """What is asked: an accuracy (0 to 1), a drop in accuracy against FP32 at most, or a share of
    the samples that are decided as FP32 decides them, which needs no labels."""

    min_accuracy: Fraction | None = None
    max_drop: Fraction | None = None
    min_agreement: Fraction | None = None

    @property
    def least(self) -> Fraction | None:
        """The share that has to be right; None where a drop was asked."""
        return self.min_agreement if self.min_accuracy is None else self.min_accuracy

    def needed(self, samples: int, right: int) -> int:
        """How many of `samples` have to be right, where FP32 has `right` of them."""
        if self.least is not None:
            return needed(self.least, samples)
        assert self.max_drop is not None
        return needed(Fraction(right, samples) - self.max_drop, samples)

    def __str__(self) -> str:
        if self.min_accuracy is not None:
            return f"an accuracy of at least {float(100 * self.min_accuracy):g} %"
        if self.min_agreement is not None:
            return f"at least {float(100 * self.min_agreement):g} % decided as FP32 decides them"
        assert self.max_drop is not None
        points = float(100 * self.max_drop)
        return f"at most {points:g} point{'' if points == 1 else 's'} less than FP32"


@dataclass(frozen=True)
class MeasuredAnswer:
    """What was found. `point` of the front meets the target; None: none does, `row` is the best.

    row, reference: the assignment and FP32 on the data, where an agreement was asked with FP32's
    classes as labels. passes: how many samples were run for all
    candidates together; stopped: how many of them were clear before the last sample. candidates:
    how many of the front's points were candidates. confirmed: the same two on fresh data.
    """

    target: Target
    search: Search
    point: int | None
    choices: Mapping[str, Choice]
    row: Evaluation
    reference: Evaluation
    data: Data
    held_out: bool
    least: int
    passes: int
    stopped: int
    most: int | None
    tolerance: float
    seconds: float
    confirmed: tuple[str, Evaluation, Evaluation] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        return self.search.candidates

    @property
    def interval_of_all(self) -> tuple[float, float]:
        """The accuracy's interval, wide enough to cover all candidates at once (Bonferroni)."""
        return wilson_interval(sum(self.row.correct), self.row.n, self.candidates)

    def holds_on(self, row: Evaluation, reference: Evaluation) -> bool:
        """Whether a measurement meets the target."""
        return sum(row.correct) >= self.target.needed(row.n, sum(reference.correct))

    @property
    def lower_end_holds(self) -> bool:
        """Whether also the unfavourable end of the 95 % interval is within what was asked."""
        if self.target.least is not None:
            return self.row.accuracy_interval[0] >= self.target.least
        assert self.target.max_drop is not None
        drop = paired_drop(self.reference.correct, self.row.correct)
        return drop[1][1] <= self.target.max_drop


def smallest_that_holds(
    front: Front,
    subject: Subject,
    target: Target,
    output: str | os.PathLike[str] | None,
    most: int | None = 32,
    tolerance: float = 0.005,
    confirm: Data | None = None,
    step: Callable[[], None] = lambda: None,
) -> MeasuredAnswer:
    """Measure assignments of `front` until the smallest that meets `target` is found.

    most, tolerance: see `search` and `thin`. output: where the answer will be written; what was
    measured is kept beside it, so that a killed search goes on. confirm: data that took no part,
    on which the answer is measured once more. Raises InputError for a front of another network and
    for data to confirm on that are not fresh.
    """
    started = time.monotonic()
    check_layers(subject.network, front.assignment(0))
    for choice in front.used:
        check_choice(choice)
    quantizing = subject.quantizing
    if confirm is not None:
        for used in (subject.data, quantizing.calibration):
            if used.digest == confirm.digest:
                raise InputError(
                    f"{confirm.name} is {used.name}, which took part; expected other samples"
                )
    logits = logits_of(subject.network, subject.data, subject.batch_size)
    data = subject.data if target.min_agreement is None else decided_by_fp32(subject.data, logits)
    reference = from_logits(
        FLOAT, logits, data, subject.network.fp32_bytes, float_bops(subject.network)
    )
    hardest = hardest_first(data, logits)
    least = target.needed(reference.n, sum(reference.correct))
    amounts = front.totals[front.resource].astype(np.float64)
    points = thin(amounts, tolerance)
    provenance = {
        "data_digest": subject.data.digest,
        "calibration": quantizing.calibration.name,
        "calibration_digest": quantizing.calibration.digest,
        "model_digest": subject.network.digest,
    }
    settings = json.dumps(dict(quantizing.settings), sort_keys=True)
    place = subject.network.device.type
    kind = ["agreement"] if target.min_agreement is not None else []
    run = digest(mpsearch.__version__, *provenance.values(), settings, str(least), place, *kind)
    rows: dict[int, Evaluation] = {}
    seen: dict[int, tuple[int, int]] = {}
    with Journal(output, run) as journal:

        def holds(position: int) -> bool:
            choices = front.assignment(points[position])
            key = digest(*(f"{name}={choice}" for name, choice in choices.items()))
            kept = journal.get(key)
            if kept is None:
                decision = decide(
                    subject.quantized(choices), hardest.data, least, subject.batch_size
                )
                row = None
                if decision.logits is not None:
                    row = row_to_json(from_logits(
                        "assignment", hardest.in_old_order(decision.logits), data,
                        size_bytes(subject.network, choices), bops(subject.network, choices),
                    ))  # fmt: skip
                kept = [decision.seen, decision.right, row]
                journal.put(key, kept)
            step()
            seen[position] = (int(kept[0]), int(kept[1]))
            if kept[2] is not None:
                rows[position] = row_from_json(kept[2])
            return seen[position][1] >= least

        found = search(amounts[points], front.omega[points], holds, most)
        best = found.answer
        if best is None:  # the one that went furthest
            best = max(found.held, key=lambda position: (seen[position], position))
        choices = front.assignment(points[best])
        row = rows[best] if best in rows else replace(subject, data=data).measure(
            "assignment", choices
        )  # fmt: skip
        confirmed = None
        if confirm is not None and found.answer is not None:
            if target.min_agreement is not None:
                fresh = logits_of(subject.network, confirm, subject.batch_size)
                confirm = decided_by_fp32(confirm, fresh)
            confirmed = (confirm.name, *_again(subject, choices, confirm))
        journal.discard()
    return MeasuredAnswer(
        target=target,
        search=found,
        point=None if found.answer is None else points[best],
        choices=choices,
        row=row,
        reference=reference,
        data=subject.data,
        held_out=subject.held_out,
        least=least,
        passes=sum(samples for samples, _ in seen.values()),
        stopped=sum(samples < reference.n for samples, _ in seen.values()),
        most=most,
        tolerance=tolerance,
        seconds=time.monotonic() - started,
        confirmed=confirmed,
        provenance={
            **provenance,
            "assignment_digest": network_digest(choices),
            "post_training": quantizing.post_training.to_json(),
        },
    )


def _again(
    subject: Subject, choices: Mapping[str, Choice], data: Data
) -> tuple[Evaluation, Evaluation]:
    row = evaluate("assignment", subject.quantized(choices), data, subject.batch_size)
    return row, evaluate(FLOAT, subject.network, data, subject.batch_size)


def to_document(answer: MeasuredAnswer) -> dict[str, Any]:
    """The field `measured` of assignment.json; accuracies and drops are shares from 0 to 1."""
    asked = answer.target
    document: dict[str, Any] = {
        "min_accuracy": None if asked.min_accuracy is None else float(asked.min_accuracy),
        "max_drop": None if asked.max_drop is None else float(asked.max_drop),
        **({} if asked.min_agreement is None else {"min_agreement": float(asked.min_agreement)}),
        "holds": answer.point is not None,
        "lower_end_holds": answer.lower_end_holds,
        "needed": answer.least,
        "data": answer.data.name,
        **answer.provenance,
        "held_out": answer.held_out,
        **_facts(answer.row, answer.reference),
        "interval_of_all_candidates": list(answer.interval_of_all),
        "candidates": answer.candidates,
        "most": answer.most,
        "tolerance": answer.tolerance,
        "evaluated": len(answer.search.held),
        "stopped_early": answer.stopped,
        "passes": answer.passes,
        "smaller_failed": answer.search.failed,
        "smaller_unmeasured": answer.search.unmeasured,
        "seconds": answer.seconds,
    }
    if answer.confirmed is not None:
        name, row, reference = answer.confirmed
        document["confirmed"] = {
            "data": name,
            "holds": answer.holds_on(row, reference),
            **_facts(row, reference),
        }
    return document


def _facts(row: Evaluation, reference: Evaluation) -> dict[str, Any]:
    drop, interval = paired_drop(reference.correct, row.correct)
    return {
        "samples": row.n,
        "accuracy": row.accuracy,
        "accuracy_interval": list(row.accuracy_interval),
        "loss": row.loss if math.isfinite(row.loss) else None,
        "fp32_accuracy": reference.accuracy,
        "drop": drop,
        "drop_interval": list(interval),
    }
