"""What `solve` says would help where nothing is within the limits: tried before it is said."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError
from mpsearch.search.remedies import Question, remedies
from mpsearch.tables.remedy import Option, Remedy
from mpsearch.tables.solution import Smallest, Solution
from mpsearch.tables.units import format_rounded

if TYPE_CHECKING:
    from mpsearch.commands.solve import SolveRequest
    from mpsearch.refining.candidates import Asked

_MEMORY = {"ram_bytes": "ram", "flash_bytes": "flash"}
Searched = Callable[["SolveRequest", "Asked"], Solution]


def with_remedies(
    request: "SolveRequest", asked: "Asked", solution: Solution, fitted: Searched | None = None
) -> Solution:
    """An infeasible solution with what would help. fitted: how it was searched, where --ram or
    --flash limit it."""
    within, form = request.typed or request.within, request.format
    options: tuple[Option, ...] = (
        *within.typed,
        *([] if form is None else [("--format", form)]),
    )
    question = Question(asked.table, asked.budget, options, asked.max_distinct)
    if fitted is None:
        found = remedies(question, solution.smallest)
        return replace(solution, remedies=found.found, no_bits_fit=found.nothing)
    judge = _Fitted(request, asked, fitted)
    smallest = {key: one for key, one in solution.smallest.items() if key not in _MEMORY}
    found = remedies(question, smallest, judge)
    memory = tuple(_memory(question, judge, solution.smallest))
    return replace(solution, remedies=(*memory, *found.found))


def _memory(question: Question, judge: "_Fitted", smallest: Mapping[str, Smallest]) -> list[Remedy]:
    """`--ram 4.1KB`, where that is enough."""
    found = []
    for key, name in _MEMORY.items():
        if key in smallest:
            one = smallest[key]
            least = one.alone if one.with_others is None else one.with_others
            text = format_rounded(key, least, up=True).replace(" ", "")
            changed: Any = {name: text}
            more = replace(judge, request=replace(judge.request, **changed))
            if more(question):
                found.append(Remedy(limits=((f"--{name}", text),)))
    return found


@dataclass(frozen=True)
class _Fitted:
    """Judges by the memory that is planned, in five seconds a question."""

    request: "SolveRequest"
    asked: "Asked"
    search: Searched

    def __call__(self, question: Question) -> bool | None:
        request = replace(self.request, time_limit=5.0)
        asked = replace(
            self.asked, budget=question.budget, pins=question.pins, exclude=question.exclude,
            max_distinct=question.max_distinct,
        )  # fmt: skip
        try:
            solution = self.search(request, asked)
        except InputError:
            return False
        return True if solution.choices else False if solution.status == "infeasible" else None
