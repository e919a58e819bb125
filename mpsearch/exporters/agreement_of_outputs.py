"""Are an export's outputs those of the network as it was assigned? Judged output by output.

Plain arrays in, findings out. A difference is counted in steps: a step is that of an 8-bit
quantizer over the range that the part has in the assigned network, so that no output hides behind
another one's range. Where the fixed limits do not hold, it is measured what rounding floats in
another order does to the assigned network itself: a value on the border between two codes goes one
way or the other, and many 4-bit layers carry that on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# For exports that compute the same up to the order of float additions: shares of the samples whose
# values all lie within one step, and with the same largest value; no value may be further away.
LEAST_WITHIN_STEP, LEAST_SAME_CLASS, MOST_STEPS = 0.75, 0.95, 64.0
# For exports that also round sums, means and outputs: root of the mean square in steps, or as a
# share of the part's own standard deviation where that is more. A wrong scale, padding or layout
# gives about the deviation itself.
RMS_STEPS, RMS_SHARE = 4.0, 0.2
# An export may differ by this much more than the reference differs from itself, and by three
# standard errors of a share. Where that loosens the share, the mean must differ as noise does.
_MORE, _STANDARD_ERRORS, _SHIFT_STEPS = 1.25, 3.0, 0.5


@dataclass(frozen=True)
class Part:
    """`columns` of the flattened outputs [N, K] that are judged together.

    `vector`: one value per class is possible, so that a sample's class is its largest value.
    """

    name: str
    columns: tuple[int, ...]
    vector: bool = True


@dataclass(frozen=True)
class Reference:
    """The assigned network's outputs [N, …], their parts, and `ways`, which computes them again.

    Each of the arrays that `ways` returns is as right as `expected`: another batch size, other
    kernels, float64. It is called only when the fixed limits do not hold.
    """

    expected: Array
    parts: tuple[Part, ...]
    ways: Callable[[], Sequence[Array]] = tuple


@dataclass(frozen=True)
class Distance:
    """Two arrays of one part: in steps; shares of the samples. `same_class` None: has no classes.

    `shift` is the difference of the means over the samples, root of the mean square over columns.
    """

    rms_steps: float
    largest_steps: float
    within_step: float
    same_class: float | None
    shift: float


@dataclass(frozen=True)
class Agreement:
    """One part of an export's outputs against the assigned network's, on `samples` samples.

    `step` is in the output's unit. `assigned` is the distance to the network as assigned, `meant`
    to what the export was to compute where that differs on purpose (more activation bits), else the
    same. `spread`: the largest that the reference has from itself; None where nobody had to ask.
    `faults` says what is beyond the limits; empty: agrees.
    """

    name: str
    samples: int
    step: float
    assigned: Distance
    meant: Distance
    rounded: bool
    tolerance_steps: float
    spread: Distance | None
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No limit is exceeded."""
        return not self.faults

    def figures(self) -> dict[str, Any]:
        """For JSON, where what is infinitely far away is null."""
        given = {**asdict(self), "faults": list(self.faults), "ok": self.ok}
        return {key: _finite(value) for key, value in given.items()}

    def line(self) -> str:
        """For people: `box: 0.31 steps RMS, largest 1.2, 100.0 % within one, same class 98.0 %`."""
        found = self.assigned
        words = [
            f"{found.rms_steps:.3g} steps RMS, largest {found.largest_steps:.3g}",
            f"{_percent(found.within_step)} of {self.samples} within one",
        ]
        if self.meant != self.assigned:
            words.append(f"{self.meant.rms_steps:.3g} RMS from the network at its finer bits")
        if found.same_class is not None:
            words.append(f"same class {_percent(found.same_class)}")
        if self.spread is not None:
            words.append(
                f"the network itself, computed in another order: {self.spread.rms_steps:.3g} RMS, "
                f"{_percent(self.spread.within_step)} within one"
            )
        verdict = f"  DIFFERS: {'; '.join(self.faults)}" if self.faults else ""
        return f"{self.name}: {', '.join(words)}{verdict}"


def judge(
    reference: Reference, got: Array, rounded: bool = False, meant: Array | None = None
) -> tuple[Agreement, ...]:
    """One finding per part of `reference` for an export's outputs `got` [N, …].

    `rounded`: the export also rounds sums, means or outputs to 8 or 16 bits. `meant`: what it was
    to compute, where its bits are finer than the assigned ones; the limits then hold for that.
    Not a number in `got` alone is infinitely far away.
    """
    given = _rows(reference.expected)
    found, aim = _rows(got), given if meant is None else _rows(meant)
    if found.shape != given.shape:
        raise ValueError(f"got outputs {found.shape}; the network's are {given.shape}")
    first = [_judge(part, given, found, aim, rounded, None) for part in reference.parts]
    if all(entry.ok for entry in first):
        return tuple(first)
    ways = [given, *(_rows(way) for way in reference.ways())]
    return tuple(
        entry if entry.ok else _judge(part, given, found, aim, rounded, ways)
        for part, entry in zip(reference.parts, first, strict=True)
    )


