"""What `solve --rerank K` adds: the K best assignments by Ω, re-scored by superposed outputs."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.interactions.interactions import Interactions, Prediction, predict
from mpsearch.interactions.k_best import k_best
from mpsearch.knapsack.instance import Instance
from mpsearch.tables.choice import Choice


@dataclass(frozen=True, eq=False)
class Candidate:
    """An assignment by layer name, what is predicted of it, and its place by Ω, from 1."""

    choices: Mapping[str, Choice]
    prediction: Prediction
    place: int

    @property
    def score(self) -> float:
        """What candidates are ranked by, less is better: the loss, without labels the KL."""
        loss = self.prediction.loss
        return self.prediction.kl if loss is None else loss


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates by predicted loss (or KL), best first; `proven`: how many surely belong."""

    candidates: tuple[Candidate, ...]
    proven: int

    @property
    def winner(self) -> Candidate:
        return self.candidates[0]

    @property
    def additive(self) -> Candidate:
        """The additive optimum."""
        return min(self.candidates, key=lambda one: one.place)

    @property
    def measure(self) -> str:
        """What the scores are: "loss" or "KL"."""
        return "KL" if self.winner.prediction.loss is None else "loss"

    @property
    def lead_over_additive(self) -> float:
        """By how much the winner's score is below that of the additive optimum; 0 if it is that."""
        return self.additive.score - self.winner.score

    @property
    def lead_over_second(self) -> float | None:
        """By how much the winner's score is below the second's; None without a second."""
        if len(self.candidates) < 2:
            return None
        return self.candidates[1].score - self.winner.score


def rerank(
    instance: Instance,
    interactions: Interactions,
    additive: Mapping[str, Choice],
    count: int,
    deadline: float | None = None,
) -> Ranking:
    """Score the `count` best by Ω, of which `additive`, by layer name, is the first.

    Equal scores stay in the order of Ω. deadline: a time.monotonic(), after which fewer are found
    or proven. Raises InputError for interactions that lack a layer or a choice, or have a layer
    more, and for an `additive` outside the limits.
    """
    index = {choice: number for number, choice in enumerate(instance.choices)}
    start = np.array([index[additive[group[0]]] for group in instance.members], dtype=np.int64)
    if not instance.is_feasible(start):
        raise InputError("the assignment to start from is outside the limits")
    best = k_best(instance, count, deadline)
    # The given optimum is first, whichever of several equal ones the list begins with.
    others = [chosen for chosen in best.chosen if (chosen != start).any()]
    scored = []
    for place, chosen in enumerate([start, *others[: count - 1]], start=1):
        choices = instance.by_layer(chosen)
        scored.append(Candidate(choices, predict(interactions, choices), place))
    ranked = tuple(sorted(scored, key=lambda one: one.score))
    return Ranking(ranked, min(best.proven, len(ranked)))


def to_document(ranking: Ranking) -> dict[str, Any]:
    """The content for `--json`: plain numbers, texts, lists and dicts."""
    return {
        "additive": _entry(ranking.additive),
        "ranking": {
            "by": ranking.measure,
            "candidates": [_entry(one) for one in ranking.candidates],
            "proven": ranking.proven,
            "lead_over_additive": ranking.lead_over_additive,
            "lead_over_second": ranking.lead_over_second,
        },
    }


def describe(ranking: Ranking) -> list[str]:
    """A few lines of text: the winner, its place by Ω, its lead, and the accuracy predicted."""
    winner = ranking.winner
    known = f"the {len(ranking.candidates)} best by Ω"
    if ranking.proven < len(ranking.candidates):
        known += f" (the first {ranking.proven} proven)"
    lead = f"its lead over the additive optimum is {ranking.lead_over_additive:.3g}"
    if ranking.lead_over_second is not None:
        lead += f", over the second {ranking.lead_over_second:.3g}"
    lines = [
        f"re-ranked {known} by superposed {ranking.measure}: number {winner.place} wins "
        f"with {winner.score:.6g}",
        lead,
    ]
    if winner.prediction.accuracy is not None:
        was = ranking.additive.prediction.accuracy or 0.0
        lines.append(
            f"accuracy on the {winner.prediction.samples} stored samples: "
            f"{100 * winner.prediction.accuracy:.2f} %, additive optimum {100 * was:.2f} %"
        )
    return lines


def _entry(one: Candidate) -> dict[str, Any]:
    layers = {name: str(choice) for name, choice in one.choices.items()}
    return {
        "place": one.place,
        "score": one.score,
        "layers": layers,
        "prediction": dataclasses.asdict(one.prediction),
    }
