"""MLPerf Tiny's ResNet-8 and DS-CNN at 2 to 8 bits: accuracy, bytes and arena.

    python benchmarks/mlperf_tiny.py --epochs 20 -o mlperf_tiny.json

Each assignment is quantized after training by default (`mpsearch apply`), and fine-tuned from there
(`mpsearch finetune --augment`). Mixed ones are those of `mpsearch solve --size` over the default
profile. The arena is the working memory of the exported C. ResNet-8 is calibrated and profiled on
512 of 5,000 CIFAR-10 training images, fine-tuned on all of them and measured on 1,000 test images;
DS-CNN sees 300 clips and is measured on 700 others.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from ds_cnn import load_ds_cnn
from ranking_subjects import load_subject

from mpsearch.commands.console import progress
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation
from mpsearch.evaluation.measuring import evaluate
from mpsearch.exporters.c.folder import export_c
from mpsearch.files.whole import write_atomic
from mpsearch.finetuning.training import FineTuning, finetune
from mpsearch.graph.network import Network
from mpsearch.models.features import cache_folder
from mpsearch.post_training.repairing import quantize_after_training
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.quantization.packing import size_bytes
from mpsearch.search.solving import solve
from mpsearch.statistics import paired_drop
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice

UNIFORM = ("w8a8", "w4a8", "w3a8", "w2a8", "w4a4")
MIXED = (50, 44, 38, 31)  # percent of the bytes with 8-bit weights
SEEN = 512


def subjects(cache: Path) -> dict[str, tuple[Network, Data, Data, Data]]:
    """Name -> (network, training data, those to calibrate on, unseen data)."""
    whole = load_subject("resnet8", cache, 10**9, 0)
    network, seen, unseen = load_ds_cnn()
    return {
        "ResNet-8": (
            whole.network, whole.profiling, whole.profiling.take(SEEN, 0), whole.unseen,
        ),
        "DS-CNN": (network, seen, seen, unseen),
    }  # fmt: skip


def assignments(network: Network, seen: Data) -> dict[str, dict[str, Choice]]:
    """By name, uniform and mixed."""
    names = [layer.name for layer in network.layers]
    found = {text: dict.fromkeys(names, Choice.parse(text)) for text in UNIFORM}
    whole = size_bytes(network, found["w8a8"])
    with tempfile.TemporaryDirectory() as folder:
        table = profile(
            network, seen, Path(folder, "profile.csv"), ProfileSettings(samples=len(seen)), progress
        )
    for share in MIXED:
        limit = share * whole // 100
        choices = solve(table, Budget.parse(table, size=f"{limit}B")).choices
        if choices:  # less than 2 bits everywhere, where there are none
            found[f"mixed {share} %"] = {name: choices[name] for name in names}
    return found


def arena(quantized: Any, seen: Data) -> int:
    """Bytes of working memory of the exported C."""
    with tempfile.TemporaryDirectory() as folder:
        written = export_c(quantized, seen, Path(folder, "network"))
        return int(written.document["arena"]["peak_bytes"])


def lost(reference: Evaluation, row: Evaluation) -> str:
    """Accuracy, and points lost with their paired 95 % interval."""
    drop, (low, high) = paired_drop(reference.correct, row.correct)
    return f"{100 * row.accuracy:.1f} ({100 * drop:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}])"


def measured(
    subject: tuple[Network, Data, Data, Data],
    epochs: int,
    known: dict[str, Any],
    save: Callable[[], None],
) -> Mapping[str, Any]:
    """Every assignment of one network; what `known` has is kept."""
    network, train, seen, unseen = subject
    reference = evaluate("FP32", network, unseen)
    known["FP32"] = {"after training": f"{100 * reference.accuracy:.1f}"}
    for name, choices in assignments(network, seen).items():
        if name in known and ("fine-tuned" in known[name] or not epochs):
            continue
        started = time.process_time()
        quantized = quantize_after_training(network, choices, seen)
        row: dict[str, Any] = {
            "bytes": size_bytes(network, choices), "arena": arena(quantized, seen),
            "after training": lost(reference, evaluate(name, quantized, unseen)),
            "CPU seconds": round(time.process_time() - started),
        }  # fmt: skip
        if epochs:
            started = time.process_time()
            settings = FineTuning(epochs=epochs, augment=True)
            tuned = finetune(network, choices, train, settings=settings, start=quantized)
            row["fine-tuned"] = lost(reference, evaluate(name, tuned.network, unseen))
            row["fine-tuning CPU seconds"] = round(time.process_time() - started)
        known[name] = row
        save()
        click.echo(f"{name}: {row}")
    return known


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--epochs", type=click.IntRange(min=0), default=20, show_default=True)
@click.option("--networks", default="ResNet-8,DS-CNN", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False), default="mlperf_tiny.json")
def main(epochs: int, networks: str, output: str) -> None:
    """Print one Markdown table per network; what was measured is kept in the output file."""
    stored = Path(output)
    document: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}

    def save() -> None:
        write_atomic(output, json.dumps(document, indent=2) + "\n")

    try:
        found = subjects(cache_folder() / "ranking")
        for name in networks.split(","):
            rows = measured(found[name], epochs, document.setdefault(name, {}), save)
            columns = ("bytes", "arena", "after training", "fine-tuned", "CPU seconds",
                       "fine-tuning CPU seconds")  # fmt: skip
            click.echo(f"\n| {name} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
            for bits, row in rows.items():
                cells = [str(row.get(column, "")) for column in columns]
                click.echo(f"| {bits} | {' | '.join(cells)} |")
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
