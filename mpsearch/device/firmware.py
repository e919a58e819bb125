"""A firmware of an export, built here by its own Makefile, and the bytes that it takes.

It is linked for all that the board has, so that what a smaller one lacks is known to the byte.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mpsearch.device.exported import Exported
from mpsearch.device.transport import DeviceError, clean, telling
from mpsearch.errors import InputError, MpsearchError
from mpsearch.exporters.firmware.boards import Board
from mpsearch.exporters.firmware.project import Firmware, board_files

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
WHOLE, CHECK, STEPS = "firmware", "check", "steps"
SECONDS = 600
_PACKAGES = {
    COMPILER: "gcc-arm-none-eabi libnewlib-arm-none-eabi", EMULATOR: EMULATOR, "make": "make",
}  # fmt: skip
_OVERFLOW = re.compile(r"region `(FLASH|RAM)' overflowed by (\d{1,12}) bytes")
_SECTION = re.compile(r"(\.\S+)\s+(\d{1,12})\s+\d+", re.ASCII)
# EXTRA's sample, the linker's reserve for the stack, and what is for people are no part of either.
_FLASH, _RAM = {".text", ".ARM.exidx", ".data"}, {".data", ".bss"}


class TooLarge(MpsearchError):
    """A firmware takes more than the board or the user has (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True)
class Built:
    """Programs by name, their compiler, and the bytes of flash and of static memory that the
    firmware takes."""

    programs: Mapping[str, Path]
    compiler: str
    flash_bytes: int
    static_bytes: int


def check_tools() -> None:
    """Raise InputError with the line that installs what is missing."""
    missing = [tool for tool in _PACKAGES if shutil.which(tool) is None]
    if COMPILER not in missing and not _has_library():
        missing.append(COMPILER)
    if missing:
        packages = " ".join(_PACKAGES[tool] for tool in missing)
        what = "the C library of arm-none-eabi" if shutil.which(missing[0]) else ", ".join(missing)
        raise InputError(
            f"a board needs {what}, which this machine lacks; install with: sudo apt install "
            f"{packages}"
        )


def _has_library() -> bool:
    """Whether newlib is there, which Debian has in a package of its own."""
    found = _call([COMPILER, "-print-file-name=nano.specs"], Path()).stdout.strip()
    return "/" in found


def build(
    exported: Exported,
    board: Board,
    flags: tuple[str, ...],
    folder: Path,
    names: tuple[str, ...] = (WHOLE, CHECK, STEPS),
) -> Built:
    """Write the project into `folder` and build its programs with `flags` to optimize.

    What lies in the folder of another export for the same target is built again where it differs.
    The bytes are those of the first program. Raises TooLarge for a board with too little memory,
    InputError for what does not compile.
    """
    contents = {**exported.sources, **exported.project, **board_files(Firmware(board))}
    contents["check/input.f32"] = exported.samples
    (folder / "check").mkdir(exist_ok=True)
    for name, data in contents.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
    programs = {name: folder / "build" / f"{name}.elf" for name in names}
    words = shlex.join(flags).replace("$", "$$")
    targets = [str(program.relative_to(folder)) for program in programs.values()]
    done = _call(["make", "-s", f"CFLAGS={words}", "STACK=0", *targets], folder)
    if done.returncode != 0:
        refuse_overflow(done.stderr, exported, board)
        said = telling(done.stderr.splitlines()) or f"exit status {done.returncode}"
        raise InputError(f"{COMPILER} cannot build the firmware: {said}")
    sizes = section_sizes(_call(["arm-none-eabi-size", "-A", targets[0]], folder).stdout)
    version = _call([COMPILER, "--version"], folder).stdout.splitlines()
    return Built(
        programs,
        clean(version[0]) if version else "unknown",
        sum(size for name, size in sizes.items() if name in _FLASH),
        sum(size for name, size in sizes.items() if name in _RAM),
    )


def section_sizes(text: str) -> dict[str, int]:
    """What `size -A` prints: `.text 14744 0` -> {".text": 14744}."""
    return {match[1]: int(match[2]) for match in map(_SECTION.match, text.splitlines()) if match}


def check_limits(
    exported: Exported, board: Board, built: Built, stack: int, limits: tuple[int, int]
) -> None:
    """Raise TooLarge where flash, or RAM with a stack of so many bytes, are above the limits."""
    taken = (built.flash_bytes, built.static_bytes + stack)
    lines = [
        f"{name}: {used:,} bytes, {used - most:,} more than {_whose(most, memory.size)}"
        for name, used, most, memory in zip(
            ("flash", "RAM with the stack"), taken, limits, (board.flash, board.ram), strict=True
        )
        if used > most
    ]
    if lines:
        raise TooLarge(
            _too_large("; ".join(lines), board), f"{_help(exported)}, the stack {stack:,}."
        )


def _whose(most: int, size: int) -> str:
    return f"the {most:,} of the board" if most == size else f"the {most:,} asked for"


def refuse_overflow(said: str, exported: Exported, board: Board) -> None:
    """Raise TooLarge where the linker says that the board has too little memory."""
    over = {name: int(count) for name, count in _OVERFLOW.findall(said)}
    if over:
        memories = {"FLASH": board.flash.size, "RAM": board.ram.size}
        lines = (
            f"{name.lower() if name == 'FLASH' else name}: {count:,} bytes more than the "
            f"{memories[name]:,} of the board"
            for name, count in sorted(over.items())
        )
        raise TooLarge(_too_large("; ".join(lines), board), f"{_help(exported)}.")


def _too_large(lines: str, board: Board) -> str:
    return f"the firmware does not fit {board.name}: {lines}"


def _help(exported: Exported) -> str:
    return (
        "Solve with --size, or with --ram, which names the fullest step; the largest layer is "
        f"{exported.largest!a}, the tensors take {exported.arena_bytes:,} bytes of RAM"
    )


def _call(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name not in _MAKES}
    try:
        return subprocess.run(
            words, cwd=folder, env={**environment, "LC_ALL": "C"}, capture_output=True, text=True,
            errors="replace", timeout=SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{words[0]} did not end within {SECONDS} s") from None


# A make around this program, or the user's shell, must not change what is built.
_MAKES = tuple(
    "MAKEFLAGS GNUMAKEFLAGS MAKEFILES MAKELEVEL MFLAGS MAKEOVERRIDES CROSS CFLAGS STACK".split()
)
