"""What a solver is: one object with a name and a `solve`; found by entry point."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem

GROUP = "mpsearch.solvers"

Claim = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a solver says; nothing of it is believed before it is checked.

    chosen: indices [L] into the choices, or None; bound: a cost that no assignment is below.
    """

    chosen: NDArray[np.int64] | None
    claim: Claim
    bound: float | None = None


class Solver(Protocol):
    """An object of this shape under the entry-point group `mpsearch.solvers` is a solver.

    `capabilities` are words for `mpsearch solvers`: e.g. "proves optimality", "time limit".
    """

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def capabilities(self) -> tuple[str, ...]: ...

    def solve(
        self, problem: Problem, time_limit: float | None, options: Mapping[str, Any]
    ) -> Answer:
        """Minimise; `time_limit` in seconds or None; unknown options are an InputError."""
        ...
