"""A firmware that is on a board already: its outputs, its cycles and its stack, over a serial port.

The sample goes in as float32, the output's integers come back and must be the reference's. A cycle
is a tick of the processor's clock, which SysTick counts on every Cortex-M.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from statistics import median_low

from mpsearch.device.exported import Exported
from mpsearch.device.measuring import check_outputs
from mpsearch.device.profile import Cycles, DeviceProfile, Latency, Machine, State
from mpsearch.device.serial_port import open_port, parse_port
from mpsearch.device.serial_protocol import PART, Firmware, Inference, greet
from mpsearch.exporters.firmware.project import identity

_EMPTY = State(None, None, None, None)


@dataclass(frozen=True)
class SerialSettings:
    """port: as the user wrote it. clock_hz: of the processor; None: what the firmware says.
    repeat: inferences that are timed, beside one for each sample that is compared. timeout:
    seconds that one may take. emulated: an emulator answers at the port."""

    port: str
    clock_hz: int | None = None
    repeat: int = 10
    timeout: int = 120
    emulated: bool = False


def lines_to_send(exported: Exported, settings: SerialSettings) -> int:
    """How many lines go over the wire: the steps of a progress bar."""
    each = sum(ceil(size / PART) for size in exported.inputs)
    return each * (len(exported.expected) + settings.repeat)


def run_on_serial(
    exported: Exported, settings: SerialSettings, step: Callable[[], None] = lambda: None
) -> DeviceProfile:
    """Compare every sample of the check with the reference, then time the first one.

    Raises InputError for what is no port, DeviceError for a port or a board that fails, is reset or
    has another firmware, ReferenceMismatch for other integers. `step` is called after every line.
    """
    path, speed = parse_port(settings.port)
    with open_port(path, speed) as port:
        firmware = greet(port, identity(exported.sources), settings.timeout)
        size = len(exported.one)
        compared = [
            _infer(firmware, exported, exported.samples[at : at + size], step)
            for at in range(0, len(exported.samples), size)
        ]
        check_outputs(exported, [each.output for each in compared], path)
        timed = [_infer(firmware, exported, exported.one, step) for _ in range(settings.repeat)]
    check_outputs(exported, [timed[0].output, *exported.expected[1:]], path)
    clock = settings.clock_hz or firmware.clock_hz
    return _profile(exported, settings, path, clock, compared, timed)


def _infer(
    firmware: Firmware, exported: Exported, sample: bytes, step: Callable[[], None]
) -> Inference:
    ends = accumulate((4 * size for size in exported.inputs), initial=0)
    inputs = [sample[a:b] for a, b in pairwise(ends)]
    outputs = len(exported.expected[0].split())
    return firmware.infer(inputs, outputs, len(exported.steps), step)


def _profile(
    exported: Exported,
    settings: SerialSettings,
    path: str,
    clock: int,
    compared: list[Inference],
    timed: list[Inference],
) -> DeviceProfile:
    ordered = sorted(timed, key=_cycles)
    middle = ordered[(len(ordered) - 1) // 2]
    assert _cycles(middle) == median_low(map(_cycles, timed))
    return DeviceProfile(
        export_digest=exported.digest,
        network=exported.network,
        host=path,
        machine=Machine("no system", exported.target, None, 1, None),
        compiler="unknown",
        flags="",
        program_bytes=None,
        constant_bytes=exported.constant_bytes,
        arena_bytes=exported.arena_bytes,
        checked_samples=len(exported.expected),
        process=None,
        cold=None,
        steady=_latency([_cycles(each) for each in ordered], clock),
        before=_EMPTY,
        after=_EMPTY,
        invalid=(),
        launch_prefix=(),
        emulated=settings.emulated,
        model_digest=exported.model_digest,
        quantized_digest=exported.quantized_digest,
        cycles=Cycles(
            exported.target,
            clock,
            _cycles(middle),
            middle.steps,
            max(each.stack_bytes for each in (*compared, *timed)),
        ),
    )


def _cycles(run: Inference) -> int:
    """Of all steps: what the firmware does between them to count belongs to none."""
    return max(1, sum(run.steps))


def _latency(ordered: list[int], clock: int) -> Latency:
    n = len(ordered)
    at = ((n - 1) // 2, n * 9 // 10, n * 99 // 100, 0)
    return Latency(n, *(ordered[place] / clock for place in at))
