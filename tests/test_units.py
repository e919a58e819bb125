"""Sizes and counts: what is accepted, and the words in which the rest is refused."""

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.commands.measured_options import _target
from mpsearch.errors import InputError
from mpsearch.gating.conditions import CONDITIONS
from mpsearch.gating.judging import _parse, check_names
from mpsearch.tables.choice import Choice, WeightBits
from mpsearch.tables.units import (
    Percent,
    format_amount,
    format_count,
    format_exactly,
    format_feasible,
    format_size,
    parse_accuracy,
    parse_agreement,
    parse_amount,
    parse_confidence,
    parse_count,
    parse_growth,
    parse_points,
    parse_seconds,
    parse_size,
    parse_tolerance,
    whole_number,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("145KB", 148480),
        ("145KiB", 148480),
        ("145 KB", 148480),
        *((f"145{unit}", 148480) for unit in ("k", "K", "kb", "kB", "Kb", "kib")),
        ("2m", 2097152),
        ("7b", 7),
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
        ("5k", 5000),
        ("1T", 10**12),
    ],
)
def test_count(text: str, count: Fraction) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("latency_s", "5ms", Fraction(5, 1000)),
        ("latency_s", "0.005", Fraction(5, 1000)),
        ("latency_s", "5e-3 s", Fraction(5, 1000)),
        ("latency_s", "800us", Fraction(8, 10**4)),
        ("latency_s", "1.5µs", Fraction(15, 10**7)),
        ("latency_s", "20ns", Fraction(2, 10**8)),
        ("energy_j", "3mJ", Fraction(3, 1000)),
        ("energy_j", "0.5", Fraction(1, 2)),
        ("energy_j", "2J", 2),
        ("size_bytes", "1KB", 1024),
        ("bops", "1K", 1000),
    ],
)
def test_an_amount_is_read_by_what_its_column_ends_in(
    column: str, text: str, value: Fraction
) -> None:
    assert parse_amount(column, text) == value
    assert parse_amount(column, "50%") == Percent(Fraction(1, 2))


