"""The smallest of some assignments that meets a target when measured, with few measurements.

Accuracy is not monotone along a front: one assignment may fail where a smaller one passes. So a
smaller assignment is excluded by measuring it and by nothing else, and what was not measured is
counted. Which one is measured next is a guess, and a wrong guess costs a measurement only.

How likely an assignment meets the target, from its Ω and from those that were measured.

A logistic curve P(met | Ω) = 1 / (1 + exp((ln Ω - θ) / σ)) with unknown place θ and width σ, both
on a grid with equal weights before the first measurement, and weighed by Bayes' rule after. The
width lets an assignment of less Ω fail where one of more Ω passes. It decides the order in which
assignments are measured and never what is said of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PLACES = 101
WIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3)  # of the range of ln Ω


def chances(omega: NDArray[np.float64], held: Mapping[int, bool]) -> NDArray[np.float64]:
    """P(met) of every assignment [M]; `held`: what was measured, by position in `omega` [M]."""
    x = _logarithms(omega)
    span = max(float(x.max() - x.min()), 1e-9)
    places = np.linspace(float(x.min()) - span / 5, float(x.max()) + span / 5, PLACES)
    place, width = (grid.ravel() for grid in np.meshgrid(places, span * np.array(WIDTHS)))
    above = np.clip((x[:, None] - place) / width, -40, 40)  # [M, grid]
    curves = 1 / (1 + np.exp(above))
    weight = np.zeros(len(place))
    for position, holds in held.items():
        weight -= np.logaddexp(0, above[position] if holds else -above[position])
    weight = np.exp(weight - weight.max())
    found: NDArray[np.float64] = curves @ (weight / weight.sum())
    return found


def _logarithms(omega: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln Ω, and for Ω = 0 a tenth of the least that is positive."""
    positive = omega[omega > 0]
    least = float(positive.min()) / 10 if len(positive) else 1.0
    found: NDArray[np.float64] = np.log(np.maximum(omega, least))
    return found


WORTHWHILE = 0.001  # expected saving, of the amount, below which no further one is measured
UNLIKELY = 0.02  # while none meets the target: the chance below which no further one is measured


@dataclass(frozen=True)
class Search:
    """What was measured: candidate -> whether it meets the target. Candidates are by rising amount.

    answer: the smallest measured one that does, or None. failed and unmeasured: of the candidates
    below it (of all, without an answer), how many were measured and fail, and how many were not
    measured. Without any of the latter, no candidate below the answer does.
    """

    held: Mapping[int, bool]
    candidates: int

    @property
    def answer(self) -> int | None:
        return min((position for position, holds in self.held.items() if holds), default=None)

    @property
    def failed(self) -> int:
        end = self.candidates if self.answer is None else self.answer
        return sum(position < end for position in self.held)

    @property
    def unmeasured(self) -> int:
        end = self.candidates if self.answer is None else self.answer
        return end - self.failed


def thin(amounts: NDArray[np.float64], tolerance: float) -> list[int]:
    """Positions of rising `amounts` [P]; every other is within `tolerance` of one that is kept.

    From the largest down: the next kept one is the largest that is at most 1 - tolerance times the
    last, so that an amount that is left out is less than `tolerance` smaller than one that is kept.
    The smallest is kept too. ([100, 101, 200], 0.05) -> [0, 1, 2]; 100 is kept as the smallest.
    """
    kept = [len(amounts) - 1]
    while kept[-1] > 0:
        below = amounts[: kept[-1]]
        next_one = int(np.searchsorted(below, amounts[kept[-1]] * (1 - tolerance), "right")) - 1
        kept.append(max(next_one, 0))
    return kept[::-1]


def search(
    amounts: NDArray[np.float64],
    omega: NDArray[np.float64],
    holds: Callable[[int], bool],
    most: int | None,
) -> Search:
    """Measure candidates, of rising `amounts` [M] and falling `omega` [M], by calling `holds`.

    most: at most so many measurements, spent where the chance to meet the target times the
    saving is largest (expected improvement), and fewer where that is below 0.1 %. None: upwards
    from the smallest, until one meets it: the answer is then that of exhaustive search.
    """
    held: dict[int, bool] = {}
    while most is None or len(held) < most:
        if most is None:
            position = len(held) if len(held) < len(amounts) and not any(held.values()) else None
        else:
            position = _next(amounts, omega, held, last=len(held) == most - 1)
        if position is None:
            break
        held[position] = holds(position)
    return Search(held, len(amounts))


def _next(
    amounts: NDArray[np.float64], omega: NDArray[np.float64], held: Mapping[int, bool], last: bool
) -> int | None:
    """The candidate whose measurement promises most; None where it is not worth one."""
    answer = Search(held, len(amounts)).answer
    end = len(amounts) if answer is None else answer
    left = [position for position in range(end) if position not in held]
    if not left:
        return None
    chance = chances(omega, held)[left]
    if answer is None:
        likeliest = left[int(np.argmax(chance))]
        largest = left[-1] == len(amounts) - 1
        if last or (largest and chance[-1] < 0.5):  # is there any that holds?
            return likeliest
        if chance.max() < UNLIKELY and not largest:
            return None
        # Also the largest is worth something.
        ceiling = amounts[-1] + (amounts[-1] - amounts[0]) / 20
    else:
        ceiling = amounts[answer]
    gain = chance * (ceiling - amounts[left]) / ceiling
    best = int(np.argmax(gain))
    return left[best] if answer is None or gain[best] >= WORTHWHILE else None
