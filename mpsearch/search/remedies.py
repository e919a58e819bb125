"""What would make an infeasible budget feasible: other limits, options to leave out, narrower bits.

Every remedy is tried before it is said: the call with it has an assignment. Where options to leave
out and narrower choices do nothing, that is proven, over all bits that there are.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

import numpy as np

from mpsearch.errors import InputError
from mpsearch.knapsack.instance import Instance
from mpsearch.search.feasible_limits import smallest_feasible
from mpsearch.search.lacking_choices import fixed_bytes, with_choices
from mpsearch.search.proof import Proof, fewest_choices, guess, prove
from mpsearch.tables.budget import COUNT, Budget, column_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.layer_choices import excludes_of, pins_of
from mpsearch.tables.remedy import Option, Remedy
from mpsearch.tables.solution import Smallest
from mpsearch.tables.stored_widths import FLOAT, INTEGERS, excludes_for
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_rounded

SECONDS = 5.0
_TRIED = 12  # options of which all sets are tried, smallest first
_SHOWN = 3  # remedies of one kind

OPTIONS = {"bops": "--bops-limit", "omega": "--omega-limit"}


@dataclass(frozen=True)
class Question:
    """What `solve` was asked, as it was typed, so that parts of it can be left out."""

    table: LayerTable
    """The table that is searched."""
    budget: Budget
    """Upper and lower limits."""
    options: tuple[Option, ...] = ()
    """What was typed of `--pin`, `--exclude`, `--allow` and `--format`, one by one."""
    max_distinct: int | None = None
    """How many different choices there may be; None: any number."""

    def of(self, option: str) -> list[str]:
        """What was typed of one option."""
        return [text for name, text in self.options if name == option]

    @property
    def pins(self) -> dict[str, Choice]:
        """Layer -> the choice that it has to have."""
        return pins_of(self.table, self.of("--pin"))

    @property
    def exclude(self) -> dict[str, set[Choice]]:
        """Layer, or "" -> the choices that it may not have."""
        unfit = [text for form in self.of("--format") for text in excludes_for(form, self.table)]
        return excludes_of(self.table, [*self.of("--exclude"), *unfit], self.of("--allow"))

    def instance(self) -> Instance:
        """The exact problem. Raises InputError where a layer is left without a choice."""
        budget = self.budget
        return Instance.build(
            self.table, budget.limits, self.pins, self.exclude, at_least=budget.at_least
        )

    def without(self, options: Iterable[Option]) -> "Question":
        """The same, with some options left out."""
        left = tuple(one for one in self.options if one not in set(options))
        return replace(self, options=left)


class Fits(Protocol):
    """Whether something answers a question; None: not known in time."""

    def __call__(self, question: Question) -> bool | None: ...


@dataclass(frozen=True)
class Remedies:
    """All that was found, and what is said where there is little."""

    found: tuple[Remedy, ...]
    """Each alone is enough."""
    nothing: str = ""
    """Why neither options to leave out nor other bits help; empty where one of them does, and
    where it is not proven."""


def remedies(
    question: Question,
    smallest: Mapping[str, Smallest] | None = None,
    fits: Fits | None = None,
    seconds: float = SECONDS,
) -> Remedies:
    """Of a budget that is infeasible. fits: another judge than the table's limits alone, such as a
    plan of memory; then nothing is said of choices that the table lacks."""
    deadline = time.monotonic() + seconds
    judge = fits or _Judge(deadline)
    found = [*_other_limits(question, judge, smallest)]
    lifted = [*_left_out(question, judge, deadline)]
    if fits is not None:
        return Remedies((*found, *lifted))
    narrower, nothing = _narrower(question, judge, deadline)
    if narrower is None and not lifted and question.options:
        more, nothing = _narrower(question.without(question.options), judge, deadline)
        wider = None if more is None else _widened(question, more.choices)
        if more is not None and wider is not None:
            sets = [*_left_out(wider, judge, deadline)][:1]
            narrower = replace(more, left_out=sets[0].left_out) if sets else None
    if lifted or narrower is not None:
        nothing = ""
    return Remedies((*found, *lifted, *([] if narrower is None else [narrower])), nothing)


@dataclass(frozen=True)
class _Judge:
    """By the table's own numbers, exactly."""

    deadline: float

    def __call__(self, question: Question) -> bool | None:
        try:
            instance = question.instance()
        except InputError:  # a layer without a choice
            return False
        few = question.max_distinct
        # any assignment will do, so that none is better than another
        blank = replace(instance, omega=np.zeros_like(instance.omega))
        if few is None or few >= len(question.table.choices):
            proof = self._prove(blank)
        else:
            try:
                proof = fewest_choices(blank, few, self._prove)
            except InputError:  # too many subsets
                return None
        return True if proof.chosen is not None else False if proof.complete else None

    def _prove(self, instance: Instance) -> Proof:
        if instance.is_empty:
            return Proof(None, None, 0, True)
        start = guess(instance)
        if start is not None:
            return Proof(start, 0, 0, True)
        return prove(instance, None, self.deadline)


