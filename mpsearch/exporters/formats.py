"""The formats of `mpsearch export`: one row each; a format's code is imported when it is asked for.

A new format is a function `(ExportRequest) -> Exported` in its own package and a row in FORMATS.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.quantization.quantized import QuantizedNetwork


@dataclass(frozen=True)
class ExportRequest:
    """What to write: `output` is a folder or file, `data` the calibration samples (or None).

    `wide_bits` and `check` are options of single formats, None where they were not given.
    """

    quantized: "QuantizedNetwork"
    data: "Data | None"
    output: str
    wide_bits: int | None = None
    check: bool | None = None


@dataclass(frozen=True)
class Exported:
    """What was written."""

    figures: Mapping[str, Any]
    """What `mpsearch export --json` prints."""
    lines: tuple[str, ...]
    """The same for people, a line each."""
    ok: bool = True
    """False where a check found other outputs than the network's: exit code 1."""


@dataclass(frozen=True)
class ExportFormat:
    """`writer` is the `module:function` that writes; `options` are the request's that it takes."""

    description: str
    output: str
    writer: str
    options: tuple[str, ...] = ()

    def write(self, request: ExportRequest) -> Exported:
        """Write the request in this format. Raises InputError as the format's own function."""
        module, _, function = self.writer.partition(":")
        write: Callable[[ExportRequest], Exported] = getattr(import_module(module), function)
        return write(request)


FORMATS: Mapping[str, ExportFormat] = {
    "c": ExportFormat(
        "a folder of self-contained C99",
        "a new or empty folder",
        "mpsearch.exporters.c.folder:write",
        ("wide_bits", "check"),
    ),
    "litert": ExportFormat(
        "a LiteRT (TFLite) file that computes with 8-bit and 4-bit integers",
        "a .tflite file",
        "mpsearch.exporters.litert.check:write",
        ("check",),
    ),
    "onnx": ExportFormat(
        "a QDQ model with packed 4- and 8-bit weights",
        "a file that ends in .onnx",
        "mpsearch.exporters.onnx.exported:write",
        ("check",),
    ),
}
OPTIONS = {"wide_bits": "--wide", "check": "--check and --no-check"}


def check_options(form: str, request: ExportRequest) -> None:
    """Raise InputError for an option that was given and that `form` does not take."""
    for name, words in OPTIONS.items():
        if getattr(request, name) is not None and name not in FORMATS[form].options:
            takers = [known for known, row in FORMATS.items() if name in row.options]
            raise InputError(f"--format {form} has no {words}; it goes with {', '.join(takers)}")


def export(
    quantized: "QuantizedNetwork",
    output: str | os.PathLike[str],
    form: str = "c",
    data: "Data | None" = None,
    wide_bits: int | None = None,
    check: bool | None = None,
) -> Exported:
    """Write a quantized network as code or as a file that a device runs, as `mpsearch export` does.

    form: `c` (`output` is a new or empty folder), `onnx` or `litert` (`output` is a file). data:
    calibration samples; without them nothing is compared, and formats that need them raise
    InputError. wide_bits: 16 or 32, of sums and outputs (`c` alone). check: run what was written
    and compare (None: where possible). Raises InputError for a format that is none, an option that
    the format lacks, and what it cannot hold.

    >>> quantized = mpsearch.apply(network, solution, data)
    >>> mpsearch.export(quantized, "network", data=data, check=False).ok
    True
    """
    if form not in FORMATS:
        raise InputError(f"got the format {form!r}; expected {', '.join(FORMATS)}")
    request = ExportRequest(quantized, data, os.fspath(output), wide_bits, check)
    check_options(form, request)
    return FORMATS[form].write(request)
