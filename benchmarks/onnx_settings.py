"""What do onnxruntime's session options cost and break? The table of docs/onnx.md.

    python benchmarks/onnx_settings.py

One sample on one core; every model under every setting runs once per round, in turn. Shown is the
median of the ratios to the float model of the same round, and the largest difference from the
fake-quantized network in steps of an 8-bit output.
"""

import statistics
import time
from collections.abc import Callable

import click
from runtime_subjects import FLOAT, NETWORKS, Subject, load_subject

from mpsearch.exporters.onnx.between_quantizers import DEFAULT, TRIED, SessionSetting, open_session
from mpsearch.exporters.onnx.exported import check
from mpsearch.exporters.onnx.model import onnx_model

ASSIGNMENTS = ("w8a8", "w4a8", "w4a4")


def runner(model: bytes, setting: SessionSetting, subject: Subject) -> Callable[[], float]:
    """Seconds of one run after a run that warms up."""
    session = open_session(model, setting)
    names = subject.network.input_names
    sample = {n: x[:1].numpy() for n, x in zip(names, subject.data.inputs, strict=True)}

    def run() -> float:
        session.run(None, sample)
        start = time.perf_counter()
        session.run(None, sample)
        return time.perf_counter() - start

    return run


def rows(subject: Subject, rounds: int) -> list[str]:
    """One row per setting."""
    networks = {name: subject.quantized(name) for name in (*ASSIGNMENTS, FLOAT)}
    models = {name: onnx_model(q).SerializeToString() for name, q in networks.items()}
    found = {name: check(models[name], networks[name], subject.data) for name in ASSIGNMENTS}
    base = runner(models[FLOAT], DEFAULT, subject)
    runners = {
        (name, finding.setting.name): runner(models[name], finding.setting, subject)
        for name, checked in found.items()
        for finding in checked.findings
        if finding.error is None
    }
    ratios: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
    for _ in range(rounds):
        unit = base()
        for key, run in runners.items():
            ratios[key].append(run() / unit)
    lines = []
    for place, setting in enumerate(TRIED):
        cells = []
        for name in ASSIGNMENTS:
            finding = found[name].findings[place]
            if finding.error is not None:
                cells.append("does not load")
                continue
            ratio = statistics.median(ratios[name, setting.name])
            mark = "" if finding.agrees else ", wrong"
            cells.append(f"{ratio:.1f} ({finding.largest:.2g} steps{mark})")
        lines.append(f"| {subject.name} | {setting.name} | {' | '.join(cells)} |")
    return lines


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default=",".join(NETWORKS), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=60, show_default=True)
def main(networks: str, rounds: int) -> None:
    """Print the table."""
    click.echo(f"| network | options | {' | '.join(name.upper() for name in ASSIGNMENTS)} |")
    click.echo("|---" * (len(ASSIGNMENTS) + 2) + "|")
    for name in networks.split(","):
        click.echo("\n".join(rows(load_subject(name), rounds)))


if __name__ == "__main__":
    main()
