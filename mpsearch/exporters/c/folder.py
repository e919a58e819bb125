"""The folder of a C export: generated and fixed files, a check sample, its figures, a README.

Do the integers of the C code agree with the fake-quantized network as it was assigned?

The C gives the integers of `mpsearch.integer` bit by bit (`make check`, and tests of every kernel),
so these stand for it here: a wrong range or scale in the integer graph shows before anything is
written.

`mpsearch export --format c`: check the integers, write the folder and say what is in it.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpsearch import __version__
from mpsearch.data import Data
from mpsearch.exporters.agreement_of_outputs import Agreement, judge
from mpsearch.exporters.c.code_bytes import known_targets
from mpsearch.exporters.c.readme import readme
from mpsearch.exporters.c.source import Source, check_steps, generate
from mpsearch.exporters.c.targets import ANY, Target, find_target
from mpsearch.exporters.firmware.project import (
    Firmware,
    digest_header,
    firmware_for,
    project,
)
from mpsearch.exporters.folders import check_folder, write_files
from mpsearch.exporters.formats import Exported, ExportRequest, Trial
from mpsearch.exporters.packages.layout import (
    PACKAGE_FORMAT,
    PACKAGES,
    arrange,
    check_package,
    package_name,
)
from mpsearch.exporters.reference_outputs import reference_of
from mpsearch.integer.graph import IntegerGraph
from mpsearch.integer.inference import IntegerNetwork, outputs, quantize_input, ranges_from, run
from mpsearch.integer.lowering import lower
from mpsearch.quantization.packing import bops, layer_bytes, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork, without_stored
from mpsearch.tables.units import format_size

FORMAT, VERSION = "mpsearch.c_export", 1
CHECK_SAMPLES = 4
# What is compiled with every network, beside the layers of a family and network.c.
_COMMON = "layers.c pooling.c elementwise.c pointwise.c norms.c steps.c".split()
_HEADERS = "integers.h kernels.h constants.h rescaling.h rescaling_plain.h sums.h border.h".split()
_PROGRAM = "main.c step_times.c".split()


def kernel_sources(target: Target = ANY) -> tuple[str, ...]:
    """The C files that firmware needs beside network.c, by the names they have in a folder."""
    return tuple(Path(name).name for name in (*_COMMON, *target.family.sources))


def templates(target: Target = ANY) -> dict[str, str]:
    """Name in the folder -> the file of exporters/c/ that it is a copy of."""
    layers = (*target.family.headers, *target.family.sources)
    program = () if target.bare else _PROGRAM
    copied = (*_HEADERS, *_COMMON, "border.c", *layers, *program)
    return {Path(name).name: name for name in copied}


def builds(target: Target = ANY) -> dict[str, str]:
    """The files that say how to build the folder."""
    sources = kernel_sources(target)
    words = {
        "OBJECTS": " ".join(f"build/{Path(name).stem}.o" for name in sources),
        "SOURCES": " ".join(sources),
    }
    written = {}
    for name in ("Makefile", "CMakeLists.txt"):
        text = (files("mpsearch.exporters.c") / f"{name}.template").read_text("utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        written[name] = text
    return written


@dataclass(frozen=True)
class CExport:
    """What was written: the folder and the document in its export.json."""

    folder: Path
    document: Mapping[str, Any]


def export_c(
    quantized: QuantizedNetwork,
    calibration: Data,
    folder: str | os.PathLike[str],
    wide_bits: int | None = None,
    target: Target = ANY,
    firmware: Firmware | None = None,
) -> CExport:
    """Write the network as C99 into `folder`, which is new, empty, or an export without changes.

    A microcontroller gets a firmware project, for the board in `firmware` or the usual one. Ranges
    of outputs, and of sums where `wide_bits` (16 or 32) are given or the network has no quantizers
    for them, come from `calibration`, whose first samples are stored for `make check`. Raises
    InputError for a layer in float, an operator without an integer form, and for a folder with
    anything else in it; nothing is written then.
    """
    graph = lower(quantized, calibration, wide_bits=wide_bits)
    return write_folder(graph, quantized, calibration, folder, (), target, firmware)


def write_folder(
    graph: IntegerGraph,
    quantized: QuantizedNetwork,
    calibration: Data,
    folder: str | os.PathLike[str],
    agreement: Sequence[Agreement] = (),
    target: Target = ANY,
    firmware: Firmware | None = None,
    package: str | None = None,
) -> CExport:
    """As `export_c`, for a graph that was lowered from `quantized`; `agreement` goes into
    export.json. package: an ecosystem, whose library it becomes instead of a program or firmware.
    """
    if target.bare and package is None:
        firmware = firmware or firmware_for(target.name)
    place = Path(folder)
    check_folder(place, PACKAGE_FORMAT if package else FORMAT)
    source = generate(graph, quantized, target)
    document = describe(graph, quantized, source)
    document |= {
        "target": target.name,
        "stack_bytes": target.family.stack,
        "firmware": firmware.to_json() if firmware else None,
    }
    document["agreement"] = [found.figures() for found in agreement]
    if firmware is not None and target.name in known_targets():
        document["code_bytes"] = known_targets()[target.name].of_source(source.files["network.c"])
    contents: dict[str, bytes] = {name: code.encode() for name, code in source.files.items()}
    for name, template in templates(target).items():
        contents[name] = (files("mpsearch.exporters.c") / template).read_bytes()
    if package is not None:
        name = package_name(place, contents)
        document |= {"format": PACKAGE_FORMAT, "package": {"kind": package, "name": name}}
        compiled = (*kernel_sources(target), "network.c", "border.c")
        contents = arrange(package, name, contents, compiled, target.flags, document)
        contents["README.md"] = readme(graph, document, None).encode()
        return CExport(place, write_files(place, contents, document))
    if firmware is None:
        contents |= {name: text.encode() for name, text in builds(target).items()}
    else:
        sources, flags = kernel_sources(target), " ".join(target.flags)
        contents["digest.h"] = digest_header(contents).encode()
        contents |= project(firmware, flags, sources, document)
    contents |= check_sample(graph, calibration)
    contents["README.md"] = readme(graph, document, firmware).encode()
    return CExport(place, write_files(place, contents, document))


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
            "packed": source.storage.packed,
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


SAMPLES = 256
# About what the export of ResNet-20 (41 M a sample) takes itself; larger ones get fewer samples.
_MACS, _FEWEST_SAMPLES = 12_000_000_000, 8
_MACS_OF_BATCH = 1_000_000_000  # columns of patches at once: 9 floats for a MAC and few channels


def check(graph: IntegerGraph, quantized: QuantizedNetwork, data: Data) -> tuple[Agreement, ...]:
    """Compare output by output on up to 256 samples, or as many as take 12 G MACs, at least 8.

    Tensors of 16 bits between layers (functions, gates, all sums with `--wide 16`) add noise of
    their own, which is judged by its size; with 32 bits alone the integers must give what floats
    give, up to the order of additions.
    """
    macs = max(1, sum(layer.macs for layer in quantized.source.layers))
    count = min(SAMPLES, max(_FEWEST_SAMPLES, _MACS // macs))
    data = data if len(data) <= count else data.take(count, 0)
    batch = max(1, min(64, _MACS_OF_BATCH // macs))
    got = outputs(IntegerNetwork(graph), data, batch)
    rounded = any(
        tensor.signed and tensor.bits == 16 and tensor.name != graph.output.name
        for tensor in graph.tensors.values()
    )
    return judge(reference_of(quantized, data), got.numpy(), rounded)


def write(request: ExportRequest) -> Exported:
    """Compare the integers with the network on the calibration data, then write the folder of C99.

    Raises InputError as `export_c`, and without calibration data. Not `ok`, and nothing written,
    where an output differs beyond the limits.
    """
    data, quantized = ranges_from(request.data), request.quantized
    if request.wide_bits is not None:  # another network: nothing is stored between layers
        quantized = without_stored(quantized)
    target = find_target(request.target)
    package = request.package
    if package is None:
        firmware = firmware_for(request.target, request.board, request.flash, request.ram)
    else:
        check_package(package, request.board, request.flash, request.ram)
        firmware = None
    check_folder(Path(request.output), PACKAGE_FORMAT if package else FORMAT)
    graph = lower(quantized, data, wide_bits=request.wide_bits)
    agreement: tuple[Agreement, ...] = ()
    if request.check is not False:
        agreement = check(graph, quantized, data)
    if not all(found.ok for found in agreement):
        finer = "" if request.wide_bits == 32 else " (--wide 32 is finer)"
        lines = (
            f"not written: the integers do not give what the network computes{finer}; --no-check "
            "writes the folder",
            *_agreement_lines(agreement),
        )
        return Exported({"agreement": [found.figures() for found in agreement]}, lines, ok=False)
    document = write_folder(
        graph, quantized, data, request.output, agreement, target, firmware, package
    ).document
    constants, arena = document["constant_bytes"], document["arena"]
    total, peak = sum(constants.values()), arena["peak_bytes"]
    parts = ", ".join(f"{kind} {format_size(size)}" for kind, size in constants.items())
    above = peak / arena["lower_bound_bytes"] - 1 if arena["lower_bound_bytes"] else 0.0
    lines = (
        f"wrote {request.output}: C99 for {len(document['layers'])} layers",
        f"  constants (flash)    {format_size(total)}: {parts}",
        *_code_lines(total, document.get("code_bytes")),
        f"  static memory (SRAM) {format_size(peak)}, {100 * above:.1f} % above the lower bound",
        *_agreement_lines(agreement),
        f"next: {_next(request.output, firmware, package)}",
    )
    return Exported({key: value for key, value in document.items() if key != "files"}, lines)


def _code_lines(constants: int, code: int | None) -> list[str]:
    """What the linked firmware takes of its flash, where the functions' bytes are known."""
    if code is None:
        return []
    parts = f"constants {format_size(constants)}, code {format_size(code)}"
    return [
        f"  flash with code      at most {format_size(constants + code)}: {parts} "
        "(not linked: an upper bound of this network's)"
    ]


def _next(output: str, firmware: Firmware | None, package: str | None) -> str:
    if package is not None:
        return f"{output}/README.md says how to take it into {PACKAGES[package].title}"
    if firmware is None:
        return shlex.join(["make", "-C", output, "check"])
    return shlex.join(["mpsearch", "device", "run", output, "--board", firmware.board.name])


def trial(quantized: QuantizedNetwork, data: Data) -> Trial:
    """Lower the network and place its tensors. Raises InputError as `export_c`."""
    check_steps(lower(quantized, data), quantized)
    return Trial()


def _agreement_lines(agreement: Sequence[Agreement]) -> list[str]:
    if not agreement:
        return ["  not compared with the fake-quantized network: not asked for"]
    samples = agreement[0].samples
    start = (
        f"  against the fake-quantized network on {samples} samples, in steps of an 8-bit output:"
    )
    return [start, *(f"    {found.line()}" for found in agreement)]
