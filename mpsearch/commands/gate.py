"""`mpsearch gate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpsearch.console import json_option, print_json

if TYPE_CHECKING:
    from fractions import Fraction

    from mpsearch.device.profile import Mode
    from mpsearch.gate import Evidence, Verdict

TITLES = {
    "size_bytes": "size", "bops": "BOPS", "accuracy": "accuracy", "drop": "points lost",
    "latency_s": "latency", "peak_memory_bytes": "peak memory", "energy_j": "energy",
}  # fmt: skip


@click.command()
@click.option("--max-size", metavar="145KB", help="Also 50% or w8 of the table.")
@click.option("--max-bops", metavar="1.2G", help="Also 50% or w8a8 of the table.")
@click.option("--min-accuracy", metavar="88%", help="With its sign, or a share from 0 to 1: 0.88.")
@click.option("--max-drop", metavar="1.0", help="Percentage points lost against FP32, paired.")
@click.option("--max-latency", metavar="5ms", help="Median seconds of one inference on a device.")
@click.option("--max-peak-memory", metavar="2MB", help="Of the whole process on a device.")
@click.option("--max-energy", metavar="3mJ", help="Joules of one inference above idle.")
@click.option(
    "--latency-mode",
    type=click.Choice(["steady", "process", "cold"]),
    default="steady",
    show_default=True,
    help="Which of the device's latencies counts.",
)
@click.option("--assignment", metavar="FILE", help="[default: assignment.json, where it is]")
@click.option("--evaluation", metavar="FILE", help="[default: evaluation.json, where it is]")
@click.option("--device", metavar="FILE", help="[default: device.json, where it is]")
@click.option(
    "--profile", "table", metavar="FILE",
    help="Table to recompute size and BOPS from [default: profile.csv, where it is].",
)  # fmt: skip
@click.option(
    "--network", metavar="NAME",
    help="The evaluation's row to judge; without --assignment its size and BOPS count too "
    "[default: assignment or quantized].",
)  # fmt: skip
@json_option
def gate(
    max_size: str | None,
    max_bops: str | None,
    min_accuracy: str | None,
    max_drop: str | None,
    max_latency: str | None,
    max_peak_memory: str | None,
    max_energy: str | None,
    latency_mode: "Mode",
    assignment: str | None,
    evaluation: str | None,
    device: str | None,
    table: str | None,
    network: str | None,
    as_json: bool,
) -> int:
    """Exit with 0 if the network meets every condition, with 1 if it fails one.

    A value equal to its limit passes. Size and BOPS are recomputed from the table, accuracy from
    the samples; files that contradict each other are an error (exit code 2).

    \b
    Example:
      mpsearch gate --max-size 145KB --min-accuracy 88% --max-drop 1.0
    """
    from mpsearch.gate import Conditions, judge

    conditions = Conditions(
        max_size, max_bops, min_accuracy, max_drop, max_latency, max_peak_memory, max_energy,
        latency_mode,
    )  # fmt: skip
    on_device = any((max_latency, max_peak_memory, max_energy))
    evidence = _evidence(assignment, evaluation, device, table, network, on_device)
    verdicts = judge(conditions, evidence)
    passed = all(verdict.passed for verdict in verdicts)
    notes = _notes(verdicts, evidence)
    if as_json:
        conditions_met = [_document(verdict) for verdict in verdicts]
        print_json({"passed": passed, "conditions": conditions_met, "notes": notes})
    else:
        for verdict in verdicts:
            click.echo(_line(verdict))
        for note in notes:
            click.echo(f"note: {note}")
    return 0 if passed else 1


def _evidence(
    assignment: str | None,
    evaluation: str | None,
    device: str | None,
    table: str | None,
    network: str | None,
    on_device: bool,
) -> "Evidence":
    """Read the files that are named, and the usual ones that are there."""
    from mpsearch.assignment import Assignment
    from mpsearch.device.profile import load_device_profile
    from mpsearch.evaluation import load_evaluations
    from mpsearch.gate import Evidence
    from mpsearch.table import LayerTable

    if network is None:
        assignment = assignment or _usual("assignment.json")
    evaluation = evaluation or _usual("evaluation.json")
    table = table or _usual("profile.csv")
    if on_device:
        device = device or _usual("device.json")
    return Evidence(
        assignment=Assignment.load(assignment) if assignment else None,
        table=LayerTable.read_csv(table) if table else None,
        evaluations=load_evaluations(evaluation) if evaluation else None,
        network=network,
        device=load_device_profile(device) if device else None,
    )


def _usual(name: str) -> str | None:
    return name if Path(name).exists() else None


def _line(verdict: "Verdict") -> str:
    """`PASS  size  148,480 B (145.0 KB) <= 148,480 B (145.0 KB)`."""
    sign = ">=" if verdict.quantity == "accuracy" else "<="
    if not verdict.passed:
        sign = "<" if verdict.quantity == "accuracy" else ">"
    words = [
        "PASS" if verdict.passed else "FAIL",
        f"{TITLES[verdict.quantity]:<11}",
        _amount(verdict.quantity, verdict.value),
        sign,
        _amount(verdict.quantity, verdict.limit),
    ]
    if verdict.interval is not None:
        scale = 100 if verdict.quantity == "accuracy" else 1
        low, high = (scale * end for end in verdict.interval)
        words.append(f"  95 % interval [{low:.2f}, {high:.2f}], n = {verdict.samples}")
    return "  ".join(words[:2]) + " " + " ".join(words[2:])


def _amount(quantity: str, exact: "int | float | Fraction") -> str:
    """Exact enough that a failing value does not print as its limit."""
    from mpsearch.units import format_count, format_size

    value = float(exact)
    if quantity == "accuracy":
        return f"{100 * value:.6g} %"
    if quantity == "drop":
        return f"{value:.6g} points"
    if quantity.endswith("_bytes"):
        return f"{value:,.15g} B ({format_size(value)})"
    if quantity.endswith(("_s", "_j")):
        return f"{value:.6g} {'s' if quantity == 'latency_s' else 'J'}"
    return f"{value:,.15g} ({format_count(value).strip()})"


def _notes(verdicts: "tuple[Verdict, ...]", evidence: "Evidence") -> list[str]:
    """What a reader of the verdicts should know."""
    notes = [
        f"{TITLES[verdict.quantity]}: the limit lies inside the 95 % interval; "
        f"{verdict.samples} samples do not decide this condition"
        for verdict in verdicts
        if not verdict.decided
    ]
    measured = any(verdict.interval is not None for verdict in verdicts)
    if measured and evidence.evaluations is not None and not evidence.evaluations.held_out:
        notes.append("measured on the calibration data, which is not unseen data")
    if evidence.device is not None and evidence.assignment is None:
        notes.append("which network ran on the device was not checked; name it with --assignment")
    sized = any(verdict.quantity in ("size_bytes", "bops") for verdict in verdicts)
    if sized and (evidence.table is None or evidence.assignment is None):
        notes.append("size and BOPS are as the file states them; they were not recomputed")
    return notes


def _document(verdict: "Verdict") -> dict[str, Any]:
    def number(value: Any) -> int | float:
        return value if isinstance(value, int) else float(value)

    return {
        "quantity": verdict.quantity,
        "value": number(verdict.value),
        "limit": number(verdict.limit),
        "passed": verdict.passed,
        "interval": verdict.interval,
        "samples": verdict.samples,
        "decided": verdict.decided,
    }
