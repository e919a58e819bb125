"""`mpsearch export`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mpsearch.console import json_option, print_json
from mpsearch.errors import InputError
from mpsearch.model_options import model_options, source_of

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.model_files import ModelSource
    from mpsearch.quantized import QuantizedNetwork


@click.command()
@click.argument("path", metavar="QUANTIZED")
@click.option(
    "--format", "form", type=click.Choice(["c"]), default="c", show_default=True,
    help="c: a folder of self-contained C99.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FOLDER", required=True, help="A new or empty folder.")
@click.option("--calibration", metavar="D", help="Data for the ranges of sums and outputs.")
@click.option("--fp32", metavar="MODEL", help="Or the float model, whose sample is used for them.")
@click.option(
    "--wide", type=click.Choice(["32", "16"]), default="32", show_default=True,
    help="Bits of residual sums, means and outputs; 16 halves their memory and adds noise.",
)  # fmt: skip
@model_options
@json_option
def export(
    path: str,
    form: str,
    output: str,
    calibration: str | None,
    fp32: str | None,
    wide: str,
    as_json: bool,
    **model: Any,
) -> None:
    """Write QUANTIZED, a file of `mpsearch apply` or `finetune`, as code that a device runs.

    The C code computes with integers only, bit by bit what `mpsearch evaluate --integer` measures:
    packed weights, per-channel factors, one static memory for all tensors, no allocation. The
    folder builds with make or CMake, and `make check` compares it with the reference.

    \b
    Example:
      mpsearch export quantized.pt --fp32 model.pt -o network
      mpsearch export quantized.pt --format c --calibration train.npz -o network
    """
    from mpsearch.c_export.folder import export_c
    from mpsearch.integer.network import ranges_from
    from mpsearch.model_files import QUANTIZED, detect
    from mpsearch.quantized_file import load_quantized

    if detect(path) != QUANTIZED:
        raise InputError(
            f"{path} is not a quantized network; write one with `mpsearch apply` or "
            "`mpsearch finetune` and export that file"
        )
    quantized = load_quantized(path)
    data = _calibration(quantized, calibration, None if fp32 is None else source_of(fp32, **model))
    written = export_c(quantized, ranges_from(data), output, int(wide))
    if as_json:
        figures = {key: value for key, value in written.document.items() if key != "files"}
        print_json({"output": output, "export_format": form, **figures})
        return
    _print(output, written.document)


def _calibration(
    quantized: "QuantizedNetwork", calibration: str | None, float_model: "ModelSource | None"
) -> "Data | None":
    """The named data, or else the sample in the float model, or None."""
    from mpsearch.data import Arrays, bind, check_repeatable, read_arrays
    from mpsearch.model_files import load_network

    if calibration is not None:
        arrays = read_arrays(calibration)
        check_repeatable(calibration, arrays)
        return bind(arrays, quantized.source)
    if float_model is not None:
        sample = load_network(float_model).sample
        if sample:
            return bind(Arrays(f"the sample in {float_model.path}", sample), quantized.source)
    return None


def _print(output: str, document: Mapping[str, Any]) -> None:
    from mpsearch.units import format_size

    constants, arena = document["constant_bytes"], document["arena"]
    total, peak = sum(constants.values()), arena["peak_bytes"]
    parts = ", ".join(f"{kind} {format_size(size)}" for kind, size in constants.items())
    above = peak / arena["lower_bound_bytes"] - 1 if arena["lower_bound_bytes"] else 0.0
    click.echo(f"wrote {output}: C99 for {len(document['layers'])} layers")
    click.echo(f"  constants (flash)    {format_size(total)}: {parts}")
    click.echo(
        f"  static memory (SRAM) {format_size(peak)}, {100 * above:.1f} % above the lower bound"
    )
    click.echo(f"next: make -C {output} check")
