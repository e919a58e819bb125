"""The formats of `mpsearch export`: one row each; a format's code is imported when it is asked for.

A new format is a function `(ExportRequest) -> Exported` in its own package and a row in FORMATS.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError, did_you_mean
from mpsearch.running.notebook import html_table
from mpsearch.running.streams import shown

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.quantization.quantized import QuantizedNetwork


@dataclass(frozen=True)
class ExportRequest:
    """What to write: `output` is a folder or file, `data` the calibration samples (or None).

    The rest are options of single formats, None where they were not given; `flash` and `ram` are
    the bytes that a microcontroller's firmware may take.
    """

    quantized: "QuantizedNetwork"
    data: "Data | None"
    output: str
    wide_bits: int | None = None
    check: bool | None = None
    target: str | None = None
    board: str | None = None
    flash: int | None = None
    ram: int | None = None
    package: str | None = None


@dataclass(frozen=True)
class Exported:
    """What was written."""

    figures: Mapping[str, Any]
    """What `mpsearch export --json` prints."""
    lines: tuple[str, ...]
    """The same for people, a line each."""
    ok: bool = True
    """False where a check found other outputs than the network's: exit code 1."""

    def __repr__(self) -> str:
        more = f"; {len(self.lines) - 1} more in .lines" if len(self.lines) > 1 else ""
        said = self.lines[0] if self.lines else "written" if self.ok else "not written"
        return f"Exported({shown(said, 200)}{more})"

    def _repr_html_(self) -> str:
        """For notebooks: what `mpsearch export` prints."""
        return html_table(self.lines, (), ())


@dataclass(frozen=True)
class Trial:
    """What becomes of a network that can be written: `in_float`, the nodes that stay in float by
    operator; `raised`, what was assigned and what is stored, by layer."""

    in_float: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    raised: Mapping[str, tuple[str, str]] = field(default_factory=dict)


_TRIED = 8  # samples


@dataclass(frozen=True)
class ExportFormat:
    """`writer` is the `module:function` that writes, `trial` the one that goes as far as it takes
    to know whether that is possible; `options` are the request's that the writer takes."""

    description: str
    output: str
    writer: str
    trial: str
    options: tuple[str, ...] = ()

    def write(self, request: ExportRequest) -> Exported:
        """Write the request in this format. Raises InputError as the format's own function, with
        all that the format refuses."""
        from mpsearch.exporters.refusing import all_refusals
        from mpsearch.graph.refusals import Refused

        write: Callable[[ExportRequest], Exported] = _imported(self.writer)
        try:
            return write(request)
        except Refused as error:
            if request.data is None:
                raise
            data = request.data.take(_TRIED, 0)
            rest = all_refusals(self.try_out, request.quantized, data)
            raise Refused(rest or error.refusals, error.hint) from None

    def try_out(self, quantized: "QuantizedNetwork", data: "Data") -> "Trial":
        """Go as far as it takes to know that the network can be written. Raises InputError, and
        MissingExtraError for packages that are missing."""
        trial: Callable[[QuantizedNetwork, Data], Trial] = _imported(self.trial)
        return trial(quantized, data)


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


FORMATS: Mapping[str, ExportFormat] = {
    "c": ExportFormat(
        "a folder of self-contained C99",
        "a new or empty folder",
        "mpsearch.exporters.c.folder:write",
        "mpsearch.exporters.c.folder:trial",
        ("wide_bits", "check", "target", "board", "flash", "ram", "package"),
    ),
    "litert": ExportFormat(
        "a LiteRT (TFLite) file that computes with 8-bit and 4-bit integers",
        "a .tflite file",
        "mpsearch.exporters.litert.check:write",
        "mpsearch.exporters.litert.check:trial",
        ("check",),
    ),
    "tflm": ExportFormat(
        "a folder for TensorFlow Lite Micro: the file, as a C array, its operators and its arena",
        "a new or empty folder",
        "mpsearch.exporters.tflm.folder:write",
        "mpsearch.exporters.tflm.folder:trial",
        ("check",),
    ),
    "onnx": ExportFormat(
        "a QDQ model with packed 4- and 8-bit weights",
        "a file that ends in .onnx",
        "mpsearch.exporters.onnx.exported:write",
        "mpsearch.exporters.onnx.exported:trial",
        ("check",),
    ),
}
OPTIONS = {"wide_bits": "--wide", "check": "--check and --no-check"} | {
    name: f"--{name}" for name in ("target", "board", "flash", "ram", "package")
}


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
    target: str | None = None,
    board: str | None = None,
    flash: int | None = None,
    ram: int | None = None,
    package: str | None = None,
) -> Exported:
    """Write a quantized network as code or as a file that a device runs, as `mpsearch export` does.

    form: `c` or `tflm` (`output` is a new or empty folder), `onnx` or `litert` (a file). data:
    calibration samples; without them nothing is compared, and formats that need them raise
    InputError. wide_bits: 16 or 32, of sums and outputs, whatever the network stores (`c` alone).
    check: run what was written and compare (None: where possible). target: the processor, such as
    `cortex-m4` (`c` alone; None: any). board, flash, ram: where the firmware of a Cortex-M is
    linked, such as `mps2-an386`, and the bytes that it may take there. package: `arduino`,
    `esp-idf`, `zephyr`, `platformio` or `cmake`: a library instead (`c` alone). Raises InputError
    for a format that is none, an option that the format lacks, and what it cannot hold.
    """
    if form not in FORMATS:
        close = did_you_mean(form, FORMATS)
        raise InputError(f"got the format {form!r}{close}; expected {', '.join(FORMATS)}")
    request = ExportRequest(
        quantized, data, os.fspath(output), wide_bits, check, target, board, flash, ram, package
    )
    check_options(form, request)
    return FORMATS[form].write(request)
