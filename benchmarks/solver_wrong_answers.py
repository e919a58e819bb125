"""How often each solver is wrong, by itself: raw answers against exhaustive search in integers.

    python benchmarks/solver_wrong_answers.py --instances 1000
    python benchmarks/solver_wrong_answers.py --instances 200 pulp-highs pulp-scip

The problems are those of `mpsearch.testing`: up to 12 layers x 6 choices, Ω from 1e-12 to 1e6, BOPS
up to 1e13. "wrong" is what `check_solver` calls a fault; `mpsearch solve` would mend each.
"""

import argparse
import time
import warnings

from mpsearch.knapsack.problem import GROUP
from mpsearch.running import plugins
from mpsearch.testing import TOLERANCE, examine_solver

COLUMNS = (
    "feasible",
    "optimal",
    "wrong_optimal",
    "wrong_infeasible",
    "broken_limits",
    "wrong_bounds",
    "other",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("solvers", nargs="*", help="default: all that are installed")
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of the cost limit")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # PuLP announces its version 4
    print(f"| solver | instances | {' | '.join(c.replace('_', ' ') for c in COLUMNS)} | seconds |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name in arguments.solvers or plugins.installed(GROUP):
        solver = plugins.load(GROUP, name, "solver")
        lacking = solver.missing() if hasattr(solver, "missing") else None
        if lacking:
            print(f"| {name} | not installed: {lacking} |")
            continue
        started = time.monotonic()
        result = examine_solver(
            solver, arguments.instances, arguments.seed, arguments.tolerance, hurried=False
        )
        counts = " | ".join(str(getattr(result, column)) for column in COLUMNS)
        seconds = time.monotonic() - started
        print(f"| {name} | {result.instances} | {counts} | {seconds:.1f} |", flush=True)
        for fault in result.faults[:3]:
            print(f"|   {fault} |", flush=True)


if __name__ == "__main__":
    main()
