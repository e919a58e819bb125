"""`Facts`: everything that a report says, as plain data. Nothing here reads files or draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Any

from mpsearch.tables.choice import Choice

Number = int | float


@dataclass(frozen=True)
class LimitFacts:
    """A limit that was asked. share_of_w8: the limit as a share of uniform w8a8, if known."""

    column: str
    limit: Number
    total: Number | None
    slack: Number | None
    share_of_w8: float | None


@dataclass(frozen=True)
class Point:
    """A whole assignment: total Ω and every resource total."""

    name: str
    omega: float
    totals: Mapping[str, Number]


@dataclass(frozen=True)
class AnswerFacts:
    """The assignment that was chosen, with what is proven about it."""

    status: str
    gap: float | None
    bound: float | None
    solver: str | None
    seconds: float | None
    point: Point
    layers_by_choice: Mapping[str, int]
    minimize: str = "omega"


@dataclass(frozen=True)
class MeasuredFacts:
    """Measured points of the front: accuracies from 0 to 1 with the ends of 95 % intervals.

    score: `accuracy`, or `agreement` with FP32, which stands in its place without labels.
    """

    totals: tuple[Number, ...]
    omega: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fp32: float | None
    fp32_interval: tuple[float, float] | None
    data: str
    samples: int
    score: str = "accuracy"


@dataclass(frozen=True)
class FrontFacts:
    """The Pareto front: Ω and the resource total, point by point, by rising resource.

    assignments: what some of the points choose, as many as a page can hold.
    """

    resource: str
    exact: bool
    limits: Mapping[str, Number]
    omega: tuple[float, ...]
    totals: tuple[Number, ...]
    measured: MeasuredFacts | None = None
    assignments: "AssignmentsFacts | None" = None


@dataclass(frozen=True)
class AssignmentsFacts:
    """Assignments of points of a front, to be read one at a time.

    points: positions in the front; codes: for each of them one character per layer, the place of
    its choice in `choices` among 0-9a-zA-Z: layers (a, b), choices (w4a4, w8a8), "10": a at w8a8.
    """

    layers: tuple[str, ...]
    choices: tuple[str, ...]
    points: tuple[int, ...]
    codes: tuple[str, ...]


@dataclass(frozen=True)
class PredictionFacts:
    """Predicted Ω beside what was measured at the same points, and how alike they rank.

    measure: `loss` (without labels `divergence`), or `points lost` (accuracy in percentage points,
    against FP32 where it was measured). low, high: ends of 95 % intervals, NaN where not known. The
    correlations are None where all values are alike.
    """

    measure: str
    omega: tuple[float, ...]
    measured: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    spearman: float | None
    kendall: float | None


@dataclass(frozen=True)
class LayerFacts:
    """One layer. choice and what follows are None without an assignment.

    shares: of the assignment's total, by column and for `omega`. choices: what the table has,
    choice -> (Ω, standard error).
    """

    name: str
    kind: str
    weights: int
    macs: int
    choice: Choice | None
    omega: float | None
    omega_stderr: float | None
    resources: Mapping[str, Number]
    shares: Mapping[str, float]
    choices: Mapping[Choice, tuple[float, float]]


@dataclass(frozen=True)
class AccuracyFacts:
    """One measured network. lost: percentage points against FP32, paired; None for FP32 itself."""

    name: str
    n: int
    accuracy: float
    interval: tuple[float, float]
    lost: float | None
    lost_interval: tuple[float, float] | None
    loss: float
    loss_interval: tuple[float, float]
    size_bytes: int | None
    bops: int | None
    times_smaller: float | None


@dataclass(frozen=True)
class MetricFacts:
    """A metric of one network. difference: less FP32's on the same samples; None: not compared."""

    network: str
    metric: str
    value: float
    interval: tuple[float, float]
    difference: float | None
    difference_interval: tuple[float, float] | None
    method: str


@dataclass(frozen=True)
class NearFacts:
    """One network measured without labels: how near all its outputs are to FP32's.

    None: of FP32 itself; kl also where there are no classes.
    """

    name: str
    size_bytes: int | None
    bops: int | None
    times_smaller: float | None
    agreement: MetricFacts | None
    sqnr: MetricFacts | None
    kl: MetricFacts | None


