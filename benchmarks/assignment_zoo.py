"""Bits for public networks: tables, assignments at four budgets, and what each measures.

    MPSEARCH_DATA=… python benchmarks/assignment_zoo.py              # rebuild zoo/
    python benchmarks/assignment_zoo.py --table                      # print it, from zoo/ alone

`zoo/NETWORK.csv` is the default profile, `zoo/NETWORK-SHARE.json` the proven assignment at SHARE
per cent of the bytes with 8-bit weights, `zoo/NETWORK.evaluation.json` what they measure, quantized
with the default repairs, on samples that neither profile nor calibration saw. The networks are
files that others published (`ENTRIES`); no weight of them is in the folder.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import mpsearch
from mpsearch.commands.console import progress
from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, load_evaluations
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.quantization.packing import size_bytes
from mpsearch.statistics import paired_drop
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice, counted

FOLDER = Path(__file__).resolve().parent.parent / "zoo"
CHOICES = tuple(Choice(bits, 8) for bits in (2, 3, 4, 8))
SAMPLES = 512
Split = Callable[[str], Arrays]  # `train` or `test`


@dataclass(frozen=True)
class Entry:
    """A public network: its file below MPSEARCH_DATA, and the samples that fit it."""

    title: str
    file: str
    split: Split
    shares: tuple[int, ...]
    """Percent of the bytes with 8-bit weights."""
    architecture: str | None = None


def _cifar10(split: str) -> Arrays:
    return read_arrays(f"cifar10:{split}")


def _cifar10_last(split: str) -> Arrays:
    """Pixels 0 to 255, channels last, as LiteRT files have them."""
    arrays = read_arrays(f"cifar10-raw:{split}")
    (image,) = (x for name, x in arrays.tensors.items() if name != "y")
    moved = image.permute(0, 2, 3, 1).contiguous()
    return Arrays(f"{arrays.name}, channels last", {"x0": moved, "y": arrays.tensors["y"]})


def _keywords(split: str) -> Arrays:
    """Of 1,000 clips the first 300 of a permutation stand in for training clips."""
    stored = np.load(Path(os.environ.get("MPSEARCH_DATA", ""), "kws", "kws01_open_mfcc.npz"))
    order = np.random.default_rng(0).permutation(len(stored["labels"]))
    chosen = order[:300] if split == "train" else order[300:]
    step, zero = np.float32(0.58470291), np.float32(83)  # of MLPerf Tiny's int8 features
    features = (stored["mfcc"][chosen].astype(np.float32) - zero) * step
    labels = torch.from_numpy(stored["labels"][chosen].astype(np.int64))
    inputs = torch.from_numpy(features)[..., None]
    return Arrays(f"kws: {len(chosen)} clips", {"x0": inputs, "y": labels})


ENTRIES: Mapping[str, Entry] = {
    "resnet20": Entry(
        "CIFAR-10 ResNet-20", "pretrained/resnet20.safetensors", _cifar10,
        (31, 38, 50, 66), "resnet20",
    ),
    "resnet8": Entry(
        "MLPerf Tiny ResNet-8", "pretrained/pretrainedResnet.tflite", _cifar10_last,
        (31, 38, 50, 66),
    ),
    "ds-cnn": Entry(
        "MLPerf Tiny DS-CNN", "kws/kws_ref_model_float32.tflite", _keywords, (41, 44, 50, 66)
    ),
}  # fmt: skip


def load(entry: Entry) -> tuple[Network, Data, Data]:
    """(network, samples to profile and calibrate on, unseen samples)."""
    path = Path(os.environ.get("MPSEARCH_DATA", ""), entry.file)
    if not path.is_file():
        raise InputError(f"there is no file {path}; set MPSEARCH_DATA to the folder that has it")
    seen, unseen = entry.split("train"), entry.split("test")
    source = ModelSource(str(path), model=entry.architecture)
    network = load_network(source, seen).network
    return network, bind(seen, network).take(SAMPLES, 0), bind(unseen, network)


def rebuild(name: str, folder: Path) -> None:
    """Profile, solve and measure one network; write its files."""
    entry = ENTRIES[name]
    network, seen, unseen = load(entry)
    table = mpsearch.profile(
        network, seen, folder / f"{name}.csv", choices=CHOICES, samples=len(seen), progress=progress
    )
    measured: dict[str, Any] = {"FP32": network}
    for choice in reversed(CHOICES):
        everywhere = {layer.name: choice for layer in network.layers}
        measured[str(choice)] = mpsearch.apply(network, everywhere, seen)
    whole = size_bytes(network, {layer.name: CHOICES[-1] for layer in network.layers})
    for share in entry.shares:
        limit = share * whole // 100
        solution = mpsearch.solve(table, size=f"{limit}B")
        if solution.status != "optimal":
            raise InputError(f"{name} at {share} %: expected a proof, got {solution.status}")
        solution.save(folder / f"{name}-{share}.json")
        measured[f"{name}-{share}"] = mpsearch.apply(network, solution, seen)
    mpsearch.evaluate(measured, unseen, fp32=network).save(folder / f"{name}.evaluation.json")


def rows(name: str, folder: Path) -> Iterator[tuple[Evaluation, Assignment | None]]:
    """What was measured of one network: FP32 first, then from the largest to the smallest."""
    evaluations = load_evaluations(folder / f"{name}.evaluation.json")
    for row in sorted(evaluations.rows, key=lambda row: -(row.size_bytes or 0)):
        path = folder / f"{row.name}.json"
        yield row, Assignment.load(path) if path.exists() else None


def table_of(names: Iterable[str], folder: Path = FOLDER) -> str:
    """What was measured as a Markdown table, from the files alone."""
    lines = ["| network | file | bytes | layers | Ω | accuracy % [95 %] | points lost [95 %] |"]
    lines.append("|---|---|---:|---|---:|---:|---:|")
    for name in names:
        entry = ENTRIES[name]
        found = list(rows(name, folder))
        reference = found[0][0]
        for row, assignment in found:
            low, high = (100 * end for end in row.accuracy_interval)
            cells = [entry.title, "", f"{row.size_bytes:,}", "", ""]
            if assignment is None:
                cells[3] = row.name
            else:
                cells[1] = f"[{row.name}](../zoo/{row.name}.json)"
                cells[3], cells[4] = counted(assignment.layers.values()), f"{assignment.omega:.4f}"
            cells.append(f"{100 * row.accuracy:.1f} [{low:.1f}, {high:.1f}]")
            drop, (low, high) = paired_drop(reference.correct, row.correct)
            lost = f"{100 * drop:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            cells.append("" if row is reference else lost)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default=",".join(ENTRIES), show_default=True)
@click.option("--table", is_flag=True, help="Only print the table of what is there.")
@click.option(
    "--folder", default=FOLDER, type=click.Path(file_okay=False, path_type=Path),
    help="Where the files are  [default: zoo/ of the repository]",
)  # fmt: skip
def main(networks: str, table: bool, folder: Path) -> None:
    """Write the folder and print its table."""
    names = networks.split(",")
    try:
        for name in names:
            if name not in ENTRIES:
                raise InputError(f"unknown network {name!r}; expected one of {', '.join(ENTRIES)}")
        for name in () if table else names:
            folder.mkdir(parents=True, exist_ok=True)
            rebuild(name, folder)
        click.echo(table_of(names, folder))
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
