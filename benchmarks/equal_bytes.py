"""Accuracy on unseen data at equal bytes: each way to choose bits, repaired, beside what was.

    python benchmarks/equal_bytes.py --networks resnet20,resnet8,ds-cnn -o equal_bytes.json

A row is a network and a share of the bytes that it takes with 8-bit weights; every way gets as
many bytes. Profile, calibration and refinement see the same training samples; the unseen samples
are only measured on. Points lost are paired with FP32, sample by sample. What was measured is kept
in the output file, so that a killed run goes on.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from ds_cnn import load_ds_cnn
from ranking_subjects import load_subject

from mpsearch.commands.console import progress
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate
from mpsearch.evaluation.subjects import Subject
from mpsearch.files.whole import write_atomic
from mpsearch.finetuning.training import FineTuning, finetune
from mpsearch.graph.network import Network
from mpsearch.interactions.interactions import interactions_path
from mpsearch.knapsack.instance import Instance
from mpsearch.models.features import cache_folder
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.quantization.packing import size_bytes
from mpsearch.refining.candidates import Asked
from mpsearch.refining.loop import refine
from mpsearch.search.other_sources import reranked
from mpsearch.search.solving import solve
from mpsearch.statistics import paired_drop
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

SHARES = (27, 31, 38, 44, 50, 66)  # percent of the bytes with 8-bit weights
CHOICES = tuple(Choice(bits, 8) for bits in (2, 3, 4, 8))
BEFORE = (Choice(4, 4), Choice(8, 8))  # the choices that `profile` had in 0.1
OTHERS = ("hessian", "weight-mse", "kfac")  # metrics that need passes of their own
SAMPLES, REFINED = 512, 24
RERANKED = 32  # by superposed outputs
Choices = Mapping[str, Choice]


class Yardstick:
    """One network with its samples; measures assignments once each."""

    def __init__(
        self,
        name: str,
        network: Network,
        train: Data,
        seen: Data,
        unseen: Data,
        known: dict[str, Any],
    ) -> None:
        self.name, self.network, self.train = name, network, train
        self.seen, self.unseen = seen, unseen
        self.known, self.folder = known, Path(tempfile.mkdtemp())
        self.reference = evaluate("FP32", network, unseen)
        known.update(
            fp32=100 * self.reference.accuracy, n=self.reference.n, bytes=self.bytes_at(8),
        )  # fmt: skip
        self.tables: dict[str, LayerTable] = {}

    def bytes_at(self, bits: int) -> int:
        """With weights of so many bits everywhere."""
        return size_bytes(self.network, self.uniform(bits))

    def uniform(self, bits: int) -> dict[str, Choice]:
        """The same weight bits everywhere, activations with 8."""
        return {layer.name: Choice(bits, 8) for layer in self.network.layers}

    def table(self, metric: str, choices: tuple[Choice, ...], rounding: PostTraining) -> LayerTable:
        """The profile on the seen samples."""
        key = f"{metric} {choices} {rounding}"
        if key not in self.tables:
            crossed = metric == "sqnr" and rounding == PostTraining()
            settings = ProfileSettings(
                metric=metric, choices=choices, samples=len(self.seen), interactions=crossed,
                rounding=rounding.rounding, ranges=rounding.ranges,
                correct_bias=rounding.correct_bias,
            )  # fmt: skip
            started = time.process_time()
            self.tables[key] = profile(
                self.network, self.seen, self.folder / f"{metric}.csv", settings, progress
            )
            seconds = self.known.setdefault("profile CPU seconds", {})
            seconds[f"{metric}, {rounding.rounding}"] = round(time.process_time() - started, 1)
        return self.tables[key]

    def measured(self, choices: Choices, settings: PostTraining) -> dict[str, Any]:
        """Points lost on the unseen samples with their paired interval."""
        stored = self.known.setdefault("measured", {})
        key = f"{_text(choices)} {json.dumps(settings.to_json())}"
        if key not in stored:
            started = time.process_time()
            quantized = quantize_after_training(self.network, choices, self.seen, settings)
            seconds = time.process_time() - started
            stored[key] = {**self.row(quantized), "CPU seconds": round(seconds, 1)}
        return {**stored[key], "bytes": size_bytes(self.network, choices)}

    def row(self, network: Any) -> dict[str, Any]:
        """Accuracy, points lost and their interval, in percent."""
        row = evaluate("", network, self.unseen)
        drop, (low, high) = paired_drop(self.reference.correct, row.correct)
        return {
            "accuracy": 100 * row.accuracy, "lost": 100 * drop,
            "interval": [100 * low, 100 * high],
        }  # fmt: skip


def _text(choices: Choices) -> str:
    return " ".join(map(str, choices.values()))


def _in_order(network: Network, choices: Choices) -> dict[str, Choice]:
    return {layer.name: choices[layer.name] for layer in network.layers}


def ways(stick: Yardstick, share: int, refined: bool, epochs: int) -> dict[str, Any]:
    """What is measured at one share of the bytes, by name."""
    limit = share * stick.bytes_at(8) // 100
    repaired = PostTraining()
    found: dict[str, Any] = {}

    def best(table: LayerTable, column: str) -> dict[str, Choice] | None:
        budget = Budget.parse(table, size=f"{limit}B")
        solution = solve(table, budget, minimize=Minimand(((column, "1"),)))
        return _in_order(stick.network, solution.choices) if solution.choices else None

    def add(name: str, choices: Choices | None, settings: PostTraining = repaired) -> None:
        if choices is not None:
            found[name] = stick.measured(choices, settings)

    add("0.1: w4a4,w8a8, nearest", best(stick.table("sqnr", BEFORE, PLAIN), "omega"), PLAIN)
    add("0.1 with w2a8 to w8a8", best(stick.table("sqnr", CHOICES, PLAIN), "omega"), PLAIN)
    add("its bits, repaired", best(stick.table("sqnr", CHOICES, PLAIN), "omega"))
    uniform = [bits for bits in (2, 3, 4, 8) if stick.bytes_at(bits) <= limit]
    if uniform:
        add("uniform bits", stick.uniform(max(uniform)))
    table = stick.table("sqnr", CHOICES, repaired)
    for column in table.metrics:
        add(column.removeprefix("omega_"), best(table, column))
    for metric in OTHERS:
        add(metric, best(stick.table(metric, CHOICES, repaired), "omega"))
    first = best(table, "omega")
    if first is not None:
        add("re-ranked", superposed(stick, table, limit))
        bits_of = stick.known.setdefault("bits", {})
        bits_of[str(share)] = {layer: str(choice) for layer, choice in first.items()}
    if refined and first is not None:
        stored = stick.known.setdefault("refined", {})
        if str(share) not in stored:
            asked = Asked(table, Budget.parse(table, size=f"{limit}B"))
            subject = Subject(stick.name, stick.network, stick.seen, stick.seen)
            started = time.process_time()
            with progress("refine", REFINED) as step:
                answer = refine(asked, first, subject, stick.folder / "refined", REFINED, step=step)
            stored[str(share)] = {
                "bits": {n: str(c) for n, c in answer.best.candidate.choices.items()},
                "CPU seconds": round(time.process_time() - started, 1),
            }
        bits = {n: Choice.parse(text) for n, text in stored[str(share)]["bits"].items()}
        add("refined", _in_order(stick.network, bits))
        if epochs:
            found["refined, fine-tuned"] = _finetuned(stick, bits, share, epochs)
    return found


def superposed(stick: Yardstick, table: LayerTable, limit: int) -> dict[str, Choice]:
    """The best of the K least Ω by superposed outputs."""
    budget = Budget.parse(table, size=f"{limit}B")
    instance = Instance.build(table, budget.limits)
    path = interactions_path(stick.folder / "sqnr.csv")
    answer, _ = reranked(solve(table, budget), table, instance, path, RERANKED)
    return _in_order(stick.network, answer.choices)


def _finetuned(stick: Yardstick, bits: Choices, share: int, epochs: int) -> dict[str, Any]:
    stored = stick.known.setdefault("fine-tuned", {})
    key = f"{share} {epochs}"
    if key not in stored:
        started = time.process_time()
        tuned = finetune(stick.network, bits, stick.train, settings=FineTuning(epochs=epochs))
        seconds = round(time.process_time() - started, 1)
        stored[key] = {**stick.row(tuned.network), "CPU seconds": seconds}
    return {**stored[key], "bytes": size_bytes(stick.network, bits)}


def load(name: str, cache: Path, known: dict[str, Any]) -> Yardstick:
    """`resnet20`, `ds-cnn`, or `tinym2net-battlefield@1` for the one trained with seed 1."""
    if name == "ds-cnn":
        network, seen, unseen = load_ds_cnn()
        return Yardstick(name, network, seen, seen, unseen, known)
    plain, _, seed = name.partition("@")
    whole = load_subject(plain, cache, 10**9, 0, int(seed or 0))
    seen = whole.profiling.take(SAMPLES, 0)
    return Yardstick(name, whole.network, whole.profiling, seen, whole.unseen, known)


def _table(document: Mapping[str, Any]) -> str:
    """One Markdown table: rows are networks and shares, columns the ways, cells points lost."""
    rows = [(name, share, found) for name, known in document.items()
            for share, found in known["rows"].items()]  # fmt: skip
    names = list(dict.fromkeys(way for _, _, found in rows for way in found))
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, share, found in rows:
        cells = []
        for way in names:
            cell = found.get(way)
            cells.append("" if cell is None else f"{cell['lost']:+.1f}")
        half = max((cell["interval"][1] - cell["interval"][0]) / 2 for cell in found.values())
        best = min(cell["interval"][1] - cell["lost"] for cell in found.values())
        note = f"{name} {share} % ({best:.1f} to {half:.1f})"
        lines.append(f"| {note} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default="resnet8,ds-cnn,resnet20", show_default=True)
@click.option("--shares", default=",".join(map(str, SHARES)), show_default=True)
@click.option("--refine/--no-refine", "refined", default=True, show_default=True)
@click.option("--epochs", type=click.IntRange(min=0), default=0, help="Fine-tune what is refined.")
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path),
    help="Folder of trained networks; the user cache by default.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False), default="equal_bytes.json")
def main(
    networks: str, shares: str, refined: bool, epochs: int, cache: Path | None, output: str
) -> None:
    """Print a Markdown table of points lost and write everything as JSON."""
    folder = cache or cache_folder() / "ranking"
    folder.mkdir(parents=True, exist_ok=True)
    stored = Path(output)
    document: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    try:
        for name in networks.split(","):
            known = document.setdefault(name, {})
            stick = load(name, folder, known)
            rows = known.setdefault("rows", {})
            for share in map(int, shares.split(",")):
                if share * stick.bytes_at(8) // 100 < stick.bytes_at(2):
                    continue
                rows[str(share)] = ways(stick, share, refined, epochs)
                write_atomic(output, json.dumps(document, indent=2) + "\n")
                click.echo(f"{name} {share} %: " + ", ".join(
                    f"{way} {cell['accuracy']:.1f}" for way, cell in rows[str(share)].items()
                ))  # fmt: skip
    except InputError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\nPoints lost against FP32 on unseen samples (± of the interval):\n")
    click.echo(_table({name: document[name] for name in networks.split(",")}))


if __name__ == "__main__":
    main()
