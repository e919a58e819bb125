"""A verdict in words: the same ones on the terminal, in CI annotations and in reports.

`Verdict`: one condition of the gate, met or missed, and whether the samples decide it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mpsearch.comparing.baseline import Baseline, Difference
from mpsearch.comparing.layers import LayerChange, named
from mpsearch.evaluation.evaluation import Evaluation
from mpsearch.gating.conditions import BY_QUANTITY, grown
from mpsearch.gating.evidence import Evidence, difference, find_row, judged_network
from mpsearch.gating.memory import NOTE
from mpsearch.post_training.words import options_of
from mpsearch.tables.units import format_count, format_size

Number = int | float | Fraction
Outcome = Literal["pass", "fail", "inconclusive"]
Policy = Literal["measured", "strict", "lenient"]


@dataclass(frozen=True)
class Paired:
    """What a drop was measured from: of the samples that both networks saw, `lost` became wrong
    and `won` became right. p_no_drop: exact one-sided McNemar p-value of "no drop at all"."""

    reference: str
    lost: int
    won: int
    p_no_drop: float


@dataclass(frozen=True)
class Verdict:
    """One condition of the gate: what was measured, its limit, and what the samples decide."""

    quantity: str
    """`size_bytes`, `bops`, `accuracy` (0 to 1), `drop` or `drop_baseline` (in points), nearness to
    FP32: `agreement` (0 to 1), `sqnr` (dB; infinite where equal), `kl` (nats); what a device
    took: `latency_s`, `peak_memory_bytes`, `energy_j`, `instructions`; the growth of one of these
    against the baseline, `size_bytes_growth` and so on (a share: 0.01 is 1 % more); or a metric of
    the evaluation, `metric f1`."""
    value: Number
    """What was measured, in the quantity's unit."""
    limit: Number
    """What it may be, in the same unit."""
    passed: bool
    """Whether the measured value meets the limit; one equal to its limit does."""
    interval: tuple[float, float] | None = None
    """(low, high) of what was measured on samples; None for exact numbers, such as the drop of a
    network against itself."""
    samples: int | None = None
    """How many samples were measured; None for exact numbers."""
    confidence: float = 0.95
    """Of the interval."""
    needed: int | None = None
    """How many samples would decide at the rates that were measured; None: none would."""
    paired: Paired | None = None
    """What a drop was measured from; None where no samples were paired."""
    baseline: Number | None = None
    """The value that a growth is relative to; None for other quantities."""
    at_least: bool = False
    """Whether the limit of a metric is one from below."""
    changes: tuple[LayerChange, ...] = ()
    """Of a growth: the layers that are not the baseline's, as far as both are known."""

    @property
    def higher_is_better(self) -> bool:
        """Whether the limit is one from below."""
        asked = BY_QUANTITY.get(self.quantity)
        return self.at_least or (asked is not None and asked.at_least)

    @property
    def outcome(self) -> Outcome:
        """`pass` where the whole interval meets the limit, `fail` where all of it misses it."""
        if self.interval is None:
            return "pass" if self.passed else "fail"
        low, high = self.interval
        if self.higher_is_better:
            met, missed = low >= self.limit, high <= self.limit
        else:
            met, missed = high <= self.limit, low >= self.limit
        if met:
            return "pass"
        return "fail" if missed and not self.passed else "inconclusive"

    @property
    def decided(self) -> bool:
        """Whether the samples decide it with the confidence that was asked for."""
        return self.outcome != "inconclusive"

    def stops(self, policy: Policy = "measured") -> bool:
        """Whether this condition makes the gate say no.

        What is decided does as it came out. What is inconclusive stops under `strict`, lets through
        under `lenient`, and under `measured` does as the measured value says.
        """
        if self.decided or policy == "measured":
            return not self.passed
        return policy == "strict"


def says_no(verdicts: Iterable[Verdict], policy: Policy = "measured") -> bool:
    """Whether any condition stops the network."""
    return any(verdict.stops(policy) for verdict in verdicts)


METRIC = "metric "


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    outcome: str
    condition: str
    measured: str
    limit: str
    interval: str
    samples: str


