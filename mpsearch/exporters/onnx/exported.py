"""`mpsearch export --format onnx`: one file, its check, and what it says about itself."""

import json
from pathlib import Path
from typing import Any

from mpsearch import __version__
from mpsearch.errors import InputError
from mpsearch.exporters.formats import Exported, ExportRequest
from mpsearch.exporters.onnx.check import Check, check
from mpsearch.exporters.onnx.model import OPSET, onnx_model
from mpsearch.exporters.onnx.sizes import layer_rows
from mpsearch.files.writing import write_atomic
from mpsearch.quantization.cost import bops, size_bytes
from mpsearch.running.optional import has_onnxruntime, onnxruntime_package
from mpsearch.tables.units import format_size

FORMAT, VERSION = "mpsearch.onnx_export", 2


def write(request: ExportRequest) -> Exported:
    """Write FILE.onnx and FILE.onnx.json; nothing where no setting of onnxruntime agrees.

    Raises InputError as `onnx_model`, and for an output that is no .onnx file in a folder that is
    there; MissingExtraError for packages that are missing.
    """
    target = _target(request.output)
    why_not = _why_not_checked(request)
    model = onnx_model(request.quantized)
    checked = None
    if not why_not:
        assert request.data is not None
        checked = check(model.SerializeToString(), request.quantized, request.data)
    document = describe(request, model, checked)
    _add_metadata(model, document)
    content: bytes = model.SerializeToString()
    document["file_bytes"] = len(content)
    if checked is not None and checked.recommended is None:
        lines = (
            f"not written: no option of onnxruntime {checked.onnxruntime} gives what the network "
            "computes (--no-check writes the model)",
            *_findings(checked),
        )
        return Exported(document, lines, ok=False)
    write_atomic(target, content)
    write_atomic(f"{target}.json", json.dumps(document, indent=1) + "\n")
    return Exported(document, _lines(request.output, document, checked, why_not))


def describe(request: ExportRequest, model: Any, checked: Check | None) -> dict[str, Any]:
    """The figures of FILE.onnx.json, without the size of the file."""
    network, chosen = request.quantized.source, request.quantized.assignment
    rows = layer_rows(request.quantized, model)
    recommended = None if checked is None else checked.recommended
    return {
        "format": FORMAT,
        "version": VERSION,
        "mpsearch": __version__,
        "opset": OPSET,
        "size_bytes": size_bytes(network, chosen),
        "stored_bytes": sum(row["stored_bytes"] for row in rows),
        "bops": bops(network, chosen),
        "layers": rows,
        "inputs": [
            {"name": name, "shape": list(shape)}
            for name, shape in zip(network.input_names, network.input_shapes, strict=True)
        ],
        "outputs": [
            {"name": given.name, "shape": list(output.shape)}
            for given, output in zip(model.graph.output, network.outputs, strict=True)
        ],
        "recommended": None if recommended is None else recommended.describe(),
        "check": None if checked is None else checked.describe(),
    }


def _target(output: str) -> Path:
    target = Path(output)
    if target.suffix != ".onnx":
        raise InputError(f"got the output {output!r}; expected a file name that ends in .onnx")
    if target.is_dir():
        raise InputError(f"{output} is a folder; choose a file with -o")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent}; make it, or choose another with -o")
    return target


def _why_not_checked(request: ExportRequest) -> str:
    """Empty when the check runs; --check asks for it and raises where it cannot."""
    if request.check is False:
        return "not asked for"
    if request.check:
        onnxruntime_package()
        if request.data is None:
            raise InputError("--check needs data: give --calibration, or --fp32 with a sample")
    if request.data is None:
        return "no data; give --calibration or --fp32"
    return "" if has_onnxruntime() else "no onnxruntime; pip install 'mpsearch[onnx]'"


def _add_metadata(model: Any, document: dict[str, Any]) -> None:
    """Bits and recommended options in the model's own metadata."""
    layers = {row["layer"]: [row["w_bits"], row["a_bits"]] for row in document["layers"]}
    entries = {
        "mpsearch.layers": layers,
        "mpsearch.recommended": document["recommended"],
        "mpsearch.check": document["check"],
    }
    for key, value in entries.items():
        if value is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, json.dumps(value)


def _lines(
    output: str, document: dict[str, Any], checked: Check | None, why_not: str
) -> tuple[str, ...]:
    rows = document["layers"]
    stored, predicted = document["stored_bytes"], document["size_bytes"]
    lines = [
        f"wrote {output}: QDQ, opset {document['opset']}, {len(rows)} layers, "
        f"{format_size(document['file_bytes'])}",
        f"  constants {format_size(stored)} for {format_size(predicted)} in the table: QDQ repeats "
        "scales and has zero points",
    ]
    for kind, noun in (("w", "weights"), ("a", "activations")):
        wider = [row for row in rows if row[f"stored_{kind}_bits"] != row[f"{kind}_bits"]]
        if wider:
            names = ", ".join(
                f"{row['layer']} ({row[f'{kind}_bits']} as {row[f'stored_{kind}_bits']})"
                for row in wider
            )
            lines.append(f"  wider {noun}, as ONNX has 4, 8 and 16 bits: {names}")
    if checked is None:
        return (*lines, f"  not checked: {why_not}")
    assert checked.recommended is not None
    return (*lines, *_findings(checked), f"use: {checked.recommended.name}")


def _findings(checked: Check) -> list[str]:
    return [
        f"  onnxruntime {checked.onnxruntime} on {checked.samples} samples, in steps of an 8-bit "
        "output:",
        *(f"    {line}" for finding in checked.findings for line in finding.lines()),
        *(f"    the model itself is wrong: {phrase}" for phrase in checked.wrong),
    ]
