"""PuLP: importing it without other solvers' libraries, and the rows as a PuLP model.

PuLP imports the package highspy where it finds it, and the highspy wheel (1.15) and OR-Tools
(9.15) cannot live in one process: whichever comes second misses a symbol of the other's HiGHS.
So highspy is hidden while PuLP is imported, and pyscipopt, a second SCIP, with it; `pulp-highs`
and `pulp-scip` work in a process of their own.
"""

import sys
from typing import Any

import numpy as np

from mpsearch.solvers.engines import engine_module
from mpsearch.solvers.milp import Found, Rows

INSTALL = "pip install 'pulp>=2.8,<4'"
HIDDEN = ("highspy", "pyscipopt")


def import_pulp(solver: str) -> Any:
    """PuLP; where it was not imported before, without highspy and pyscipopt."""
    names = [] if "pulp" in sys.modules else [n for n in HIDDEN if n not in sys.modules]
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it now fails at once
    try:
        return engine_module("pulp", "pulp", INSTALL, solver)
    finally:
        for name in names:
            del sys.modules[name]


def build(pulp: Any, rows: Rows) -> tuple[Any, list[Any]]:
    """The rows as an LpProblem and its variables [N]."""
    model = pulp.LpProblem("mixed_precision", pulp.LpMinimize)
    variables = [
        pulp.LpVariable(f"x_{layer}_{choice}", cat=pulp.LpBinary)
        for layer, choice in zip(rows.layer.tolist(), rows.choice.tolist(), strict=True)
    ]
    model += pulp.LpAffineExpression(zip(variables, rows.costs.tolist(), strict=True))
    sides = zip(rows.by_row, rows.lower.tolist(), rows.upper.tolist(), strict=True)
    for pairs, lower, upper in sides:
        if not pairs:
            continue  # 0 <= limit
        total = pulp.LpAffineExpression((variables[column], value) for column, value in pairs)
        model += total == upper if lower == upper else total <= upper
    return model, variables


def found(pulp: Any, model: Any, variables: list[Any], proven: bool) -> Found:
    """What a solved model says; `proven`: the engine itself says optimal, not only PuLP."""
    if model.status == pulp.LpStatusInfeasible:
        return Found(None, "infeasible")
    values = np.array([x.varValue or 0.0 for x in variables])
    return Found(values, "optimal" if proven else "feasible")
