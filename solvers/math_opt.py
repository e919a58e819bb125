"""OR-Tools MathOpt: SCIP and HiGHS as OR-Tools carries them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from mpsearch.knapsack.problem import Problem
from mpsearch.knapsack.solver import Answer
from mpsearch.solvers.cp_sat import INSTALL
from mpsearch.solvers.engines import Kind, engine_module, missing, settings
from mpsearch.solvers.milp import Found, Rows, solve_rows


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