def _judge(
    part: Part, given: Array, found: Array, aim: Array, rounded: bool, ways: Sequence[Array] | None
) -> Agreement:
    columns = list(part.columns)
    given, found, aim = given[:, columns], found[:, columns], aim[:, columns]
    step = _step(given)
    assigned = _distance(given, found, step, part.vector)
    meant = assigned if aim is given else _distance(aim, found, step, part.vector)
    spread = None
    if ways is not None and len(ways) > 1:
        pairs = combinations([way[:, columns] for way in ways], 2)
        spread = _widest([_distance(a, b, step, part.vector) for a, b in pairs])
    own = spread.rms_steps if spread else 0.0
    tolerance = max(RMS_STEPS, RMS_SHARE * _deviation(given) / step, _MORE * own)
    classes = not np.issubdtype(given.dtype, np.floating)
    faults = (
        _rounded_faults(meant, tolerance)
        if rounded and not classes
        else _exact_faults(meant, spread, len(given), classes)
    )
    return Agreement(
        part.name, len(given), step, assigned, meant, rounded, tolerance, spread, tuple(faults)
    )


def _rounded_faults(found: Distance, tolerance: float) -> list[str]:
    if found.rms_steps <= tolerance:
        return []
    return [f"{found.rms_steps:.3g} steps RMS, expected at most {tolerance:.3g}"]


def _exact_faults(
    found: Distance, spread: Distance | None, samples: int, classes: bool
) -> list[str]:
    faults = []
    within = LEAST_WITHIN_STEP
    same = LEAST_SAME_CLASS
    most = MOST_STEPS
    if spread is not None:
        within = min(within, _least(spread.within_step, samples))
        same = min(same, _least(1.0 if spread.same_class is None else spread.same_class, samples))
        most = max(most, 2 * spread.largest_steps)
    if not classes and found.within_step < within:
        faults.append(f"{_percent(found.within_step)} within one step, expected {_percent(within)}")
    if not classes and not found.largest_steps <= most:
        faults.append(f"{found.largest_steps:.3g} steps away, expected at most {most:.3g}")
    if found.same_class is not None and found.same_class < same:
        faults.append(f"same class {_percent(found.same_class)}, expected {_percent(same)}")
    if spread is not None and within < LEAST_WITHIN_STEP:
        noise = max(_SHIFT_STEPS, 4 * spread.rms_steps / math.sqrt(samples))
        if not found.shift <= noise:
            faults.append(f"the mean is {found.shift:.3g} steps off, expected at most {noise:.3g}")
        if not found.rms_steps <= 2 * spread.rms_steps:
            faults.append(
                f"{found.rms_steps:.3g} steps RMS, expected at most {2 * spread.rms_steps:.3g}"
            )
    return faults


def _least(own: float, samples: int) -> float:
    """The smallest share that a reference which agrees with itself on the share `own` allows."""
    beyond = _MORE * (1 - own)
    return 1 - beyond - _STANDARD_ERRORS * math.sqrt(own * (1 - own) / samples)


def _distance(given: Array, found: Array, step: float, vector: bool) -> Distance:
    whole = not np.issubdtype(given.dtype, np.floating)
    with np.errstate(invalid="ignore"):
        difference = (found.astype(np.float64) - given) / step
    equal = (found == given) | (_not_a_number(found) & _not_a_number(given))
    difference = np.where(equal, 0.0, np.nan_to_num(difference, nan=np.inf))
    steps = np.abs(difference)
    largest = steps.max(axis=1, initial=0.0)
    within = float(np.mean(largest <= (0 if whole else 1)))
    same = None
    if whole:
        same = within
    elif vector and given.shape[1] > 1:
        same = float(np.mean(given.argmax(axis=1) == found.argmax(axis=1)))
    with np.errstate(invalid="ignore"):
        shift = np.sqrt(np.mean(np.square(difference.mean(axis=0))))
    return Distance(
        float(np.sqrt(np.mean(np.square(steps)))),
        float(largest.max(initial=0.0)),
        within,
        same,
        float(np.nan_to_num(shift, nan=np.inf)),
    )


def _widest(distances: Sequence[Distance]) -> Distance:
    """The largest of each figure."""
    same = [d.same_class for d in distances if d.same_class is not None]
    return Distance(
        max(d.rms_steps for d in distances),
        max(d.largest_steps for d in distances),
        min(d.within_step for d in distances),
        min(same) if same else None,
        max(d.shift for d in distances),
    )


def _step(given: Array) -> float:
    """(largest - smallest, zero among them) / 255; 1 for class numbers and for zeros alone."""
    if not np.issubdtype(given.dtype, np.floating):
        return 1.0
    finite = given[np.isfinite(given)].astype(np.float64)
    span = max(finite.max(initial=0.0), 0.0) - min(finite.min(initial=0.0), 0.0)
    return float(span) / 255 or 1.0


def _deviation(given: Array) -> float:
    """How far the samples' values are from their mean, root of the mean square."""
    values = np.where(np.isfinite(given), given, 0.0).astype(np.float64)
    return float(np.sqrt(np.mean(np.square(values - values.mean(axis=0)))))


def _not_a_number(values: Array) -> Array:
    return np.isnan(values) if np.issubdtype(values.dtype, np.floating) else np.zeros((), bool)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(values: Array) -> Array:
    return np.asarray(values).reshape(len(values), -1)


def _percent(share: float) -> str:
    return f"{share:.1%}"
