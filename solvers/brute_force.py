"""Every assignment, one after another, in integers: slow, short, and right by inspection."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Answer, Problem
from mpsearch.solvers.milp import settings

MOST = 20_000_000  # assignments, some seconds
CHUNK = 1 << 16


@dataclass(frozen=True)
class BruteForce:
    """Exhaustive enumeration; an oracle for small problems, not a method."""

    name: str = "brute-force"
    description: str = f"tries every assignment, at most {MOST:,} of them (numpy only)"
    capabilities: tuple[str, ...] = ("exact", "any number of limits", "time limit")

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """No options. InputError where there are too many assignments."""
        settings(options, {}, self.name)
        started = time.monotonic()
        choices = [np.flatnonzero(row) for row in problem.allowed]
        number = prod(len(options) for options in choices)
        if number > MOST:
            raise InputError(
                f"solver brute-force: {number:.3g} assignments; it tries at most {MOST:.0e}; "
                "use --solver dp"
            )
        best, where = None, -1
        for start in range(0, number, CHUNK):
            if time_limit is not None and time.monotonic() - started >= time_limit:
                claim = "unknown" if best is None else "feasible"
                return Answer(_assignment(choices, where), claim, 0.0)  # type: ignore[arg-type]
            numbers = np.arange(start, min(start + CHUNK, number))
            costs, fits = _evaluate(problem, choices, numbers)
            if fits.any():
                least = int(costs[fits].min())
                if best is None or least < best:
                    best, where = least, int(numbers[fits & (costs == least)][0])
        if best is None:
            return Answer(None, "infeasible")
        return Answer(_assignment(choices, where), "optimal", best)


SOLVER = BruteForce()


def _evaluate(
    problem: Problem, choices: list[NDArray[np.int64]], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Costs of the assignments with these numbers, and which of them keep every limit.

    A number's mixed-radix digits are the choices. Sums stop just above their limit, which keeps
    them in int64.
    """
    costs = np.zeros(len(numbers), dtype=np.int64)
    used = np.zeros((len(problem.limits), len(numbers)), dtype=np.int64)
    above = problem.limits[:, None] + 1
    rest = numbers
    for layer, options in enumerate(choices):
        rest, digit = np.divmod(rest, len(options))
        chosen = options[digit]
        costs += problem.costs[layer, chosen]
        used = np.minimum(used + problem.weights[:, layer, chosen], above)
    fits: NDArray[np.bool_] = np.logical_and.reduce(used < above, axis=0)
    return costs, fits


def _assignment(choices: list[NDArray[np.int64]], number: int) -> NDArray[np.int64] | None:
    """The choices of one number, [L]; None for -1."""
    if number < 0:
        return None
    chosen = []
    for options in choices:
        number, digit = divmod(number, len(options))
        chosen.append(options[digit])
    return np.array(chosen, dtype=np.int64)
