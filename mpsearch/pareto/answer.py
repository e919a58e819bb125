"""Answers from a stored front: the optimum under any budget, by a look-up."""

from collections.abc import Mapping

from mpsearch.errors import InputError
from mpsearch.pareto.front import Front


def answer(
    front: Front,
    table_digest: str,
    limits: Mapping[str, int | float],
    at_least: Mapping[str, int | float] | None = None,
) -> int | None:
    """The point of least Ω within the limits; None where they are infeasible.

    `{"size_bytes": 145000}` for a front of size against Ω: the same optimum as `solve`. A front
    that was made under limits answers only with the same ones. Raises InputError for a front of
    another table, one that is not exact, and limits that it was not made for.
    """
    if front.table_digest != table_digest:
        raise InputError(
            f"the front is of another table ({front.table_digest[:19]}, the table is "
            f"{table_digest[:19]})",
            "make the table's own with `mpsearch front`",
        )
    if not front.exact:
        raise InputError(
            "the front is not exact, so it does not answer for `solve`",
            "make an exact one with a larger `mpsearch front --max-memory`",
        )
    if front.search:
        words = " ".join(f"--{option} {v}" for option, vs in front.search.items() for v in vs)
        raise InputError(
            f"the front was made with {words}, so it does not answer for the whole table",
            "make another one with `mpsearch front`, or solve the table",
        )
    fixed = dict(front.limits)
    within = fixed.pop(front.resource, None)
    asked = dict(limits)
    limit = asked.pop(front.resource, None)
    beyond = within is not None and (limit is None or limit > within)
    if asked != fixed or beyond or dict(at_least or {}) != dict(front.at_least):
        made = _words(front.limits, front.at_least)
        got = _words(limits, at_least or {})
        raise InputError(
            f"got the limits {got or 'none'}; the front is {front.resource} against Ω with "
            f"{made or 'no limits'}",
            "make another one with `mpsearch front`, or solve the table",
        )
    if limit is None:
        return len(front) - 1 if len(front) else None
    return front.best_within(limit)


def _words(limits: Mapping[str, int | float], at_least: Mapping[str, int | float]) -> str:
    upper = [f"{name} <= {value}" for name, value in limits.items()]
    return ", ".join([*upper, *(f"{name} >= {value}" for name, value in at_least.items())])
