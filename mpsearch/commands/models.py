"""`mpsearch models`: the bundled networks and datasets, and TinyM²Net as a Keras file."""

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.suggesting import Commands


@click.group(cls=Commands, invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the bundled networks and datasets, or export one.

    Parameters are counted with the batch norms' running statistics, as in the TinyM²Net paper.

    \b
    Examples:
      mpsearch models
      mpsearch models export tinym2net-covid --keras net.keras
    """
    if ctx.invoked_subcommand is None:
        _list(as_json)


@models.command()
@click.argument("network")
@click.option(
    "--keras", "output", metavar="FILE", required=True, help="The .keras or .h5 file to write."
)
@click.option("--weights", metavar="MODEL", help="Trained weights: an mpsearch file or state dict.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Draws the weights where none are given.",
)
@json_option
def export(network: str, output: str, weights: str | None, seed: int, as_json: bool) -> None:
    """Write NETWORK, one of the TinyM²Nets, as a Keras model; needs the extra `keras`.

    Inputs have channels last, outputs are logits. With --weights it computes what the trained torch
    network computes; `mpsearch profile net.keras` reads the file back.

    \b
    Examples:
      mpsearch models export tinym2net-covid --keras net.keras
      mpsearch models export tinym2net-covid --keras net.h5 --weights covid.pt
    """
    from mpsearch.importers.loading import read_tensors
    from mpsearch.models.tinym2net_keras import write_keras

    tensors = None if weights is None else read_tensors(weights)
    parameters = write_keras(network, output, tensors, seed, source=weights or "")
    if as_json:
        print_json({"output": output, "parameters": parameters})
        return
    echo(f"wrote {output}: {parameters:,} parameters")


def _list(as_json: bool) -> None:
    from mpsearch.models.datasets import DATASETS, why_unavailable
    from mpsearch.models.registry import ARCHITECTURES, build
    from mpsearch.models.tinym2net import parameter_count

    counts = {name: parameter_count(build(name)) for name in ARCHITECTURES}
    reasons = {name: why_unavailable(name) for name in DATASETS}
    if as_json:
        networks = [
            {
                "name": name,
                "parameters": counts[name],
                "inputs": {key: list(shape) for key, shape in its.inputs.items()},
                "classes": its.classes,
                "dataset": its.dataset,
                "reference": its.reference,
                "description": its.description,
            }
            for name, its in ARCHITECTURES.items()
        ]
        datasets = [
            {
                "name": name,
                "inputs": list(its.inputs),
                "available": reasons[name] is None,
                "reason": reasons[name],
                "description": its.description,
            }
            for name, its in DATASETS.items()
        ]
        print_json({"networks": networks, "datasets": datasets})
        return
    print_table(
        ("network", "parameters", "classes", "inputs"),
        (
            (name, f"{counts[name]:,}", str(its.classes), _inputs(its.inputs))
            for name, its in ARCHITECTURES.items()
        ),
    )
    print_table(
        ("dataset", "inputs", "available", "default of"),
        (
            (
                name,
                ", ".join(its.inputs),
                "yes" if reasons[name] is None else "no",
                ", ".join(key for key, one in ARCHITECTURES.items() if one.dataset == name),
            )
            for name, its in DATASETS.items()
        ),
    )
    for name, its in DATASETS.items():
        echo(f"{name}: {its.description}")
        if reasons[name] is not None:
            echo(f"  not available: {reasons[name]}")


def _inputs(inputs: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in inputs.items())
