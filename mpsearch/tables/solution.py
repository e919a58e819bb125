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
    """The smallest feasible value of a limit: `alone`, and `with_others` within those.

    Of a lower limit, the largest one.

    `with_others` is None where the other limits are infeasible by themselves, or time ran out.
    """

    alone: int | float
    with_others: int | float | None


@dataclass(frozen=True)
class Useful:
    """Between which values a limit makes a difference, beside the others; None: time ran out."""

    tightest: int | float | None
    """The tightest that can be met: of an upper limit the smallest, of a lower one the largest."""
    free: int | float | None
    """The tightest that costs nothing: the optimum is what it is without the limit."""

    def to_json(self) -> dict[str, int | float | None]:
        """As files have it."""
        return {"tightest": self.tightest, "free": self.free}


@dataclass(frozen=True)
class Solution:
    """What `solve` returns."""

    status: Status
    """`optimal` (proven), `feasible` (a gap is left), `infeasible` (proven) or `no-solution` (the
    time was too short)."""
    choices: Mapping[str, Choice]
    """By layer name; empty without an assignment."""
    objective: float | None
    """Total Ω, or of what else was minimised; None without an assignment."""
    bound: float | None
    """No assignment within the limits has a smaller objective; None: not known."""
    gap: float | None
    """objective - bound, relative to the objective's magnitude; None: not known."""
    seconds: float
    """How long the search took."""
    solver: str
    """Which one found it."""
    totals: Mapping[str, int | float]
    """Every resource column and every limited key -> what the assignment takes, exact."""
    limits: Mapping[str, int | float]
    """Limited key -> upper limit."""
    smallest: Mapping[str, Smallest] = field(default_factory=dict)
    """When infeasible: limited key -> the smallest limit that can be met; keys of lower limits
    begin with ">="."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as a solver's claim that was wrong."""
    at_least: Mapping[str, int | float] = field(default_factory=dict)
    """Limited key -> lower limit."""
    minimize: str = "omega"
    """What was minimised: a column, or a weighted sum of columns."""
    omega: float | None = None
    """Total Ω; None without an assignment."""
    not_binding: Mapping[str, Useful] = field(default_factory=dict)
    """Key of a limit (of a lower one after ">=") -> where it would make a difference: of those
    without all of which the optimum is no better. Of every resource column where there is none."""

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