def _other_limits(
    question: Question, judge: Fits, smallest: Mapping[str, Smallest] | None
) -> Iterator[Remedy]:
    """One limit changed, where that is enough; else as few as a walk along them finds."""
    if smallest is None:
        smallest = _smallest(question)
    single = []
    for key, one in smallest.items():
        if one.with_others is not None:
            remedy = _changed(question, {key: one.with_others}, judge)
            if remedy is not None:
                single.append(remedy)
    few = question.max_distinct
    if few is not None:
        for more in range(few + 1, len(question.table.choices) + 1):
            if judge(replace(question, max_distinct=more)):
                single.append(Remedy(max_distinct=more))
                break
    yield from single
    if single or len(smallest) < 2:
        return
    kept, values = Budget(), {}
    for key in [*question.budget.limits, *(f">={key}" for key in question.budget.at_least)]:
        added = _with(kept, key, _limit_of(question.budget, key))
        if judge(replace(question, budget=added)):
            kept = added
            continue
        least = _smallest(replace(question, budget=added)).get(key)
        if least is None or least.with_others is None:
            return
        values[key] = least.with_others
        remedy = _changed(replace(question, budget=kept), {key: least.with_others}, judge)
        if remedy is None:
            return
        kept = _with(kept, key, _read(question.table, key, remedy.limits[0][1]))
    remedy = _changed(question, values, judge)
    if remedy is not None:
        yield remedy


def _smallest(question: Question) -> dict[str, Smallest]:
    """As `solve` finds it."""
    try:
        return smallest_feasible(
            question.table, question.budget, question.pins, question.exclude, question.max_distinct
        )
    except InputError:
        return {}


def _changed(question: Question, values: Mapping[str, int | float], judge: Fits) -> Remedy | None:
    """These limits as they are typed, if the question has an answer with what is read of them."""
    budget, typed = question.budget, []
    for key, value in values.items():
        column = key.removeprefix(">=")
        text = format_rounded(column_of(column), value, up=key == column).replace(" ", "")
        budget = _with(budget, key, _read(question.table, key, text))
        names = OPTIONS | {question.table.size_column: "--size"}
        option = "--at-least" if key != column else names.get(column, "--limit")
        typed.append((option, text if option in names.values() else f"{column}={text}"))
    if not judge(replace(question, budget=budget)):
        return None
    return Remedy(limits=tuple(typed))


def _with(budget: Budget, key: str, value: int | float) -> Budget:
    column = key.removeprefix(">=")
    if key == column:
        return replace(budget, limits={**budget.limits, key: value})
    return replace(budget, at_least={**budget.at_least, column: value})


