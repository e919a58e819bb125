"""`DeviceProfile`: what one export took on one device, and `device.json`, which keeps it.

One number of a device profile by the column that it limits: latency, memory, energy, instructions.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mpsearch.errors import InputError
from mpsearch.files.json_file import from_json, read_document
from mpsearch.files.whole import write_atomic
from mpsearch.running.streams import json_text

FORMAT, VERSION = "mpsearch.device", 1
LARGEST_MIB = 1
_LATER: Mapping[str, Any] = {  # added since version 1: not in old files
    "energy": None, "power_failure": None, "notes": [], "model_digest": None,
    "quantized_digest": None, "board": None, "cycles": None,
}  # fmt: skip
# What a machine that is emulated, or a part of a real one, calls itself: its board (QEMU's device
# tree on Arm and RISC-V, the maker of its firmware) or its processor.
_VIRTUAL = re.compile(
    r"dummy-virt|qemu|\bkvm|kvm\b|\bxen|virtual machine|virtual cpu|vmware|virtualbox|bochs"
    r"|parallels|emulat|simulat|\bfvp\b",
    re.IGNORECASE,
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Mode = Literal["process", "cold", "steady"]


@dataclass(frozen=True)
class Latency:
    """Seconds of `runs` runs that were made alike; percentiles are values that occurred."""

    runs: int
    median_s: float
    p90_s: float
    p99_s: float
    minimum_s: float


@dataclass(frozen=True)
class ProcessRuns:
    """From spawn to exit of the program on one sample; its largest resident memory."""

    latency: Latency
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class ColdRuns:
    """In fresh processes: medians of the seconds from spawn until the first inference begins (the
    program is loaded, the sample read and quantized), and of that first inference."""

    runs: int
    initialisation_s: float
    first_s: float


@dataclass(frozen=True)
class State:
    """What can slow a processor down, at one moment; None where the device does not tell."""

    governor: str | None
    frequency_hz: int | None
    temperature_c: float | None
    throttled: bool | None


@dataclass(frozen=True)
class Machine:
    """The device. `architecture` is that of `uname -m`."""

    system: str
    architecture: str
    cpu_model: str | None
    cores: int | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Energy:
    """From power samples: mean less idle, in joules for each inference, is the headline.

    source: where the samples come from, as the user wrote it. mean_mw, seconds, inferences, joules
    and samples are None for two numbers that were read off a meter by eye. seconds, inferences: of
    the whole loop. joules_stderr, joules_half_width: standard error, and half of the 95 % interval,
    from the noise of the samples; an error of the meter itself is not in them.
    """

    source: str
    idle_mw: float
    mean_mw: float | None
    peak_mw: float
    seconds: float | None
    inferences: int | None
    joules_per_inference: float | None
    peak_minus_idle_mw: float
    samples: int | None
    joules_stderr: float | None = None
    joules_half_width: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    """What a firmware took on an emulated board: counts and bytes, which are exact, and no times.

    target: the processor that it was exported for. instructions: of one inference, the most that a
    sample of the check took; step_instructions: of each step of it. flash_bytes, ram_bytes: of the
    whole firmware, with the stack. stack_bytes: the deepest that was seen.
    """

    target: str
    instructions: int
    step_instructions: tuple[int, ...]
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int


@dataclass(frozen=True)
class Cycles:
    """What a firmware counted on a board that answers over a serial port.

    target: the processor that it was exported for. clock_hz: cycles a second, as the user or the
    firmware says. cycles: of one inference, the median of the runs; step_cycles: of each step of
    that run. stack_bytes: the deepest that was seen.
    """

    target: str
    clock_hz: int
    cycles: int
    step_cycles: tuple[int, ...]
    stack_bytes: int


@dataclass(frozen=True)
class DeviceProfile:
    """One export on one device.

    export_digest: of export.json, which holds the digests of all other files of the export.
    network: digest of every layer's bits, `network_digest`; ties it to an assignment.
    host: as the user wrote it, or `local`. flags: of the compiler, in one line.
    program_bytes: the file that ran, None for a firmware that was on its board already;
    constant_bytes and arena_bytes: flash and SRAM of the export.
    checked_samples: that gave the reference's integers before anything was timed.
    process, cold, steady: None where it was not measured. They are never merged.
    invalid: why the times mean nothing; empty for a valid profile.
    emulated: the program ran under an emulator, or says so; its times are those of no device.
    notes: what a reader of the figures should know, such as other work on the device.
    power_failure: why there is no energy although a meter was named; the times are not touched.
    model_digest: of the float network that was exported; quantized_digest: of its integers. None in
    files of older versions.
    board: what a firmware took on an emulated board, cycles: on a real one; None for a program.
    """

    export_digest: str
    network: str
    host: str
    machine: Machine
    compiler: str
    flags: str
    program_bytes: int | None
    constant_bytes: int
    arena_bytes: int
    checked_samples: int
    process: ProcessRuns | None
    cold: ColdRuns | None
    steady: Latency | None
    before: State
    after: State
    invalid: tuple[str, ...]
    launch_prefix: tuple[str, ...]
    emulated: bool
    energy: Energy | None = None
    power_failure: str | None = None
    notes: tuple[str, ...] = ()
    model_digest: str | None = None
    quantized_digest: str | None = None
    board: Board | None = None
    cycles: Cycles | None = None


def is_virtual(machine: Machine) -> bool:
    """Whether a machine says that it is emulated or virtual: its times are those of no device.

    `linux,dummy-virt, Cortex-A72` does; one that QEMU makes look like a Raspberry Pi does not.
    """
    return _VIRTUAL.search(machine.cpu_model or "") is not None


def device_latency(profile: DeviceProfile, mode: Mode = "steady") -> float:
    """Median seconds of one mode; for `cold` initialisation and first inference together.

    Raises InputError for a profile obtained under emulation, an invalid one, and a mode that was
    not measured.
    """
    check_is_of_device(profile)
    if mode == "process" and profile.process is not None:
        return profile.process.latency.median_s
    if mode == "cold" and profile.cold is not None:
        return profile.cold.initialisation_s + profile.cold.first_s
    if mode == "steady" and profile.steady is not None:
        return profile.steady.median_s
    raise InputError(
        f"the profile of {profile.host} has no {mode} runs; measure again with --mode {mode}"
    )


def check_is_of_device(profile: DeviceProfile) -> None:
    """Raise InputError unless the figures are those of a device, measured undisturbed."""
    virtual = is_virtual(profile.machine)
    if profile.emulated or virtual:
        how = "on an emulated or virtual machine" if virtual else "under emulation"
        raise InputError(
            f"the profile of {profile.host} was obtained {how}, refused as device latency; run "
            "`mpsearch device run` on the device itself"
        )
    if profile.invalid:
        raise InputError(
            f"the profile of {profile.host} is invalid: {'; '.join(profile.invalid)}; "
            "cool the device, fix its governor and measure again"
        )


def save_device_profile(profile: DeviceProfile, path: str | os.PathLike[str]) -> None:
    """Write device.json in one step."""
    text = json_text(to_document(profile), indent=2, allow_nan=False)
    write_atomic(path, text + "\n")


def to_document(profile: DeviceProfile) -> dict[str, Any]:
    """The content of device.json."""
    return {"format": FORMAT, "version": VERSION, **asdict(profile)}


def load_device_profile(path: str | os.PathLike[str]) -> DeviceProfile:
    """Read device.json. Raises InputError when it is something else, or could not have been
    measured (negative times, percentiles out of order)."""
    name = os.fspath(path)
    missing = f"there is no device profile {name}; make one with `mpsearch device run -o {name}`"
    document = read_document(path, "device.json", FORMAT, VERSION, LARGEST_MIB, missing)
    content = {key: value for key, value in document.items() if key not in ("format", "version")}
    try:
        profile = from_json(DeviceProfile, {**_LATER, **content}, "")
        check_plausible(profile)
    except ValueError as error:
        raise InputError(f"{name} is not a device.json of mpsearch: {error}") from None
    return profile


def check_plausible(profile: DeviceProfile) -> None:
    """Raise ValueError for what no measurement can give; `launch_prefix` implies `emulated`."""
    for name in ("export_digest", "network", "model_digest", "quantized_digest"):
        value = getattr(profile, name)
        if value is None and name in _LATER:
            continue
        if not _DIGEST.fullmatch(value):
            raise ValueError(f"{name}: expected sha256: and 64 digits")
    for name, value in _numbers(asdict(profile)):
        if value < 0 and not name.endswith(_SIGNED):
            raise ValueError(f"{name}: got {value}; expected no negative number")
        if value == 0 and name.endswith(_POSITIVE):
            raise ValueError(f"{name}: got {value}; expected a positive number")
    latencies = {"steady": profile.steady} if profile.steady else {}
    if profile.process:
        latencies["process.latency"] = profile.process.latency
    for mode, latency in latencies.items():
        ordered = [latency.minimum_s, latency.median_s, latency.p90_s, latency.p99_s]
        if ordered != sorted(ordered):
            raise ValueError(f"{mode}: minimum, median, p90 and p99 are out of order")
    if profile.board is not None and not profile.emulated:
        raise ValueError("emulated: got false; expected true beside a board")
    if profile.launch_prefix and not profile.emulated:
        raise ValueError("emulated: got false; expected true beside a launch_prefix")


_SIGNED = ("temperature_c", "joules_per_inference", "peak_minus_idle_mw")
_POSITIVE = (
    "runs", "_s", "checked_samples", "program_bytes", "cores", "seconds", "inferences", "samples",
)  # fmt: skip


def _numbers(document: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested document with its dotted name."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _numbers(value, f"{name}.{key}" if name else key)
    elif isinstance(document, int | float) and not isinstance(document, bool):
        assert math.isfinite(document)
        yield name, document


def device_figure(profile: DeviceProfile, column: str, mode: Mode = "steady") -> int | float:
    """`latency_s` (median of `mode`), `peak_memory_bytes` (of the process), `energy_j` (joules of
    one inference above idle) or `instructions` (of one inference on an emulated board).

    Raises InputError for what was not measured, was measured under emulation, or is invalid.
    """
    if column == "instructions":  # counted, so an emulator's are those of the processor
        if profile.board is None:
            raise InputError(
                f"the profile of {profile.host} has no instructions; count them with `mpsearch "
                "device run EXPORT --board B`"
            )
        return profile.board.instructions
    if column == "latency_s":
        return device_latency(profile, mode)
    check_is_of_device(profile)
    if column == "peak_memory_bytes":
        memory = profile.process.peak_memory_bytes if profile.process else None
        if memory is None:
            raise InputError(
                f"the profile of {profile.host} has no peak memory; measure again with "
                "--mode process"
            )
        return memory
    if profile.energy is None:
        why = "" if profile.power_failure is None else f" ({profile.power_failure})"
        raise InputError(
            f"the profile of {profile.host} has no energy{why}; measure again with --power SOURCE"
        )
    if profile.energy.joules_per_inference is None:
        raise InputError(
            f"the profile of {profile.host} has no joules, because its power was read by eye; "
            "measure again with a meter that --power can read"
        )
    return profile.energy.joules_per_inference
