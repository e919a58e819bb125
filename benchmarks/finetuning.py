"""What fine-tuning wins back: FP32, `mpsearch apply` and fine-tuned on the same unseen samples.

    python benchmarks/finetuning.py resnet20 --cases 60%,w4a4,w2a8 --epochs 5 -o finetuning.json
    python benchmarks/finetuning.py ds-cnn --cases w2a8,w4a4 --no-freezing -o ds-cnn.json

A case is a share of the uniform 8-bit size (profiled with the default choices, solved) or one
choice for all layers. Validation data choose the epoch; the test split is read once per case, at
the end.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from ds_cnn import load_ds_cnn
from ranking_subjects import SOURCES, Subject, load_subject

from mpsearch.commands.console import progress
from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation
from mpsearch.evaluation.measuring import evaluate
from mpsearch.files.whole import write_atomic
from mpsearch.finetuning.training import FineTuning, finetune
from mpsearch.graph import network_file
from mpsearch.models.datasets import load_dataset
from mpsearch.models.features import cache_folder
from mpsearch.post_training.repairing import quantize_after_training
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.quantization.packing import size_bytes
from mpsearch.search.solving import solve
from mpsearch.statistics import paired_drop
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice


def subject_of(
    name: str, model: Path | None, seed: int, cache: Path
) -> tuple[Subject, Data, Data | None]:
    """The network with what it is calibrated and measured on, training data, those that choose.

    DS-CNN has no training clips here: 300 clips stand in for them.
    """
    if name == "ds-cnn":
        network, seen, unseen = load_ds_cnn()
        return Subject(name, network, seen, unseen), seen, None
    dataset = SOURCES[name].dataset
    if model is None:
        subject = load_subject(name, cache, 256, seed)
    else:
        loaded = network_file.load(model).network
        profiling = bind(read_arrays(f"{dataset}:train"), loaded).take(256, seed)
        unseen = bind(read_arrays(f"{dataset}:test"), loaded)
        subject = Subject(name, loaded, profiling, unseen)
    train = bind(read_arrays(f"{dataset}:train"), subject.network)
    if "val" not in load_dataset(dataset).splits:
        return subject, train, None
    return subject, train, bind(read_arrays(f"{dataset}:val"), subject.network)


def choices_of(case: str, subject: Subject, work: Path) -> Mapping[str, Choice]:
    """`60%` -> the least Ω (sqnr) at that share of the size with 8 bits; `w4a4` -> everywhere."""
    if not case.endswith("%"):
        return dict.fromkeys((layer.name for layer in subject.network.layers), Choice.parse(case))
    path = work / f"finetuning-{subject.name}.csv"
    table = profile(subject.network, subject.profiling, path, ProfileSettings(), progress)
    return solve(table, Budget.parse(table, size=case)).choices


def run_case(
    case: str, subject: Subject, train: Data, validation: Data | None, settings: FineTuning,
    work: Path,
) -> dict[str, Any]:  # fmt: skip
    """Scores of one case before and after training, against FP32."""
    network = subject.network
    choices = choices_of(case, subject, work)
    start = quantize_after_training(network, choices, subject.profiling)
    begun = time.monotonic()
    tuned = finetune(
        network, choices, train, validation, settings, start,
        lambda epoch: click.echo(f"{case} {epoch}", err=True), work / f"{subject.name}-{case}.pt",
    )  # fmt: skip
    seconds = time.monotonic() - begun
    fp32 = evaluate("FP32", network, subject.unseen)
    rows = [fp32, evaluate("quantized", start, subject.unseen)]
    rows.append(evaluate("fine-tuned", tuned.network, subject.unseen))
    if tuned.checkpoint is not None:
        tuned.checkpoint.unlink(missing_ok=True)
    return {
        "case": case,
        "choices": {name: str(choice) for name, choice in choices.items()},
        "size_bytes": size_bytes(network, choices),
        "share_of_w8": size_bytes(network, choices)
        / size_bytes(network, dict.fromkeys(choices, Choice(8, 8))),
        "seconds": seconds,
        "resumed": tuned.resumed,
        "best_epoch": tuned.best.number,
        "history": [asdict(epoch) for epoch in tuned.history],
        "test": {row.name: _scores(row, fp32) for row in rows},
    }


def _scores(row: Evaluation, fp32: Evaluation) -> dict[str, Any]:
    lost, interval = paired_drop(fp32.correct, row.correct)
    return {
        "accuracy": row.accuracy, "n": row.n, "loss": row.loss, "points_lost": 100 * lost,
        "interval": [100 * end for end in interval],
    }  # fmt: skip


def markdown(rows: list[dict[str, Any]]) -> str:
    """One line per case: size, accuracy before and after, points lost against FP32."""
    lines = ["| assignment | of W8 size | quantized | fine-tuned | points lost [95 %] "
             "| frozen | seconds |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        before, after = row["test"]["quantized"], row["test"]["fine-tuned"]
        low, high = after["interval"]
        lines.append(
            f"| {row['case']} | {row['share_of_w8']:.1%} | {before['accuracy']:.1%} | "
            f"{after['accuracy']:.1%} | {after['points_lost']:+.1f} [{low:+.1f}, {high:+.1f}] | "
            f"{row['history'][row['best_epoch']]['frozen']:.2%} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("network", type=click.Choice(sorted([*SOURCES, "ds-cnn"])))
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="Its mpsearch file.")
@click.option("--cases", default="60%,w4a4,w2a8", show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=FineTuning.epochs, show_default=True)
@click.option("--lr", type=float, default=FineTuning.lr, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--freezing/--no-freezing", default=True, show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(
    network: str, model: Path | None, cases: str, epochs: int, lr: float, seed: int,
    freezing: bool, output: Path,
) -> None:  # fmt: skip
    """Quantize and fine-tune NETWORK; write the figures as JSON and print them as a table."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    subject, train, validation = subject_of(network, model, seed, cache)
    settings = FineTuning(epochs=epochs, lr=lr, augment=True, seed=seed, freezing=freezing)
    rows = []
    for case in cases.split(","):
        rows.append(run_case(case, subject, train, validation, settings, cache))
        document = {
            "network": network, "settings": asdict(settings), "threads": torch.get_num_threads(),
            "rows": rows,
        }  # fmt: skip
        write_atomic(output, json.dumps(document, indent=2) + "\n")
    fp32 = rows[0]["test"]["FP32"]
    click.echo(f"FP32: {fp32['accuracy']:.1%} of {fp32['n']}\n\n{markdown(rows)}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
