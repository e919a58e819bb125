"""`mpsearch export`."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.commands.options import ModelOptions, model_options
from mpsearch.errors import InputError
from mpsearch.exporters.formats import FORMATS
from mpsearch.exporters.formats import export as write_export
from mpsearch.exporters.packages.layout import PACKAGES
from mpsearch.tables.units import parse_bytes

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.importers.loading import ModelSource
    from mpsearch.quantization.quantized import QuantizedNetwork


@click.command()
@click.argument("path", metavar="QUANTIZED")
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)), default="c", show_default=True,
    help="; ".join(f"{name}: {row.description}" for name, row in FORMATS.items()) + ".",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="PATH", required=True,
    help="; ".join(f"{name}: {row.output}" for name, row in FORMATS.items()) + ".",
)  # fmt: skip
@click.option(
    "--calibration",
    metavar="D",
    help="Data for ranges and checks [default: QUANTIZED's own sample].",
)
@click.option("--fp32", metavar="MODEL", help="Or the float model, whose sample is used.")
@click.option(
    "--wide", type=click.Choice(["32", "16"]),
    help="c: keep residual sums, means and outputs in 32 bits, or 16, without regard to what the "
    "file stores in 8 or 16 [default: as the file says; 32 where it does not].",
)  # fmt: skip
@click.option(
    "--target", metavar="T",
    help="c: the processor, such as cortex-m4, cortex-a76 or x86-64 [default: any].",
)  # fmt: skip
@click.option(
    "--board", metavar="B",
    help="c, cortex-m…: the board that the firmware is for [default: one with that processor].",
)  # fmt: skip
@click.option("--flash", metavar="145KB", help="The same: what the firmware may take of its flash.")
@click.option("--ram", metavar="64KB", help="The same: of its RAM, with the stack.")
@click.option(
    "--package", type=click.Choice(list(PACKAGES)),
    help="c: a library of this ecosystem instead, with its manifests and an example.",
)  # fmt: skip
@click.option(
    "--check/--no-check", default=None,
    help="Run what is exported on the data and compare [default: where possible].",
)  # fmt: skip
@model_options
@json_option
def export(
    path: str,
    form: str,
    output: str,
    calibration: str | None,
    fp32: str | None,
    wide: str | None,
    target: str | None,
    board: str | None,
    flash: str | None,
    ram: str | None,
    package: str | None,
    check: bool | None,
    as_json: bool,
    model: ModelOptions,
) -> int:
    """Write QUANTIZED, a file of `mpsearch apply` or `finetune`, as code that a device runs.

    The C code computes with integers only, bit by bit what `mpsearch evaluate --integer` measures:
    packed weights, per-channel factors, one static memory for all tensors, no allocation. The
    folder builds with make or CMake, and `make check` compares it with the reference. Before it is
    written, the reference is compared with the fake-quantized network on the calibration data.

    For a Cortex-M it is a firmware project: startup, linker script, main; `make` builds it with
    arm-none-eabi-gcc, `mpsearch device run` runs it in QEMU and counts its instructions.

    The ONNX model has QuantizeLinear/DequantizeLinear pairs where the network quantizes; the export
    runs it with onnxruntime and says under which session options it computes the right thing.

    What cannot be written is said with every operator and node that stops it; `mpsearch check`
    says so before any time is spent.

    --package writes the C as a library of the Arduino IDE, ESP-IDF, Zephyr, PlatformIO or CMake,
    named after its folder. --format tflm writes a folder for TensorFlow Lite Micro.

    The LiteRT file computes with 8-bit activations and 4- or 8-bit weights; what was assigned other
    bits is raised to these and listed.

    \b
    Example:
      mpsearch export quantized.pt -o network
      mpsearch export quantized.pt --format c --calibration train.npz -o network
      mpsearch export quantized.pt --target cortex-m4 --ram 64KB -o firmware
      mpsearch export quantized.pt --package zephyr -o zephyr
      mpsearch export quantized.pt --format onnx -o network.onnx
      mpsearch export quantized.pt --format litert -o network.tflite
    """
    from mpsearch.importers.kinds import QUANTIZED, detect
    from mpsearch.quantization.quantized_file import load_quantized

    if detect(path) != QUANTIZED:
        raise InputError(
            f"{path} is not a quantized network; write one with `mpsearch apply` or "
            "`mpsearch finetune` and export that file"
        )
    source = model.source(path)
    quantized = load_quantized(path, source.max_memory)
    data = _calibration(
        quantized, calibration, None if fp32 is None else replace(source, path=fp32)
    )
    written = write_export(
        quantized, output, form, data, None if wide is None else int(wide), check, target, board,
        None if flash is None else parse_bytes(flash), None if ram is None else parse_bytes(ram),
        package,
    )  # fmt: skip
    if as_json:
        print_json({"output": output, "export_format": form, **written.figures})
    else:
        echo(*written.lines)
    return 0 if written.ok else 1


def _calibration(
    quantized: "QuantizedNetwork", calibration: str | None, float_model: "ModelSource | None"
) -> "Data | None":
    """The named data, or else the sample in the float model, or in the file itself, or None."""
    from mpsearch.data import bind, check_repeatable, read_arrays
    from mpsearch.graph.arrays import Arrays
    from mpsearch.importers.loading import load_network

    if calibration is not None:
        arrays = read_arrays(calibration)
        check_repeatable(calibration, arrays)
        return bind(arrays, quantized.source, need_labels=False)
    if float_model is not None:
        sample = load_network(float_model).sample
        if sample:
            named = Arrays(f"the sample in {float_model.path}", sample)
            return bind(named, quantized.source, need_labels=False)
    return quantized.calibration()
