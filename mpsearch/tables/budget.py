"""The budget: upper and lower limits, by the keys of mpsearch.tables.limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

import numpy as np

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice, WeightBits, fits
from mpsearch.tables.exact import to_integers
from mpsearch.tables.limits import COUNT, PEAK, column_of, values_of
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import Percent, parse_amount


@dataclass(frozen=True)
class Budget:
    """Key -> upper limit, and key -> lower limit: ints on integer columns. Empty: no limit."""

    limits: Mapping[str, int | float] = field(default_factory=dict)
    at_least: Mapping[str, int | float] = field(default_factory=dict)

    @staticmethod
    def parse(
        table: LayerTable,
        size: str | None = None,
        bops: str | None = None,
        limits: Iterable[str] = (),
        at_least: Iterable[str] = (),
        minimize: Iterable[str] = ("omega",),
    ) -> "Budget":
        """`size="145KB", bops="50%", limits=["max:activation_bytes=64KB", "count:w8=5"]`.

        Relative values are taken from the table: `50%` of every layer's largest choice, `w8` and
        `w8a8` of that choice everywhere. Raises InputError for unknown columns and bad values.
        """
        texts: list[tuple[str, str]] = []
        if size is not None:
            texts.append(("size_bytes", size))
        if bops is not None:
            texts.append(("bops", bops))
        texts += [_split(text) for text in limits]
        upper = {}
        for key, value in texts:
            if key == "omega" and "omega" in minimize:
                raise InputError(
                    "omega is minimised and cannot be limited; limit a resource, or minimise one"
                )
            if key in upper:
                raise InputError(f"{key} is limited twice; keep one limit")
            upper[key] = _value(table, key, value, round_up=False)
        lower = {}
        for key, value in map(_split, at_least):
            if key.startswith(PEAK) or key in lower:
                why = (
                    "peaks have upper limits only" if key.startswith(PEAK) else "it is there twice"
                )
                raise InputError(f"cannot use the lower limit {key}: {why}")
            lower[key] = _value(table, key, value, round_up=True)
        return Budget(upper, lower)


def _split(text: str) -> tuple[str, str]:
    """`bops=1.2G` -> (`bops`, `1.2G`)."""
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise InputError(f"got the limit {text!r}; expected COLUMN=VALUE")
    return key, value


def _value(table: LayerTable, key: str, text: str, round_up: bool) -> int | float:
    """The number that a limit's text stands for; whole on an integer column: loses nothing."""
    values = values_of(table, key)
    column = column_of(key)
    amount = parse_amount(column, text)
    if not isinstance(amount, Fraction) and key.startswith((PEAK, COUNT)):
        raise InputError(f"got {key}={text}; expected an absolute value")
    if isinstance(amount, Choice | WeightBits):
        return _uniform(table, column, amount)
    if isinstance(amount, Percent):
        integers, digits = to_integers(values)
        largest = np.zeros(len(table.layers), dtype=integers.dtype)
        np.maximum.at(largest, table.layer_index, integers)
        amount = Fraction(sum(largest.tolist()), 10**digits) * amount.value
    if values.dtype != np.int64:
        return float(amount)
    return ceil(amount) if round_up else floor(amount)


def _uniform(table: LayerTable, column: str, wanted: Choice | WeightBits) -> int | float:
    """The total with one choice everywhere; `w8` must not be ambiguous in this column."""
    if isinstance(wanted, Choice):
        return table.uniform_total(column, wanted)
    fitting = [choice for choice in table.choices if fits(choice, wanted)]
    if not fitting:
        known = ", ".join(map(str, table.choices))
        raise InputError(
            f"{table.source} has no choice with {wanted.w_bits}-bit weights; it has {known}"
        )
    totals = {table.uniform_total(column, choice) for choice in fitting}
    if len(totals) > 1:
        names = ", ".join(map(str, fitting))
        raise InputError(f"{wanted.name} is ambiguous for {column}; name one of {names}")
    return totals.pop()
