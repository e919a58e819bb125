"""The budget: upper limits on a table's resource columns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.exact import to_integers
from mpsearch.table import LayerTable
from mpsearch.units import Amount, Percent, is_size, parse_count, parse_size


@dataclass(frozen=True)
class Budget:
    """Column -> upper limit: an int on integer columns, a float on others. Empty: no limit."""

    limits: Mapping[str, int | float] = field(default_factory=dict)

    @staticmethod
    def parse(
        table: LayerTable,
        size: str | None = None,
        bops: str | None = None,
        limits: Iterable[str] = (),
    ) -> "Budget":
        """`size="145KB", bops="50%", limits=["latency_s=0.02"]` -> limits by column.

        Relative values are taken from the table: `50%` of every layer's largest choice, `w8` and
        `w8a8` of that choice everywhere. Raises InputError for unknown columns and bad values.
        """
        texts: list[tuple[str, str]] = []
        if size is not None:
            texts.append(("size_bytes", size))
        if bops is not None:
            texts.append(("bops", bops))
        for text in limits:
            column, equals, value = text.partition("=")
            if not equals or not column or not value:
                raise InputError(f"got the limit {text!r}; expected COLUMN=VALUE")
            texts.append((column, value))
        parsed: dict[str, int | float] = {}
        for column, value in texts:
            if column == "omega":
                raise InputError("omega is minimised and cannot be limited; limit a resource")
            table.column(column)
            if column in parsed:
                raise InputError(f"{column} is limited twice; keep one limit")
            amount = parse_size(value) if is_size(column) else parse_count(value)
            parsed[column] = _resolve(table, column, amount)
        return Budget(parsed)


def _resolve(table: LayerTable, column: str, amount: Amount) -> int | float:
    """An absolute limit; on an integer column rounded down, which loses nothing."""
    values = table.column(column)
    if isinstance(amount, Percent):
        integers, digits = to_integers(values)
        largest = np.zeros(len(table.layers), dtype=integers.dtype)
        np.maximum.at(largest, table.layer_index, integers)
        whole = Fraction(sum(largest.tolist()), 10**digits)
        amount = whole * amount.value
    elif not isinstance(amount, Fraction):
        return _uniform(table, column, amount.w_bits, amount.a_bits)
    return int(amount // 1) if values.dtype == np.int64 else float(amount)


def _uniform(table: LayerTable, column: str, w_bits: int, a_bits: int | None) -> int | float:
    """The total with one choice everywhere; `w8` must not be ambiguous in this column."""
    if a_bits is not None:
        return table.uniform_total(column, Choice(w_bits, a_bits))
    fitting = [choice for choice in table.choices if choice.w_bits == w_bits]
    if not fitting:
        known = ", ".join(map(str, table.choices))
        raise InputError(f"{table.source} has no choice with {w_bits}-bit weights; it has {known}")
    totals = {table.uniform_total(column, choice) for choice in fitting}
    if len(totals) > 1:
        names = ", ".join(map(str, fitting))
        raise InputError(f"w{w_bits} is ambiguous for {column}; name one of {names}")
    return totals.pop()
