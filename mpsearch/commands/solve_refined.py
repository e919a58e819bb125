"""`solve --refine`: model and data for it, and its answer as a Solution, in words and as JSON."""

from dataclasses import replace

from mpsearch.commands.console import echo, print_table, progress
from mpsearch.commands.measured_options import RefineRequest
from mpsearch.commands.solution_text import title_of
from mpsearch.refining.candidates import Asked
from mpsearch.refining.loop import Refined, refine
from mpsearch.refining.repaired_errors import Trial
from mpsearch.running.workers import join, leave
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import format_amount

_SHOWN = 5  # of the candidates, the best; optima of columns are shown as well
_UNITS = {"kl-to-fp32": "KL to FP32", "mse-to-fp32": "squared error to FP32"}


def measure(
    request: RefineRequest,
    asked: Asked,
    solution: Solution,
    output: str,
    seconds: float | None = None,
    table_model: str | None = None,
) -> Refined:
    """Load model and data, and measure what may be better than `solution`.

    seconds: for the search of every column's optimum. Under torchrun the processes share the work,
    and all return the same. InputError as `Measuring.subject` and `refine` raise.
    """
    subject = request.on.subject(table_model, need_labels=False)
    if subject.calibration is None:  # the samples to measure on are those of the profile
        subject = replace(subject, calibration=subject.data)
    workers = join()
    with progress("refine", request.count) as step:
        found = refine(
            asked, solution.choices, subject, output, request.count, seconds, step, workers
        )
    leave(workers)
    return found


def error_name(refined: Refined) -> str:
    """What the error of a sample is, in words."""
    return _UNITS.get(refined.loss, f"what {refined.loss} grows by, on labels and as FP32 expects")


def describe(refined: Refined) -> list[str]:
    """What was measured on what, what was chosen, and how sure its lead is."""
    subject, trials = refined.subject, refined.trials
    stopped = sum(trial.stopped for trial in trials)
    seen = sum(trial.seen for trial in trials)
    whole = len(trials) * trials[0].samples
    lines = [
        f"refined: {len(trials)} assignments measured as repaired networks on "
        f"{trials[0].samples:,} samples of {subject.data.name}",
        f"  error: {error_name(refined)}",
        f"  {stopped} stopped when they were clearly behind: {seen:,} of {whole:,} samples run, "
        f"{refined.seconds:.1f} s",
        f"chosen: {_source(refined.best)}, {refined.best.error:.4g}"
        f"{_accuracy(refined, refined.best)}",
    ]
    if refined.chosen == 0:
        lines.append(
            "  the optimum of Ω itself: nothing that was measured is better by more than luck"
        )
    else:
        mean, low, high = refined.gain
        sure = "surely better" if refined.is_surely_better else "which may be luck"
        lines += [
            f"  better than the optimum of Ω, {refined.first.error:.4g}, by {mean:.4g} "
            f"[{low:.4g}, {high:.4g}]: {sure}",
            f"  (95 % for all {refined.comparisons} comparisons at once, as the best of them was "
            "taken)",
        ]
    if not subject.held_out:
        lines.append(
            "  the samples also set ranges and rounding: `mpsearch evaluate` on others tells more"
        )
    return lines


def _source(trial: Trial) -> str:
    """Who proposed it first, and how many others: `optimum of omega +2`."""
    first, _, more = trial.candidate.source.partition(", ")
    return first + (f" +{more.count(',') + 1}" if more else "")


def _accuracy(refined: Refined, trial: Trial) -> str:
    if trial.accuracy is None or refined.float_right is None:
        return ""
    return (
        f"; accuracy {100 * trial.accuracy:.2f} %, FP32 "
        f"{100 * refined.float_right / trial.samples:.2f} %"
    )


def print_refined(refined: Refined, table: LayerTable) -> None:
    """The candidates, and what was measured and chosen."""
    _print_candidates(refined, table)
    echo(*describe(refined))


def _print_candidates(refined: Refined, table: LayerTable) -> None:
    """The best few candidates and the optimum of every column, best first."""
    whole = sorted(
        (trial for trial in refined.trials if not trial.stopped), key=lambda one: one.error
    )
    optima = refined.trials[: refined.optima]
    shown = [trial for place, trial in enumerate(whole) if place < _SHOWN or trial in optima]
    column = next(iter(table.resources), None)
    header = ["place", "candidate", "Ω", *([] if column is None else [title_of(column)]), "error"]
    labelled = refined.best.accuracy is not None
    rows = []
    for trial in shown:
        choices = trial.candidate.choices
        row = [
            str(whole.index(trial) + 1),
            _source(trial),
            f"{float(table.total(choices, 'omega')):.4g}",
        ]
        if column is not None:
            row.append(format_amount(column, table.total(choices, column)))
        row.append(f"{trial.error:.4g}")
        if labelled:
            row.append(f"{100 * (trial.accuracy or 0.0):.2f} %")
        rows.append(row)
    print_table([*header, *(["accuracy"] if labelled else [])], rows, naming=2)
    if len(shown) < len(refined.trials):
        echo(f"{len(shown)} of {len(refined.trials)} measured assignments are shown")
