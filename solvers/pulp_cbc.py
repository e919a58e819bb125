"""PuLP with its bundled CBC: a branch-and-cut MILP solver in doubles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.errors import InputError, MissingExtraError
from mpsearch.problem import Problem
from mpsearch.solver import Answer

# CBC's tolerances are absolute (1e-7 on rows, 1e-10 on gaps): coefficients up to 1e5 keep them
# small against one unit and the numbers well within the 12 digits of PuLP's model file.
SPAN = 1e5


@dataclass(frozen=True)
class PulpCbc:
    """CBC on the scaled problem with zero gap; what it claims is checked by the caller."""

    name: str = "pulp"
    description: str = "PuLP with CBC (branch and cut)"
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: threads, and CBC's own parameters, such as `cuts=off`."""
        try:
            import pulp
        except ImportError:
            raise MissingExtraError("pulp", "pulp", "solver pulp") from None

        costs, weights = problem.unit_costs * SPAN, problem.unit_weights * SPAN
        model = pulp.LpProblem("mixed_precision", pulp.LpMinimize)
        places = np.argwhere(problem.allowed)
        variables = [pulp.LpVariable(f"x_{layer}_{c}", cat=pulp.LpBinary) for layer, c in places]
        model += pulp.lpSum(
            pulp.LpAffineExpression(
                (x, float(costs[layer, c])) for x, (layer, c) in zip(variables, places, strict=True)
            )
        )
        by_layer: list[list[Any]] = [[] for _ in problem.allowed]
        for x, (layer, _) in zip(variables, places, strict=True):
            by_layer[layer].append(x)
        for members in by_layer:
            model += pulp.LpAffineExpression((x, 1) for x in members) == 1
        for row in weights:
            terms = (
                (x, float(row[layer, c])) for x, (layer, c) in zip(variables, places, strict=True)
            )
            model += pulp.LpAffineExpression(terms) <= SPAN

        settings = dict(options)
        threads = settings.pop("threads", None)
        if threads is not None and not str(threads).isdecimal():
            raise InputError(f"got threads={threads}; expected a whole number")
        engine = pulp.PULP_CBC_CMD(
            msg=False,
            timeLimit=time_limit,
            gapRel=0,
            gapAbs=0,
            threads=None if threads is None else int(threads),
            options=[f"{key} {value}" for key, value in settings.items()],
        )
        model.solve(engine)
        if model.status == pulp.LpStatusInfeasible:
            return Answer(None, "infeasible")
        values = np.zeros(problem.allowed.shape)
        for x, (layer, choice) in zip(variables, places, strict=True):
            values[layer, choice] = x.varValue or 0.0
        if not (values.max(axis=1) > 0.5).all():
            return Answer(None, "unknown")
        # PuLP's status says Optimal for a timed-out incumbent too; sol_status tells them apart.
        proven = model.sol_status == pulp.LpSolutionOptimal
        return Answer(values.argmax(axis=1), "optimal" if proven else "feasible")


SOLVER = PulpCbc()
