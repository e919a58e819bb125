"""The files of a firmware project that stand beside the network's: generated, and as they are."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from typing import Any

from mpsearch.errors import InputError
from mpsearch.exporters.firmware.boards import (
    BOARDS,
    Board,
    board_named,
    boards_of,
    check_board,
)
from mpsearch.files.whole import digest

FIXED = tuple(
    "firmware.h startup.c clock.c uart.c semihosting.c main.c check.c protocol.c "
    "firmware.ld".split()
)
_ANSWER = re.compile(r"    int best = 0;\n|    for \(int i = 1;.*?best = i;\n", re.DOTALL)


@dataclass(frozen=True)
class Firmware:
    """The board that a project is linked for, and the bytes that it may take of its memories; None:
    all that the board has."""

    board: Board
    flash: int | None = None
    ram: int | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """Bytes of flash and of RAM."""
        return self.flash or self.board.flash.size, self.ram or self.board.ram.size

    def to_json(self) -> dict[str, Any]:
        """As in export.json."""
        return {"board": self.board.name, "flash": self.flash, "ram": self.ram}


def firmware_for(
    target: str | None, board: str | None = None, flash: int | None = None, ram: int | None = None
) -> Firmware | None:
    """What was asked for; None where the target gets no firmware, and nothing was asked.

    Raises InputError for a board that does not run the target's code or has less memory, and for a
    target that has no board.
    """
    usual = boards_of(target)
    if not usual:
        if (board, flash, ram) != (None, None, None):
            known = ", ".join(
                dict.fromkeys(name for one in BOARDS.values() for name in one.targets)
            )
            raise InputError(
                f"--board, --flash and --ram are of firmware, and --target is "
                f"{target or 'not given'}; expected --target with one of {known}"
            )
        return None
    assert target is not None
    chosen = usual[0] if board is None else board_named(board)
    check_board(chosen, target)
    for name, size, memory in (("flash", flash, chosen.flash), ("ram", ram, chosen.ram)):
        if size is not None and size > memory.size:
            raise InputError(
                f"--{name}: got {size:,} bytes, and {chosen.name} has {memory.size:,}; give less, "
                "or leave it out"
            )
    return Firmware(chosen, flash, ram)


def project(
    firmware: Firmware, flags: str, sources: Iterable[str], document: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files of a project by name.

    flags: of the compiler, for its processor. sources: the network's C files without border.c and
    network.c. document: what export.json says of the network.
    """
    texts = {name: _text(name) for name in FIXED}
    if document["output"]["classes"]:
        texts["main.c"] = _with_class(texts["main.c"])
    texts["Makefile"] = _text("Makefile.template").format(
        board=firmware.board.name,
        core=firmware.board.core,
        flags=flags,
        defines=" ".join(_without(document)),
        stack=document["stack_bytes"],
        sources=" ".join(name.removesuffix(".c") for name in sources),
    )
    texts["sample.c"] = _sample([entry["shape"] for entry in document["inputs"]])
    return {name: text.encode() for name, text in texts.items()} | board_files(firmware)


def board_files(firmware: Firmware) -> dict[str, bytes]:
    """`board.h` and `board.ld`: all that a project knows of its board, beside uart.c."""
    board = firmware.board
    flash, ram = firmware.limits
    header = f"""/* {board.name}, {board.core}: its clock and UART; memories are in board.ld. */
#define BOARD_CLOCK_HZ {board.clock_hz}
#define BOARD_UART {board.uart:#010x}
"""
    script = f"""/* {board.name}. EXTRA holds what is no part of a product: the sample of main.c. */
MEMORY
{{
    FLASH (rx) : {_region(board.flash.origin, flash)}
    RAM (rw) : {_region(board.ram.origin, ram)}
    EXTRA (r) : {_region(board.extra.origin, board.extra.size)}
}}
"""
    return {"board.h": header.encode(), "board.ld": script.encode()}


def _region(origin: int, size: int) -> str:
    return f"ORIGIN = {origin:#010x}, LENGTH = {size}"


def _sample(shapes: Sequence[Sequence[int]]) -> str:
    """`sample.c`: the first sample of the check, a pointer for each input."""
    lines, names, start = [], [], 0
    for place, shape in enumerate(shapes):
        size = 4 * prod(shape)
        names.append(f"input_{place}")
        lines.append(f'        "{names[-1]}: .incbin \\"check/input.f32\\", {start}, {size}\\n"')
        start += size
    listing = "\n".join(lines)
    return f"""/* The first sample of check/input.f32, for main.c: your sensor's values instead. */
#include "firmware.h"

__asm__(".pushsection .sample, \\"a\\"\\n"
        ".balign 4\\n"
{listing}
        ".popsection");

extern const float {", ".join(f"{name}[]" for name in names)};
const float *const sample[] = {{{", ".join(names)}}};
"""


def _with_class(main: str) -> str:
    """The main function of a network whose output is the class itself."""
    its = "(uint64_t)mps_get(output, network_result.type, 0)"
    return _ANSWER.sub("", main).replace("(uint64_t)best", its)


def _text(name: str) -> str:
    return (files("mpsearch.exporters.firmware") / name).read_text(encoding="utf-8")


_NETWORK = ("network.c", "network.h", "scales.h")


def identity(sources: Mapping[str, bytes]) -> str:
    """16 hexadecimal digits of a network's own C files, by which its firmware is recognized."""
    return digest(*(sources[name] for name in _NETWORK)).removeprefix("sha256:")[:16]


def digest_header(sources: Mapping[str, bytes]) -> str:
    """`digest.h`, with which protocol.c says whose firmware it is."""
    return (
        "/* Generated by mpsearch export: of network.c, network.h and scales.h. */\n"
        f'#define NETWORK_DIGEST "{identity(sources)}"\n'
    )


def _without(document: Mapping[str, Any]) -> list[str]:
    """The loops that no layer needs."""
    widths = {layer["w_bits"] for layer in document["layers"]}
    return [f"-DMPS_WITHOUT_{bits}" for bits in (4, 2) if bits not in widths]
