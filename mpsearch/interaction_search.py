"""What `solve --interactions` adds: the quadratic optimum, and the K best re-scored.

The additive optimum is the start of both, so that neither is worse than it by its own measure.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.instance import Instance
from mpsearch.interactions import Interactions, Prediction, predict
from mpsearch.k_best import k_best
from mpsearch.quadratic import QuadraticAnswer, minimise


@dataclass(frozen=True, eq=False)
class Candidate:
    """An assignment by layer name, what is predicted of it, and its place in the additive order.

    `place` is 1 for the additive optimum, None for one that is not among the K best.
    """

    choices: Mapping[str, Choice]
    prediction: Prediction
    place: int | None

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
    def lead_over_additive(self) -> float:
        """By how much the winner's score is below that of the additive optimum; 0 if it is that."""
        first = min(self.candidates, key=lambda one: one.place or len(self.candidates) + 1)
        return first.score - self.winner.score

    @property
    def lead_over_second(self) -> float | None:
        """By how much the winner's score is below the second's; None without a second."""
        if len(self.candidates) < 2:
            return None
        return self.candidates[1].score - self.winner.score


@dataclass(frozen=True, eq=False)
class InteractionSearch:
    """The additive optimum, the least quadratic form found with its bound, and the re-ranking."""

    additive: Candidate
    quadratic: Candidate
    answer: QuadraticAnswer
    ranking: Ranking | None

    @property
    def chosen(self) -> Candidate:
        """What to write: the winner of the re-ranking if there was one, else the quadratic one."""
        return self.quadratic if self.ranking is None else self.ranking.winner


def gram_of(interactions: Interactions, instance: Instance) -> NDArray[np.float64]:
    """G by decision and choice [L, C, L, C]: rows and columns of a decision's layers are summed.

    Zero where a choice is not allowed. Raises InputError for layers that only the table or only
    the interactions have, an allowed choice without a cell, and a G that is not semidefinite.
    """
    names = [name for group in instance.members for name in group]
    stored = set(interactions.layers)
    for here, there, what in ((names, stored, "the interactions have no layer"),
                              (sorted(stored), set(names), "the table has no layer")):  # fmt: skip
        for name in here:
            if name not in there:
                raise InputError(
                    f"{what} {name!r}: they belong to different networks; profile again with "
                    "--interactions"
                )
    cells = zip(interactions.layers, interactions.choices, strict=True)
    position = {cell: k for k, cell in enumerate(cells)}
    layers, width = instance.allowed.shape
    gather = np.zeros((layers * width, len(position)))
    for layer, group in enumerate(instance.members):
        for choice in np.flatnonzero(instance.allowed[layer]):
            for name in group:
                cell = (name, instance.choices[choice])
                if cell not in position:
                    raise InputError(
                        f"the interactions have no {cell[1]} for layer {name!r}; profile it again "
                        f"with that choice and --interactions, or leave it out: --exclude {cell[1]}"
                    )
                gather[layer * width + choice, position[cell]] = 1.0
    gram = gather @ interactions.gram @ gather.T
    values = np.linalg.eigvalsh((gram + gram.T) / 2)
    if not np.isfinite(values).all() or values[0] < -1e-9 * max(values[-1], 0.0):
        raise InputError("the interactions are damaged: their Gram matrix is not semidefinite")
    return gram.reshape(layers, width, layers, width)


def rerank(
    interactions: Interactions, instance: Instance, candidates: Sequence[NDArray[Any]]
) -> tuple[Candidate, ...]:
    """Score assignments (indices [L], in additive order) by superposed outputs; best first.

    Equal scores stay in additive order. Raises InputError for a cell that is not stored.
    """
    scored = [
        _candidate(interactions, instance.by_layer(chosen), place)
        for place, chosen in enumerate(candidates, start=1)
    ]
    return tuple(sorted(scored, key=lambda one: one.score))


