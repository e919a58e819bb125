"""`mpsearch check`."""

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.commands.options import ModelOptions, model_options

if TYPE_CHECKING:
    from mpsearch.exporters.checking import TargetCheck

_WIDTH = 80
_NAMES = {
    "file": "mpsearch file",
    "c": "C",
    "litert": "LiteRT",
    "tflm": "LiteRT Micro",
    "onnx": "ONNX",
}


@click.command()
@click.argument("path", metavar="MODEL")
@click.option("--data", metavar="D", help="Samples for ranges [default: those in the file].")
@model_options
@json_option
def check(path: str, data: str | None, as_json: bool, model: ModelOptions) -> None:
    """Say what each export will make of MODEL: yes, or everything that stops it.

    MODEL is what `mpsearch profile` takes, tried with 8 bits in every layer, or a quantized file,
    tried with its own. The exports themselves are tried, but nothing is run, measured or written:
    what stands here is what `mpsearch export` will say. Listed per target are the operators that
    have no form there, with their nodes; what ONNX computes in float; what LiteRT raises to more
    bits.

    \b
    Example:
      mpsearch check model.pt
      mpsearch check net.onnx --json
    """
    from mpsearch.data import read_arrays
    from mpsearch.exporters.checking import check as check_network
    from mpsearch.exporters.checking import read
    from mpsearch.quantization.quantized import QuantizedNetwork

    arrays = None if data is None else read_arrays(data)
    network, samples = read(model.source(path), arrays)
    found = check_network(network, samples)
    if as_json:
        print_json({"model": path, "targets": {k: each.to_json() for k, each in found.items()}})
        return
    bits = "its own bits" if isinstance(network, QuantizedNetwork) else "8 bits in every layer"
    echo(f"what each export makes of {path}, with {bits}:", *target_lines(found))


def target_lines(found: "Mapping[str, TargetCheck]") -> list[str]:
    """A paragraph for each target, on 80 columns."""
    from mpsearch.graph.refusals import grouped

    lines: list[str] = []
    before = None
    for name, each in found.items():
        start = f"  {_NAMES[name]:<13}  "
        if each.ok is None:
            lines += _wrapped(start, f"not known: {each.note}")
            continue
        if not each.ok:
            if before is not None and each.refused == before.refused:
                lines += _wrapped(start, f"no: the same as {_NAMES[before.target]}")
                continue
            before = each
            lines += _wrapped(start, f"no: {len(each.refused)} refused")
            for line in grouped(each.refused):
                lines += _wrapped("    ", line)
            continue
        said = ["yes"]
        if each.in_float:
            counts = ", ".join(f"{name} ({len(nodes)})" for name, nodes in each.in_float.items())
            said.append(f"in float: {counts}")
        if each.raised:
            counts = ", ".join(f"{layer} {a} to {b}" for layer, (a, b) in each.raised.items())
            said.append(f"raised: {counts}")
        lines += _wrapped(start, "; ".join(said))
    return lines


def _wrapped(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=start, subsequent_indent=" " * (len(start) + 2),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
