"""What a front keeps of its measured points: which assignments they are, in ranges that can be."""

from typing import Any

import numpy as np

from mpsearch.files.writing import digest
from mpsearch.pareto.front import Front
from mpsearch.statistics import ROUNDING

RANGES = {"accuracy": (0.0, 1.0), "drop": (-1.0, 1.0), "loss": (-np.inf, np.inf)}


def measurement_of(front: Front) -> dict[str, Any]:
    """What was measured on what, with the digest of the assignments that were measured."""
    if not front.measurement:
        return {}
    return {**front.measurement, "assignments_digest": points_digest(front)}


def points_digest(front: Front) -> str:
    """SHA-256 of layers and choices of every measured point, in the front's order."""
    names = [str(choice) for choice in front.choices]
    measured = front.measured.get("accuracy")
    points = [] if measured is None else np.flatnonzero(~np.isnan(measured)).tolist()
    rows = (front.assignments[point].astype(np.int8).tobytes() for point in points)
    return digest("\n".join(front.layers), " ".join(names), *rows)


def check_measured(front: Front) -> None:
    """Raise ValueError for values that nothing measures, an interval without its value, and points
    whose assignments are not those that were measured."""
    for name, (least, most) in RANGES.items():
        ends = [front.measured.get(f"{name}{end}") for end in ("_low", "", "_high")]
        if any(values is None for values in ends):
            continue
        low, value, high = (values for values in ends if values is not None)
        room = ROUNDING * np.maximum(1.0, np.abs(value))
        with np.errstate(invalid="ignore"):
            wrong = (value < least) | (value > most) | (value < low - room) | (value > high + room)
        if wrong.any():
            raise ValueError(
                f"{name} is {value[wrong][0]:g} in [{low[wrong][0]:g}, {high[wrong][0]:g}] at a "
                "measured point"
            )
    stored = front.measurement.get("assignments_digest")
    if stored is not None and stored != points_digest(front):
        raise ValueError("the assignments of its measured points are not those that were measured")
