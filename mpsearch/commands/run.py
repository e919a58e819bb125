"""`mpsearch run`."""

import contextlib
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpsearch import __version__
from mpsearch.commands.console import STEP_OF_RUN, echo, json_option, print_json
from mpsearch.commands.options import device_option, loss_option, model_options, search_options
from mpsearch.commands.run_steps import RunRequest, Steps, comparable
from mpsearch.errors import InputError
from mpsearch.running.finished_steps import Record, Step
from mpsearch.tables.stored_widths import FORMATS

if TYPE_CHECKING:
    from mpsearch.tables.table import LayerTable

REFINE, POINTS = 4, 4


@click.command()
@click.argument("path", metavar="MODEL")
@search_options
@click.option("--ram", metavar="SIZE", help="Limit on the memory of all tensors: 64KB.")
@click.option("--flash", metavar="SIZE", help="Limit on constants and code, with --target: 256KB.")
@click.option(
    "--target", metavar="PROCESSOR",
    help="Export C for it: cortex-m0 … cortex-m55, cortex-a72, x86-64, ….",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(sorted(FORMATS)),
    help="Export in this format, and search only what it stores [default: c, with --target].",
)  # fmt: skip
@click.option("--data", metavar="D", help="Samples to calibrate on [default: the model's own].")
@click.option("--test", metavar="D", help="Unseen samples to measure on [default: the same].")
@click.option("--choices", metavar="w4a8,…", help="The choices of bits, as `profile` takes them.")
@loss_option
@click.option(
    "--refine", type=click.IntRange(0), default=REFINE, show_default=True, metavar="N",
    help="Measure N assignments and take the best; 0: take the best by Ω.",
)  # fmt: skip
@click.option(
    "--points", type=click.IntRange(0), default=POINTS, show_default=True, metavar="N",
    help="Measure so many points of the front.",
)  # fmt: skip
@device_option
@click.option("-o", "--output", metavar="FOLDER", help="[default: MODEL-run in this folder]")
@model_options
@json_option
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """The whole loop: profile MODEL, choose its bits within the limits, quantize, measure it beside
    FP32 and uniform bits, and write a report; export it where --target or --format is given.

    Every step is shown as the command that repeats it. All files go into one folder; called again,
    with other limits or after an interrupt, only what would come out differently is done again.

    An mpsearch file carries samples of its own (`mpsearch.save`); other models need --data.

    \b
    Examples:
      mpsearch run model.pt --size 145KB
      mpsearch run model.pt --size 50% --test test.npz -o half-run
      mpsearch run net.onnx --data train.npz --size 50% --format onnx
      mpsearch run model.pt --flash 256KB --ram 64KB --target cortex-m4 -o fits
    """
    request = RunRequest(**options)
    request.check()
    steps = Steps(request, _converts(request))
    steps.check()
    _check_test(request.test)
    folder = Path(request.folder)
    folder.mkdir(parents=True, exist_ok=True)
    runner = _Runner(ctx, Record.open(folder, __version__))
    aside = contextlib.redirect_stdout(sys.stderr) if request.as_json else contextlib.nullcontext()
    with aside:
        found = _run(steps, runner)
    if request.as_json:
        print_json({**found, "steps": runner.told})
    else:
        echo("", *(f"note: {note}" for note in found["notes"]))
        echo(found["answer"], bold=True)


def _converts(request: RunRequest) -> bool:
    """Whether the model has to become an mpsearch file with a sample. Raises InputError where there
    are no samples."""
    from mpsearch.importers.kinds import MPSEARCH, QUANTIZED, detect

    kind = detect(request.path)
    if kind == QUANTIZED:
        raise InputError(f"{request.path} is quantized already; expected the float model")
    if request.data is None and kind != MPSEARCH:
        raise InputError(
            f"{request.path} carries no sample of data; give --data FILE.npz, a dataset's name or "
            "package.module:function"
        )
    return request.data is not None


def _check_test(name: str | None) -> None:
    """Raise InputError for test data that are nowhere: they are read late."""
    from mpsearch.data import read_arrays
    from mpsearch.models.datasets import is_dataset

    if name is not None and not Path(name).is_file() and not is_dataset(name):
        read_arrays(name)


class _Runner:
    """Runs the steps that are not as before, and tells all of them."""

    def __init__(self, ctx: click.Context, record: Record) -> None:
        self._group, self._record = ctx.find_root().command, record
        self.told: list[dict[str, Any]] = []

    def __call__(self, step: Step) -> None:
        """Run the step or say that it is as before. A step that fails ends the run: its exception,
        or its exit code."""
        done = {"name": step.name, "command": step.command, "ran": False}
        self.told.append(done)
        if self._record.is_as_before(step):
            echo(f"{step.name}: as before")
            return
        echo("", f"$ {step.command}", bold=True)
        started = time.monotonic()
        read = self._record.begin(step)
        code = self._group.main(
            [*step.words], prog_name="mpsearch", standalone_mode=False, obj=STEP_OF_RUN
        )
        if isinstance(code, int) and code != 0:
            raise click.exceptions.Exit(code)
        seconds = round(time.monotonic() - started, 2)
        self._record.finish(step, read, seconds)
        done |= {"ran": True, "seconds": seconds}


def _run(steps: Steps, runner: _Runner) -> dict[str, Any]:
    """All steps in order; the answer as `--json` prints it."""
    from mpsearch.commands.run_answer import answer
    from mpsearch.evaluation.evaluation import load_evaluations
    from mpsearch.tables.table import LayerTable

    request = steps.request
    if steps.converts:
        runner(steps.convert())
    runner(steps.profile())
    table = LayerTable.read_csv(steps.table)
    if not request.is_limited:
        raise _no_limit(table, steps)
    runner(steps.solve())
    runner(steps.apply())
    runner(steps.evaluate(comparable(table, request.within.budget(table))))
    runner(steps.front())
    evaluations = load_evaluations(steps.evaluation)
    judged = evaluations.rows[0].classifies or not evaluations.labelled
    if request.points and judged:
        runner(steps.measured_front())
    runner(steps.page())
    for step in steps.export():
        runner(step)
    return answer(steps, evaluations)


def _no_limit(table: "LayerTable", steps: Steps) -> InputError:
    """What to give, now that it is known what is of use."""
    from mpsearch.search.feasible_limits import ranges
    from mpsearch.tables.units import format_size

    within = steps.request.within
    found = ranges(table, within.pinned(table), within.excluded(table))["size_bytes"]
    most = found.most if found.useful is None else found.useful
    middle = format_size((found.least + most) / 2).replace(" ", "")
    return InputError(
        f"no limit is given; sizes are useful from {format_size(found.least)} to "
        f"{format_size(most)}: try --size {middle}",
        f"(other limits: `{shlex.join(['mpsearch', 'solve', steps.table, '--limit-ranges'])}`; "
        "what is profiled is kept)",
    )