@pytest.mark.parametrize(
    ("column", "text", "words"),
    [
        ("latency_s", "5MS", "did you mean 5ms?"),
        ("latency_s", "5KB", "expected a time such as 5ms"),
        ("latency_s", "-5ms", "expected a time such as 5ms"),
        ("energy_j", "5mj", "did you mean 5mJ?"),
        ("energy_j", "1e30J", "more than 10\\^18"),
    ],
)
def test_wrong_times_and_energies_say_what_is_expected(column: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_amount(column, text)


def test_times_and_energies_are_printed_with_a_prefix() -> None:
    values = {2.5: "2.5 s", 0.99996: "1 s", 0.00412: "4.12 ms", 3.1e-6: "3.1 µs", 4e-8: "40 ns"}
    for value, text in values.items():
        assert format_amount("latency_s", value) == text
    assert format_amount("energy_j", -0.0031) == "-3.1 mJ"
    assert format_exactly("latency_s", 0.0041234) == "4.12 ms (0.0041234)"


def test_relative() -> None:
    assert parse_size("50%") == Percent(Fraction(1, 2))
    assert parse_size("w8") == WeightBits(8)
    assert parse_count("w4a8") == Choice(4, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("145", "no unit; did you mean 145KB"),
        ("145kbytes", "did you mean 145KB?"),
        ("1.5Mo", "did you mean 1.5MB?"),
        ("1Mbit", "expected a size such as 145KB"),
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
        ("1.2g", "did you mean 1.2G?"),
        ("1.2GB", "did you mean 1.2G?"),
        ("300m", "did you mean 300M?"),
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


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("column", ["size_bytes", "bops"])
def test_a_feasible_bound_is_feasible_as_it_is_printed(column: str, up: bool) -> None:
    for value in (7, 1023, 1025, 10208, 11059, 1_234_567, 99_999_999):
        rounded, _, exact = format_feasible(column, value, up).partition(" (")
        read = parse_amount(column, rounded)
        assert isinstance(read, Fraction)
        assert read >= value if up else read <= value, rounded
        assert float(read) == pytest.approx(value, rel=0.01)
        assert not exact or parse_amount(column, exact.removesuffix(")")) == value
    assert format_feasible("size_bytes", 10208) == "9.97 KB (10208 B)"


def test_formats() -> None:
    assert format_size(148480) == "145.0 KB"
    assert format_size(512) == "512 B"
    assert format_size(1572864) == "1.5 MB"
    assert format_count(1_200_000_000) == "1.200 G"
    assert format_count(0.02) == "0.02"


@pytest.mark.parametrize(
    "number",
    [
        "1e999999999",
        "1e-999999999",
        "1e400",
        "9" * 5000,
        "0." + "0" * 5000 + "1",
        "\u0663",
        "\xb2",
        "1/3",
    ],
)
@pytest.mark.parametrize(
    "parse",
    [
        parse_accuracy, parse_growth, parse_points, parse_confidence, parse_tolerance, parse_count,
        parse_seconds, lambda text: parse_size(f"{text}KB"), lambda text: parse_growth(f"{text}%"),
        lambda text: check_names([f"f1={text}"], "--min"),
        lambda text: check_names([f"f1={text}%"], "--max-rise"),
    ],
)  # fmt: skip
def test_a_number_is_a_short_decimal_in_ascii(parse: Callable[[str], object], number: str) -> None:
    """Exact values of the others take gigabytes, for ever, or raise what nobody expects."""
    with pytest.raises(InputError):
        parse(number)


def test_whole_numbers() -> None:
    assert [whole_number(text) for text in ("0", "012", "9" * 18)] == [0, 12, 10**18 - 1]
    assert {whole_number(text) for text in ("", "-1", "\xb2", "\u0663", "1.0", "9" * 19)} == {None}


def _or_error(parse: Callable[[str], object], text: str) -> object:
    try:
        return parse(text)
    except InputError as error:
        return str(error)


def _size(text: str) -> Fraction:
    amount = parse_size(text)
    assert isinstance(amount, Percent)
    return amount.value


# option -> (its reader, whether `12.5%` is percent, what a bare number counts in)
SHARES: dict[str, tuple[Callable[[str], object], bool, int | None]] = {
    "--min-accuracy": (parse_accuracy, True, 100),
    "--min-agreement": (parse_agreement, True, 100),
    "--max-drop, --max-drop-baseline": (parse_points, False, 1),
    "--max-size-growth, --max-bops-growth, --max-latency-growth": (parse_growth, True, None),
    "--confidence": (lambda text: Fraction(repr(parse_confidence(text))), True, 1),
    "--tolerance": (parse_tolerance, True, 100),
    "--size": (_size, True, None),
    "--min, --max, --max-rise, --max-fall": (
        lambda text: _parse(f"f1={text}", "--min")[1],
        True,
        1,
    ),
}


@pytest.mark.parametrize("option", SHARES)
@given(hundredths=st.integers(0, 10000))
def test_percent_and_bare_numbers_of_every_option(option: str, hundredths: int) -> None:
    """With its sign a number is percent everywhere but where points are meant; without, the same
    number is never read as a hundred times as much or as little as elsewhere in the option."""
    parse, signed, bare = SHARES[option]
    number = f"{hundredths // 100}.{hundredths % 100:02}"
    value = Fraction(hundredths, 100)
    found = _or_error(parse, f"{number} %")
    if option == "--confidence" and not 50 <= value <= Fraction("99.99"):
        assert "expected 0.5 to 0.9999" in str(found)
    elif option == "--tolerance" and value >= 50:
        assert "below 50" in str(found)
    else:
        assert (found == value / 100) if signed else isinstance(found, str)
    found = _or_error(parse, number)
    if bare is None or (option == "--tolerance" and value >= 50):
        assert isinstance(found, str)
    elif option == "--confidence" and not Fraction(1, 2) <= value <= Fraction("0.9999"):
        assert "expected 0.5 to 0.9999" in str(found)
    elif option in ("--min-accuracy", "--min-agreement") and value <= 1:
        share = f"{float(value):.10g}"
        assert f"expected percent: write {float(100 * value):.10g}%" in str(found)
        assert hundredths == 0 or f"({share}%, with its sign" in str(found)
    else:
        assert found == value / bare


@given(st.text("0123456789.% -+e", max_size=8))
def test_the_gate_and_solve_read_the_same_accuracy(text: str) -> None:
    """By the same rule, in the same words; what the message of a refusal suggests is accepted."""
    (gate,) = (one for one in CONDITIONS if one.name == "min_accuracy")

    def solve(text: str) -> object:
        return _target(text, None).min_accuracy

    found = _or_error(solve, text)
    assert found == _or_error(gate.limit, text)
    if isinstance(found, Fraction):
        assert 0 <= found <= 1
    elif "write " in str(found):
        for form in str(found).split("write ")[1].split(" (")[0].split(" or "):
            assert gate.limit(form) == Fraction(text.strip())


def test_points_of_solve_and_gate_are_percentage_points() -> None:
    assert _target(None, "1.0").max_drop == Fraction(1, 100)
    assert [one.limit("1.0") for one in CONDITIONS if one.unit == "points"] == [1, 1]
