"""The budget: upper and lower limits, by the keys of mpsearch.tables.budget.

What can be limited: a column's total, its peak over layers, how many layers have a choice.

A limit is named by a key:

    size_bytes            the total of a column
    max:latency_s         the largest value that any one layer has in a column
    count:w8, count:w4a8  how many layers have 8-bit weights, or exactly this choice
    count:Q4_K            how many layers have this format of another tool

What is minimised: Ω, another metric or resource, or a weighted sum of columns.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError, did_you_mean
from mpsearch.tables.choice import Choice, WeightBits, fits, is_label, named
from mpsearch.tables.exact import IntArray, as_narrow, to_integers
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import DECIMAL, EXPONENT, Percent, parse_amount

PEAK = "max:"
COUNT = "count:"


def column_of(key: str) -> str:
    """The name that says how a value of this key is read and printed: `max:x_bytes` -> x_bytes."""
    return key.removeprefix(PEAK)


def values_of(table: LayerTable, key: str) -> NDArray[Any]:
    """One value per row of the table, e.g. [216]; InputError for an unknown column
    or choice, and for a metric."""
    if not key.startswith(COUNT):
        column = column_of(key)
        return table.omega if column == "omega" else table.resource(column)
    text = key.removeprefix(COUNT)
    wanted = _choice_of(table, text)
    if wanted is None:
        raise InputError(f"got the limit {key!r}; expected count:w8 or count:w4a8")
    same = np.array([fits(c, wanted) for c in table.choices], dtype=bool)[table.choice_index]
    if not same.any():
        known = ", ".join(map(str, table.choices))
        raise InputError(f"{table.source} has no choice {text}; it has {known}")
    return same.astype(np.int64)


def total_of(table: LayerTable, choices: Mapping[str, Choice], key: str) -> int | float:
    """What an assignment takes of a key, exactly: a sum, a peak or a count."""
    if not key.startswith((PEAK, COUNT)):
        return table.total(choices, key)
    values = values_of(table, key)
    taken = [values[table.row_of(layer, choice)].item() for layer, choice in choices.items()]
    found: int | float = max(taken) if key.startswith(PEAK) else sum(taken)
    return found


def totals_of(
    table: LayerTable, choices: Mapping[str, Choice], *limited: Mapping[str, int | float]
) -> dict[str, int | float]:
    """What an assignment takes of every resource column and of every limited key."""
    keys = dict.fromkeys([*table.columns, *(key for limits in limited for key in limits)])
    return {key: total_of(table, choices, key) for key in keys if key != "omega"}


@dataclass(frozen=True)
class Budget:
    """Limits by key: `size_bytes`, `max:latency_s`, `count:w8`; ints on integer columns."""

    limits: Mapping[str, int | float] = field(default_factory=dict)
    """Key -> upper limit; empty: none."""
    at_least: Mapping[str, int | float] = field(default_factory=dict)
    """Key -> lower limit; empty: none."""

    @staticmethod
    def parse(
        table: LayerTable,
        size: str | None = None,
        bops: str | None = None,
        limits: Iterable[str] = (),
        at_least: Iterable[str] = (),
        minimize: Iterable[str] = ("omega",),
    ) -> "Budget":
        """`size="145KB", bops="50%", limits=["max:latency_s=2ms", "count:w8=5"]`.

        Relative values are taken from the table: `50%` of every layer's largest choice, `w8` and
        `w8a8` of that choice everywhere. Raises InputError for unknown columns and bad values.
        """
        texts: list[tuple[str, str]] = []
        if size is not None:
            texts.append((table.size_column, size))
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
        return Budget(upper, lower).held_by(table)

    def held_by(self, table: LayerTable) -> "Budget":
        """With what the tool that the table was fitted to holds at most, whatever is asked."""
        if table.tool is None or not table.tool.limits:
            return self
        held = {
            key: min(most, self.limits.get(key, most)) for key, most in table.tool.limits.items()
        }
        return Budget({**self.limits, **held}, self.at_least)


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
    amount = _choice_of(table, text) or parse_amount(column, text)
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


def _choice_of(table: LayerTable, text: str) -> Choice | WeightBits | None:
    """`w8`, `w4a8`, or the name of a format that the table has: `Q4_K`; None for no such name.

    Raises InputError for another name where the table has formats by name.
    """
    own = named(text.strip())
    labels = {choice.label: choice for choice in table.choices if choice.label}
    if own is not None or not labels or not is_label(text.strip()):
        return own
    if text.strip() not in labels:
        close, known = did_you_mean(text, labels), ", ".join(map(str, table.choices))
        raise InputError(f"{table.source} has no choice {text!r}{close}; it has {known}")
    return labels[text.strip()]


def _uniform(table: LayerTable, column: str, wanted: Choice | WeightBits) -> int | float:
    """The total with one choice everywhere; `w8` must not be ambiguous in this column."""
    if isinstance(wanted, Choice):
        return table.uniform_total(column, wanted)
    fitting = [choice for choice in table.choices if fits(choice, wanted)]
    if not fitting:
        known = ", ".join(map(str, table.choices))
        groups = f" in groups of {wanted.group_size}" if wanted.group_size else ""
        raise InputError(
            f"{table.source} has no choice with {wanted.w_bits}-bit weights{groups}; it has {known}"
        )
    totals = {table.uniform_total(column, choice) for choice in fitting}
    if len(totals) > 1:
        names = ", ".join(map(str, fitting))
        raise InputError(f"{wanted.name} is ambiguous for {column}; name one of {names}")
    return totals.pop()


_TERM = re.compile(rf"(?:({DECIMAL}{EXPONENT}?)\s*\*\s*)?([^\s*]+)")


@dataclass(frozen=True)
class Minimand:
    """What is minimised: a weighted sum of columns."""

    terms: tuple[tuple[str, str], ...] = (("omega", "1"),)
    """Columns and their weights, `(("omega", "1"), ("bops", "2e-9"))`; weights are decimals as
    text, so that sums stay exact."""

    @staticmethod
    def parse(table: LayerTable, text: str) -> "Minimand":
        """`"size_bytes"`, `"omega + 0.5*omega_kl"`. Raises InputError for anything else."""
        terms: dict[str, str] = {}
        for part in text.split("+"):
            match = _TERM.fullmatch(part.strip())
            if match is None:
                raise InputError(
                    f"got --minimize {text!r}; expected a column or a sum such as omega+2e-9*bops"
                )
            weight, column = match[1] or "1", match[2]
            table.column(column)
            if column in terms:
                raise InputError(f"got --minimize {text!r}, which names {column} twice")
            if Fraction(weight) == 0:
                raise InputError(f"got --minimize {text!r}; expected weights above zero")
            terms[column] = weight
        return Minimand(tuple(terms.items()))

    def __str__(self) -> str:
        return " + ".join(
            column if weight == "1" else f"{weight}*{column}" for column, weight in self.terms
        )

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for column, _ in self.terms)

    def to_integers(self, table: LayerTable) -> tuple[IntArray, int]:
        """One exact value per row of the table: integers n and digits d, value = n / 10**d."""
        if len(self.terms) == 1 and self.terms[0][1] == "1":
            return to_integers(table.column(self.terms[0][0]))
        parts: list[tuple[Any, int]] = []
        for column, weight in self.terms:
            factor, shift = to_integers(np.array([float(weight)]))
            values, digits = to_integers(table.column(column))
            parts.append((values.astype(object) * int(factor[0]), digits + shift))
        most = max(digits for _, digits in parts)
        total = sum(values * 10 ** (most - digits) for values, digits in parts)
        return as_narrow(np.asarray(total, dtype=object)), most
