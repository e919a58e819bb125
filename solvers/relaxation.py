"""All limits but one priced into the costs: a problem with one limit, whose optimum is a bound.

Every assignment within the limits pays for what it takes of the others no more than prices times
limits. So the optimum of the problem with one limit left, less that, is below every feasible cost
(Geoffrion, Mathematical Programming Study 1974). It is no lower than the bound of the Lagrangian
dual and much higher where sums of the one limit's weights lie on a coarse grid, as those of a few
sizes of tensors do. Prices are turned into integers first, so that the bound is exact.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem, dominated

POINT = 40  # binary digits of a price after the point
ROOM = 1 << 62  # no sum of costs may pass it


@dataclass(frozen=True, eq=False)
class Relaxation:
    """No assignment of the whole problem costs less than `shift` + the optimum of `problem`."""

    problem: Problem
    shift: int


def relax(problem: Problem, kept: int, prices: NDArray[np.float64], best: int) -> Relaxation | None:
    """The problem with the limit `kept` alone, e.g. 0, at prices [R] >= 0 of the others.

    best: a cost that is known; choices that only costlier assignments contain are gone. None where
    the priced costs do not fit.
    """
    costs = problem.costs.astype(object)
    paid = 0
    for row, (price, limit) in enumerate(
        zip(prices.tolist(), problem.limits.tolist(), strict=True)
    ):
        if row != kept and price > 0:
            whole = int(price * 2.0**POINT)
            costs = costs + ((problem.weights[row].astype(object) * whole) >> POINT)
            paid += whole * limit
    paid >>= POINT  # what is paid is a whole number, so that rounding it down loses nothing
    lowest = np.where(problem.allowed, costs, costs.max()).min(axis=1)
    excess = costs - lowest[:, None]
    shift = sum(lowest.tolist()) - paid
    span = best - shift
    if not 0 <= span < ROOM:
        return None
    allowed = problem.allowed & (excess <= span).astype(bool)
    left = np.where(allowed, excess, 0).astype(np.int64)
    weights = problem.weights[[kept]]
    allowed &= ~dominated(allowed, np.concatenate([weights, left[None]]))
    return Relaxation(
        Problem(
            allowed=allowed,
            costs=np.where(allowed, left, 0),
            weights=np.where(allowed, weights, 0),
            limits=problem.limits[[kept]],
            cost_limit=span,
            columns=problem.columns[kept : kept + 1],
        ),
        shift,
    )
