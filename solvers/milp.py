"""The scaled problem as sparse rows, for MILP engines that work in doubles.

One binary variable per allowed choice of each layer: minimise costs . x, one choice per layer
(sum = 1), every limited resource at most its limit. What comes back is judged in integers: an
assignment that an engine's tolerances let over a limit is cut off, and the engine asked again.

Third-party engines: importing one, saying what to install, and reading its settings.

HiGHS through scipy.optimize.milp, which carries its own copy of the engine.
"""

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError, install_extra
from mpsearch.knapsack.problem import Answer, Claim, Problem

# The engines' tolerances are absolute (1e-6 to 1e-10): coefficients up to 1e5 keep them small
# against one unit, and the numbers well within the 12 digits of PuLP's model files.
SPAN = 1e5
DOUBT = 1e-9  # of cost_limit: what a bound computed in doubles may be off by
ATTEMPTS = 20
INFINITE = 1e15  # bounds this large are an engine's infinity: SCIP's is 1e20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Minimise costs @ x, x binary [N], with lower <= A @ x <= upper, A in coordinate form.

    layer, choice: int [N], what each variable stands for, e.g. 216 of them for 54 layers x 4
    choices; row, column, value: the non-zero entries of A. Costs and limits are at most about
    SPAN. The first rows are the layers, then the limits, then the assignments that were cut off.
    """

    costs: Floats
    layer: Ints
    choice: Ints
    row: Ints
    column: Ints
    value: Floats
    lower: Floats
    upper: Floats

    @property
    def by_row(self) -> list[list[tuple[int, float]]]:
        """The (column, value) pairs of each row."""
        pairs: list[list[tuple[int, float]]] = [[] for _ in self.upper]
        entries = zip(self.row.tolist(), self.column.tolist(), self.value.tolist(), strict=True)
        for row, column, value in entries:
            pairs[row].append((column, value))
        return pairs

    def chosen(self, values: NDArray[Any]) -> Ints | None:
        """Values of x -> the choice of each layer, [L]; None if a layer has none above 1/2."""
        found = np.full(int(self.layer.max(initial=-1)) + 1, -1, dtype=np.int64)
        set_ = np.asarray(values) > 0.5
        found[self.layer[set_]] = self.choice[set_]
        return None if (found < 0).any() else found

    def without(self, chosen: Ints) -> "Rows":
        """Not all of these choices together: sum of their x <= L - 1."""
        columns = np.flatnonzero(chosen[self.layer] == self.choice)
        return replace(
            self,
            row=np.append(self.row, np.full(len(columns), len(self.upper))),
            column=np.append(self.column, columns),
            value=np.append(self.value, np.ones(len(columns))),
            lower=np.append(self.lower, -np.inf),
            upper=np.append(self.upper, len(columns) - 1.0),
        )


@dataclass(frozen=True, eq=False)
class Found:
    """What an engine says: values of x or None, its claim, its bound in the units of `costs`."""

    values: NDArray[Any] | None
    claim: Claim
    bound: float | None = None


def rows(problem: Problem) -> Rows:
    """The problem's rows in units in which cost_limit and every limit are SPAN."""
    layer, choice = np.nonzero(problem.allowed)
    layers = len(problem.allowed)
    weights = problem.unit_weights[:, layer, choice] * SPAN
    resource, column = np.nonzero(weights)
    return Rows(
        costs=problem.unit_costs[layer, choice] * SPAN,
        layer=layer,
        choice=choice,
        row=np.concatenate([layer, layers + resource]),
        column=np.concatenate([np.arange(len(layer)), column]),
        value=np.concatenate([np.ones(len(layer)), weights[resource, column]]),
        lower=np.concatenate([np.ones(layers), np.full(len(weights), -np.inf)]),
        upper=np.concatenate([np.ones(layers), np.full(len(weights), SPAN)]),
    )


