"""`gate`: is the network small and accurate enough? One exact `Verdict` per condition."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpsearch.agreement import contradictions, recomputed_totals
from mpsearch.assignment import Assignment
from mpsearch.budget import Budget
from mpsearch.device.figures import device_figure
from mpsearch.device.profile import DeviceProfile, Mode, network_digest
from mpsearch.errors import InputError
from mpsearch.evaluation import Evaluation, Evaluations, paired_drop, wilson_interval
from mpsearch.table import LayerTable
from mpsearch.units import parse_amount

REFERENCE = "FP32"
DEFAULT_NETWORKS = ("assignment", "quantized")


@dataclass(frozen=True)
class Conditions:
    """The limits as they were written; None: not asked. `max_drop` is in percentage points.

    latency_mode: which of a device's latencies counts, `steady`, `process` or `cold`.
    """

    max_size: str | None = None
    max_bops: str | None = None
    min_accuracy: str | None = None
    max_drop: str | None = None
    max_latency: str | None = None
    max_peak_memory: str | None = None
    max_energy: str | None = None
    latency_mode: Mode = "steady"


@dataclass(frozen=True)
class Evidence:
    """What is known of the network; None: not at hand.

    Size and BOPS are those of the assignment, or without one those of the evaluation's row.
    network: the name of that row; None: `assignment` or `quantized`.
    """

    assignment: Assignment | None = None
    table: LayerTable | None = None
    evaluations: Evaluations | None = None
    network: str | None = None
    device: DeviceProfile | None = None


@dataclass(frozen=True)
class Verdict:
    """One condition. quantity: `size_bytes`, `bops`, `accuracy` (0 to 1), `drop` (in points), or
    what a device took: `latency_s`, `peak_memory_bytes`, `energy_j`.

    A value equal to its limit passes. decided is False where the limit lies inside the value's 95 %
    interval: another sample of the same kind might come out on the other side.
    """

    quantity: str
    value: int | float | Fraction
    limit: int | float | Fraction
    passed: bool
    interval: tuple[float, float] | None = None
    samples: int | None = None

    @property
    def decided(self) -> bool:
        if self.interval is None:
            return True
        low, high = self.interval
        return not low < self.limit < high


def judge(conditions: Conditions, evidence: Evidence) -> tuple[Verdict, ...]:
    """Every condition that was asked: size, BOPS, accuracy, drop, latency, peak memory, energy.

    Size and BOPS are recomputed from the table when there is one, accuracy and interval from the
    samples. Raises InputError without a condition, for a limit that cannot be read, for evidence
    that is missing, and for evidence that contradicts itself.
    """
    if conditions == Conditions(latency_mode=conditions.latency_mode):
        raise InputError(
            "no condition given; expected at least one of --max-size, --max-bops, --min-accuracy, "
            "--max-drop, --max-latency, --max-peak-memory, --max-energy"
        )
    measured = conditions.min_accuracy is not None or conditions.max_drop is not None
    totals = _totals(evidence, _row(evidence) if measured else None)
    verdicts = []
    for column, text in (("size_bytes", conditions.max_size), ("bops", conditions.max_bops)):
        if text is not None:
            value, limit = _total(totals, column), _limit(evidence.table, column, text)
            verdicts.append(Verdict(column, value, limit, value <= limit))
    if conditions.min_accuracy is not None:
        verdicts.append(_accuracy(_row(evidence), parse_accuracy(conditions.min_accuracy)))
    if conditions.max_drop is not None:
        verdicts.append(_drop(evidence, parse_points(conditions.max_drop)))
    for column, text in (
        ("latency_s", conditions.max_latency),
        ("peak_memory_bytes", conditions.max_peak_memory),
        ("energy_j", conditions.max_energy),
    ):
        if text is not None:
            figure = device_figure(_device(evidence), column, conditions.latency_mode)
            exact = Fraction(repr(figure))  # the decimal that is printed, as limits are
            limit = _limit(None, column, text)
            verdicts.append(Verdict(column, exact, limit, exact <= limit))
    return tuple(verdicts)


def _device(evidence: Evidence) -> DeviceProfile:
    """The stored measurement, which must be of the assignment that is judged."""
    if evidence.device is None:
        raise InputError(
            "there is no device.json to take figures of a device from; write one with `mpsearch "
            "device run EXPORT --host HOST`, or name yours with --device"
        )
    chosen = evidence.assignment
    if chosen is not None and network_digest(chosen.layers) != evidence.device.network:
        raise InputError(
            f"the profile of {evidence.device.host} is of another assignment than the one judged; "
            "export and measure this one, or name the one that was measured with --assignment"
        )
    return evidence.device


def parse_accuracy(text: str) -> Fraction:
    """`88%`, `0.88` -> 88/100: a percentage has its sign, a bare number is a share from 0 to 1."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(%?)", text.strip())
    if match is None:
        raise InputError(f"got the accuracy {text!r}; expected a form such as 88% or 0.88")
    value = Fraction(match[1]) / (100 if match[2] else 1)
    if value > 1:
        hint = "" if match[2] else f"; did you mean {match[1]}%?"
        raise InputError(f"the accuracy {text!r} is more than 100 %{hint}")
    return value


