"""Sizes and counts: what is accepted, and the words in which the rest is refused."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.errors import InputError
from mpsearch.units import (
    Percent,
    UniformBits,
    format_count,
    format_size,
    parse_count,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("145KB", 148480),
        ("145KiB", 148480),
        ("145 KB", 148480),
        ("1.5MB", 1572864),
        ("1MiB", 1048576),
        ("512B", 512),
        (".5KB", 512),
        ("2GB", 2147483648),
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1.2G", 1_200_000_000),
        ("300M", 300_000_000),
        ("64000", 64000),
        ("0.02", Fraction(1, 50)),
        ("2e-2", Fraction(1, 50)),
        ("5K", 5000),
        ("1T", 10**12),
    ],
)
def test_count(text: str, count: Fraction) -> None:
    assert parse_count(text) == count


def test_relative() -> None:
    assert parse_size("50%") == Percent(Fraction(1, 2))
    assert parse_size("w8") == UniformBits(8)
    assert parse_count("w4a8") == UniformBits(4, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("145", "no unit; did you mean 145KB"),
        ("145kb", "did you mean 145KB"),
        ("1mib", "did you mean 1MiB"),
        ("-1KB", "expected a size such as"),
        ("1e9GB", "expected a size such as"),
        ("999999999999GB", "more than 1024 TB"),
        ("5XB", "got the unit 'XB'"),
        ("", "expected a size such as"),
        ("nanB", "expected a size such as"),
        ("1,5MB", "expected a size such as"),
        ("-5%", "expected a size such as"),
    ],
)
def test_refused_sizes(text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        parse_size(text)
    assert words in str(error.value)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1.2g", "did you mean 1.2G"),
        ("1.2X", "got the unit 'X'"),
        ("-3", "expected a number"),
        ("nan", "expected a number"),
        ("inf", "expected a number"),
        ("1e99", "more than 10^18"),
        ("", "expected a number"),
    ],
)
def test_refused_counts(text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        parse_count(text)
    assert words in str(error.value)


@given(st.integers(0, 10**15))
def test_printed_sizes_read_back_within_rounding(size: int) -> None:
    """What `solve` prints can be typed in again."""
    printed = format_size(size).replace(",", "")
    assert float(parse_size(printed)) == pytest.approx(size, rel=0.05, abs=0.5)  # type: ignore[arg-type]


def test_formats() -> None:
    assert format_size(148480) == "145.0 KB"
    assert format_size(512) == "512 B"
    assert format_size(1572864) == "1.5 MB"
    assert format_count(1_200_000_000) == "1.200 G"
    assert format_count(0.02) == "0.02"
