"""`mpsearch export --format tflm`: the folder that a firmware with TensorFlow Lite Micro takes.

The file is written as for LiteRT with nothing that TensorFlow Lite Micro lacks, judged by the
assigned network in LiteRT's reference kernels and, where PyPI's tflite-micro is installed, in
TensorFlow Lite Micro itself, which must take it and also says how large an arena it needs.
"""

from dataclasses import asdict
from pathlib import Path

from mpsearch import __version__
from mpsearch.data import Data
from mpsearch.errors import MissingExtraError, install_extra
from mpsearch.exporters.folders import check_folder, write_files
from mpsearch.exporters.formats import Exported, ExportRequest, Trial
from mpsearch.exporters.litert.check import (
    Checked,
    checked_lines,
    compare,
    describe,
    reference_kernels,
    some,
    stored_lines,
)
from mpsearch.exporters.litert.model import LiteRtModel, build
from mpsearch.exporters.tflm.operators import operators_of, resolver_header
from mpsearch.exporters.tflm.running import Arena, run
from mpsearch.integer.inference import outputs, ranges_from
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.running.plugins import has_tflite_micro, litert
from mpsearch.tables.units import format_size

FORMAT, VERSION = "mpsearch.tflm_export", 1
NAME = "TensorFlow Lite Micro"
# Both compute without any instruction of the processor: about 0.2 G MACs a second.
_MACS, _FEWEST_SAMPLES = 4_000_000_000, 4
NOT_RUN = (
    f"  not run in {NAME}: the package tflite-micro is not installed "
    f"({install_extra('tflm')}); the arena is not known"
)


def write(request: ExportRequest) -> Exported:
    """Run the calibration data through the file, then write the folder.

    Raises InputError as LiteRT's `build`, for operators that TensorFlow Lite Micro lacks, and for a
    file that it does not take; without calibration data; MissingExtraError without ai-edge-litert,
    and without tflite-micro where the check was asked for. Not `ok`, and nothing written, where an
    output differs beyond the tolerance.
    """
    litert("schema_py_generated")
    folder, data = Path(request.output), ranges_from(request.data)
    check_folder(folder, FORMAT)
    if request.check and not has_tflite_micro():
        raise MissingExtraError("tflite-micro", "tflm", f"running a file in {NAME}")
    model = build(request.quantized, data, micro=True)
    operators = operators_of(model)
    figures = describe(request.quantized, model)
    checked, arena, said = _check(model, data) if request.check is not False else ((), None, [])
    figures |= {
        "operators": list(operators),
        "arena": None if arena is None else asdict(arena),
        "agreement": [entry.figures() for entry in checked],
    }
    found = [line for entry in checked for line in checked_lines(entry)] + said
    if not all(entry.ok for entry in checked):
        first = (
            f"not written: {NAME} does not give what the network computes (--no-check writes the "
            "folder)"
        )
        return Exported(figures, (first, *found), ok=False)
    document = {"format": FORMAT, "version": VERSION, "mpsearch": __version__, **figures}
    write_files(folder, _contents(model, operators, arena), document)
    lines = (
        f"wrote {folder}: {NAME} with integers for {len(model.layers)} layers",
        *stored_lines(figures, model, NAME),
        f"  {len(operators)} operators: {', '.join(operators)}",
        *([] if arena is None else [f"  {_arena_line(arena)}"]),
        *found,
    )
    return Exported(figures, lines)


def trial(quantized: QuantizedNetwork, data: Data) -> Trial:
    """Build the file without running it. Raises InputError as `write`; MissingExtraError."""
    litert("schema_py_generated")
    model = build(quantized, data, micro=True)
    operators_of(model)
    return Trial(
        raised={each.layer: (str(each.assigned), str(each.stored)) for each in model.raised}
    )


def _check(model: LiteRtModel, data: Data) -> tuple[tuple[Checked, ...], Arena | None, list[str]]:
    macs = max(1, sum(layer.macs for layer in model.network.source.layers))
    data = some(data.take(min(len(data), max(_FEWEST_SAMPLES, _MACS // macs)), 0))
    network = reference_kernels(model.content, model.network.source)
    reference, name = outputs(network, data), f"LiteRT's {network.kernels}"
    if not has_tflite_micro():
        return compare(model, data, {name: reference}), None, [NOT_RUN]
    micro = run(model, data)
    given = {name: reference, NAME: micro.outputs}
    other = int((reference != micro.outputs).sum())
    said = f"  {other} of {reference.numel()} outputs of {NAME} are not those of {name} kernels"
    return compare(model, data, given), micro.arena, [said]


def _arena_line(arena: Arena) -> str:
    return (
        f"arena {format_size(arena.total)}: tensors {format_size(arena.tensors)}, bookkeeping "
        f"{format_size(arena.bookkeeping)} (less where pointers have 32 bits)"
    )


def _contents(
    model: LiteRtModel, operators: tuple[str, ...], arena: Arena | None
) -> dict[str, bytes]:
    texts = {
        "model_data.h": _HEADER,
        "model_data.cc": _array(model.content),
        "model_ops.h": resolver_header(operators, None if arena is None else arena.total),
        "README.md": _readme(model, arena),
    }
    return {"model.tflite": model.content} | {name: code.encode() for name, code in texts.items()}


_HEADER = """/* Generated by mpsearch export: the network as TensorFlow Lite Micro reads it. */
#ifndef MODEL_DATA_H
#define MODEL_DATA_H

extern const unsigned char network_model[];
extern const unsigned int network_model_bytes;

#endif
"""
_BYTES_OF_LINE = 16


def _array(content: bytes) -> str:
    rows = (content[at : at + _BYTES_OF_LINE] for at in range(0, len(content), _BYTES_OF_LINE))
    lines = ",\n".join("    " + ", ".join(map(str, row)) for row in rows)
    return f"""/* Generated by mpsearch export. */
#include "model_data.h"

alignas(16) const unsigned char network_model[] = {{
{lines}}};
const unsigned int network_model_bytes = {len(content)};
"""


def _readme(model: LiteRtModel, arena: Arena | None) -> str:
    source = model.network.source
    inputs = "\n".join(
        f"- input {place}: {name}, {'x'.join(map(str, (1, *shape)))}"
        for place, (name, shape) in enumerate(
            zip(source.input_names, source.input_shapes, strict=True)
        )
    )
    size = "kNetworkArenaBytes" if arena else "64 * 1024"
    measured = (
        f"Measured: {_arena_line(arena)}."
        if arena
        else "The arena was not measured: try sizes, and read interpreter.arena_used_bytes()."
    )
    return f"""# A network for TensorFlow Lite Micro

Made by mpsearch {__version__}: {len(model.content):,} bytes of flash in `model_data.cc`, which is
`model.tflite` as an array. {measured}

Inputs and outputs are float32, channels first (class numbers are int32):

{inputs}

```cpp
#include "model_data.h"
#include "model_ops.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

alignas(16) static uint8_t arena[{size}];
static NetworkOpResolver resolver;

RegisterNetworkOps(resolver);
static tflite::MicroInterpreter interpreter(
    tflite::GetModel(network_model), resolver, arena, sizeof arena);
interpreter.AllocateTensors();
/* fill interpreter.input(0)->data.f */
interpreter.Invoke();
/* read interpreter.output(0)->data.f */
```

`model_ops.h` registers exactly the operators that the file uses: no other kernel is linked.
4-bit convolutions are unpacked into the arena by {NAME}'s reference kernels.
"""
