"""`Evaluation`: measured accuracy and loss, with 95 % intervals, and the file that keeps them."""

import base64
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.files import write_atomic
from mpsearch.gate_statistics import drop_interval

FORMAT, VERSION = "mpsearch.evaluation", 1
Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
MOST_CLASSES = 100  # a confusion matrix of more would be larger than all else in the file


@dataclass(frozen=True)
class Evaluation:
    """Accuracy (Wilson interval) and mean cross-entropy (normal interval) on `n` labelled samples.

    `correct` has one entry per sample, so that two evaluations on the same data can be paired.
    `size_bytes` and `bops` are those of the assignment; None where there is none. confusion:
    [true class][predicted class], how many samples; None where it was not kept.
    """

    name: str
    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    loss: float
    loss_interval: tuple[float, float]
    correct: tuple[bool, ...]
    size_bytes: int | None = None
    bops: int | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True)
class Evaluations:
    """Several networks measured on the same data."""

    data_name: str
    data_digest: str
    held_out: bool
    rows: tuple[Evaluation, ...]

    def named(self, name: str) -> Evaluation | None:
        """The row called `name`, or None."""
        return next((row for row in self.rows if row.name == name), None)


def wilson_interval(
    successes: int, n: int, comparisons: int = 1, confidence: float = 0.95
) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, JASA 1927): (915, 1000) -> (0.896, 0.931) at 95 %.

    comparisons: that all of so many intervals hold at once (Bonferroni), each is taken at
    1 - (1 - confidence) / comparisons.
    """
    z = Z95
    if comparisons != 1 or confidence != 0.95:
        z = NormalDist().inv_cdf(1 - (1 - confidence) / 2 / comparisons)
    p = successes / n
    centre = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n * n))
    scale = 1 + z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def paired_drop(
    reference: Iterable[bool], other: Iterable[bool]
) -> tuple[float, tuple[float, float]]:
    """Accuracy lost from `reference` to `other` on the same samples, with its 95 % interval.

    With b samples lost and c won of n, the drop is (b - c)/n; Tango's score interval
    (`gate_statistics.drop_interval`), which is not a point where all pairs are alike.
    """
    pairs = list(zip(reference, other, strict=True))
    n = len(pairs)
    lost = sum(before and not after for before, after in pairs)
    won = sum(after and not before for before, after in pairs)
    return (lost - won) / n, drop_interval(lost, won, n)


def save_evaluations(evaluations: Evaluations, path: str | os.PathLike[str]) -> None:
    """Write evaluation.json atomically."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "data": {
            "name": evaluations.data_name,
            "digest": evaluations.data_digest,
            "held_out": evaluations.held_out,
        },
        "rows": [row_to_json(row) for row in evaluations.rows],
    }
    write_atomic(path, json.dumps(document, indent=2) + "\n")


def row_to_json(row: Evaluation) -> dict[str, Any]:
    """One row of evaluation.json; `correct` is packed, one bit per sample."""
    packed = np.packbits(np.array(row.correct, dtype=bool)).tobytes()
    counts = row.confusion
    return {
        "name": row.name,
        "n": row.n,
        "accuracy": row.accuracy,
        "accuracy_interval": list(row.accuracy_interval),
        "loss": row.loss,
        "loss_interval": [end if math.isfinite(end) else None for end in row.loss_interval],
        "size_bytes": row.size_bytes,
        "bops": row.bops,
        "correct": base64.b64encode(packed).decode(),
        **({} if counts is None else {"confusion": [" ".join(map(str, one)) for one in counts]}),
    }


def load_evaluations(path: str | os.PathLike[str]) -> Evaluations:
    """Read evaluation.json. Raises InputError when it is something else or damaged."""
    try:
        document = json.loads(Path(path).read_text())
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise ValueError(f"format {document['format']!r} {document['version']!r}")
        data = document["data"]
        rows = tuple(row_from_json(row) for row in document["rows"])
        return Evaluations(str(data["name"]), str(data["digest"]), bool(data["held_out"]), rows)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected an evaluation.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an evaluation.json of mpsearch: {error}") from error


def row_from_json(row: Mapping[str, Any]) -> Evaluation:
    """One row of evaluation.json. Raises ValueError, KeyError or TypeError for anything else."""
    n = int(row["n"])
    packed = np.frombuffer(base64.b64decode(row["correct"], validate=True), dtype=np.uint8)
    if not 0 <= n <= 8 * len(packed):  # before it is unpacked: n decides how much memory that takes
        raise ValueError(f"row {row['name']!r}: n is {n}, and it has {8 * len(packed)} samples")
    hits = tuple(bool(bit) for bit in np.unpackbits(packed, count=n))
    low, high = row["accuracy_interval"]
    ends = [math.inf if end is None else float(end) for end in row["loss_interval"]]
    if len(hits) != n or sum(hits) != round(float(row["accuracy"]) * n):
        raise ValueError(f"row {row['name']!r}: the accuracy is not that of its samples")
    confusion = _confusion(row)
    if confusion is not None and (
        sum(map(sum, confusion)) != n
        or sum(one[place] for place, one in enumerate(confusion)) != sum(hits)
    ):
        raise ValueError(f"row {row['name']!r}: the confusion matrix is not that of its samples")
    return Evaluation(
        str(row["name"]), n, float(row["accuracy"]), (float(low), float(high)),
        float(row["loss"]), (-ends[0] if math.isinf(ends[0]) else ends[0], ends[1]), hits,
        _count(row["size_bytes"]), _count(row["bops"]), confusion,
    )  # fmt: skip


def _confusion(row: Mapping[str, Any]) -> tuple[tuple[int, ...], ...] | None:
    """`["90 3", "2 5"]` -> ((90, 3), (2, 5)); None where the row has none, as in older files."""
    if row.get("confusion") is None:
        return None
    counts = tuple(tuple(int(word) for word in one.split()) for one in row["confusion"])
    if any(len(one) != len(counts) or min(one) < 0 for one in counts):
        raise ValueError(f"row {row['name']!r}: the confusion matrix is not square and of counts")
    return counts


def _count(value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError(f"got {value!r}; expected a whole number or null")
    return value
