"""`mpsearch export --format onnx`: one file, its check, and what it says about itself.

What a layer takes in the ONNX file, beside what the layer table predicts.

Does onnxruntime compute what the fake-quantized network means, and under which options?
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch import __version__
from mpsearch.data import Data
from mpsearch.errors import InputError, first_line, install_extra
from mpsearch.exporters.agreement_of_outputs import (
    LEAST_SAME_CLASS,
    LEAST_WITHIN_STEP,
    MOST_STEPS,
    Agreement,
    Array,
    Reference,
    judge,
)
from mpsearch.exporters.formats import Exported, ExportRequest, Trial
from mpsearch.exporters.onnx.between_quantizers import (
    TRIED,
    SessionSetting,
    open_session,
    preferred,
    wrong_parts,
)
from mpsearch.exporters.onnx.graph_builder import stored_bits
from mpsearch.exporters.onnx.model import OPSET, onnx_model
from mpsearch.exporters.reference_outputs import BATCH, reference_of
from mpsearch.files.whole import write_atomic
from mpsearch.graph.layers import MOVING, Layer, packet
from mpsearch.quantization.packing import bops, layer_bytes, packed_bytes, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS
from mpsearch.running.plugins import has_onnxruntime, onnxruntime_package
from mpsearch.tables.units import format_size


def layer_rows(network: QuantizedNetwork, model: Any) -> list[dict[str, Any]]:
    """One row per layer: bits, stored bits, bytes of packed weights and of all its constants.

    `model` is what `onnx_model` made of the network. Beside weights and biases its constants are
    scales, zero points and bounds of clamps.
    """
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    rows = []
    for layer in network.source.layers:
        choice = network.assignment[layer.name]
        w_bits, a_bits = (_stored(bits) for bits in (choice.w_bits, choice.a_bits))
        prefixes = _prefixes(layer)
        rows.append({
            "layer": layer.name, **choice.to_json(),
            "stored_w_bits": w_bits, "stored_a_bits": a_bits, "macs": layer.macs,
            "weight_bytes": packed_bytes(layer.weights, w_bits),
            "stored_bytes": sum(n for name, n in sizes.items() if name.startswith(prefixes)),
            "size_bytes": layer_bytes(layer, choice),
        })  # fmt: skip
    return rows


def _prefixes(layer: Layer) -> tuple[str, ...]:
    """How the names of the layer's constants begin, see `LayerWriter`."""
    own = ("weight", "weight_by_input", "bias")
    return (*(f"{layer.name}/{kind}/" for kind in own), *(f"{node}/input/" for node in layer.nodes))


def _stored(bits: int) -> int:
    return bits if bits == FLOAT_BITS else stored_bits(bits)


SAMPLES = 256


@dataclass(frozen=True)
class Finding:
    """One setting against the fake-quantized network, output by output.

    `error` is the first line of onnxruntime's where it does not run the model.
    """

    setting: SessionSetting
    outputs: tuple[Agreement, ...] = ()
    error: str | None = None

    @property
    def agrees(self) -> bool:
        """The model runs, and every output is what the network gives."""
        return self.error is None and all(output.ok for output in self.outputs)

    @property
    def largest(self) -> float:
        """The largest difference of any value, in steps of its own output."""
        return max(output.assigned.largest_steps for output in self.outputs)

    def lines(self) -> list[str]:
        """For people: the verdict, and a line per output."""
        if self.error is not None:
            return [f"{self.setting.name}: does not run: {self.error}"]
        verdict = "agrees" if self.agrees else "DIFFERS"
        return [
            f"{self.setting.name}: {verdict}",
            *(f"  {output.line()}" for output in self.outputs),
        ]

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "setting": self.setting.name,
            "agrees": self.agrees,
            "error": self.error,
            "outputs": [output.figures() for output in self.outputs],
        }


