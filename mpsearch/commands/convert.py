"""`mpsearch convert`."""

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.commands.loading import print_notes
from mpsearch.commands.options import ModelOptions, model_options


@click.command()
@click.argument("path", metavar="MODEL")
@click.option("--data", metavar="D", help="Samples to keep in the file as its calibration sample.")
@click.option("--samples", type=click.IntRange(1), default=256, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", required=True, help="The mpsearch file to write.")
@model_options
@json_option
def convert(
    path: str,
    data: str | None,
    samples: int,
    seed: int,
    output: str,
    as_json: bool,
    model: ModelOptions,
) -> None:
    """Turn MODEL into an mpsearch file: graph, weights and a sample, nothing that executes.

    \b
    Example:
      mpsearch convert exported.pt2 --trust --data sample.npz -o model.pt
      mpsearch convert a.safetensors --architecture resnet20 --data c.npz -o a.pt
    """
    from mpsearch.data import read_arrays
    from mpsearch.importers.loading import convert as convert_file

    arrays = None if data is None else read_arrays(data)
    found = convert_file(model.source(path), output, arrays, samples, seed)
    network = found.network
    print_notes(path, found.notes)
    if as_json:
        print_json({"output": output, "layers": len(network.layers), "samples": len(found.sample)})
        return
    echo(f"wrote {output}: {len(network.layers)} layers, {network.parameters:,} parameters")
