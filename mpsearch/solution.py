"""The solution: an assignment, what it costs, and how much of that is proven."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mpsearch.choice import Choice

Status = Literal["optimal", "feasible", "infeasible", "no-solution"]


@dataclass(frozen=True)
class Smallest:
    """The smallest feasible value of a limit: `alone`, and `with_others` while those hold.

    `with_others` is None where the other limits are infeasible by themselves, or time ran out.
    """

    alone: int | float
    with_others: int | float | None


@dataclass(frozen=True)
class Solution:
    """What `solve` returns.

    status: optimal (proven), feasible (a gap is left), infeasible (proven) or no-solution (the
    time was too short). choices: by layer name, empty without an assignment. objective: total Ω.
    bound: no assignment within the limits has a smaller total Ω. gap: (objective - bound) /
    objective. totals: every resource column, exact. smallest: by limited column, when infeasible.
    notes: what a reader should know, such as a solver's claim that was wrong.
    """

    status: Status
    choices: Mapping[str, Choice]
    objective: float | None
    bound: float | None
    gap: float | None
    seconds: float
    solver: str
    totals: Mapping[str, int | float]
    limits: Mapping[str, int | float]
    smallest: Mapping[str, Smallest] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
