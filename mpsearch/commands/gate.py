"""`mpsearch gate`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpsearch.commands.console import echo, json_option, print_command, print_json, print_table
from mpsearch.commands.grouping import READING, Grouped
from mpsearch.commands.options import Function, add, loss_option, model_options
from mpsearch.commands.renamed import UNTIL, Renamed
from mpsearch.errors import InputError, MpsearchError
from mpsearch.gating.conditions import CONDITIONS, Conditions

if TYPE_CHECKING:
    from mpsearch.gating.conditions import GateConfig
    from mpsearch.gating.report import Report


def condition_options(command: Function) -> Function:
    """An option for every condition of the table."""
    options = [
        click.option(
            f"--{one.key}", one.name, multiple=one.of_metrics, metavar=one.example, help=one.help
        )
        for one in CONDITIONS
    ]
    return add(command, options)


GROUPS = {
    "Limits on size and work": ("max-size", "max-bops", "max-ram", "target"),
    "Limits on accuracy": (
        "min-accuracy", "max-drop", "min-agreement", "min-sqnr", "max-kl", "min", "max", "max-rise",
        "max-fall",
    ),
    "Limits on a device": (
        "max-latency", "max-peak-memory", "max-energy", "max-instructions", "latency-mode",
    ),
    "Against a baseline": (
        "baseline", "max-drop-baseline", "max-size-growth", "max-bops-growth", "max-ram-growth",
        "max-latency-growth",
        "max-instructions-growth", "update-baseline",
    ),
    "What is in doubt": ("confidence", "strict", "lenient", "unverified"),
    "Files": ("assignment", "profile", "evaluation", "row", "device-file", "config"),
    "Measuring MODEL": ("data", "calibration", "fp32", "batch-size", "loss"),
    "Output": ("json", "junit", "gitlab", "github", "help"),
    "Reading MODEL": READING,
}  # fmt: skip


@click.command(cls=Grouped, groups=GROUPS)
@click.argument("path", metavar="[MODEL]", required=False)
@condition_options
@click.option(
    "--latency-mode",
    type=click.Choice(["steady", "process", "cold"]),
    help="Which of the device's latencies counts [default: steady].",
)
@click.option(
    "--target", metavar="NAME",
    help="The processor whose kernels RAM is counted for, such as cortex-m4 [default: any].",
)  # fmt: skip
@click.option(
    "--baseline",
    metavar="FILE",
    help="What --update-baseline wrote; growth and drops are against it.",
)
@click.option(
    "--update-baseline", metavar="FILE",
    help="Write what is known of this network as the baseline, unless the gate says no.",
)  # fmt: skip
@click.option("--confidence", metavar="0.95", help="Of the intervals [default: 0.95].")
@click.option("--strict", is_flag=True, help="An inconclusive condition stops the network.")
@click.option(
    "--lenient", is_flag=True,
    help="It lets the network through [default: the measured value decides].",
)  # fmt: skip
@click.option(
    "--unverified", is_flag=True,
    help="Also take evidence without digests, which does not say which network it is of.",
)  # fmt: skip
@click.option(
    "--config", metavar="FILE",
    help="Conditions in TOML [default: the nearest mpsearch.toml or pyproject.toml with them].",
)  # fmt: skip
@click.option("--assignment", metavar="FILE", help="[default: assignment.json, where it is]")
@click.option("--evaluation", metavar="FILE", help="[default: evaluation.json, where it is]")
@click.option(
    "--device-file", cls=Renamed, old=["--device"], metavar="FILE",
    help="[default: device.json, where it is]",
)  # fmt: skip
@click.option(
    "--profile", "table", metavar="FILE",
    help="Table to recompute size and BOPS from [default: profile.csv, where it is].",
)  # fmt: skip
@click.option(
    "--row", cls=Renamed, old=["--network"], metavar="NAME",
    help="The evaluation's row to judge; without --assignment its size and BOPS count too "
    "[default: assignment or quantized].",
)  # fmt: skip
@click.option("--data", metavar="D", help="Measure MODEL on these [default: its own sample].")
@click.option("--calibration", metavar="D", help="Data for the ranges [default: MODEL's sample].")
@click.option("--fp32", metavar="FILE", help="The float model beside a quantized MODEL.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@loss_option
@click.option("--junit", metavar="FILE.xml", help="Also write a JUnit report.")
@click.option("--gitlab", metavar="FILE.json", help="Also write a Code Quality report of GitLab.")
@click.option(
    "--github/--no-github", default=None,
    help="Annotations and a step summary [default: in GitHub Actions].",
)  # fmt: skip
@model_options
@json_option
def gate(path: str | None, as_json: bool, github: bool | None, **options: Any) -> int:
    """Exit with 0 if the network meets every condition, with 1 if it fails one.

    Size and BOPS are recomputed from the table, accuracy from the samples. Of MODEL, size and BOPS
    need no data, and its accuracy is measured now. Files that contradict each other, and figures of
    other weights, bits or data, are an error (exit code 2). An accuracy whose interval contains the
    limit is inconclusive: see --strict. A value equal to its limit meets it.

    \b
    Example:
      mpsearch gate --max-size 145KB --min-accuracy 88% --max-drop 1.0
      mpsearch gate quantized.pt --max-size 145KB
      mpsearch gate quantized.pt --fp32 model.pt --data test.npz --max-drop 1
      mpsearch gate --evaluation f1.json --min f1=0.8 --max-fall f1=0.05
      mpsearch gate --max-size 145KB --update-baseline main.json
      mpsearch gate --baseline main.json --max-size-growth 1%
    """
    from mpsearch.gating.ci_formats import error_command

    if github is None:
        github = os.environ.get("GITHUB_ACTIONS") == "true"
    try:
        report = _judged(path, options)
    except MpsearchError as error:
        if github:
            print_command(error_command(error), err=as_json)
        raise
    _write(report, options, github, as_json)
    if as_json:
        print_json(report.document())
    else:
        _print(report)
    return 1 if report.says_no else 0


def _judged(path: str | None, options: dict[str, Any]) -> "Report":
    """Read, judge, and write the baseline where that is asked."""
    from mpsearch.gating.conditions import find_config
    from mpsearch.gating.judging import check_names, judge, wanted_metrics
    from mpsearch.gating.report import Report, baseline_of
    from mpsearch.gating.sources import Sources, read_evidence
    from mpsearch.tables.units import parse_confidence

    config = find_config(options["config"])
    for old, new in config.renamed:
        echo(
            f"note: {config.source}: {old} is now {new}; the old key works until {UNTIL}", err=True
        )

    def asked(name: str) -> Any:
        given = options[name]
        missing = given is None or given == ()
        return config.get(_dashed(name)) if missing else given

    limits: dict[str, Any] = {one.name: asked(one.name) for one in CONDITIONS}
    limits = {name: limit for name, limit in limits.items() if limit not in (None, ())}
    for one in CONDITIONS:
        if one.of_metrics:
            check_names(limits.get(one.name, ()), f"--{one.key}")
    target = asked("target")
    conditions = Conditions(limits, asked("latency_mode") or "steady", target)
    update, baseline, remarks = options["update_baseline"], asked("baseline"), []
    if update is not None and baseline is not None and _same_file(update, baseline):
        if conditions.need("baseline"):
            remarks = [f"{update} is written again, so nothing was compared with it"]
        conditions = conditions.without("baseline")
        baseline = None
    if path is not None and options["evaluation"] is not None:
        raise InputError("got MODEL and --evaluation; measure now or read what was measured")
    source = None
    if path is not None:
        source = options["model"].source(path)
    sources = Sources(
        assignment=asked("assignment"),
        evaluation=None if path is not None else asked("evaluation"),
        device=asked("device_file"),
        table=options["table"] or config.get("profile"),
        baseline=baseline,
        network=asked("row"),
        model=source,
        data=options["data"],
        calibration=options["calibration"],
        fp32=options["fp32"],
        batch_size=options["batch_size"],
        metrics=wanted_metrics(conditions),
        losses=options["loss"],
        unverified=bool(options["unverified"] or config.get("unverified")),
    )
    confidence = parse_confidence(asked("confidence") or "0.95")
    policy = _policy(options, config)
    evidence = read_evidence(
        sources,
        on_device=conditions.need("device") or update is not None,
        measure=_measures(conditions, path, update),
    )
    judged = conditions.need() or update is None
    verdicts = judge(conditions, evidence, confidence) if judged else ()
    report = Report(verdicts, evidence, policy, confidence, config.source, remarks=tuple(remarks))
    if update is None or report.says_no:
        return report.with_update(None if update is None else (update, False))
    baseline_of(evidence, update, target)
    return report.with_update((update, True))


def _measures(conditions: Conditions, path: str | None, update: str | None) -> bool:
    """Whether MODEL has to be measured: not for what its file says, and for a baseline as far as it
    carries data."""
    if conditions.need("accuracy", "outputs", "metrics"):
        return True
    if path is None or update is None:
        return False
    from mpsearch.importers.kinds import QUANTIZED, detect

    return detect(path) != QUANTIZED


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _same_file(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _policy(options: dict[str, Any], config: "GateConfig") -> Any:
    for source in (options, {name: config.get(name) for name in ("strict", "lenient")}):
        if source["strict"] and source["lenient"]:
            raise InputError("got strict and lenient; expected one of them")
        for name in ("strict", "lenient"):
            if source[name]:
                return name
    return "measured"


def _write(report: "Report", options: dict[str, Any], github: bool, as_json: bool) -> None:
    """The reports that are asked for, apart from the one on the terminal."""
    if options["junit"] is not None:
        from mpsearch.files.whole import write_atomic
        from mpsearch.gating.ci_formats import junit

        write_atomic(options["junit"], junit(report))
    if options["gitlab"] is not None:
        from mpsearch.files.whole import write_atomic
        from mpsearch.gating.ci_formats import code_quality

        write_atomic(options["gitlab"], code_quality(report))
    if github:
        from mpsearch.gating.ci_formats import commands, summarize

        for line in commands(report):
            print_command(line, err=as_json)  # the runner reads both streams
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            summarize(report, summary)


def _print(report: "Report") -> None:
    from mpsearch.gating.words import percent, row_of

    if report.verdicts:
        rows = [row_of(verdict) for verdict in report.verdicts]
        columns = ["", "condition", "measured", "limit"]
        cells = [[row.outcome, row.condition, row.measured, row.limit] for row in rows]
        if any(row.interval for row in rows):
            columns += [f"{percent(report.confidence)} interval", "samples"]
            for row, line in zip(rows, cells, strict=True):
                line += [row.interval, row.samples]
        print_table(columns, cells, naming=2)
    for note in report.notes:
        echo(f"note: {note}")
    for step in report.next_steps:
        echo(f"next: {step}")
    if report.config is not None:
        echo(f"conditions from {report.config}")
    if report.verdicts:
        echo(report.conclusion)
    if report.update is not None:
        path, written = report.update
        echo(f"wrote {path}" if written else f"{path} was left as it is")