@dataclass(frozen=True)
class Check:
    """What every setting gives on `samples` samples.

    `wrong` says what is wrong in the model itself, where that had to be asked.
    """

    onnxruntime: str
    samples: int
    findings: tuple[Finding, ...]
    recommended: SessionSetting | None
    wrong: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The check as JSON."""
        return {
            "onnxruntime": self.onnxruntime,
            "samples": self.samples,
            "least_within_step": LEAST_WITHIN_STEP,
            "least_same_class": LEAST_SAME_CLASS,
            "most_steps": MOST_STEPS,
            "findings": [finding.figures() for finding in self.findings],
            "wrong": list(self.wrong),
        }


def check(model: bytes, network: QuantizedNetwork, data: Data) -> Check:
    """Run a serialized model on at most 256 samples under every setting of TRIED.

    `recommended` is the first of `preferred` that agrees; None where none does. Only then it is
    measured what the network differs from itself, and all is judged again by that, for a model that
    is right between its quantizers. Raises MissingExtraError without onnxruntime.
    """
    version = str(onnxruntime_package().__version__)
    data = data.take(min(SAMPLES, len(data)), 0)
    reference = reference_of(network, data)
    got = [(setting, _tried(setting, model, network, data)) for setting in TRIED]
    fixed = replace(reference, ways=tuple)
    findings = tuple(finding(setting, outputs, fixed) for setting, outputs in got)
    recommended = _recommended(findings, network)
    wrong: tuple[str, ...] = ()
    if recommended is None and any(found.error is None for found in findings):
        findings = tuple(finding(setting, outputs, reference) for setting, outputs in got)
        recommended = _recommended(findings, network)
        if recommended is not None:
            wrong = wrong_parts(model, network, data)
            recommended = None if wrong else recommended
    return Check(version, len(data), findings, recommended, wrong)


def _recommended(findings: tuple[Finding, ...], network: QuantizedNetwork) -> SessionSetting | None:
    good = {found.setting.name for found in findings if found.agrees}
    order = preferred(_only_8_bits(network))
    return next((setting for setting in order if setting.name in good), None)


def outputs_under(
    setting: SessionSetting, model: bytes, network: QuantizedNetwork, data: Data
) -> Array:
    """The outputs under one setting: one as it is, several flattened side by side."""
    session = open_session(model, setting)
    names = network.source.input_names
    batches = [
        session.run(None, {k: x.numpy() for k, x in zip(names, inputs, strict=True)})
        for inputs, _ in data.batches(BATCH)
    ]
    if len(network.source.outputs) == 1:
        return np.concatenate([batch[0] for batch in batches])
    rows = [np.concatenate([x.reshape(len(x), -1) for x in batch], axis=1) for batch in batches]
    return np.concatenate(rows)


def finding(setting: SessionSetting, got: Array | str, reference: Reference) -> Finding:
    """What a setting gave, or why it gave nothing, against the network."""
    if isinstance(got, str):
        return Finding(setting, error=got)
    try:
        return Finding(setting, judge(reference, got))
    except ValueError as error:  # a model of other outputs
        return Finding(setting, error=str(error))


def _tried(
    setting: SessionSetting, model: bytes, network: QuantizedNetwork, data: Data
) -> Array | str:
    try:
        return outputs_under(setting, model, network, data)
    except Exception as error:  # onnxruntime's own exceptions have no common base class
        return _short(error)


def _only_8_bits(network: QuantizedNetwork) -> bool:
    bits = {b for c in network.assignment.values() for b in (c.w_bits, c.a_bits)}
    return all(b <= 8 and stored_bits(b) == 8 for b in bits)


def _short(error: Exception) -> str:
    """onnxruntime's message without its codes, in one line that fits a terminal."""
    text = first_line(error).rpartition("[ONNXRuntimeError] : ")[2]
    return re.sub(r"^\d+ : \w+ : ?", "", text)[:160] or "it gives no reason"


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


def trial(quantized: QuantizedNetwork, data: Data) -> Trial:
    """Build the model without running it. Raises InputError as `onnx_model`; MissingExtraError."""
    onnx_model(quantized)
    in_layers = {node for layer in quantized.source.layers for node in layer.nodes}
    found: dict[str, tuple[str, ...]] = {}
    for node in quantized.source.graph.graph.nodes:
        name = packet(node)
        if node.name not in in_layers and "dtype" in node.meta and name and name not in MOVING:
            found[name] = (*found.get(name, ()), node.name)
    return Trial(in_float=found)


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
    return "" if has_onnxruntime() else f"no onnxruntime; {install_extra('onnx')}"


def _add_metadata(model: Any, document: dict[str, Any]) -> None:
    """Bits and recommended options in the model's own metadata."""
    layers = {
        row["layer"]: [
            row["w_bits"],
            row["a_bits"],
            *(row[key] for key in ("choice",) if key in row),
        ]
        for row in document["layers"]
    }
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
