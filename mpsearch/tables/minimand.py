"""What is minimised: Ω, another metric or resource, or a weighted sum of columns."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.tables.exact import IntArray, as_narrow, to_integers
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import DECIMAL, EXPONENT

_TERM = re.compile(rf"(?:({DECIMAL}{EXPONENT}?)\s*\*\s*)?([^\s*]+)")


@dataclass(frozen=True)
class Minimand:
    """Weighted columns, e.g. (("omega_kl", "1"),) or (("omega", "1"), ("bops", "2e-9")).

    Weights are decimals as text, so that sums stay exact.
    """

    terms: tuple[tuple[str, str], ...] = (("omega", "1"),)

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
