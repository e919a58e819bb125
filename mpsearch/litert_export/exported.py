"""`mpsearch export --format litert`: write the file, list what was raised, run it."""

from typing import Any

from mpsearch.cost import bops, size_bytes
from mpsearch.export_formats import Exported, ExportRequest
from mpsearch.files import digest, write_atomic
from mpsearch.integer.network import ranges_from
from mpsearch.litert_export.check import SAME_CLASS, Agreement, check
from mpsearch.litert_export.flatbuffer import litert
from mpsearch.litert_export.model import LiteRtModel, build
from mpsearch.quantized import QuantizedNetwork
from mpsearch.units import format_count, format_size


def write(request: ExportRequest) -> Exported:
    """Write the .tflite file and run the calibration data through it.

    Raises InputError as `build`, and without calibration data; MissingExtraError without
    ai-edge-litert. Not `ok` where LiteRT's outputs differ beyond the tolerance.
    """
    litert("schema_py_generated")
    data = ranges_from(request.data)
    model = build(request.quantized, data)
    write_atomic(request.output, model.content)
    agreements = () if request.check is False else check(model, data)
    figures = describe(request.quantized, model)
    figures["agreement"] = [agreement.figures() for agreement in agreements]
    ok = all(agreement.ok for agreement in agreements)
    return Exported(figures, _lines(request.output, figures, model, agreements), ok)


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
        "output_step": model.output_step,
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


def _lines(
    path: str, figures: dict[str, Any], model: LiteRtModel, agreements: tuple[Agreement, ...]
) -> tuple[str, ...]:
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
        *(_agreement_line(agreement) for agreement in agreements),
    )


def _agreement_line(found: Agreement) -> str:
    verdict = "" if found.ok else "  BEYOND THE TOLERANCE"
    start = f"  {found.kernels} kernels, {found.samples} samples: "
    same = f"same class {found.network.same_class:.1%}"
    if found.classes_only:
        return f"{start}{same} (tolerance {SAME_CLASS:.0%}){verdict}"
    return (
        f"{start}{found.network.rms_steps:.2f} output steps from the fake-quantized network, "
        f"{found.meaning.rms_steps:.2f} from what the file means (tolerance "
        f"{found.tolerance_steps:.1f}), {same}{verdict}"
    )
