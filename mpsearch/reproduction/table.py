"""The paper's table beside ours: means over runs, with intervals, as text and as Markdown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mpsearch.reproduction.published import FLOAT, MIXED, W4, W8, Case, Published
from mpsearch.reproduction.run import SMALLER, TUNED
from mpsearch.reproduction.run_store import RunStore
from mpsearch.statistics import student_975, wilson_interval

NONE = "–"
HEADER = (
    "network", "paper %", "paper lost", "paper KB", "rounded %", "lost rounded", "fine-tuned %",
    "lost tuned", "KB", "file KB",
)  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A mean over runs with the half width of its 95 % interval; None with a single run."""

    value: float
    half: float | None

    def text(self, sign: str = "") -> str:
        """`85.31 ± 1.20`, in percent."""
        value = f"{round(100 * self.value, 2) + 0.0:{sign}.2f}"  # + 0.0: no -0.00
        return value if self.half is None else f"{value} ± {100 * self.half:.2f}"


def mean_over_runs(values: Sequence[float]) -> Mean:
    """Mean and Student's interval t·s/√n over n runs: [0.80, 0.82, 0.84] -> 0.82 ± 0.0497."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Mean(mean, None)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    t = round(student_975(n - 1), 3)  # as tables of it have it, and as published figures used it
    return Mean(mean, t * deviation / math.sqrt(n))


def accuracy(runs: Sequence[RunStore], name: str) -> Mean | None:
    """Mean accuracy of the row `name`; None unless every run has it."""
    if any(name not in run.rows for run in runs):
        return None
    return mean_over_runs([run.rows[name].evaluation.accuracy for run in runs])


def lost(runs: Sequence[RunStore], name: str) -> Mean | None:
    """Mean accuracy lost against FP32 of the same run, on the same samples."""
    if any(name not in run.rows or FLOAT not in run.rows for run in runs):
        return None
    return mean_over_runs(
        [run.rows[FLOAT].evaluation.accuracy - run.rows[name].evaluation.accuracy for run in runs]
    )


def table(case: Case, runs: Sequence[RunStore]) -> list[list[str]]:
    """One row of cells for each network, in the order of HEADER."""
    alone = [name for name in runs[0].rows if name.endswith(" alone")]
    cells = [_single(name, case.rows.get(name), accuracy(runs, name)) for name in alone]
    cells.append(_quantized(runs, FLOAT, case.rows[FLOAT], case))
    for name in (W8, MIXED, SMALLER, W4):
        if name == SMALLER and accuracy(runs, name) is None:  # too small for this network
            continue
        cells.append(_quantized(runs, name, case.rows.get(name), case))
    return cells


def markdown(case: Case, runs: Sequence[RunStore]) -> str:
    """The table and what it needs to be read, as Markdown."""
    lines = [_line(HEADER), _line(["---"] + ["---:"] * (len(HEADER) - 1))]
    lines += [_line(row) for row in table(case, runs)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(case, runs))]) + "\n"


def notes(case: Case, runs: Sequence[RunStore]) -> list[str]:
    """What the figures mean: runs, samples, time, and where the paper disagrees with itself."""
    n = runs[0].rows[FLOAT].evaluation.n
    typical = runs[0].rows[FLOAT].evaluation
    low, high = wilson_interval(sum(typical.correct), n)
    kind = "seed" if len(runs) == 1 else "seeds"
    if case.folds:
        kind = f"fold{kind.removeprefix('seed')}, nobody in two of their splits"
    tuning = [row.seconds for run in runs for name, row in run.rows.items() if name.endswith(TUNED)]
    rounding = [run.rows[name].seconds for run in runs for name in (W8, MIXED, W4)]
    found = []
    if case.substitute is not None:
        found.append(
            f"ours: {case.substitute}; the paper's data are not public, so compare what is lost, "
            "not the accuracies"
        )
    found += [
        f"{len(runs)} {kind}; ± is Student's 95 % interval of the mean over them; one test split "
        f"has {n} samples, alone worth {100 * (high - low) / 2:.1f} points either way",
        f"profile {_seconds(run.seconds['profile'] for run in runs)}, both searches "
        f"{_seconds(run.seconds['search'] for run in runs)}, "
        f"rounding and measuring {_seconds(rounding)}, fine-tuning and measuring "
        f"{_seconds(tuning)} an assignment",
    ]
    for name, row in case.rows.items():
        if row.note:
            found.append(f"paper, {name}: {row.note}")
    return found


def _single(name: str, published: Published | None, measured: Mean | None) -> list[str]:
    cells = [name, NONE if published is None else _percent(published.accuracy), "", NONE]
    return [*cells, NONE if measured is None else measured.text(), "", "", "", "", ""]


def _quantized(
    runs: Sequence[RunStore], name: str, published: Published | None, case: Case
) -> list[str]:
    base = case.rows[FLOAT].accuracy
    cells = [name, NONE, NONE, NONE]
    if published is not None:
        drop = "" if name == FLOAT else NONE
        if published.accuracy is not None and base is not None and name != FLOAT:
            drop = f"{base - published.accuracy:.1f}"
        size = NONE if published.kilobytes is None else f"{published.kilobytes:g}"
        cells = [name, _percent(published.accuracy), drop, size]
    for row in (name, name + TUNED):
        measured, fallen = accuracy(runs, row), lost(runs, row)
        cells.append("" if measured is None else measured.text())
        cells.append("" if fallen is None or row == FLOAT else fallen.text("+"))
    size_bytes = runs[0].rows[name].evaluation.size_bytes
    files = [run.rows[name + TUNED].file_bytes for run in runs if name + TUNED in run.rows]
    known = [size for size in files if size is not None]
    cells.append("" if size_bytes is None else f"{_mean_size(runs, name) / 1024:.1f}")
    cells.append(f"{sum(known) / len(known) / 1024:.1f}" if known else "")
    return cells


def _mean_size(runs: Sequence[RunStore], name: str) -> float:
    sizes = [run.rows[name].evaluation.size_bytes or 0 for run in runs]
    return sum(sizes) / len(sizes)


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _seconds(values: Iterable[float]) -> str:
    known = sorted(values)
    ends = (known[0], known[-1])
    low, high = (f"{end:.0f}" if end >= 10 else f"{end:.2g}" for end in ends)
    return f"{low} s" if low == high else f"{low} to {high} s"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
