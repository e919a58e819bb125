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
      mpsearch convert weights.safetensors --model resnet20 --data cifar10:train -o model.pt
    """
    from mpsearch.data import bind, read_arrays
    from mpsearch.graph import memory_budget
    from mpsearch.graph.network_file import save
    from mpsearch.importers.loading import load_module, network_of, notes_of
    from mpsearch.losses.sum_loss import separate

    arrays = None if data is None else read_arrays(data)
    source = model.source(path)
    with memory_budget.of_load(path, source.max_memory):
        module, examples = load_module(source, arrays)
        print_notes(path, notes_of(module))
        network = network_of(source, module, examples)
    sample = {}
    if arrays is not None:
        bound = bind(arrays, network).take(samples, seed)
        sample = {f"x{i}": x for i, x in enumerate(bound.inputs)}
        if bound.labels is not None:
            sample |= separate(bound.labels, bound.loss)
    save(module, output, examples, sample)
    if as_json:
        print_json({"output": output, "layers": len(network.layers), "samples": len(sample)})
        return
    echo(f"wrote {output}: {len(network.layers)} layers, {network.parameters:,} parameters")
