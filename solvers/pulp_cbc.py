"""PuLP with its bundled CBC: a branch-and-cut MILP solver in doubles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.knapsack.problem import Problem
from mpsearch.knapsack.solver import Answer
from mpsearch.solvers.engines import Kind, missing, settings
from mpsearch.solvers.milp import Found, Rows, solve_rows
from mpsearch.solvers.pulp_model import INSTALL, build, found, import_pulp

CBC_OPTIONS: dict[str, Kind] = {
    "threads": int,
    "cuts": ("on", "off", "root", "ifmove", "forceOn"),
    "heuristics": ("on", "off"),
    "presolve": ("on", "off", "more"),
    "maxNodes": int,
    "randomCbcSeed": int,
    "strongBranching": int,
}


@dataclass(frozen=True)
class PulpCbc:
    """CBC with zero gap; what it claims is checked by the caller."""

    name: str = "pulp"
    description: str = "PuLP with CBC (branch and cut)"
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    def missing(self) -> str | None:
        """None, or how to install PuLP."""
        return missing("pulp", INSTALL)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: threads, and some of CBC's own parameters, such as `cuts=off`."""
        chosen = settings(options, CBC_OPTIONS, self.name)
        threads = chosen.pop("threads", None)
        pulp = import_pulp(self.name)

        def engine(rows: Rows, seconds: float | None) -> Found:
            model, variables = build(pulp, rows)
            command = pulp.PULP_CBC_CMD(
                msg=False,
                timeLimit=seconds,
                gapRel=0,
                gapAbs=0,
                threads=threads,
                # CBC's preprocessing loses the optimum of some small problems, at any scaling.
                options=["preprocess off", *(f"{key} {value}" for key, value in chosen.items())],
            )
            model.solve(command)
            # PuLP's status says Optimal for a timed-out incumbent too; sol_status tells them apart.
            return found(pulp, model, variables, model.sol_status == pulp.LpSolutionOptimal)

        return solve_rows(problem, time_limit, engine)


CBC = PulpCbc()