def parse_points(text: str) -> Fraction:
    """`1.0` -> 1 percentage point. `1%` is refused, as it could mean 1 % of the accuracy."""
    if re.fullmatch(r"\d+\.?\d*|\.\d+", text.strip()) is None or Fraction(text.strip()) > 100:
        raise InputError(
            f"got the drop {text!r}; expected percentage points from 0 to 100, such as 1.0"
        )
    return Fraction(text.strip())


def _totals(evidence: Evidence, measured: Evaluation | None) -> Mapping[str, Any]:
    """Size and BOPS of the network that is judged, checked against the row that was measured."""
    if evidence.assignment is None:
        row = measured
        if row is None and evidence.evaluations is not None:
            row = _row(evidence)
        return {} if row is None else _stated(row)
    totals: Mapping[str, Any] = evidence.assignment.totals
    if evidence.table is not None:
        wrong = contradictions(evidence.assignment, evidence.table)
        if wrong:
            raise InputError(
                f"the assignment does not fit {evidence.table.source}: {'; '.join(wrong)}; "
                "solve again, or name the table that belongs to it with --profile"
            )
        totals = recomputed_totals(evidence.assignment, evidence.table)
    for column, value in ({} if measured is None else _stated(measured)).items():
        if totals.get(column, value) != value:
            raise InputError(
                f"{column} is {totals[column]} for the assignment and {value} for the network that "
                "was measured; measure again, or judge the measured row alone with --network"
            )
    return totals


def _stated(row: Evaluation) -> dict[str, Any]:
    stated = {"size_bytes": row.size_bytes, "bops": row.bops}
    return {column: value for column, value in stated.items() if value is not None}


def _total(totals: Mapping[str, Any], column: str) -> int | float:
    value = totals.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"the network's {column} is not known; give an assignment with its table "
            "(--assignment, --profile) or an evaluation that states it (--evaluation)"
        )
    return value


def _limit(table: LayerTable | None, column: str, text: str) -> int | float | Fraction:
    """An absolute limit; what is relative to a table needs one."""
    if table is not None and column in table.columns:
        return Budget.parse(table, limits=[f"{column}={text}"]).limits[column]
    amount = parse_amount(column, text)
    if not isinstance(amount, Fraction):
        raise InputError(f"the limit {text!r} is relative to a table; give one with --profile")
    return amount


def _accuracy(row: Evaluation, limit: Fraction) -> Verdict:
    hits = sum(row.correct)
    value = Fraction(hits, row.n)
    return Verdict("accuracy", value, limit, value >= limit, wilson_interval(hits, row.n), row.n)


def _drop(evidence: Evidence, limit: Fraction) -> Verdict:
    row = _row(evidence)
    assert evidence.evaluations is not None
    reference = evidence.evaluations.named(REFERENCE)
    if reference is None or reference.n != row.n:
        raise InputError(
            f"the evaluation has no row {REFERENCE} on the same {row.n} samples, and a drop is "
            "measured against it; write one with `mpsearch evaluate`"
        )
    value = Fraction(sum(reference.correct) - sum(row.correct), row.n) * 100
    low, high = paired_drop(reference.correct, row.correct)[1]
    return Verdict("drop", value, limit, value <= limit, (100 * low, 100 * high), row.n)


def _row(evidence: Evidence) -> Evaluation:
    """The measurement of the network that is judged."""
    if evidence.evaluations is None:
        raise InputError(
            "there is no evaluation.json to take the accuracy from; write one with `mpsearch "
            "evaluate model.pt --assignment assignment.json`, or name yours with --evaluation"
        )
    names = DEFAULT_NETWORKS if evidence.network is None else (evidence.network,)
    row = next((row for row in evidence.evaluations.rows if row.name in names), None)
    if row is None:
        wanted = " or ".join(names)
        known = ", ".join(row.name for row in evidence.evaluations.rows) or "none"
        raise InputError(f"the evaluation has no row {wanted}; it has: {known} (see --network)")
    if row.n == 0:
        raise InputError(f"the evaluation's row {row.name} has no samples; measure it again")
    return row
