"""What is each default of quantizing after training worth, in measured accuracy?

    python benchmarks/repair.py --networks resnet20,resnet8,ds-cnn -o repair.json

Every way to quantize against uniform assignments, points lost against FP32 on unseen samples with
their paired 95 % interval. Calibrated on training samples (512, of DS-CNN 300). What was measured
is kept in the output file, so that a killed run goes on.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from equal_bytes import load

from mpsearch.errors import InputError
from mpsearch.files.whole import write_atomic
from mpsearch.models.features import cache_folder
from mpsearch.post_training.repairing import PLAIN, PostTraining
from mpsearch.tables.choice import Choice

ASSIGNMENTS = ("w8a8", "w4a8", "w3a8", "w2a8", "w4a4")
WAYS: Mapping[str, PostTraining] = {
    "nearest": PLAIN,
    "nearest, biases and scales": PostTraining("mse", rounding="nearest"),
    "adaptive": PostTraining("mse", correct_bias=False),
    "adaptive, biases": PostTraining("mse"),
    "default": PostTraining(),
    "default + learned scales": PostTraining(learn_scales=True),
    "default + equalize": PostTraining(equalize=True),
    "default, minmax": PostTraining("minmax"),
    "default, percentile": PostTraining("percentile"),
    "default, entropy": PostTraining("entropy"),
    "default, measured": PostTraining("measured"),
    "default, per tensor": PostTraining(per_tensor=True),
    "default, per tensor + equalize": PostTraining(per_tensor=True, equalize=True),
}


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default="resnet20,resnet8,ds-cnn", show_default=True)
@click.option("--ways", help="Names with semicolons; all where not given.")
@click.option("--assignments", default=",".join(ASSIGNMENTS), show_default=True)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path),
    help="Folder of trained networks; the user cache by default.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False), default="repair.json")
def main(
    networks: str, ways: str | None, assignments: str, cache: Path | None, output: str
) -> None:
    """Print one Markdown table per network and write what was measured as JSON."""
    folder = cache or cache_folder() / "ranking"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = ways.split(";") if ways else list(WAYS)
    for way in chosen:
        if way not in WAYS:
            raise click.ClickException(f"unknown way {way!r}; expected {'; '.join(WAYS)}")
    stored = Path(output)
    document: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    choices = [Choice.parse(text) for text in assignments.split(",")]
    try:
        for name in networks.split(","):
            known = document.setdefault(name, {})
            stick = load(name, folder, known)
            click.echo(f"\n{name}: FP32 {known['fp32']:.1f} % of {known['n']}\n")
            click.echo(f"| | {' | '.join(map(str, choices))} | CPU s |")
            click.echo("|---" * (len(choices) + 2) + "|")
            for way in chosen:
                cells, seconds = [], 0.0
                for choice in choices:
                    everywhere = {layer.name: choice for layer in stick.network.layers}
                    row = stick.measured(everywhere, WAYS[way])
                    low, high = row["interval"]
                    cells.append(f"{row['lost']:+.1f} [{low:+.1f}, {high:+.1f}]")
                    seconds += row["CPU seconds"] / len(choices)
                    write_atomic(output, json.dumps(document, indent=2) + "\n")
                click.echo(f"| {' | '.join([way, *cells, f'{seconds:.0f}'])} |")
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
