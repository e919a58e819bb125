"""`mpsearch export --format c`: check the integers, write the folder and say what is in it."""

from collections.abc import Sequence
from pathlib import Path

from mpsearch.exporters.agreement_of_outputs import Agreement
from mpsearch.exporters.c.check import check
from mpsearch.exporters.c.folder import check_folder, write_folder
from mpsearch.exporters.formats import Exported, ExportRequest
from mpsearch.integer.lowering import lower
from mpsearch.integer.network import ranges_from
from mpsearch.tables.units import format_size


def write(request: ExportRequest) -> Exported:
    """Compare the integers with the network on the calibration data, then write the folder of C99.

    Raises InputError as `export_c`, and without calibration data. Not `ok`, and nothing written,
    where an output differs beyond the limits.
    """
    data, wide_bits = ranges_from(request.data), request.wide_bits or 32
    check_folder(Path(request.output))
    graph = lower(request.quantized, data, wide_bits=wide_bits)
    agreement: tuple[Agreement, ...] = ()
    if request.check is not False:
        agreement = check(graph, request.quantized, data, wide_bits)
    if not all(found.ok for found in agreement):
        finer = " (--wide 32 is finer)" if wide_bits == 16 else ""
        lines = (
            f"not written: the integers do not give what the network computes{finer}; --no-check "
            "writes the folder",
            *_agreement_lines(agreement),
        )
        return Exported({"agreement": [found.figures() for found in agreement]}, lines, ok=False)
    document = write_folder(graph, request.quantized, data, request.output, agreement).document
    constants, arena = document["constant_bytes"], document["arena"]
    total, peak = sum(constants.values()), arena["peak_bytes"]
    parts = ", ".join(f"{kind} {format_size(size)}" for kind, size in constants.items())
    above = peak / arena["lower_bound_bytes"] - 1 if arena["lower_bound_bytes"] else 0.0
    lines = (
        f"wrote {request.output}: C99 for {len(document['layers'])} layers",
        f"  constants (flash)    {format_size(total)}: {parts}",
        f"  static memory (SRAM) {format_size(peak)}, {100 * above:.1f} % above the lower bound",
        *_agreement_lines(agreement),
        f"next: make -C {request.output} check",
    )
    return Exported({key: value for key, value in document.items() if key != "files"}, lines)


def _agreement_lines(agreement: Sequence[Agreement]) -> list[str]:
    if not agreement:
        return ["  not compared with the fake-quantized network: not asked for"]
    samples = agreement[0].samples
    start = (
        f"  against the fake-quantized network on {samples} samples, in steps of an 8-bit output:"
    )
    return [start, *(f"    {found.line()}" for found in agreement)]
