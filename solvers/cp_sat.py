"""OR-Tools CP-SAT: exact on integers, so the scaled integers are all that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Problem
from mpsearch.knapsack.solver import Answer
from mpsearch.solvers.engines import engine_module, missing

INSTALL = "pip install 'ortools>=9.10'"
SUM_BITS = 52  # of the sum of a row's largest coefficients; CP-SAT refuses sums near 2**63


@dataclass(frozen=True)
class CpSat:
    """CP-SAT; costs are rounded to 52 bits in all, weights up so that its answers are feasible."""

    name: str = "ortools"
    description: str = "OR-Tools CP-SAT (integers)"
    capabilities: tuple[str, ...] = ("exact on integers", "any number of limits", "time limit")

    def missing(self) -> str | None:
        """None, or how to install OR-Tools."""
        return missing("ortools", INSTALL)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: the fields of SatParameters, such as `num_workers=8`."""
        cp_model = engine_module("ortools.sat.python.cp_model", "ortools", INSTALL, self.name)
        model = cp_model.CpModel()
        places = np.argwhere(problem.allowed)
        variables = [model.new_bool_var("") for _ in places]
        by_layer: list[list[Any]] = [[] for _ in problem.allowed]
        for x, (layer, _) in zip(variables, places, strict=True):
            by_layer[layer].append(x)
        for members in by_layer:
            model.add_exactly_one(members)
        cost_shift = _shift(problem.costs)
        costs = problem.costs >> cost_shift
        model.minimize(cp_model.LinearExpr.weighted_sum(variables, costs[problem.allowed].tolist()))
        for row, limit in zip(problem.weights, problem.limits, strict=True):
            shift = _shift(row)
            rounded = -(-row >> shift)
            model.add(
                cp_model.LinearExpr.weighted_sum(variables, rounded[problem.allowed].tolist())
                <= int(limit) >> shift
            )

        solver = cp_model.CpSolver()
        solver.parameters.random_seed = 0
        solver.parameters.num_workers = 4
        # This presolve step removes the optimum of some knapsacks of two dozen Booleans
        # (OR-Tools 9.15, github.com/google/or-tools/issues/5293), and without it we are faster.
        solver.parameters.presolve_inclusion_work_limit = 0
        if time_limit is not None:
            solver.parameters.max_time_in_seconds = time_limit
        for key, value in options.items():
            _set(solver.parameters, key, str(value))
        status = solver.solve(model)
        if status == cp_model.INFEASIBLE:
            return Answer(None, "infeasible")
        if status == cp_model.MODEL_INVALID:
            raise RuntimeError(f"CP-SAT refuses the model: {model.validate()}")
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return Answer(None, "unknown")
        chosen = np.zeros(len(problem.allowed), dtype=np.int64)
        for x, (layer, choice) in zip(variables, places, strict=True):
            if solver.boolean_value(x):
                chosen[layer] = choice
        bound = solver.best_objective_bound * 2.0**cost_shift
        return Answer(chosen, "optimal" if status == cp_model.OPTIMAL else "feasible", bound)


CP_SAT = CpSat()


def _shift(values: NDArray[np.int64]) -> int:
    """By how many bits to shorten a row so that its sums have room."""
    total = sum(values.max(axis=1).tolist())
    return max(0, int(total).bit_length() - SUM_BITS)


def _set(parameters: Any, key: str, value: str) -> None:
    """One SatParameters field from text; InputError for an unknown field or a wrong value."""
    if not hasattr(parameters, key):
        raise InputError(f"solver ortools has no option {key!r}; see CP-SAT's SatParameters")
    kind = type(getattr(parameters, key))
    try:
        setattr(parameters, key, value.lower() == "true" if kind is bool else kind(value))
    except (TypeError, ValueError):
        raise InputError(f"got {key}={value}; expected {kind.__name__}") from None
