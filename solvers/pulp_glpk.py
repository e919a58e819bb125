"""PuLP with the program glpsol of GLPK."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.knapsack.problem import Problem
from mpsearch.knapsack.solver import Answer
from mpsearch.solvers.engines import Kind, missing, settings
from mpsearch.solvers.milp import Found, Rows, solve_rows
from mpsearch.solvers.pulp_model import INSTALL, build, found, import_pulp

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
