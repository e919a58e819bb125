"""`mpsearch export --format c`: write the folder and say what is in it."""

from mpsearch.c_export.folder import export_c
from mpsearch.export_formats import Exported, ExportRequest
from mpsearch.integer.network import ranges_from
from mpsearch.units import format_size


def write(request: ExportRequest) -> Exported:
    """Write the folder of C99. Raises InputError as `export_c`, and without calibration data."""
    written = export_c(
        request.quantized, ranges_from(request.data), request.output, request.wide_bits or 32
    )
    document = written.document
    constants, arena = document["constant_bytes"], document["arena"]
    total, peak = sum(constants.values()), arena["peak_bytes"]
    parts = ", ".join(f"{kind} {format_size(size)}" for kind, size in constants.items())
    above = peak / arena["lower_bound_bytes"] - 1 if arena["lower_bound_bytes"] else 0.0
    lines = (
        f"wrote {request.output}: C99 for {len(document['layers'])} layers",
        f"  constants (flash)    {format_size(total)}: {parts}",
        f"  static memory (SRAM) {format_size(peak)}, {100 * above:.1f} % above the lower bound",
        f"next: make -C {request.output} check",
    )
    return Exported({key: value for key, value in document.items() if key != "files"}, lines)
