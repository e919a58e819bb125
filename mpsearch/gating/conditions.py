"""What the gate can be asked: one table of conditions, and their limits as numbers.

The options of `mpsearch gate`, the keys of a file, the arguments of `assert_budget`, titles and
units are made of this table. A new condition is a row here and its input in action.yml, which a
test spells out; a new kind of evidence also needs its judgement in `gate`.

The gate's conditions in a file: `[tool.mpsearch.gate]` of pyproject.toml, or mpsearch.toml.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from mpsearch.errors import InputError, did_you_mean
from mpsearch.files.whole import like_file, read_toml
from mpsearch.tables.units import (
    parse_accuracy,
    parse_agreement,
    parse_amount,
    parse_decibels,
    parse_growth,
    parse_nats,
    parse_points,
)

if TYPE_CHECKING:
    from mpsearch.device.profile import Mode
    from mpsearch.tables.table import LayerTable


Need = Literal["totals", "accuracy", "outputs", "metrics", "device", "fp32", "baseline"]
Unit = Literal["B", "", "%", "points", "dB", "nats", "s", "J"]
Limit = int | float | Fraction


def parse_limit(table: "LayerTable | None", column: str, text: str) -> Limit:
    """The limit of a resource column; what is relative to a table (`50%`, `w8`) needs one."""
    if table is not None and column in table.columns:
        from mpsearch.tables.budget import Budget  # needs numpy

        return Budget.parse(table, limits=[f"{column}={text}"]).limits[column]
    amount = parse_amount(column, text)
    if not isinstance(amount, Fraction):
        raise InputError(f"the limit {text!r} is relative to a table; give one with --profile")
    return amount


@dataclass(frozen=True)
class Condition:
    """One condition that can be asked."""

    name: str
    """`max_size`: of the option and the key `max-size`, and of the argument of `assert_budget`."""
    needs: tuple[Need, ...]
    """What it is judged from; with `baseline` or `fp32` against that."""
    quantity: str
    """What its verdict is of; empty for metrics, which name it in the limit."""
    title: str
    unit: Unit
    """Of the value; an empty one is a count."""
    example: str
    help: str | None = None
    parse: Callable[[str], Fraction] | None = None
    """Reads the limit; None: an amount of the column `quantity`."""
    argument: str = ""
    """Of `assert_budget`, where the name is one of Python's own."""

    @property
    def key(self) -> str:
        """`max-size`, as in options and files."""
        return self.name.replace("_", "-")

    @property
    def keyword(self) -> str:
        """The argument of `assert_budget`."""
        return self.argument or self.name

    @property
    def at_least(self) -> bool:
        """Whether the limit is one from below."""
        return self.name.startswith("min")

    @property
    def of_metrics(self) -> bool:
        """Whether it takes any number of limits, each of a metric: `f1=0.9`."""
        return "metrics" in self.needs

    def limit(self, text: str, table: "LayerTable | None" = None) -> Limit:
        """The limit as a number; one that is relative to the table needs it."""
        if self.parse is not None:
            return self.parse(text)
        return parse_limit(table if "totals" in self.needs else None, self.quantity, text)


# in the order of `mpsearch gate --help`
CONDITIONS = (
    Condition(
        "max_size", ("totals",), "size_bytes", "size", "B", "145KB", "Also 50% or w8 of the table."
    ),
    Condition(
        "max_bops", ("totals",), "bops", "BOPS", "", "1.2G", "Also 50% or w8a8 of the table."
    ),
    Condition(
        "min_accuracy", ("accuracy",), "accuracy", "accuracy", "%", "88%",
        "Percent; also 88, and 0.88% with its sign.", parse_accuracy,
    ),
    Condition(
        "max_drop", ("accuracy", "fp32"), "drop", "points lost", "points", "1.0",
        "Percentage points lost against FP32, paired.", parse_points,
    ),
    Condition(
        "min_agreement", ("outputs", "fp32"), "agreement", "agreement", "%", "98%",
        "Percent of the answers that are FP32's; needs no labels.", parse_agreement,
    ),
    Condition(
        "min_sqnr", ("outputs", "fp32"), "sqnr", "SQNR", "dB", "20",
        "Decibels of FP32's outputs over the difference; no labels.", parse_decibels,
    ),
    Condition(
        "max_kl", ("outputs", "fp32"), "kl", "KL to FP32", "nats", "0.05",
        "Nats between FP32's classes and the network's; no labels.", parse_nats,
    ),
    Condition(
        "min", ("metrics",), "", "", "", "f1=0.9", "Of a metric of the evaluation. Repeatable.",
        argument="min_metrics",
    ),
    Condition(
        "max", ("metrics",), "", "", "", "mae=0.05", "The same from above.", argument="max_metrics"
    ),
    Condition(
        "max_rise", ("metrics", "fp32"), "", "", "", "mse=10%",
        "Of a metric above FP32's, paired; with its sign relative to FP32's value.",
    ),
    Condition(
        "max_fall", ("metrics", "fp32"), "", "", "", "f1=0.02", "The same below FP32's."
    ),
    Condition(
        "max_latency", ("device",), "latency_s", "latency", "s", "5ms",
        "Median seconds of one inference on a device.",
    ),
    Condition(
        "max_peak_memory", ("device",), "peak_memory_bytes", "peak memory", "B", "2MB",
        "Of the whole process on a device.",
    ),
    Condition(
        "max_energy", ("device",), "energy_j", "energy", "J", "3mJ",
        "Joules of one inference above idle.",
    ),
    Condition(
        "max_instructions", ("device",), "instructions", "instructions (emulated)", "", "20M",
        "Of one inference on an emulated board: a count, no time.",
    ),
    Condition(
        "max_drop_baseline", ("accuracy", "baseline"), "drop_baseline",
        "points lost since the baseline", "points", "0.5",
        "Percentage points lost since the baseline, paired.", parse_points,
    ),
    Condition(
        "max_size_growth", ("totals", "baseline"), "size_bytes_growth", "size growth", "%", "1%",
        "Against the baseline; 0% is none.", parse_growth,
    ),
    Condition(
        "max_bops_growth", ("totals", "baseline"), "bops_growth", "BOPS growth", "%", "1%",
        None, parse_growth,
    ),
    Condition(
        "max_latency_growth", ("device", "baseline"), "latency_s_growth", "latency growth", "%",
        "5%", None, parse_growth,
    ),
    Condition(
        "max_instructions_growth", ("device", "baseline"), "instructions_growth",
        "growth of instructions (emulated)", "%", "0%", None, parse_growth,
    ),
)  # fmt: skip
BY_QUANTITY: Mapping[str, Condition] = {
    condition.quantity: condition for condition in CONDITIONS if condition.quantity
}


