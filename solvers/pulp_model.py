"""PuLP: importing it without other solvers' libraries, and the rows as a PuLP model.

PuLP imports the package highspy where it finds it, and the highspy wheel (1.15) and OR-Tools
(9.15) cannot live in one process: whichever comes second misses a symbol of the other's HiGHS.
So highspy is hidden while PuLP is imported, and pyscipopt, a second SCIP, with it; `pulp-highs`
and `pulp-scip` work in a process of their own.

PuLP with engines that must not be loaded into our process: a child process runs them.

HiGHS comes as highspy, whose library clashes with OR-Tools; SCIP as pyscipopt, which brings a
second SCIP. The rows go in and the values come back as JSON.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.solvers.milp import Found, Rows, engine_module

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


def solve_in_child(
    engine: str, rows: Rows, seconds: float | None, options: dict[str, Any], install: str
) -> Found:
    """Run PuLP's class `engine` in a child; InputError where the engine cannot be loaded."""
    request = {
        "engine": engine,
        "rows": {key: value.tolist() for key, value in asdict(rows).items()},
        "seconds": seconds,
        "options": options,
    }
    child = subprocess.run(
        [sys.executable, "-m", "mpsearch.solvers.pulp_model"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"PuLP's {engine} failed: {last}")
    reply = json.loads(child.stdout)
    if reply["claim"] == "unavailable":
        raise InputError(f"PuLP finds no {engine} that works here; install it with: {install}")
    values = reply["values"]
    return Found(None if values is None else np.array(values), reply["claim"], reply["bound"])


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the child does: one request to one reply."""
    import pulp

    name, seconds, options = request["engine"], request["seconds"], request["options"]
    rows = Rows(**{key: np.array(value) for key, value in request["rows"].items()})
    if not getattr(pulp, name)().available():
        return {"claim": "unavailable", "values": None, "bound": None}
    model, variables = build(pulp, rows)
    if name == "HiGHS":
        engine = pulp.HiGHS(msg=False, timeLimit=seconds, gapRel=0.0, gapAbs=0.0, **options)
    else:
        texts = [f"{key}={value}" for key, value in options.items()]
        engine = pulp.SCIP_PY(msg=False, timeLimit=seconds, gapRel=0.0, gapAbs=0.0, options=texts)
    model.solve(engine)
    said = found(pulp, model, variables, model.sol_status == pulp.LpSolutionOptimal)
    inner = model.solverModel
    bound = inner.getInfo().mip_dual_bound if name == "HiGHS" else inner.getDualbound()
    values = None if said.values is None else said.values.tolist()
    return {"claim": said.claim, "values": values, "bound": bound if np.isfinite(bound) else None}


def main() -> None:
    """Read a request from standard input; engines' own messages go to standard error."""
    reply = os.dup(1)
    os.dup2(2, 1)
    text = json.dumps(answer(json.load(sys.stdin)))
    with os.fdopen(reply, "w") as out:
        out.write(text)


if __name__ == "__main__":
    main()
