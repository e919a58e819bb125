"""Amounts as people write them: `145KB`, `1.2G`, `5ms`, `3mJ`, `50%`, `w8`, `w4a8`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice, WeightBits, named

SIZE_UNITS = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_SIZES = {"b": 1} | {  # as they are written, in any case: 145kB, 145k and 145KiB are 145KB
    f"{unit[0].lower()}{end}": SIZE_UNITS[unit] for unit in ("KB", "MB", "GB")
    for end in ("", "b", "ib")
}  # fmt: skip
COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_MILLI = {"m": Fraction(1, 10**3), "u": Fraction(1, 10**6), "µ": Fraction(1, 10**6)}
TIME_UNITS = {"": Fraction(1), "s": Fraction(1), "ns": Fraction(1, 10**9)} | {
    f"{prefix}s": factor for prefix, factor in _MILLI.items()
}
ENERGY_UNITS = {"": Fraction(1), "J": Fraction(1)} | {
    f"{prefix}J": factor for prefix, factor in _MILLI.items()
}
LARGEST_SIZE = 1024**5
LARGEST_COUNT = 10**18
_MOST_PLACES = 30  # of a number without a unit, such as a latency of 1e-25 s

# A decimal in ASCII, of so few digits that it is a number and no load: the value of 1e999999999 has
# a billion of them. With the exponent it fits a double.
DECIMAL = r"(?:[0-9]{1,100}\.?[0-9]{0,100}|\.[0-9]{1,100})"
EXPONENT = r"(?:[eE][+-]?[0-9]{1,2})"
_NUMBER = re.compile(rf"(-?)({DECIMAL})({EXPONENT}?)\s*(%|[A-Za-zµ]*)")


@dataclass(frozen=True)
class Number:
    """A number as it was written, and what stands behind it."""

    digits: str
    """`1.50` or `-2e-3`, as written."""
    unit: str
    """`KB`, `%`; empty for a bare number."""

    @property
    def value(self) -> Fraction:
        """Exactly, without the unit."""
        return Fraction(self.digits)

    @property
    def share(self) -> Fraction:
        """A hundredth of it where it is in percent."""
        return self.value / 100 if self.unit == "%" else self.value


@dataclass(frozen=True)
class Percent:
    """A share of what the largest choice of every layer takes."""

    value: Fraction


# A choice stands for what it takes everywhere; weight bits for any choice that has them.
Amount = Fraction | Percent | Choice | WeightBits


def whole_number(text: str) -> int | None:
    """`12` -> 12; None for what is not up to 18 ASCII digits: `str.isdigit` takes ² as well."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def read_number(text: str, exponent: bool = False, sign: bool = False) -> Number | None:
    """`1.5 KB` -> 1.5 and KB. None for anything else, and for an exponent or a minus where these
    are not taken: every number of an option or a file's text is read here."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match[3] and not exponent) or (match[1] and not sign):
        return None
    return Number(match[1] + match[2] + match[3], match[4])


def parse_size(text: str) -> Amount:
    """`145KB` -> 148480 bytes; 1 KB = 1 KiB = 1024 B; also `50%`, `w8` and `w8a8`.

    `145kB`, `145kb` and `145k` are the same. Raises InputError: a unit is required, exponents and
    signs are refused.
    """
    relative = _relative(text)
    if relative is not None:
        return relative
    form = "a size such as 145KB, 1.5MB, 512B, 50% or w8"
    read = read_number(text)
    if read is None:
        raise InputError(f"got the size {text!r}; expected {form}")
    number, unit = read.digits, read.unit
    if not unit:
        raise InputError(f"the size {text!r} has no unit; did you mean {number}KB or {number}B?")
    if unit.lower() not in _SIZES:
        same = [known for known in SIZE_UNITS if known[0] == unit[0].upper()]
        meant = same and "bit" not in unit.lower()  # a bit is an eighth
        hint = f"did you mean {number}{same[0]}?" if meant else f"expected {form}"
        raise InputError(f"got the unit {unit!r} in the size {text!r}; {hint}")
    value = read.value * _SIZES[unit.lower()]
    if value > LARGEST_SIZE:
        raise InputError(f"the size {text!r} is more than 1024 TB; expected {form}")
    return value


def parse_bytes(text: str) -> int:
    """`512MB` -> 536870912. Raises InputError for anything relative, as `parse_size` otherwise."""
    amount = parse_size(text)
    if not isinstance(amount, Fraction) or amount < 1:
        raise InputError(f"got {text!r}; expected a size such as 512MB")
    return int(amount)


def parse_count(text: str) -> Amount:
    """`1.2G` -> 1200000000; K (or k), M, G, T are powers of 1000; also `0.02`, `2e-2`, `50%`,
    `w8a8`.

    Raises InputError for signs, other units, and anything that is not a finite number.
    """
    relative = _relative(text)
    if relative is not None:
        return relative
    form = "a number such as 1.2G, 300M, 0.02, 50% or w8a8"
    read = read_number(text, exponent=True)
    if read is None:
        raise InputError(f"got {text!r}; expected {form}")
    unit = "K" if read.unit == "k" else read.unit  # others are a milli and the like
    if unit not in COUNT_UNITS:
        same = [known for known in COUNT_UNITS if known and known == unit[0].upper()]
        hint = f"did you mean {read.digits}{same[0]}?" if same else f"expected {form}"
        raise InputError(f"got the unit {unit!r} in {text!r}; {hint}")
    value = read.value * COUNT_UNITS[unit]
    if value > LARGEST_COUNT:
        raise InputError(f"{text!r} is more than 10^18; expected {form}")
    return value


def parse_seconds(text: str) -> Amount:
    """`5ms` -> 1/200 s; also `0.005`, `5e-3s`, `800us`, `50%`, `w8a8`. InputError as elsewhere."""
    return _scaled(text, TIME_UNITS, "a time such as 5ms, 0.005, 50% or w8a8")


def parse_joules(text: str) -> Amount:
    """`3mJ` -> 3/1000 J; also `0.003`, `800uJ`, `50%`, `w8a8`. InputError as elsewhere."""
    return _scaled(text, ENERGY_UNITS, "an energy such as 3mJ, 0.003, 50% or w8a8")


def parse_confidence(text: str) -> float:
    """`0.95` and `95%` -> 0.95. Raises InputError for anything else and outside 0.5 to 0.9999."""
    read = read_number(text)
    if read is None or read.unit not in ("", "%"):
        raise InputError(f"got the confidence {text!r}; expected a form such as 0.95 or 95%")

    from mpsearch.statistics import check_confidence  # it imports numpy, a tenth of a second

    return check_confidence(float(read.share))


def parse_accuracy(text: str) -> Fraction:
    """`88%`, `88` -> 88/100. A bare number of at most 1 could be a share, and is refused."""
    return _percent(text, "accuracy")


def parse_agreement(text: str) -> Fraction:
    """`98%`, `98` -> 98/100, as an accuracy."""
    return _percent(text, "agreement")


def _percent(text: str, what: str) -> Fraction:
    read = read_number(text)
    if read is None or read.unit not in ("", "%"):
        raise InputError(f"got the {what} {text!r}; expected percent, such as 88% or 88")
    if not read.unit and read.value <= 1:
        percent = 100 * read.value
        forms = [f"{float(one):.10g}" for one in (percent, read.value)]
        bare = f" or {forms[0]}" if percent > 1 else ""
        little = f" ({forms[1]}%, with its sign, if you mean that little)" if percent else ""
        raise InputError(
            f"got the {what} {text!r}; expected percent: write {forms[0]}%{bare}{little}"
        )
    if read.value > 100:
        raise InputError(f"the {what} {text!r} is more than 100 %")
    return read.value / 100


def parse_decibels(text: str) -> Fraction:
    """`20`, `20dB`, `-3 dB` -> 20 and -3."""
    read = read_number(text, sign=True)
    if read is None or read.unit not in ("", "dB"):
        raise InputError(f"got the SQNR {text!r}; expected decibels, such as 20 or 20dB")
    return read.value


def parse_nats(text: str) -> Fraction:
    """`0.05`, `5e-2`, `0.05 nats` -> 1/20."""
    read = read_number(text, exponent=True)
    if read is None or read.unit not in ("", "nats"):
        raise InputError(f"got the KL divergence {text!r}; expected nats, such as 0.05")
    return read.value


def parse_points(text: str) -> Fraction:
    """`1.0` -> 1 percentage point. `1%` is refused, as it could mean 1 % of the accuracy."""
    read = read_number(text)
    if read is None or read.unit or read.value > 100:
        raise InputError(
            f"got the drop {text!r}; expected percentage points from 0 to 100, such as 1.0"
        )
    return read.value


def parse_growth(text: str) -> Fraction:
    """`1%` -> 1/100. The sign is required, as a bare 1 could mean twice as much; `0%` is none."""
    read = read_number(text)
    if read is None or read.unit != "%":
        raise InputError(f"got the growth {text!r}; expected a form such as 1% or 0%")
    return read.share


def parse_tolerance(text: str) -> Fraction:
    """`0.5%`, `0.5` -> 1/200: percent below 50."""
    read = read_number(text, exponent=True)
    if read is None or read.unit not in ("", "%") or read.value >= 50:
        raise InputError(f"got --tolerance {text!r}; expected percent below 50, such as 0.5%")
    return read.value / 100


def parse_amount(column: str, text: str) -> Amount:
    """A limit of a column by what its name ends in: `_bytes`, `_s`, `_j`; else a count."""
    if is_size(column):
        return parse_size(text)
    if _ends(column, "_s"):
        return parse_seconds(text)
    return parse_joules(text) if _ends(column, "_j") else parse_count(text)


def _scaled(text: str, units: Mapping[str, Fraction], form: str) -> Amount:
    relative = _relative(text)
    if relative is not None:
        return relative
    read = read_number(text, exponent=True)
    if read is None:
        raise InputError(f"got {text!r}; expected {form}")
    unit = read.unit
    if unit not in units:
        same = [known for known in units if known.lower() == unit.lower()]
        hint = f"did you mean {read.digits}{same[0]}?" if same else f"expected {form}"
        raise InputError(f"got the unit {unit!r} in {text!r}; {hint}")
    value = read.value * units[unit]
    if value > LARGEST_COUNT:
        raise InputError(f"{text!r} is more than 10^18; expected {form}")
    return value


def _relative(text: str) -> Percent | Choice | WeightBits | None:
    """`50%`, `w8`, `w8a8`; None for anything else."""
    text = text.strip()
    read = read_number(text)
    if read is not None and read.unit == "%":
        return Percent(read.share)
    return named(text)


def format_size(size: float) -> str:
    """`148480` -> `145.0 KB`, with 1 KB = 1024 B."""
    if abs(size) < 1024:
        return f"{size:g} B"
    for unit in ("MB", "GB"):
        if abs(size) < SIZE_UNITS[unit]:
            smaller = unit.replace("M", "K").replace("G", "M")
            return f"{size / SIZE_UNITS[smaller]:,.1f} {smaller}"
    return f"{size / SIZE_UNITS['GB']:,.1f} GB"


def format_count(count: float) -> str:
    """`1200000000` -> `1.200 G`; below 1000 as it is."""
    for unit in ("T", "G", "M", "K"):
        if abs(count) >= COUNT_UNITS[unit]:
            return f"{count / COUNT_UNITS[unit]:,.3f} {unit}"
    return f"{count:.4g}"


def format_amount(column: str, value: float) -> str:
    """A value of a resource column: bytes as a size, `_s` and `_j` with a prefix, else a count."""
    if is_size(column):
        return format_size(value)
    if _ends(column, "_s", "_j"):
        return format_small(value, "s" if _ends(column, "_s") else "J")
    return format_count(value)


def format_rounded(column: str, value: float | Fraction, up: bool) -> str:
    """`41.4 KB`: rounded for reading, upwards or downwards alone, so that what was true of a limit
    stays true of what is printed; three digits or more. `parse_amount` reads it back."""
    exact = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    if is_size(column):
        units: Mapping[str, int | Fraction] = SIZE_UNITS
    elif _ends(column, "_s", "_j"):
        end, known = ("s", TIME_UNITS) if _ends(column, "_s") else ("J", ENERGY_UNITS)
        units = {f"{prefix}{end}": known[f"{prefix}{end}"] for prefix in ("µ", "m", "")}
    else:
        units = COUNT_UNITS
    name = next((one for one in [*units][::-1] if units[one] <= exact), next(iter(units)))
    amount = exact / units[name]
    places = 0 if amount.denominator == 1 else 1
    while amount and places < _MOST_PLACES and amount * 10**places < 100:
        places += 1
    scaled = amount * 10**places
    whole = ceil(scaled) if up else floor(scaled)
    digits = f"{Decimal(whole).scaleb(-places):f}"
    text = digits.rstrip("0").rstrip(".") if "." in digits and not is_size(column) else digits
    return f"{text} {name}".strip()


def format_feasible(column: str, value: float, up: bool = True) -> str:
    """A bound of what a limit may be, for reading and exact: `9.97 KB (10208 B)`. Either is
    feasible when it is typed."""
    exact = format_exactly(column, value)
    _, bracket, rest = exact.partition(" (")
    return f"{format_rounded(column, value, up)}{bracket}{rest}" if bracket else exact


def format_small(value: float, unit: str) -> str:
    """`0.00412`, `s` -> `4.12 ms`; three digits, down to nano."""
    for factor, prefix in ((1, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-9:.3g} n{unit}"


def format_exactly(column: str, value: float) -> str:
    """Rounded for reading and exact for copying: `18.3 KB (18717 B)`, `1.200 M (1200000)`."""
    short = format_amount(column, value)
    if _ends(column, "_s", "_j"):
        return f"{short} ({value!r})"
    if abs(value) < (1024 if is_size(column) else 1000):
        return f"{value} B" if is_size(column) else repr(value)
    return f"{short} ({value} B)" if is_size(column) else f"{short} ({value!r})"


def is_size(column: str) -> bool:
    """Columns in bytes take and print sizes."""
    return _ends(column, "_bytes")


def _ends(column: str, *ends: str) -> bool:
    """Whether a column's name says its unit; a format's name says none: `count:iq3_s`."""
    return column.endswith(ends) and not column.startswith("count:")