@dataclass(frozen=True)
class ConfusionFacts:
    """Samples of one network by [true class][predicted class]."""

    network: str
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PublishedRow:
    """One network of the paper's Table 4 beside ours: percent and KB (1024 B), None: not known."""

    name: str
    paper_accuracy: float | None
    paper_kilobytes: float | None
    ours: str | None
    accuracy: float | None
    interval: tuple[float, float] | None
    kilobytes: float | None


@dataclass(frozen=True)
class PublishedFacts:
    """The paper's Table 4 for this network; substitute: what stands in for the paper's data."""

    case: str
    substitute: str | None
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class LimitPrice:
    """What a limit is worth: see `mpsearch.explaining.prices.Marginal`. per_unit: Ω for one
    `unit` more."""

    column: str
    limit: Number
    per_unit: float
    unit: str
    step: Number
    more: float | None
    less: float | None


@dataclass(frozen=True)
class LayerPrice:
    """The next choice with less Ω of a layer, or of a group: what it saves, costs, and per unit.

    extra: how much of `PriceFacts.column` it takes; per_unit: Ω saved for one unit of it, None
    where it takes no more. over: limited columns in which this change alone would not fit.
    """

    layers: tuple[str, ...]
    choice: Choice
    better: Choice
    saved: float
    extra: Number
    per_unit: float | None
    over: tuple[str, ...]


@dataclass(frozen=True)
class PriceFacts:
    """What more of `column` buys, in Ω per unit; layers by falling price, the best buy first.

    reason: why there is neither, empty where there is.
    """

    column: str
    unit: str
    limits: tuple[LimitPrice, ...]
    layers: tuple[LayerPrice, ...]
    reason: str = ""


@dataclass(frozen=True)
class DeviceRow:
    """What one network took on a device: medians in seconds, bytes, mW; None: not known.

    cold_s: initialisation and first inference together. energy_j: of one inference above idle.
    instructions: of one inference, ram_bytes: with the stack; both of an emulated board.
    """

    name: str
    process_s: float | None = None
    cold_s: float | None = None
    steady_s: float | None = None
    steady_p99_s: float | None = None
    peak_memory_bytes: int | None = None
    program_bytes: int | None = None
    peak_minus_idle_mw: float | None = None
    mean_minus_idle_mw: float | None = None
    energy_j: float | None = None
    instructions: int | None = None
    ram_bytes: int | None = None


@dataclass(frozen=True)
class DeviceFacts:
    """The measured device's row, where its figures are valid, and those of the paper's Table 5.

    notes: what a reader of the figures should know, such as other work on the device. emulated: the
    row is of an emulated board, counts and no times, with nothing of the paper beside it.
    """

    device: str
    rows: tuple[DeviceRow, ...]
    notes: tuple[str, ...] = ()
    emulated: bool = False


@dataclass(frozen=True)
class Facts:
    """A report's content.

    name: what the network is called; date: of the newest file, `2026-11-29`; empty: not known.
    measure: commands that measure what is not, the accuracies and then points of the front.
    generated: the data were made by a program, so accuracies say nothing about the world.
    fp32: the float network, whose Ω is 0. missing: pieces that were not there or cannot be read.
    warnings: files that do not fit each other.
    """

    version: str
    generated: bool
    limits: tuple[LimitFacts, ...] = ()
    answer: AnswerFacts | None = None
    uniform: tuple[Point, ...] = ()
    front: FrontFacts | None = None
    layers: tuple[LayerFacts, ...] = ()
    accuracies: tuple[AccuracyFacts, ...] = ()
    metrics: tuple[MetricFacts, ...] = ()
    near: tuple[NearFacts, ...] = ()
    measured_samples: int = 0
    accuracy_data: str | None = None
    held_out: bool = True
    device: DeviceFacts | None = None
    fp32: Point | None = None
    predictions: tuple[PredictionFacts, ...] = ()
    published: PublishedFacts | None = None
    confusion: tuple[ConfusionFacts, ...] = ()
    prices: PriceFacts | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    name: str = ""
    date: str = ""
    measure: tuple[str, ...] = ()


def to_document(value: Any) -> Any:
    """Facts as JSON: tuples as lists, choices as `w4a8`, and what is not finite as null."""
    if isinstance(value, Choice):
        return str(value)
    if is_dataclass(value):
        return {part.name: to_document(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_document(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_document(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
