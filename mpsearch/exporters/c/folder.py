"""The folder of a C export: generated and fixed files, a check sample, its figures, a README."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpsearch import __version__
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.agreement_of_outputs import Agreement
from mpsearch.exporters.c.readme import readme
from mpsearch.exporters.c.source import Source, generate
from mpsearch.files.json_file import read_json
from mpsearch.files.json_form import by_name, check_form, one_of, text
from mpsearch.files.writing import digest, write_atomic
from mpsearch.integer.graph import IntegerGraph
from mpsearch.integer.inference import run
from mpsearch.integer.lowering import lower
from mpsearch.integer.network import quantize_input
from mpsearch.quantization.cost import bops, size_bytes
from mpsearch.quantization.packing import layer_bytes
from mpsearch.quantization.quantized import QuantizedNetwork

FORMAT, VERSION = "mpsearch.c_export", 1
DOCUMENT = "export.json"
LARGEST_MIB = 64
BUILD = "build"  # what make writes; never ours to judge
CHECK_SAMPLES = 4
SOURCES = (
    "integers.h kernels.h constants.h rescaling.h unpacking.h patches.c products.h "
    "products_avx2.h products_neon.h products_plain.h depthwise.c lines.h layers.c sums.h "
    "pooling.c elementwise.c steps.c border.h border.c main.c "
    "step_times.c"
)
TEMPLATES = {name: name for name in SOURCES.split()} | {
    "Makefile": "Makefile.template",
    "CMakeLists.txt": "CMakeLists.txt.template",
}


@dataclass(frozen=True)
class CExport:
    """What was written: the folder and the document in its export.json."""

    folder: Path
    document: Mapping[str, Any]


def export_c(
    quantized: QuantizedNetwork,
    calibration: Data,
    folder: str | os.PathLike[str],
    wide_bits: int = 32,
) -> CExport:
    """Write the network as C99 into `folder`, which is new, empty, or an export without changes.

    Ranges of sums and outputs come from `calibration`, whose first samples are stored for
    `make check`. Raises InputError for a layer in float, an operator without an integer form, and
    for a folder with anything else in it; nothing is written then.
    """
    graph = lower(quantized, calibration, wide_bits=wide_bits)
    return write_folder(graph, quantized, calibration, folder)


def write_folder(
    graph: IntegerGraph,
    quantized: QuantizedNetwork,
    calibration: Data,
    folder: str | os.PathLike[str],
    agreement: Sequence[Agreement] = (),
) -> CExport:
    """As `export_c`, for a graph that was lowered from `quantized`; `agreement` goes into
    export.json."""
    target = Path(folder)
    check_folder(target)
    source = generate(graph, quantized)
    document = describe(graph, quantized, source)
    document["agreement"] = [found.figures() for found in agreement]
    contents: dict[str, bytes] = {name: code.encode() for name, code in source.files.items()}
    for name, template in TEMPLATES.items():
        contents[name] = (files("mpsearch.exporters.c") / template).read_bytes()
    contents |= check_sample(graph, calibration)
    contents["README.md"] = readme(graph, document).encode()
    document["files"] = {name: digest(content) for name, content in sorted(contents.items())}
    (target / "check").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomic(target / name, content)
    write_atomic(target / DOCUMENT, json.dumps(document, indent=1) + "\n")
    return CExport(target, document)


def check_folder(folder: Path) -> None:
    """Raise InputError unless an export may be written to `folder` without losing anything."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; choose another with -o")
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_dir() and path.relative_to(folder).parts[0] != BUILD
    }
    if not found:
        return
    written = _files_of(folder)
    for name in sorted(found - {DOCUMENT}):
        if name not in written:
            raise InputError(
                f"{folder} holds {name}, which no export wrote; choose a new folder with -o"
            )
        if digest((folder / name).read_bytes()) != written[name]:
            raise InputError(
                f"{folder}/{name} was changed after the export; choose a new folder with -o"
            )


def _files_of(folder: Path) -> Mapping[str, str]:
    """The files that an earlier export lists; none where there is no export."""
    try:
        document = read_json(folder / DOCUMENT, DOCUMENT, LARGEST_MIB)
        check_form(document, {"format": one_of(FORMAT), "files": by_name(text)}, "")
    except (OSError, ValueError, InputError):
        return {}
    files_by_name: Mapping[str, str] = document["files"]
    return files_by_name


def check_sample(graph: IntegerGraph, calibration: Data) -> dict[str, bytes]:
    """Some samples as raw float32, and the integers of the reference for them as text."""
    inputs = [x[:CHECK_SAMPLES].to(torch.float32).numpy() for x in calibration.inputs]
    raw = b"".join(x[row].tobytes() for row in range(len(inputs[0])) for x in inputs)
    codes = [quantize_input(inputs[entry.index], entry.tensor) for entry in graph.inputs]
    results = np.asarray(run(graph, *codes)).reshape(len(inputs[0]), -1)
    lines = "".join(" ".join(map(str, row)) + "\n" for row in results.tolist())
    return {"check/input.f32": raw, "check/output.txt": lines.encode()}


def describe(graph: IntegerGraph, quantized: QuantizedNetwork, source: Source) -> dict[str, Any]:
    """The figures of export.json. Bytes are those of the constants and of the static memory."""
    chosen, network = quantized.assignment, quantized.source
    arena = source.storage.arena
    kinds = ("weights", "biases", "scales", "tables")
    constants = {kind: source.constants.get(kind, 0) for kind in kinds}
    layers = []
    for layer in network.layers:
        choice = chosen[layer.name]
        stored = source.layers.get(layer.name, dict.fromkeys(kinds, 0))
        layers.append({
            "layer": layer.name, **choice.to_json(), "macs": layer.macs,
            "weight_bytes": stored["weights"], "bias_bytes": stored["biases"],
            "scale_bytes": stored["scales"], "size_bytes": layer_bytes(layer, choice),
        })  # fmt: skip
    return {
        "format": FORMAT,
        "version": VERSION,
        "mpsearch": __version__,
        "model_digest": quantized.model_digest,
        "quantized_digest": quantized.digest,
        "arena": {
            "peak_bytes": arena.peak_bytes,
            "lower_bound_bytes": arena.lower_bound_bytes,
            "offsets": dict(arena.offsets),
        },
        "constant_bytes": constants,
        "size_bytes": size_bytes(network, chosen),
        "bops": bops(network, chosen),
        "layers": layers,
        "steps": source.steps,
        "inputs": [
            {"name": name, "shape": list(shape)}
            for name, shape in zip(network.input_names, network.input_shapes, strict=True)
        ],
        "entries": [
            {"input": entry.index, **_tensor(entry.tensor)} for entry in graph.inputs
        ],
        "output": {**_tensor(graph.output), "classes": graph.gives_classes},
    }  # fmt: skip


def _tensor(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name, "shape": list(tensor.shape), "bits": tensor.bits,
        "signed": tensor.signed, "scale": tensor.scale, "zero_point": tensor.zero_point,
    }  # fmt: skip
