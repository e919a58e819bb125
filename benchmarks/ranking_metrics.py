"""What every installed metric predicts for an assignment: the sum of its Ω over the layers."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ranking_measuring import Assignment

from mpsearch.errors import InputError
from mpsearch.interactions.interactions import predict as predict_one
from mpsearch.profiling.profile import GROUP
from mpsearch.running.journal import Journal
from mpsearch.running.plugins import installed, load
from mpsearch.sensitivity.interactions import collect, samples_to_keep
from mpsearch.sensitivity.study import Profiler, Scores, Study


@dataclass(frozen=True)
class Predictions:
    """One number per assignment, larger is worse; or why the metric does not serve the network.

    `seconds` is what the profile took.
    """

    metric: str
    description: str
    values: tuple[float, ...] = ()
    seconds: float = 0.0
    not_applicable: str | None = None


def metric_names(chosen: str | None) -> list[str]:
    """`"hessian,kl"` -> those two; every installed metric where nothing is chosen.

    Raises InputError for an unknown name, before anything is measured.
    """
    names = chosen.split(",") if chosen else list(installed(GROUP))
    for name in names:
        load(GROUP, name, "metric")
    return names


def predict(name: str, study: Study, assignments: Sequence[Assignment]) -> Predictions:
    """Profile with one metric and add up its Ω."""
    profiler: Profiler = load(GROUP, name, "metric")
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, name), "") as journal:
            scores = profiler.score(study, journal, lambda: None)
    except InputError as error:
        return Predictions(name, profiler.description, not_applicable=str(error))
    seconds = time.perf_counter() - start
    values = tuple(total(scores, assignment) for assignment in assignments)
    return Predictions(name, profiler.description, values, seconds)


def predict_together(study: Study, assignments: Sequence[Assignment]) -> list[Predictions]:
    """What the stored interactions predict: the form with cross terms, superposed KL and loss."""
    kept = replace(study, keep_outputs=samples_to_keep(study))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, "i"), "") as journal:
        stored = collect(kept, journal, lambda: None)
    seconds = time.perf_counter() - start
    found = [predict_one(stored, assignment) for assignment in assignments]
    columns = {
        "gram": ("½ E[(Σu)ᵀ H (Σu)] with cross terms, from interactions", "quadratic"),
        "superposed-kl": ("KL of the superposed outputs, from interactions", "kl"),
        "superposed-loss": ("loss of the superposed outputs, from interactions", "loss"),
    }
    return [
        Predictions(name, text, tuple(float(getattr(p, field)) for p in found), seconds)
        for name, (text, field) in columns.items()
        if field != "loss" or study.data.labels is not None
    ]


def total(scores: Scores, assignment: Assignment) -> float:
    """Σ_i Ω_i(b_i)."""
    return sum(scores[name, choice].omega for name, choice in assignment.items())