def grown(quantity: str) -> str:
    """`size_bytes_growth` -> `size_bytes`: what a growth is of."""
    return quantity.removesuffix("_growth")


class Limits(TypedDict, total=False):
    """Every condition as an argument of `mpsearch.testing.assert_budget`, None: not asked."""

    max_size: str | int | None
    max_bops: str | int | None
    min_accuracy: str | float | None
    max_drop: str | float | None
    min_agreement: str | float | None
    min_sqnr: str | float | None
    max_kl: str | float | None
    min_metrics: Mapping[str, str | float] | None
    max_metrics: Mapping[str, str | float] | None
    max_rise: Mapping[str, str | float] | None
    max_fall: Mapping[str, str | float] | None
    max_latency: str | float | None
    max_peak_memory: str | int | None
    max_energy: str | float | None
    max_instructions: str | int | None
    max_drop_baseline: str | float | None
    max_size_growth: str | None
    max_bops_growth: str | None
    max_latency_growth: str | None
    max_instructions_growth: str | None


@dataclass(frozen=True)
class Conditions:
    """What is asked of one network."""

    limits: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """A condition's name -> its limit as it was written; of metrics all limits, as `f1=0.9`."""
    latency_mode: "Mode" = "steady"
    """Which of a device's latencies counts, `steady`, `process` or `cold`."""

    @staticmethod
    def of(given: Limits) -> "Conditions":
        """The limits as arguments; plain numbers are in the unit of the condition.

        Raises TypeError for an argument that is no condition, as a call does.
        """
        by_keyword = {condition.keyword: condition for condition in CONDITIONS}
        limits: dict[str, str | tuple[str, ...]] = {}
        for keyword, value in given.items():
            if keyword not in by_keyword:
                raise TypeError(f"got the unknown condition {keyword!r}")
            condition = by_keyword[keyword]
            if isinstance(value, Mapping):
                each = ((name, _written(limit)) for name, limit in value.items())
                limits[condition.name] = tuple(f"{name}={limit}" for name, limit in each)
            elif value is not None:
                limits[condition.name] = _written(value, "B" if condition.unit == "B" else "")
        return Conditions(limits)

    def need(self, *needs: Need) -> bool:
        """Whether what is asked needs any of these; without any, whether anything is asked."""
        asked = [condition for condition in CONDITIONS if condition.name in self.limits]
        return any(not needs or set(needs) & set(condition.needs) for condition in asked)

    def judged_from(self, *needs: Need) -> Iterator[tuple[Condition, str]]:
        """Conditions that are asked and need just these, each with its limits as written."""
        for condition in CONDITIONS:
            if condition.needs == needs and condition.name in self.limits:
                written = self.limits[condition.name]
                for text in (written,) if isinstance(written, str) else written:
                    yield condition, text

    def without(self, need: Need) -> "Conditions":
        """Those that can be judged without it."""
        kept = {one.name for one in CONDITIONS if need not in one.needs}
        limits = {name: text for name, text in self.limits.items() if name in kept}
        return Conditions(limits, self.latency_mode)


def _written(value: object, unit: str = "") -> str:
    return value if isinstance(value, str) else f"{value!r}{unit}"


