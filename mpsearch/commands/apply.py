"""`mpsearch apply`."""

from typing import Any

import click

from mpsearch.console import json_option, print_json
from mpsearch.model_options import load_model_and_data, model_options, source_of


@click.command()
@click.argument("path", metavar="MODEL")
@click.argument("assignment", default="assignment.json")
@click.option("--data", metavar="D", help="Calibration data [default: the model file's sample].")
@click.option("-o", "--output", default="quantized.pt", show_default=True)
@model_options
@json_option
def apply(
    path: str, assignment: str, data: str | None, output: str, as_json: bool, **model: Any
) -> None:
    """Quantize MODEL as ASSIGNMENT says, with ranges calibrated on data.

    The written file holds integer weights packed at their bit widths, scales and biases;
    `mpsearch evaluate` loads it again with identical numbers.

    \b
    Example:
      mpsearch apply model.pt assignment.json -o quantized.pt
    """
    from mpsearch.assignment import Assignment
    from mpsearch.calibration import calibrate
    from mpsearch.cost import bops, size_bytes
    from mpsearch.quantized import check_layers, quantize
    from mpsearch.quantized_file import save_quantized
    from mpsearch.units import format_count, format_size

    choices = Assignment.load(assignment).layers
    loaded, bound = load_model_and_data(source_of(path, **model), data, "calibration")
    network = loaded.network
    check_layers(network, choices)
    quantized = quantize(network, choices, calibrate(network, bound))
    save_quantized(quantized, output)
    size, operations = size_bytes(network, choices), bops(network, choices)
    if as_json:
        print_json({"output": output, "size_bytes": size, "bops": operations,
                    "fp32_bytes": network.fp32_bytes})  # fmt: skip
        return
    click.echo(
        f"wrote {output}: {format_size(size)} of packed weights, biases and scales (FP32: "
        f"{format_size(network.fp32_bytes)}), {format_count(operations)}BOPS; ranges from "
        f"{len(bound)} samples of {bound.name}"
    )