def row_of(verdict: Verdict) -> Row:
    """`PASS`, `size`, `148,480 B (145.0 KB)`, `<= 148,480 B (145.0 KB)`, empty where exact."""
    interval = samples = ""
    if verdict.interval is not None:
        unit = _unit(verdict.quantity)
        scale = 100 if unit == "%" else 1
        low, high = (scale * end for end in verdict.interval)
        digits = ".2f" if unit in ("%", "points") else ".4g"
        interval, samples = f"[{low:{digits}}, {high:{digits}}]", str(verdict.samples)
    return Row(
        verdict.outcome.upper(),
        title_of(verdict),
        amount(verdict.quantity, verdict.value),
        f"{sign(verdict)} {amount(verdict.quantity, verdict.limit)}",
        interval,
        samples,
    )


def sign(verdict: Verdict) -> str:
    """What the condition asks: `<=` or `>=`."""
    return ">=" if verdict.higher_is_better else "<="


def title_of(verdict: Verdict) -> str:
    """`accuracy`, `points lost`, `f1`."""
    asked = BY_QUANTITY.get(verdict.quantity)
    return verdict.quantity.removeprefix(METRIC) if asked is None else asked.title


def _unit(quantity: str) -> str | None:
    asked = BY_QUANTITY.get(quantity)
    return None if asked is None else asked.unit


def amount(quantity: str, exact: Number) -> str:
    """Exact enough that a value that misses does not print as its limit."""
    value, unit = float(exact), _unit(quantity)
    if unit is None:  # a metric
        return f"{value:.6g}"
    if unit == "%":
        return f"{100 * value:.6g} %"
    if unit == "B":
        whole, short = f"{value:,.15g} B", format_size(value)
        return whole if whole == short else f"{whole} ({short})"
    if unit:
        return f"{value:.6g} {unit}"
    return f"{value:,.15g} ({format_count(value).strip()})"


def sentence(verdict: Verdict) -> str:
    """`accuracy 88 % meets >= 85 %, 95 % interval [85.84, 89.87], 1000 samples`."""
    row = row_of(verdict)
    met = "meets" if verdict.passed else "misses"
    text = f"{row.condition} {row.measured} {met} {row.limit}"
    if verdict.baseline is not None:
        column = grown(verdict.quantity)
        text += f" against {amount(column, verdict.baseline)} in the baseline"
        text += f": {named(verdict.changes, column)}" if verdict.changes else ""
    if verdict.interval is None:
        return text
    text += f", {percent(verdict.confidence)} interval {row.interval}, {row.samples} samples"
    return text if verdict.decided else f"{text}: inconclusive, {needed(verdict)}"


def needed(verdict: Verdict) -> str:
    """How many samples would decide an inconclusive condition."""
    if verdict.needed is None:
        return "and no number of samples decides where the measured value is the limit"
    return (
        f"at these rates {max(verdict.needed, (verdict.samples or 0) + 1):,} samples would decide"
    )


def percent(share: float) -> str:
    """0.95 -> `95 %`."""
    return f"{100 * share:.6g} %"


def notes_of(
    verdicts: Sequence[Verdict], evidence: Evidence, policy: Policy = "measured"
) -> list[str]:
    """What a reader of the verdicts should know."""
    notes = list(evidence.remarks)
    for verdict in verdicts:
        title = title_of(verdict)
        if not verdict.decided:
            notes.append(
                f"{title}: the limit lies inside the {percent(verdict.confidence)} interval; "
                f"{verdict.samples} samples do not decide this condition, {needed(verdict)}; "
                f"{_because(verdict, policy)}"
            )
        if verdict.paired is not None and verdict.interval is None:
            notes.append(f"{title}: the weights and bits are those of {verdict.paired.reference}")
        elif verdict.paired is not None:
            paired = verdict.paired
            notes.append(
                f"{title}: against {paired.reference} {paired.lost} samples became wrong and "
                f"{paired.won} right; exact McNemar p = {paired.p_no_drop:.3g} for no drop at all"
            )
    measured = any(verdict.interval is not None for verdict in verdicts)
    if measured and evidence.evaluations is not None and not evidence.evaluations.held_out:
        notes.append("measured on the calibration data, which is not unseen data")
    if measured and evidence.evaluations is not None:
        notes += evidence.evaluations.notes
    needs = {need for v in verdicts if (a := BY_QUANTITY.get(v.quantity)) for need in a.needs}
    device = "device" in needs
    notes += _of_the_evidence(evidence, measured, device)
    if device and evidence.device is not None:
        notes += [f"on the device: {note}" for note in evidence.device.notes]
    if device and evidence.assignment is None:
        notes.append("which network ran on the device was not checked; name it with --assignment")
    recomputed = evidence.measured or (evidence.table is not None and evidence.assignment)
    if "memory" in needs:
        notes.append(NOTE)
    if "totals" in needs and not recomputed:
        notes.append("size and BOPS are as the file states them; they were not recomputed")
    return [*notes, *_of_the_baseline(verdicts, evidence)]


