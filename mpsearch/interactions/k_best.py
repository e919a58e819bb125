"""The K best assignments within the limits, in order of the additive objective.

Partial assignments grow layer by layer, as in the exact search, but dominated ones are kept: one is
dropped when its Lagrangian bound at some price is above the K-th best total. A first sweep with
few states finds a bound on that total, a second one makes the list exact. Where very many
assignments are about equally good the states are too many, and only a part is proven.

What `solve --rerank K` adds: the K best assignments by Ω, re-scored by superposed outputs.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.interactions.interactions import Interactions, Prediction, predict
from mpsearch.knapsack.instance import Instance
from mpsearch.knapsack.problem import Problem, scale
from mpsearch.solvers.dual import bounds, maximise
from mpsearch.tables.choice import Choice

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BEAM = 8_000  # states of the first sweep
MOST_STATES = 200_000


@dataclass(frozen=True, eq=False)
class KBest:
    """chosen [n, L] in order, n <= K; the first `proven` of them are the best there are, in order.

    n < K and proven == n mean that there are no more. Of assignments with equal totals any may be
    the one at the end of the list.
    """

    chosen: Ints
    proven: int


def k_best(instance: Instance, count: int, deadline: float | None = None) -> KBest:
    """The `count` best assignments; with a deadline, or too many states, fewer are proven.

    Totals are compared exactly as long as the objective takes 60 bits or fewer, then to 60 bits.
    Raises InputError for a count below 1.
    """
    if count < 1:
        raise InputError(f"got {count} assignments to rank; expected at least 1")
    problem, _ = scale(instance, None, drop_dominated=False)
    if not problem.allowed.any(axis=1).all():
        return KBest(np.zeros((0, len(problem.allowed)), dtype=np.int64), 0)
    prices = maximise(problem).prices
    rough, dropped = _sweep(problem, prices, count, np.inf, BEAM, None)
    if np.isfinite(dropped):
        last = _cost(problem, rough[count - 1]) if len(rough) >= count else np.inf
        late = deadline is not None and time.monotonic() >= deadline
        if not late:
            found, limit = _sweep(problem, prices, count, last, MOST_STATES, deadline)
            rough = _merge(problem, rough, found)
            dropped = limit
    feasible = [instance.is_feasible(chosen) for chosen in rough]
    if not all(feasible):  # weights of over 60 bits were rounded down: some may be missing
        rough, dropped = rough[feasible], -np.inf
    rough = rough[:count]
    return KBest(rough, sum(_cost(problem, chosen) <= dropped for chosen in rough))


def _sweep(
    problem: Problem,
    prices: Floats,
    count: int,
    highest: float,
    most: int,
    deadline: float | None,
) -> tuple[Ints, float]:
    """Assignments with a cost <= highest, best first, and the least bound of those given up."""
    layers, width = problem.allowed.shape
    reduced = bounds(problem, prices)  # [P, L, C]
    least = reduced.min(axis=2)
    # The layers whose choices differ most first, and those with a single one at the end.
    second = np.sort(reduced[0] - least[0][:, None], axis=1)[:, min(1, width - 1)]
    order = np.argsort(-np.where(np.isfinite(second), second, -1.0), kind="stable")
    suffix = np.zeros((len(prices), layers + 1))
    suffix[:, :-1] = np.cumsum(least[:, order][:, ::-1], axis=1)[:, ::-1]
    given = prices @ problem.limits.astype(np.float64)
    size = np.where(np.isfinite(reduced), reduced, 0).max(axis=2).sum(axis=1)
    margin = 8 * (layers + len(problem.limits) + 4) * 2.0**-53 * (size + given)
    dropped = np.inf
    points = np.zeros((len(problem.limits) + 1, 1), dtype=np.int64)  # weights…, cost
    path = np.zeros((1, layers), dtype=np.int8)
    for step, layer in enumerate(order):
        options = np.flatnonzero(problem.allowed[layer])
        add = np.concatenate(
            [problem.weights[:, layer, options], problem.costs[None, layer, options]]
        )
        points = (points[:, :, None] + add[:, None, :]).reshape(len(points), -1)
        origin, choice = np.divmod(np.arange(points.shape[1]), len(options))
        constant = suffix[:, step + 1] - given - margin
        bound = np.full(points.shape[1], -np.inf)
        for price, rest in zip(prices, constant, strict=True):
            np.maximum(bound, price @ points[:-1] + points[-1] + rest, out=bound)
        keep = np.flatnonzero(
            (points[:-1] <= problem.limits[:, None]).all(axis=0) & (bound <= highest)
        )
        late = deadline is not None and time.monotonic() >= deadline
        cap = min(most, BEAM) if late else most
        if len(keep) > cap:
            by_bound = keep[np.argsort(bound[keep], kind="stable")]
            dropped = min(dropped, float(bound[by_bound[cap]]))
            keep = by_bound[:cap]
        points, path = points[:, keep], path[origin[keep]]
        path[:, layer] = options[choice[keep]]
    found = np.argsort(points[-1], kind="stable")[:count]
    if len(points[-1]) > count:  # more than asked for: all that were seen beyond are no better
        dropped = min(dropped, int(points[-1][found[-1]]))
    return path[found].astype(np.int64), dropped


def _merge(problem: Problem, first: Ints, second: Ints) -> Ints:
    """Both without repetition, best first."""
    both = np.unique(np.concatenate([first, second]), axis=0)
    cost = [_cost(problem, chosen) for chosen in both]
    return both[np.argsort(np.array(cost), kind="stable")]


def _cost(problem: Problem, chosen: Ints) -> int:
    return problem.cost(chosen)


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
    """Assignments by predicted loss, without labels by predicted KL."""

    candidates: tuple[Candidate, ...]
    """Best first."""
    proven: int
    """How many of them are proven to be among those of least Ω."""

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