def search(
    instance: Instance,
    interactions: Interactions,
    additive: Mapping[str, Choice],
    deadline: float | None = None,
    rerank_best: int = 0,
) -> InteractionSearch:
    """Start from the additive optimum by layer name; with `rerank_best` = K re-score the K best.

    deadline: a time.monotonic(), None for a proof however long it takes. Raises InputError for
    interactions that do not fit the table, and an assignment outside the limits.
    """
    gram = gram_of(interactions, instance)
    index = {choice: number for number, choice in enumerate(instance.choices)}
    start = np.array([index[additive[group[0]]] for group in instance.members], dtype=np.int64)
    if not instance.is_feasible(start):
        raise InputError("the assignment to start from is outside the limits")
    ranking = None
    if rerank_best:
        best = k_best(instance, rerank_best, deadline)
        # The given optimum is first, whichever of several equal ones the list begins with.
        others = [chosen for chosen in best.chosen if (chosen != start).any()]
        rows = [start, *others[: rerank_best - 1]]
        ranking = Ranking(rerank(interactions, instance, rows), min(best.proven, len(rows)))
    answer = minimise(instance, gram, start, deadline)
    places = {} if ranking is None else {_key(c.choices): c.place for c in ranking.candidates}
    found = instance.by_layer(answer.chosen)
    return InteractionSearch(
        additive=_candidate(interactions, instance.by_layer(start), 1),
        quadratic=_candidate(
            interactions, found, 1 if (answer.chosen == start).all() else places.get(_key(found))
        ),
        answer=answer,
        ranking=ranking,
    )


def to_document(found: InteractionSearch) -> dict[str, Any]:
    """The content for `--json`: plain numbers, texts, lists and dicts."""
    answer, ranking = found.answer, found.ranking
    document: dict[str, Any] = {
        "additive": _entry(found.additive),
        "quadratic": _entry(found.quadratic)
        | {
            "objective": answer.objective,
            "bound": answer.bound,
            "gap": answer.gap,
            "proven": answer.proven,
            "nodes": answer.nodes,
        },
        "ranking": None,
    }
    if ranking is not None:
        document["ranking"] = {
            "by": _measure(found),
            "candidates": [_entry(one) for one in ranking.candidates],
            "proven": ranking.proven,
            "lead_over_additive": ranking.lead_over_additive,
            "lead_over_second": ranking.lead_over_second,
        }
    return document


def describe(found: InteractionSearch) -> list[str]:
    """A few lines of text: the quadratic optimum with its proof or gap, the winner and its lead."""
    answer, ranking = found.answer, found.ranking
    verdict = "optimal, proven to 1e-9" if answer.proven else f"gap {100 * answer.gap:.3g} %"
    before = found.additive.prediction.quadratic
    same = " (the additive optimum itself)" if found.quadratic.place == 1 else ""
    lines = [
        f"with cross terms: {answer.objective:.6g}, of the additive optimum {before:.6g}{same}",
        f"bound {answer.bound:.6g}: {verdict} ({answer.nodes} nodes)",
    ]
    if ranking is not None:
        winner, what = ranking.winner, _measure(found)
        known = f"the {len(ranking.candidates)} best by Ω"
        if ranking.proven < len(ranking.candidates):
            known += f" (the first {ranking.proven} proven)"
        lines.append(
            f"re-ranked {known} by superposed {what}: number {winner.place} wins "
            f"with {winner.score:.6g}"
        )
        lead = f"its lead over the additive optimum is {ranking.lead_over_additive:.3g}"
        if ranking.lead_over_second is not None:
            lead += f", over the second {ranking.lead_over_second:.3g}"
        lines.append(lead)
        if winner.prediction.accuracy is not None:
            was = found.additive.prediction.accuracy or 0.0
            lines.append(
                f"accuracy on the {winner.prediction.samples} stored samples: "
                f"{100 * winner.prediction.accuracy:.2f} %, additive optimum {100 * was:.2f} %"
            )
    return lines


def _measure(found: InteractionSearch) -> str:
    return "KL" if found.additive.prediction.loss is None else "loss"


def _entry(one: Candidate) -> dict[str, Any]:
    layers = {name: str(choice) for name, choice in one.choices.items()}
    return {
        "place": one.place,
        "score": one.score,
        "layers": layers,
        "prediction": dataclasses.asdict(one.prediction),
    }


def _candidate(
    interactions: Interactions, choices: Mapping[str, Choice], place: int | None
) -> Candidate:
    return Candidate(choices, predict(interactions, choices), place)


def _key(choices: Mapping[str, Choice]) -> tuple[tuple[str, Choice], ...]:
    return tuple(sorted(choices.items()))
