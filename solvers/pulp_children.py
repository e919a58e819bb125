"""PuLP with HiGHS (the package highspy) and with SCIP (pyscipopt), in processes of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Problem
from mpsearch.knapsack.solver import Answer
from mpsearch.solvers.engines import Kind, missing, settings
from mpsearch.solvers.milp import solve_rows
from mpsearch.solvers.pulp_model import INSTALL
from mpsearch.solvers.pulp_process import solve_in_child


@dataclass(frozen=True)
class PulpChild:
    """`engine` is PuLP's class, `package` what it imports, `kinds` the engine's own options."""

    name: str
    description: str
    engine: str
    package: str
    kinds: tuple[tuple[str, Kind], ...]
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    @property
    def install(self) -> str:
        """How to install the engine's package."""
        return f"pip install 'mpsearch[{self.name}]'"

    def missing(self) -> str | None:
        """None, or how to install PuLP or the engine's package."""
        return missing("pulp", INSTALL) or missing(self.package, self.install)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: those in `kinds`, as the engine calls them."""
        chosen = settings(options, dict(self.kinds), self.name)
        lacking = self.missing()
        if lacking:
            raise InputError(f"solver {self.name} is not installed; install it with: {lacking}")
        return solve_rows(
            problem,
            time_limit,
            lambda rows, seconds: solve_in_child(self.engine, rows, seconds, chosen, self.install),
        )


HIGHS = PulpChild(
    name="pulp-highs",
    description="PuLP with HiGHS from highspy, in its own process",
    engine="HiGHS",
    package="highspy",
    kinds=(
        ("threads", int),
        ("presolve", ("on", "off", "choose")),
        ("random_seed", int),
        ("mip_max_nodes", int),
    ),
)
SCIP = PulpChild(
    name="pulp-scip",
    description="PuLP with SCIP from pyscipopt, in its own process",
    engine="SCIP_PY",
    package="pyscipopt",
    kinds=(
        ("limits/nodes", int),
        ("presolving/maxrounds", int),
        ("randomization/randomseedshift", int),
        ("separating/maxrounds", int),
    ),
)
