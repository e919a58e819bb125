"""HiGHS through scipy.optimize.milp, which carries its own copy of the engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.knapsack.problem import Answer, Claim, Problem
from mpsearch.solvers.milp import Found, Rows, engine_module, missing, settings, solve_rows

INSTALL = "pip install 'mpsearch[highs]'"


@dataclass(frozen=True)
class Highs:
    """HiGHS with zero gap; at a time limit the incumbent and the bound are kept."""

    name: str = "highs"
    description: str = "HiGHS in scipy (branch and cut)"
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    def missing(self) -> str | None:
        """None, or how to install scipy."""
        return missing("scipy", INSTALL)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: presolve=true|false, node_limit=N."""
        chosen = settings(options, {"presolve": bool, "node_limit": int}, self.name)
        optimize = engine_module("scipy.optimize", "scipy", INSTALL, self.name)
        sparse = engine_module("scipy.sparse", "scipy", INSTALL, self.name)

        def engine(rows: Rows, seconds: float | None) -> Found:
            shape = (len(rows.upper), len(rows.costs))
            matrix = sparse.csr_array((rows.value, (rows.row, rows.column)), shape=shape)
            limit = {} if seconds is None else {"time_limit": seconds}
            result = optimize.milp(
                rows.costs,
                integrality=np.ones(len(rows.costs)),
                bounds=optimize.Bounds(0, 1),
                constraints=optimize.LinearConstraint(matrix, rows.lower, rows.upper),
                options={"mip_rel_gap": 0.0, **limit, **chosen},
            )
            if result.status == 2:
                return Found(None, "infeasible")
            claim: Claim = "optimal" if result.status == 0 else "feasible"
            return Found(result.x, claim, result.mip_dual_bound)

        return solve_rows(problem, time_limit, engine)


HIGHS = Highs()
