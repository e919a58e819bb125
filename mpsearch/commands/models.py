"""`mpsearch models`: the bundled networks and datasets."""

import click

from mpsearch.console import json_option, print_json, print_table


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the bundled networks and datasets.

    Parameters are counted with the batch norms' running statistics, as in the TinyM²Net paper.

    \b
    Example:
      mpsearch models
    """
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
        ("network", "parameters", "inputs", "classes", "dataset"),
        (
            (name, f"{counts[name]:,}", _inputs(its.inputs), str(its.classes), its.dataset)
            for name, its in ARCHITECTURES.items()
        ),
    )
    print_table(
        ("dataset", "inputs", "available"),
        (
            (name, ", ".join(its.inputs), "yes" if reasons[name] is None else "no")
            for name, its in DATASETS.items()
        ),
    )
    for name, its in DATASETS.items():
        click.echo(f"{name}: {its.description}")
        if reasons[name] is not None:
            click.echo(f"  not available: {reasons[name]}")


def _inputs(inputs: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in inputs.items())
