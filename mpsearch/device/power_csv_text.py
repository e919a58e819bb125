"""The text after `csv:`, which says what the columns of a recording are."""

from collections.abc import Mapping
from urllib.parse import unquote

from mpsearch.device.power import PowerError, number
from mpsearch.device.power_sources_csv import Csv, CsvColumns
from mpsearch.device.power_times import moment, time_column

TO_MILLI = {
    "power": {"mW": 1.0, "W": 1e3, "uW": 1e-3},
    "voltage": {"V": 1.0, "mV": 1e-3},
    "current": {"A": 1e3, "mA": 1.0, "uA": 1e-3},
}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " "}
KEYS = (
    "time", "power", "unit", "voltage", "current", "voltage_unit", "current_unit", "offset",
    "start", "time_unit", "format", "separator",
)  # fmt: skip


def csv_source(text: str, rest: str) -> Csv:
    """`csv:meter.csv?time=t&power=P&unit=W` -> Csv. Raises PowerError for what is not understood.

    A column is `power` (unit=mW, W or uW), or `voltage` and `current` (voltage_unit=V or mV,
    current_unit=A, mA or uA). `%26` is an & in a column's name, `%25` a %.
    """
    path, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if not equals or key not in KEYS or key in options:
            raise PowerError(
                f"--power csv: got {part[:60]!a}; expected "
                f"csv:FILE?time=COLUMN&power=COLUMN with keys out of {', '.join(KEYS)}, each once"
            )
        options[key] = unquote(value)
    if not path or "time" not in options:
        raise PowerError("--power csv names no file or no time; expected csv:FILE?time=COLUMN&…")
    offset = _number(options, "offset") if "offset" in options else 0.0
    separator = options.get("separator")
    if separator is not None and separator not in SEPARATORS:
        raise PowerError(f"--power csv: separator is one of {', '.join(SEPARATORS)}")
    return Csv(
        text,
        path,
        time_column(
            options["time"],
            unit=options.get("time_unit"),
            start=None if "start" not in options else moment(options["start"]),
            form=options.get("format"),
        ),
        _columns(options),
        offset,
        None if separator is None else SEPARATORS[separator],
    )


def _columns(options: Mapping[str, str]) -> CsvColumns:
    power, product = "power" in options, {"voltage", "current"} <= options.keys()
    stray = {"voltage", "current", "voltage_unit", "current_unit"} if power else {"unit"}
    if power == product or stray & options.keys():
        raise PowerError(
            "--power csv: expected power=COLUMN (and unit=), or voltage=COLUMN and "
            "current=COLUMN (and voltage_unit=, current_unit=)"
        )
    if power:
        return CsvColumns((options["power"],), _factor("power", options.get("unit", "mW"), "unit"))
    return CsvColumns(
        (options["voltage"], options["current"]),
        _factor("voltage", options.get("voltage_unit", "V"), "voltage_unit")
        * _factor("current", options.get("current_unit", "A"), "current_unit"),
    )


def _factor(kind: str, unit: str, key: str) -> float:
    if unit not in TO_MILLI[kind]:
        raise PowerError(
            f"--power csv: {key} is {unit[:20]!a}; expected {', '.join(TO_MILLI[kind])}"
        )
    return TO_MILLI[kind][unit]


def _number(options: Mapping[str, str], key: str) -> float:
    try:
        return number(options[key])
    except ValueError:
        raise PowerError(f"--power csv: {key} is {options[key][:40]!a}; expected seconds") from None
