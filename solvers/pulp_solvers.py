"""PuLP with its bundled CBC: a branch-and-cut MILP solver in doubles.

PuLP with the program glpsol of GLPK.

PuLP with HiGHS (the package highspy) and with SCIP (pyscipopt), in processes of their own.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError, install_extra
from mpsearch.knapsack.problem import Answer, Problem
from mpsearch.solvers.milp import Found, Kind, Rows, missing, settings, solve_rows
from mpsearch.solvers.pulp_model import INSTALL, build, found, import_pulp, solve_in_child

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


PROGRAM = "apt install glpk-utils (or: brew install glpk, conda install glpk)"
SWITCHES = ("cuts", "gomory", "mir", "cover", "clique", "fpump", "noscale")
GLPK_OPTIONS: dict[str, Kind] = dict.fromkeys(SWITCHES, bool)


@dataclass(frozen=True)
class PulpGlpk:
    """GLPK; its tolerances cost up to 1e-6 of the optimum, so it never claims optimality."""

    name: str = "pulp-glpk"
    description: str = "PuLP with GLPK (branch and cut)"
    capabilities: tuple[str, ...] = (
        "MILP in doubles",
        "any number of limits",
        "time limit in whole seconds",
    )

    def missing(self) -> str | None:
        """None, or how to install PuLP or glpsol."""
        return missing("pulp", INSTALL) or (None if shutil.which("glpsol") else PROGRAM)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: glpsol's switches cuts, gomory, mir, cover, clique, fpump, noscale = true."""
        chosen = settings(options, GLPK_OPTIONS, self.name)
        pulp = import_pulp(self.name)
        if not shutil.which("glpsol"):
            raise InputError(f"solver {self.name} needs the program glpsol; install it: {PROGRAM}")

        class Glpsol(pulp.GLPK_CMD):  # type: ignore[misc, name-defined]
            """PuLP reads `INTEGER UNDEFINED` (out of time) like an answer: keep the word."""

            said = ""

            def readsol(self, out: str, solution: str) -> Any:
                self.said = Path(out).read_text().splitlines()[4]
                return super().readsol(out, solution)

        def engine(rows: Rows, seconds: float | None) -> Found:
            model, variables = build(pulp, rows)
            switches = [f"--{key}" for key, value in chosen.items() if value]
            if seconds is not None:  # PuLP would drop a limit of 0
                switches += ["--tmlim", str(max(1, math.ceil(seconds)))]
            command = Glpsol(msg=False, options=switches)
            model.solve(command)
            if "UNDEFINED" in command.said:
                return Found(None, "unknown")
            return found(pulp, model, variables, proven=False)

        return solve_rows(problem, time_limit, engine)


GLPK = PulpGlpk()


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
        return install_extra(self.name)

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
