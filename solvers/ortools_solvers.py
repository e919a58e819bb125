"""OR-Tools CP-SAT: exact on integers, so the scaled integers are all that it needs.

OR-Tools MathOpt: SCIP and HiGHS as OR-Tools carries them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Answer, Problem
from mpsearch.solvers.milp import Found, Kind, Rows, engine_module, missing, settings, solve_rows

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


@dataclass(frozen=True)
class MathOpt:
    """One MathOpt engine with zero gap; at a time limit the incumbent and bound are kept."""

    name: str
    description: str
    engine: str
    options: tuple[str, ...]
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    def missing(self) -> str | None:
        """None, or how to install OR-Tools."""
        return missing("ortools", INSTALL)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: random_seed and, for SCIP, node_limit, as in MathOpt's SolveParameters."""
        kinds: dict[str, Kind] = dict.fromkeys(self.options, int)
        chosen = settings(options, kinds, self.name)
        mathopt = engine_module("ortools.math_opt.python.mathopt", "ortools", INSTALL, self.name)

        def engine(rows: Rows, seconds: float | None) -> Found:
            model = mathopt.Model()
            variables = [model.add_binary_variable() for _ in rows.costs]
            model.minimize(
                mathopt.fast_sum(c * x for c, x in zip(rows.costs.tolist(), variables, strict=True))
            )
            sides = zip(rows.by_row, rows.lower.tolist(), rows.upper.tolist(), strict=True)
            for pairs, lower, upper in sides:
                row = model.add_linear_constraint(lb=lower, ub=upper)
                for column, value in pairs:
                    row.set_coefficient(variables[column], value)
            parameters = mathopt.SolveParameters(
                time_limit=None if seconds is None else timedelta(seconds=seconds),
                relative_gap_tolerance=0.0,
                absolute_gap_tolerance=0.0,
                **chosen,
            )
            kind = getattr(mathopt.SolverType, self.engine)
            result = mathopt.solve(model, kind, params=parameters)
            reason = result.termination.reason
            if reason == mathopt.TerminationReason.INFEASIBLE:
                return Found(None, "infeasible")
            bound = result.termination.objective_bounds.dual_bound
            if not result.has_primal_feasible_solution():
                return Found(None, "unknown", bound)
            values = np.array(result.variable_values(variables))
            proven = reason == mathopt.TerminationReason.OPTIMAL
            return Found(values, "optimal" if proven else "feasible", bound)

        return solve_rows(problem, time_limit, engine)


SCIP = MathOpt(
    "mathopt-scip",
    "SCIP in OR-Tools MathOpt (branch and cut)",
    "GSCIP",
    ("random_seed", "node_limit"),
)
# No threads: OR-Tools 9.15 crashes on them.
HIGHS = MathOpt(
    "mathopt-highs", "HiGHS in OR-Tools MathOpt (branch and cut)", "HIGHS", ("random_seed",)
)