def solve_rows(
    problem: Problem, time_limit: float | None, engine: Callable[[Rows, float | None], Found]
) -> Answer:
    """Ask the engine until its assignment is feasible in integers; time_limit is for all."""
    started = time.monotonic()
    model = rows(problem)
    bound = None
    for _ in range(ATTEMPTS):
        left = None
        if time_limit is not None:
            left = max(0.0, time_limit - (time.monotonic() - started))
        found = engine(model, left)
        if found.bound is not None and abs(found.bound) < INFINITE:
            bound = (found.bound / SPAN - DOUBT) * max(problem.cost_limit, 1)
        if found.claim == "infeasible":
            return Answer(None, "infeasible")
        chosen = None if found.values is None else model.chosen(found.values)
        if chosen is None:
            return Answer(None, "unknown", bound)
        if problem.is_feasible(chosen):
            return Answer(chosen, found.claim, bound)
        model = model.without(chosen)
    return Answer(None, "unknown", bound)


Kind = type[int] | type[float] | type[bool] | tuple[str, ...]  # a tuple lists the allowed words


def missing(module: str, install: str) -> str | None:
    """None if the package can be found, else the command that installs it; imports nothing."""
    if sys.modules.get(module) is not None or find_spec(module) is not None:
        return None
    return install


def engine_module(name: str, package: str, install: str, solver: str) -> Any:
    """Import `name`, a module of `package`; InputError with what to do if that cannot be done."""
    lacking = missing(package, install)
    if lacking:
        raise InputError(
            f"solver {solver} needs {package}, which is not installed; install it with: {lacking}"
        )
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        if "highspy" in sys.modules and package == "ortools":
            raise InputError(
                f"solver {solver}: OR-Tools cannot be loaded into a process that has imported "
                "highspy (their HiGHS libraries clash); use a process without it, or --solver dp"
            ) from error
        text = " ".join(str(error).split())[:150]
        raise InputError(
            f"solver {solver}: {package} is installed but cannot be imported ({text}); "
            f"install it again with: {install}"
        ) from error


def settings(options: Mapping[str, Any], kinds: Mapping[str, Kind], solver: str) -> dict[str, Any]:
    """`{"threads": "2"}` -> `{"threads": 2}`; InputError for an unknown key or a wrong value."""
    read: dict[str, Any] = {}
    for key, value in options.items():
        if key not in kinds:
            known = ", ".join(kinds) or "none"
            raise InputError(f"solver {solver} has no option {key!r}; it has {known}")
        read[key] = _value(key, str(value), kinds[key])
    return read


def _value(key: str, text: str, kind: Kind) -> int | float | bool | str:
    if isinstance(kind, tuple):
        if text in kind:
            return text
        raise InputError(f"got {key}={text}; expected one of {', '.join(kind)}")
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"got {key}={text}; expected true or false")
    try:
        number = kind(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**31:
        noun = "a whole number" if kind is int else "a number"
        raise InputError(f"got {key}={text}; expected {noun}, not negative")
    return number


INSTALL = install_extra("highs")


@dataclass(frozen=True)
class Highs:
    """HiGHS with zero gap; at a time limit the incumbent and the bound are kept."""

    name: str = "highs"
    description: str = "HiGHS in scipy (branch and cut)"
    capabilities: tuple[str, ...] = ("MILP in doubles", "any number of limits", "time limit")

    def missing(self) -> str | None:
        """None, or how to install scipy."""
        return missing("scipy", INSTALL)

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Options: presolve=true|false, node_limit=N."""
        chosen = settings(options, {"presolve": bool, "node_limit": int}, self.name)
        optimize = engine_module("scipy.optimize", "scipy", INSTALL, self.name)
        sparse = engine_module("scipy.sparse", "scipy", INSTALL, self.name)

        def engine(rows: Rows, seconds: float | None) -> Found:
            shape = (len(rows.upper), len(rows.costs))
            matrix = sparse.csr_array((rows.value, (rows.row, rows.column)), shape=shape)
            limit = {} if seconds is None else {"time_limit": seconds}
            result = optimize.milp(
                rows.costs,
                integrality=np.ones(len(rows.costs)),
                bounds=optimize.Bounds(0, 1),
                constraints=optimize.LinearConstraint(matrix, rows.lower, rows.upper),
                options={"mip_rel_gap": 0.0, **limit, **chosen},
            )
            if result.status == 2:
                return Found(None, "infeasible")
            claim: Claim = "optimal" if result.status == 0 else "feasible"
            return Found(result.x, claim, result.mip_dual_bound)

        return solve_rows(problem, time_limit, engine)


HIGHS = Highs()
