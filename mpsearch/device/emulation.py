"""A firmware in QEMU: its outputs, its instructions in all and of each step, and its stack.

With `-icount shift=0` every instruction takes one virtual nanosecond, and SysTick counts these at
the board's clock: instructions = ticks * 10^9 / clock, exact to one tick (40 instructions at 25
MHz) and the same in every run. It is not time: an emulated processor has neither wait states nor a
pipeline.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpsearch.device.exported import Exported
from mpsearch.device.firmware import (
    CHECK,
    EMULATOR,
    STEPS,
    Built,
    TooLarge,
    build,
    check_limits,
    check_tools,
)
from mpsearch.device.measuring import check_outputs
from mpsearch.device.profile import Board as BoardFigures
from mpsearch.device.profile import DeviceProfile, Machine, State
from mpsearch.device.transport import DeviceError, clean
from mpsearch.exporters.firmware.boards import Board

LARGEST = 1 << 25  # bytes of what a firmware prints
NOTE = "emulated: instructions, not time"
READINGS = 1000  # of check.c
_LINE = re.compile(r"# (clock|step|ticks|stack) (\d{1,18})", re.ASCII)
_EMPTY = State(None, None, None, None)


@dataclass(frozen=True)
class Counted:
    """What check.c prints: a line of integers for each sample; instructions of each sample, and of
    its steps where these are counted; the deepest stack in bytes."""

    outputs: tuple[str, ...]
    instructions: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    stack_bytes: int


def run_on_board(
    exported: Exported,
    board: Board,
    limits: tuple[int, int],
    flags: tuple[str, ...] = ("-O2",),
    timeout: int = 120,
) -> DeviceProfile:
    """Build an export's firmware, run its samples in QEMU and compare them with the reference.

    limits: bytes of flash, and of RAM with the stack. Raises TooLarge where the firmware takes more
    than these or than the board has, ReferenceMismatch for other integers, DeviceError for a
    firmware that crashes, hangs or prints something else, InputError for missing tools and what
    does not compile.
    """
    check_tools()
    with tempfile.TemporaryDirectory() as folder:
        built = build(exported, board, flags, Path(folder))
        whole = count(built, CHECK, exported, board, timeout)
        steps = count(built, STEPS, exported, board, timeout)
    check_limits(exported, board, built, whole.stack_bytes, limits)
    most = max(range(len(whole.instructions)), key=whole.instructions.__getitem__)
    return DeviceProfile(
        export_digest=exported.digest,
        network=exported.network,
        host=board.name,
        machine=Machine("no system", exported.target, f"{board.core} in QEMU", 1, board.ram.size),
        compiler=built.compiler,
        flags=" ".join(flags),
        program_bytes=built.flash_bytes,
        constant_bytes=exported.constant_bytes,
        arena_bytes=exported.arena_bytes,
        checked_samples=len(exported.expected),
        process=None,
        cold=None,
        steady=None,
        before=_EMPTY,
        after=_EMPTY,
        invalid=(),
        launch_prefix=(EMULATOR, "-machine", board.name),
        emulated=True,
        model_digest=exported.model_digest,
        quantized_digest=exported.quantized_digest,
        notes=(NOTE,),
        board=BoardFigures(
            exported.target,
            whole.instructions[most],
            steps.steps[most],
            built.flash_bytes,
            built.static_bytes + whole.stack_bytes,
            whole.stack_bytes,
        ),
    )


def count(built: Built, program: str, exported: Exported, board: Board, timeout: int) -> Counted:
    """Run one program over the samples; raises as `run_on_board`."""
    path = built.programs[program]
    printed = emulate(board, path, timeout)
    steps = len(exported.steps) if program == STEPS else 0
    counted = parse(printed, steps, board)
    check_outputs(exported, counted.outputs, board.name)
    if counted.stack_bytes >= board.ram.size - built.static_bytes - 64:
        raise TooLarge(
            f"the stack needs more than the {board.ram.size - built.static_bytes:,} bytes that "
            f"{board.name} has left for it"
        )
    return counted


def parse(lines: Sequence[str], steps: int, board: Board) -> Counted:
    """What a firmware printed for its samples. Raises DeviceError for anything else."""
    outputs: list[str] = []
    found: list[tuple[str, int]] = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match:
            found.append((match[1], int(match[2])))
        elif re.fullmatch(r"-?\d{1,10}( -?\d{1,10})*", line, re.ASCII):
            outputs.append(line)
        else:
            raise DeviceError(f"the firmware on {board.name} printed {clean(line)!r}; export again")
    each = ["step"] * steps + ["ticks", "stack"]
    if [name for name, _ in found] != ["clock", *each * len(outputs)]:
        raise DeviceError(
            f"the firmware on {board.name} did not print the counts of {steps} steps for each of "
            f"{len(outputs)} samples; export again"
        )
    reading = found[0][1] / READINGS

    def instructions(ticks: int) -> int:
        return max(0, round((ticks - reading) * 1e9 / board.clock_hz))

    values = [value for _, value in found[1:]]
    samples = [values[at : at + len(each)] for at in range(0, len(values), len(each))]
    return Counted(
        tuple(outputs),
        tuple(instructions(sample[-2]) for sample in samples),
        tuple(tuple(map(instructions, sample[:steps])) for sample in samples),
        max((sample[-1] for sample in samples), default=0),
    )


def emulate(board: Board, program: Path, timeout: int) -> list[str]:
    """The lines that a program prints in QEMU until it ends, in the folder above its own."""
    words = [
        EMULATOR, "-machine", board.name, "-display", "none", "-monitor", "none", "-serial",
        "stdio", "-icount", "shift=0", "-semihosting-config", "enable=on,target=native",
        "-kernel", str(program),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            words, cwd=program.parent.parent, stdin=subprocess.DEVNULL, stdout=printed, stderr=said
        )
        try:
            _wait(process, printed.fileno(), board, timeout)
        finally:
            process.kill()
            process.wait()
        printed.seek(0)
        lines = printed.read().decode("ascii", "replace").splitlines()
        said.seek(0)
        errors = said.read(1 << 16).decode(errors="replace").splitlines()
    if "# fault" in lines:
        raise DeviceError(
            f"the firmware crashed on {board.name}: a fault of the processor; was it built for "
            "another one?"
        )
    if process.returncode != 0:
        first = next((clean(line) for line in errors if line.strip()), "it printed nothing")
        raise DeviceError(f"{EMULATOR} ended with {process.returncode} on {board.name}: {first}")
    return lines


def _wait(process: "subprocess.Popen[bytes]", printed: int, board: Board, timeout: int) -> None:
    """Until it ends. Raises DeviceError where it takes too long or prints too much."""
    end = time.monotonic() + timeout
    while True:
        try:
            process.wait(0.2)
            return
        except subprocess.TimeoutExpired:
            if os.fstat(printed).st_size > LARGEST:
                raise DeviceError(f"the firmware on {board.name} prints without end") from None
            if time.monotonic() > end:
                raise DeviceError(
                    f"the firmware did not end within {timeout} s on {board.name} and was killed; "
                    "if it is only slow, raise --timeout"
                ) from None
