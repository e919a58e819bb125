"""PuLP with engines that must not be loaded into our process: a child process runs them.

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
from mpsearch.solvers.milp import Found, Rows
from mpsearch.solvers.pulp_model import build, found


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
        [sys.executable, "-m", "mpsearch.solvers.pulp_process"],
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
