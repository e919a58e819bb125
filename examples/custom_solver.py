"""A solver of your own, tested against exhaustive search.

To run it: `python custom_solver.py`.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch import Answer, InputError, Problem, check_solver


@dataclass(frozen=True)
class Annealing:
    """Simulated annealing: single changes, worse ones ever more rarely."""

    name: str = "annealing"
    description: str = "simulated annealing over single changes; proves nothing"
    capabilities: tuple[str, ...] = (
        "heuristic",
        "any number of limits",
        "time limit",
    )

    def solve(
        self,
        problem: Problem,
        time_limit: float | None,
        options: Mapping[str, Any],
    ) -> Answer:
        if options:
            raise InputError(f"got {min(options)!r}; annealing has no options")
        seconds = math.inf if time_limit is None else time_limit
        deadline = time.monotonic() + seconds
        random = np.random.default_rng(0)
        # [L, C], every limit counts as 1
        weight = problem.unit_weights.sum(axis=0)
        best = chosen = np.where(problem.allowed, weight, np.inf).argmin(axis=1)
        if not problem.is_feasible(chosen):
            return Answer(None, "unknown")
        scale = max(problem.cost_limit, 1)
        for temperature in scale * np.geomspace(1, 1e-6, 3000):
            if time.monotonic() > deadline:
                break
            changed = chosen.copy()
            layer = random.integers(len(chosen))
            allowed = np.flatnonzero(problem.allowed[layer])
            changed[layer] = random.choice(allowed)
            worse = problem.cost(changed) - problem.cost(chosen)
            if problem.is_feasible(changed) and random.random() < math.exp(
                min(0, -worse / temperature)
            ):
                chosen = changed
                best = min(best, chosen, key=problem.cost)
        return Answer(best, "feasible", bound=0.0)


SOLVER = Annealing()

if __name__ == "__main__":
    print(check_solver(SOLVER, instances=20))
