"""What every limit can be, before any search: between too little and more than is of use."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mpsearch.knapsack.instance import Instance
from mpsearch.search.proof import smallest
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

SECONDS = 5.0  # for all columns together; only `with_others` is searched for


@dataclass(frozen=True)
class Range:
    """The totals of one resource column that a limit can ask for, exact.

    least: no assignment takes less. with_others: the least while the other limits hold; None where
    they are infeasible by themselves, or time ran out. useful: the least total of an assignment
    with the least Ω of all; a larger limit on this column alone improves nothing. most: the
    largest choice of every layer.
    """

    least: int | float
    with_others: int | float | None
    useful: int | float
    most: int | float


def ranges(
    table: LayerTable,
    pins: Mapping[str, Choice] | None = None,
    exclude: Mapping[str, Collection[Choice]] | None = None,
    limits: Mapping[str, int | float] | None = None,
    seconds: float = SECONDS,
    at_least: Mapping[str, int | float] | None = None,
) -> dict[str, Range]:
    """Column -> range, for every resource column of the table.

    `useful` leaves the limits aside, pins and excludes hold throughout. Raises InputError as
    `Instance.build` does.
    """
    limits = limits or {}
    keys = ("omega", *table.columns)
    deadline = time.monotonic() + seconds
    found = {}
    for column in table.columns:
        paid = (column,)
        instance = Instance.build(table, {}, pins, exclude, keys, paid=paid)
        whole = Instance.build(table, limits, pins, exclude, keys, at_least, paid=paid)
        omega = instance.resources[instance.columns.index("omega")]
        best = instance.allowed & (omega == instance.row_minimum(omega)[:, None]).astype(bool)
        row = instance.columns.index(column)
        matrix = instance.resources[row]
        least = instance.base[1 + row]
        limited = bool(at_least) or any(other != column for other in limits)
        within: int | None = least
        if limited:
            within = smallest(whole, whole.columns.index(column), deadline)
        useful = np.where(best, matrix, matrix.max()).min(axis=1)
        most = np.where(instance.allowed, matrix, matrix.min()).max(axis=1)
        found[column] = Range(
            least=instance.resource_value(row, least),
            with_others=None if within is None else instance.resource_value(row, within),
            useful=instance.resource_value(row, sum(useful.tolist())),
            most=instance.resource_value(row, sum(most.tolist())),
        )
    return found
