"""`mpsearch export --format litert`: run the file, write it, list what was raised."""

from typing import Any

from mpsearch.exporters.formats import Exported, ExportRequest
from mpsearch.exporters.litert.check import Checked, check
from mpsearch.exporters.litert.flatbuffer import litert
from mpsearch.exporters.litert.model import LiteRtModel, build
from mpsearch.files.writing import digest, write_atomic
from mpsearch.integer.network import ranges_from
from mpsearch.quantization.cost import bops, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.tables.units import format_count, format_size


def write(request: ExportRequest) -> Exported:
    """Run the calibration data through the .tflite file, then write it.

    Raises InputError as `build`, and without calibration data; MissingExtraError without
    ai-edge-litert. Not `ok`, and nothing written, where an output differs beyond the tolerance.
    """
    litert("schema_py_generated")
    data = ranges_from(request.data)
    model = build(request.quantized, data)
    checked = () if request.check is False else check(model, data)
    figures = describe(request.quantized, model)
    figures["agreement"] = [entry.figures() for entry in checked]
    found = [line for entry in checked for line in _checked_lines(entry)]
    if not all(entry.ok for entry in checked):
        lines = (
            "not written: LiteRT does not give what the network computes (--no-check writes the "
            "file)",
            *found,
        )
        return Exported(figures, lines, ok=False)
    write_atomic(request.output, model.content)
    return Exported(figures, (*_lines(request.output, figures, model), *found))


def describe(assigned: QuantizedNetwork, model: LiteRtModel) -> dict[str, Any]:
    """Sizes as assigned and as stored, what was raised, every layer's bytes in the file."""
    network, stored = assigned.source, model.network.assignment
    parts = {
        kind: sum(getattr(layer, f"{kind}_bytes") for layer in model.layers)
        for kind in ("weight", "bias", "scale")
    }
    return {
        "assigned_bytes": size_bytes(network, assigned.assignment),
        "stored_bytes": sum(parts.values()),
        "parts": parts,
        "file_bytes": len(model.content),
        "file_digest": digest(model.content),
        "assigned_bops": bops(network, assigned.assignment),
        "stored_bops": bops(network, stored),
        "outputs": [
            {"name": output.name, "shape": list(output.shape)} for output in network.outputs
        ],
        "raised": [
            {
                "layer": entry.layer,
                "kind": entry.kind,
                "assigned": str(entry.assigned),
                "stored": str(entry.stored),
            }
            for entry in model.raised
        ],
        "layers": [
            {
                "layer": layer.layer,
                "operator": layer.operator,
                "choice": str(stored[layer.layer]),
                "weight_bytes": layer.weight_bytes,
                "bias_bytes": layer.bias_bytes,
                "scale_bytes": layer.scale_bytes,
            }
            for layer in model.layers
        ],
    }


def _lines(path: str, figures: dict[str, Any], model: LiteRtModel) -> tuple[str, ...]:
    parts = ", ".join(f"{kind} {format_size(size)}" for kind, size in figures["parts"].items())
    raised = [
        f"    {entry.layer}: {entry.assigned} -> {entry.stored} ({entry.kind})"
        for entry in model.raised
    ]
    what = f"  raised to what LiteRT has: {len(raised)} of {len(model.layers)} layers"
    return (
        f"wrote {path}: LiteRT with integers for {len(model.layers)} layers",
        what if raised else "  no bits were raised",
        *raised,
        f"  stored {format_size(figures['stored_bytes'])} ({parts}); assigned "
        f"{format_size(figures['assigned_bytes'])}; the file has "
        f"{format_size(figures['file_bytes'])}",
        f"  BOPS {format_count(figures['stored_bops'])}; assigned "
        f"{format_count(figures['assigned_bops'])}",
    )


def _checked_lines(checked: Checked) -> list[str]:
    """A line per output, and one more where the file does not compute what it means."""
    samples = checked.network[0].samples
    lines = [f"  {checked.kernels} kernels on {samples} samples, in steps of an 8-bit output:"]
    for network, meaning in zip(checked.network, checked.meaning, strict=True):
        lines.append(f"    {network.line()}")
        if not meaning.ok:
            lines.append(f"    against what the file means, {meaning.line()}")
    return lines