OWN, PROJECT = "mpsearch.toml", "pyproject.toml"
FILES = ("assignment", "evaluation", "device-file", "profile", "baseline")
METRICS = tuple(condition.key for condition in CONDITIONS if condition.of_metrics)
SETTINGS = ("latency-mode", "row", "confidence")
RENAMED: Mapping[str, str] = {"network": "row", "device": "device-file"}  # keys of files until 0.3
FLAGS = ("strict", "lenient", "unverified")


def _place(condition: Condition) -> int:
    """In the list of keys: what is of the network alone, against a baseline, of a device."""
    return 1 if "baseline" in condition.needs else 2 if "device" in condition.needs else 0


LIMITS = tuple(one.key for one in sorted(CONDITIONS, key=_place) if not one.of_metrics)
KEYS = (*LIMITS, *SETTINGS, *METRICS, *FILES, *FLAGS)
MODES = ("steady", "process", "cold")


@dataclass(frozen=True)
class GateConfig:
    """What a file asks for: texts as they would stand on the command line, flags as bool.

    source: the file; None where there is none. Paths are relative to the file's folder. renamed:
    keys that it has in an old spelling, each with its new one.
    """

    source: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()

    def get(self, key: str) -> Any:
        """The value of a key such as `max-size`; None where the file does not have it."""
        return self.values.get(key)


def find_config(named: str | None = None, folder: Path | None = None) -> GateConfig:
    """The named file, else the nearest one from `folder` (default: here) upwards.

    In each folder mpsearch.toml is looked at before pyproject.toml; one without a table for the
    gate does not count. The search ends at the root of the repository (a folder with .git).
    Raises InputError for unknown keys, wrong types, and a named file without the table.
    """
    if named is not None:
        found = _read(Path(named), ("gate",)) or _read(Path(named), ("tool", "mpsearch", "gate"))
        if found is None:
            raise InputError(f"{named} has no table [gate] or [tool.mpsearch.gate]")
        return found
    start = (folder or Path()).absolute()
    for place in (start, *start.parents):
        for name, keys in ((OWN, ("gate",)), (PROJECT, ("tool", "mpsearch", "gate"))):
            path = place / name
            if path.is_file():
                found = _read(path, keys)
                if found is not None:
                    return found
        if (place / ".git").exists():
            break
    return GateConfig()


def _read(path: Path, keys: tuple[str, ...]) -> GateConfig | None:
    try:
        document: Any = read_toml(path, Decimal)
    except FileNotFoundError:
        first = f"there is no file {path} with conditions for the gate"
        raise InputError(f"{first}{like_file(path)}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is not a TOML file: it is a folder") from None
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return None
        document = document[key]
    where = f"{_shown(path)}, [{'.'.join(keys)}]"
    if not isinstance(document, dict):
        raise InputError(f"{where} is no table; expected keys such as max-size")
    renamed = tuple((old, RENAMED[old]) for old in document if old in RENAMED)
    for old, new in renamed:
        if new in document:
            raise InputError(f"{where} has {new} and {old}, its old name; expected one of them")
    current: dict[str, Any] = {RENAMED.get(key, key): value for key, value in document.items()}
    values = {key: _value(key, value, where, path.parent) for key, value in current.items()}
    return GateConfig(_shown(path), values, renamed)


def _value(key: str, value: Any, where: str, folder: Path) -> Any:
    if key not in KEYS:
        close = did_you_mean(key.replace("_", "-"), KEYS)
        hint = close or f"; expected one of {', '.join(KEYS)}"
        raise InputError(f"{where} has the unknown key {ascii(key)[:60]}{hint}")
    if key in FLAGS:
        if not isinstance(value, bool):
            raise InputError(f"{where}: {key} is {ascii(value)[:60]}; expected true or false")
        return value
    if key in METRICS:
        return _metrics(key, value, where)
    number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if not isinstance(value, str) and not (number and key not in FILES):
        raise InputError(f'{where}: {key} is {ascii(value)[:60]}; expected a text such as "145KB"')
    if key == "latency-mode" and value not in MODES:
        raise InputError(f"{where}: {key} is {ascii(value)[:60]}; expected {', '.join(MODES)}")
    return _shown(folder / value) if key in FILES else str(value)


def _metrics(key: str, value: Any, where: str) -> tuple[str, ...]:
    """`{ f1 = 0.9 }` or `["f1=0.9"]` -> ("f1=0.9",)."""
    if isinstance(value, dict):
        limits = [(name, limit) for name, limit in value.items()]
        if all(isinstance(x, int | Decimal | str) and not isinstance(x, bool) for _, x in limits):
            return tuple(f"{name}={limit}" for name, limit in limits)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise InputError(
        f"{where}: {key} is {ascii(value)[:60]}; expected limits by metric, such as {{ f1 = 0.9 }}"
    )


def _shown(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    here = Path.cwd()
    absolute = path.absolute()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
