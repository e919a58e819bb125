"""PuLP with SCIP (the package pyscipopt), in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.errors import InputError
from mpsearch.problem import Problem
from mpsearch.solver import Answer
from mpsearch.solvers import pulp_model
from mpsearch.solvers.engines import Kind, missing, settings
from mpsearch.solvers.milp import solve_rows
from mpsearch.solvers.pulp_process import solve_in_child

INSTALL = "pip install 'mpsearch[pulp-scip]'"
OPTIONS: dict[str, Kind] = {
    "limits/nodes": int,
    "presolving/maxrounds": int,
    "randomization/randomseedshift": int,
    "separating/maxrounds": int,
}


@dataclass(frozen=True)
class PulpScip:
    """SCIP through PuLP; `mathopt-scip` starts faster."""

    name: str = "pulp-scip"
    description: str = "PuLP with SCIP from pyscipopt, in its own process"
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    def missing(self) -> str | None:
        """None, or how to install PuLP or pyscipopt."""
        return missing("pulp", pulp_model.INSTALL) or missing("pyscipopt", INSTALL)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: four of SCIP's parameters, such as `limits/nodes=1000`."""
        chosen = settings(options, OPTIONS, self.name)
        lacking = self.missing()
        if lacking:
            raise InputError(f"solver {self.name} is not installed; install it with: {lacking}")
        return solve_rows(
            problem,
            time_limit,
            lambda rows, seconds: solve_in_child("SCIP_PY", rows, seconds, chosen, INSTALL),
        )


SOLVER = PulpScip()