def _limit_of(budget: Budget, key: str) -> int | float:
    return budget.limits[key] if key in budget.limits else budget.at_least[key.removeprefix(">=")]


def _read(table: LayerTable, key: str, text: str) -> int | float:
    """The limit that a user gets who types this text."""
    column = key.removeprefix(">=")
    option = text if "=" in text else f"{column}={text}"
    if key == column:
        return Budget.parse(table, limits=[option], minimize=()).limits[key]
    return Budget.parse(table, at_least=[option]).at_least[column]


def _left_out(question: Question, judge: Fits, deadline: float) -> Iterator[Remedy]:
    """The smallest sets of options without which there is an assignment."""
    options = [*dict.fromkeys(question.options)]
    if not options or not judge(question.without(options)):
        return
    if len(options) <= _TRIED:
        for size in range(1, len(options) + 1):
            enough = 0
            for some in combinations(options, size):
                if time.monotonic() > deadline:
                    break
                if judge(question.without(some)):
                    yield Remedy(left_out=some)
                    enough += 1
                    if enough == _SHOWN:
                        break
            if enough:
                return
    needed = options  # put back one after another what can stay
    for one in options:
        fewer = [other for other in needed if other != one]
        if judge(question.without(fewer)):
            needed = fewer
    yield Remedy(left_out=tuple(needed))


def _narrower(question: Question, judge: Fits, deadline: float) -> tuple[Remedy | None, str]:
    """The mildest choice that the table lacks and that is enough; or why none is, where known."""
    table, budget = question.table, question.budget
    if any(choice.label for choice in table.choices):  # other tools' formats are not ours to add
        return None, ""
    widths = sorted({*INTEGERS, *(bits for one in table.choices for bits in _bits(one))} - {FLOAT})
    every = [Choice(w, a) for w in widths for a in widths]
    counted = budget.at_least or any(key.startswith(COUNT) for key in budget.limits)
    decisive = every if counted or question.of("--format") else every[:1]
    whole = _widened(question, decisive)
    if whole is None:
        return None, ""
    answer = judge(whole) if question.max_distinct is None else None
    if answer is False:
        return None, _what_is_left(question)
    known = sorted({one.a_bits for one in table.choices} - {FLOAT}, reverse=True)
    for choice in sorted(every, key=lambda c: (c.a_bits not in known, -c.w_bits, -c.a_bits)):
        if time.monotonic() > deadline:
            break
        wider = _widened(question, [choice])
        if wider is not None and wider.table is not table and judge(wider):
            return Remedy(choices=(choice,), there=table.choices, least=_least(wider)), ""
    return None, ""


def _bits(choice: Choice) -> tuple[int, int]:
    return choice.w_bits, choice.a_bits


def _least(question: Question) -> str:
    """`, which gets down to 3.1 KB`: of the first limit on a total, beside the others."""
    for key in question.budget.limits:
        found = _smallest(question).get(key)
        if key in question.table.columns and found is not None and found.with_others is not None:
            return f", which gets down to {format_rounded(key, found.with_others, up=True)}"
    return ""


def _what_is_left(question: Question) -> str:
    """What cannot be narrowed, where that alone is too much for the size."""
    fixed = fixed_bytes(question.table)
    limit = question.budget.limits.get("size_bytes")
    if fixed is not None and limit is not None and sum(fixed.values()) > limit:
        total = format_rounded("size_bytes", sum(fixed.values()), up=False)
        return f"no choice of bits fits: biases and scales alone take {total}"
    return "no choice of bits fits, not even of those that the table lacks"


def _widened(question: Question, choices: Sequence[Choice]) -> Question | None:
    """The question to a table that has these choices too; None where what they would take of
    something that is limited is not known."""
    keys = (*question.budget.limits, *question.budget.at_least)
    limited = {column_of(key) for key in keys if not key.startswith(COUNT)}
    wider = with_choices(question.table, choices, limited)
    return None if wider is None else replace(question, table=wider)
