"""PuLP with HiGHS (the package highspy), in a process of its own."""

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

INSTALL = "pip install 'mpsearch[pulp-highs]'"
OPTIONS: dict[str, Kind] = {
    "threads": int,
    "presolve": ("on", "off", "choose"),
    "random_seed": int,
    "mip_max_nodes": int,
}


@dataclass(frozen=True)
class PulpHighs:
    """HiGHS through PuLP; `highs` and `mathopt-highs` start faster."""

    name: str = "pulp-highs"
    description: str = "PuLP with HiGHS from highspy, in its own process"
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    def missing(self) -> str | None:
        """None, or how to install PuLP or highspy."""
        return missing("pulp", pulp_model.INSTALL) or missing("highspy", INSTALL)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: threads, presolve, random_seed, mip_max_nodes, as HiGHS calls them."""
        chosen = settings(options, OPTIONS, self.name)
        lacking = self.missing()
        if lacking:
            raise InputError(f"solver {self.name} is not installed; install it with: {lacking}")
        return solve_rows(
            problem,
            time_limit,
            lambda rows, seconds: solve_in_child("HiGHS", rows, seconds, chosen, INSTALL),
        )


SOLVER = PulpHighs()
