"""The solution: an assignment, what it costs, and how much of that is proven."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mpsearch.tables.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    import mpsearch

Status = Literal["optimal", "feasible", "infeasible", "no-solution"]


@dataclass(frozen=True)
class Smallest:
    """The smallest feasible value of a limit: `alone`, and `with_others` while those hold.

    Of a lower limit, the largest one.

    `with_others` is None where the other limits are infeasible by themselves, or time ran out.
    """

    alone: int | float
    with_others: int | float | None


@dataclass(frozen=True)
class Solution:
    """What `solve` returns.

    status: optimal (proven), feasible (a gap is left), infeasible (proven) or no-solution (the
    time was too short). choices: by layer name, empty without an assignment. objective: total Ω,
    or of what else was minimised (`minimize`). bound: no assignment within the limits has a smaller
    objective. gap: objective - bound, relative to the
    objective's magnitude. omega: total Ω. totals: every resource column
    and every limited key, exact. smallest: by limited key, when infeasible; keys of lower limits
    begin with ">=". notes: what a reader should know, such as a solver's claim that was wrong.
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
    at_least: Mapping[str, int | float] = field(default_factory=dict)
    minimize: str = "omega"
    omega: float | None = None

    if TYPE_CHECKING:  # bound by the package

        def apply(
            self,
            network: "mpsearch.Network",
            data: "mpsearch.Data",
            settings: "mpsearch.PostTraining | None" = None,
            batch_size: int = 64,
            on_step: "Callable[[], None] | None" = None,
        ) -> "mpsearch.QuantizedNetwork":
            """`mpsearch.apply` with this one."""
            raise NotImplementedError