def _of_the_evidence(evidence: Evidence, measured: bool, device: bool) -> list[str]:
    """What was taken without being shown to be of the network judged."""
    row = find_row(evidence) if measured else None
    used = {} if row is None or evidence.measured else {"the evaluation": row.origin.model}
    if device and evidence.device is not None:
        used["the device's profile"] = evidence.device.model_digest
    loose = [what for what, digest in used.items() if digest is None]
    notes = [f"{what} is not tied to a network, and counts as --unverified asks" for what in loose]
    judged = judged_network(evidence)
    known = {what: digest for what, digest in used.items() if digest is not None}
    if known and not judged.models and evidence.network is None:
        notes.append(
            f"which weights are judged is not known, so those of {' and '.join(known)} were not "
            "compared: neither the assignment nor a profile.json says it"
        )
    chosen = evidence.assignment
    solved_for = None if chosen is None else chosen.model_digest
    if evidence.measured and len({solved_for, evidence.model_digest, None}) == 3:
        notes.append("the assignment was solved for other weights than the model's")
    return notes


def _because(verdict: Verdict, policy: Policy) -> str:
    if policy == "strict":
        return "it stops the network, as --strict asks"
    if policy == "lenient":
        return "it does not stop the network, as --lenient asks"
    met = "meets the limit and lets the network through" if verdict.passed else (
        "misses the limit and stops the network"
    )  # fmt: skip
    return f"the measured value {met}"


def _of_the_baseline(verdicts: Sequence[Verdict], evidence: Evidence) -> list[str]:
    baseline = evidence.baseline
    used = any(v.quantity == "drop_baseline" or v.baseline is not None for v in verdicts)
    if baseline is None or not used:
        return []
    notes = [
        f"{title_of(verdict)}: {named(verdict.changes, grown(verdict.quantity))}"
        for verdict in verdicts if verdict.changes
    ]  # fmt: skip
    if any(verdict.quantity == "drop_baseline" for verdict in verdicts):
        notes += _quantized_otherwise(baseline, find_row(evidence))
    differs = difference(evidence)
    if differs.architecture is None:
        return [*notes, f"whether {baseline.source} is of this model was not checked"]
    if differs.architecture:
        return [*notes, _of_another_architecture(baseline, differs, bool(notes))]
    one, other = baseline.identity.weights, evidence.model_digest
    if one is not None and other is not None and one != other:
        notes.append(f"the weights are others than the baseline's: {other}, there {one}")
    return notes


def _of_another_architecture(baseline: Baseline, other: Difference, named_above: bool) -> str:
    what = f"{baseline.source} is of another architecture"
    if not baseline.layers:
        return f"{what}; an older version wrote it, without layers to name"
    if not other.shared:
        return f"{what}, no layer of which is in the network judged: is it of another model?"
    return what if named_above else f"{what}: {named(other.changes)}"


def _quantized_otherwise(baseline: Baseline, row: Evaluation | None) -> list[str]:
    """Where the two accuracies are of other rounding or repairs, as far as both say it; a baseline
    from before 0.2.0 says nothing, and nearest rounding was the default then."""
    before = None if baseline.row is None else baseline.row.origin.post_training
    now = None if row is None else row.origin.post_training
    if now is None or before == now:
        return []
    here = " ".join(options_of(now)) or "the defaults"
    if before is None:
        return [
            f"{baseline.source} does not say how its network was quantized, here with {here}: "
            "before version 0.2.0 weights were rounded to nearest by default"
        ]
    there = " ".join(options_of(before)) or "the defaults"
    return [f"the network of {baseline.source} was quantized with {there}, here with {here}"]


def conclusion(verdicts: Sequence[Verdict], policy: Policy = "measured") -> str:
    """The last line: yes or no, and because of what."""
    stopping = [title_of(verdict) for verdict in verdicts if verdict.stops(policy)]
    if says_no(verdicts, policy):
        return f"the gate says no: {', '.join(stopping)}"
    open_ = sum(not verdict.decided for verdict in verdicts)
    unsure = f", {open_} of {len(verdicts)} inconclusive" if open_ else ""
    return f"the gate says yes{unsure}"
