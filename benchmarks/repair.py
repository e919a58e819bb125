"""What do activation ranges and post-training repairs win, in measured accuracy?

    python benchmarks/repair.py --networks resnet20,tinym2net-battlefield -o repair.json

Every way to quantize (a range method, or a repair) against every assignment: uniform, and mixed at
half the size of 8 bits, found by the tool's own profile and search. Calibration and profile see
training samples, evenly from all classes; the test split is only measured on.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import torch
from ranking_subjects import SOURCES, load_subject

from mpsearch.budget import Budget
from mpsearch.choice import Choice
from mpsearch.console import progress
from mpsearch.cost import size_bytes
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluate import evaluate
from mpsearch.evaluation import Evaluation, paired_drop
from mpsearch.files import write_atomic
from mpsearch.models.datasets import load_dataset
from mpsearch.models.feature_cache import cache_folder
from mpsearch.network import Network
from mpsearch.post_training import PLAIN, PostTraining, quantize_after_training
from mpsearch.profile import ProfileSettings, profile
from mpsearch.solving import solve

WAYS: Mapping[str, PostTraining] = {
    "mse": PLAIN,
    "minmax": replace(PLAIN, ranges="minmax"),
    "percentile": replace(PLAIN, ranges="percentile"),
    "percentile:99.9": replace(PLAIN, ranges="percentile:99.9"),
    "entropy": replace(PLAIN, ranges="entropy"),
    "auto": replace(PLAIN, ranges="auto"),
    "per tensor": replace(PLAIN, per_tensor=True),
    "per tensor + equalize": replace(PLAIN, per_tensor=True, equalize=True),
    "equalize": replace(PLAIN, equalize=True),
    "bias": replace(PLAIN, correct_bias=True),
    "adaptive": replace(PLAIN, rounding="adaptive"),
    "adaptive + bias": PostTraining(),
    "adaptive + bias + equalize": PostTraining(equalize=True),
    "auto + adaptive + bias": PostTraining("auto"),
}
MIXED = tuple(Choice(bits, 8) for bits in (2, 3, 4, 5, 6, 8))
PROFILED = 64  # samples


def assignments(network: Network, calibration: Data, folder: Path) -> dict[str, dict[str, Choice]]:
    """The assignments by name, largest first; `mixed` is half the size of 8 bits everywhere."""
    names = [layer.name for layer in network.layers]
    settings = ProfileSettings(choices=MIXED, samples=PROFILED)
    table, _ = profile(network, calibration, folder / "profile.csv", settings, progress)
    mixed = solve(table, Budget.parse(table, size="50%")).choices
    uniform = {
        str(choice): dict.fromkeys(names, choice)
        for choice in (Choice(8, 8), Choice(4, 8), Choice(4, 4))
    }
    return {"w8a8": uniform["w8a8"], "w4a8": uniform["w4a8"], "mixed 50%": dict(mixed),
            "w4a4": uniform["w4a4"]}  # fmt: skip


def balanced(dataset: str, samples: int, seed: int) -> Data:
    """Training samples, evenly from all classes."""
    loaded = load_dataset(dataset)
    split = loaded.split("train").balanced(samples, len(loaded.classes), seed)
    inputs = tuple(torch.from_numpy(x) for x in split.inputs)
    return Data(f"{dataset}:train", inputs, torch.from_numpy(split.labels))


def lost(reference: Evaluation, row: Evaluation) -> str:
    """Points lost with their paired 95 % interval: `+0.40 [-0.22, +1.02]`."""
    drop, (low, high) = paired_drop(reference.correct, row.correct)
    return f"{100 * drop:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default="resnet20,tinym2net-battlefield", show_default=True)
@click.option("--ways", help="Names with commas; all where not given.")
@click.option("--samples", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the trained network; the user cache by default.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False), default="repair.json")
def main(
    networks: str, ways: str | None, samples: int, seed: int, cache: Path | None, output: str
) -> None:
    """Print one Markdown table per network and write what was measured as JSON."""
    folder = cache or cache_folder() / "ranking"
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, object] = {}
    chosen = ways.split(",") if ways else list(WAYS)
    for way in chosen:
        if way not in WAYS:
            raise click.ClickException(f"unknown way {way!r}; expected {', '.join(WAYS)}")
    try:
        for name in networks.split(","):
            subject = load_subject(name, folder, samples, seed)
            calibration = balanced(SOURCES[name].dataset, samples, seed)
            reference = evaluate("FP32", subject.network, subject.unseen)
            with tempfile.TemporaryDirectory() as temporary:
                wanted = assignments(subject.network, calibration, Path(temporary))
            sizes = {key: size_bytes(subject.network, a) for key, a in wanted.items()}
            right = f"FP32 {sum(reference.correct)} of {reference.n}"
            click.echo(
                f"\n{name}: {right}; {len(calibration)} calibration samples; bytes {sizes}\n"
            )
            click.echo(f"| {' | '.join(['ranges, repairs', *wanted, 'seconds'])} |")
            click.echo("|---" * (len(wanted) + 2) + "|")
            rows: dict[str, dict[str, object]] = {}
            for way in chosen:
                settings = WAYS[way]
                cells, start = {}, time.perf_counter()
                quantized = {
                    key: quantize_after_training(subject.network, choices, calibration, settings)
                    for key, choices in wanted.items()
                }
                seconds = (time.perf_counter() - start) / len(wanted)
                for key, network in quantized.items():
                    cells[key] = evaluate(key, network, subject.unseen)
                rows[way] = {
                    "seconds": seconds,
                    **{key: [sum(row.correct), row.loss] for key, row in cells.items()},
                }
                texts = [lost(reference, row) for row in cells.values()]
                click.echo(f"| {' | '.join([way, *texts, f'{seconds:.0f}'])} |")
                document[name] = {
                    "fp32": sum(reference.correct), "n": reference.n, "bytes": sizes, "rows": rows,
                    "mixed": {layer: str(c) for layer, c in wanted["mixed 50%"].items()},
                }  # fmt: skip
                write_atomic(output, json.dumps(document, indent=1) + "\n")
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
