"""What the gate is asked: the conditions as they are written, and their limits as numbers."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from mpsearch.budget import Budget
from mpsearch.device.profile import Mode
from mpsearch.errors import InputError
from mpsearch.table import LayerTable
from mpsearch.units import DECIMAL, parse_amount

ON_DEVICE = ("max_latency", "max_peak_memory", "max_energy", "max_latency_growth")
ON_ACCURACY = ("min_accuracy", "max_drop", "max_drop_baseline")
ON_METRICS = ("min", "max", "max_rise", "max_fall")
ON_BASELINE = ("max_drop_baseline", "max_size_growth", "max_bops_growth", "max_latency_growth")


@dataclass(frozen=True)
class Conditions:
    """The limits as they were written; None: not asked. Drops are in percentage points.

    latency_mode: which of a device's latencies counts, `steady`, `process` or `cold`.
    The growths, such as `1%`, and max_drop_baseline are against a baseline. min, max: limits of
    metrics, such as `f1=0.9`; max_rise, max_fall: of their difference from FP32's.
    """

    max_size: str | None = None
    max_bops: str | None = None
    min_accuracy: str | None = None
    max_drop: str | None = None
    max_latency: str | None = None
    max_peak_memory: str | None = None
    max_energy: str | None = None
    latency_mode: Mode = "steady"
    max_drop_baseline: str | None = None
    max_size_growth: str | None = None
    max_bops_growth: str | None = None
    max_latency_growth: str | None = None
    min: tuple[str, ...] | None = None
    max: tuple[str, ...] | None = None
    max_rise: tuple[str, ...] | None = None
    max_fall: tuple[str, ...] | None = None

    def asks(self, *names: str) -> bool:
        """Whether any of these is asked; without names, whether anything is."""
        wanted = names or tuple(name for name in self.__dict__ if name != "latency_mode")
        return any(getattr(self, name) is not None for name in wanted)

    def without(self, *names: str) -> "Conditions":
        """The others alone."""
        left_out: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **left_out)


def parse_accuracy(text: str) -> Fraction:
    """`88%`, `0.88` -> 88/100: a percentage has its sign, a bare number is a share from 0 to 1."""
    match = re.fullmatch(rf"({DECIMAL})\s*(%?)", text.strip())
    if match is None:
        raise InputError(f"got the accuracy {text!r}; expected a form such as 88% or 0.88")
    value = Fraction(match[1]) / (100 if match[2] else 1)
    if value > 1:
        hint = "" if match[2] else f"; did you mean {match[1]}%?"
        raise InputError(f"the accuracy {text!r} is more than 100 %{hint}")
    return value


def parse_points(text: str) -> Fraction:
    """`1.0` -> 1 percentage point. `1%` is refused, as it could mean 1 % of the accuracy."""
    if re.fullmatch(DECIMAL, text.strip()) is None or Fraction(text.strip()) > 100:
        raise InputError(
            f"got the drop {text!r}; expected percentage points from 0 to 100, such as 1.0"
        )
    return Fraction(text.strip())


def parse_growth(text: str) -> Fraction:
    """`1%` -> 1/100. The sign is required, as a bare 1 could mean twice as much; `0%` is none."""
    match = re.fullmatch(rf"({DECIMAL})\s*%", text.strip())
    if match is None:
        raise InputError(f"got the growth {text!r}; expected a form such as 1% or 0%")
    return Fraction(match[1]) / 100


def parse_limit(table: LayerTable | None, column: str, text: str) -> int | float | Fraction:
    """The limit of a resource column; what is relative to a table (`50%`, `w8`) needs one."""
    if table is not None and column in table.columns:
        return Budget.parse(table, limits=[f"{column}={text}"]).limits[column]
    amount = parse_amount(column, text)
    if not isinstance(amount, Fraction):
        raise InputError(f"the limit {text!r} is relative to a table; give one with --profile")
    return amount
