"""The boards that firmware is linked for and runs on in QEMU: memories, clock, whose code."""

from collections.abc import Mapping
from dataclasses import dataclass

from mpsearch.errors import InputError, did_you_mean

_MIB = 1 << 20
_PSRAM = 16 * _MIB


@dataclass(frozen=True)
class Memory:
    """`size` bytes from the address `origin` on."""

    origin: int
    size: int


@dataclass(frozen=True)
class Board:
    """One board, as QEMU's machine of this name has it.

    core: its processor, for people. targets: whose code it runs. clock_hz: of the processor, which
    is that of SysTick and of the UART. uart: address of a CMSDK UART. extra: a memory for what is
    no part of a product, the sample of main.c.
    """

    name: str
    core: str
    targets: tuple[str, ...]
    clock_hz: int
    uart: int
    flash: Memory
    ram: Memory
    extra: Memory


def _mps2(name: str, core: str, targets: tuple[str, ...], extra: int) -> Board:
    flash, ram = Memory(0, 4 * _MIB), Memory(0x20000000, 4 * _MIB)
    return Board(name, core, targets, 25_000_000, 0x40004000, flash, ram, Memory(extra, _PSRAM))


# Arm's FPGA images of these numbers; "flash" is a memory that code runs from. The addresses of
# Cortex-M33 are the secure ones, in which it starts; code of Cortex-M55 lies in the ITCM.
BOARDS: Mapping[str, Board] = {
    board.name: board
    for board in (
        _mps2("mps2-an385", "Cortex-M3", ("cortex-m0", "cortex-m3"), 0x21000000),
        _mps2("mps2-an386", "Cortex-M4", ("cortex-m4",), 0x21000000),
        _mps2("mps2-an500", "Cortex-M7", ("cortex-m7",), 0x60000000),
        Board(
            "mps2-an505", "Cortex-M33", ("cortex-m33",), 20_000_000, 0x50200000,
            Memory(0x10000000, 4 * _MIB), Memory(0x38000000, 4 * _MIB), Memory(0x80000000, _PSRAM),
        ),
        Board(
            "mps3-an547", "Cortex-M55", ("cortex-m55",), 32_000_000, 0x49303000,
            Memory(0, _MIB // 2), Memory(0x21000000, 4 * _MIB), Memory(0x01000000, 2 * _MIB),
        ),
    )
}  # fmt: skip


def board_named(name: str) -> Board:
    """Raises InputError for a board that is not listed."""
    if name not in BOARDS:
        close = did_you_mean(name, BOARDS)
        raise InputError(f"got the board {name!r}{close}; expected one of {', '.join(BOARDS)}")
    return BOARDS[name]


def check_board(board: Board, target: str) -> None:
    """Raise InputError unless the board runs code for this target."""
    if target not in board.targets:
        others = [one.name for one in BOARDS.values() if target in one.targets]
        hint = (
            f"take --board {others[0]}" if others else f"export with --target {board.targets[-1]}"
        )
        raise InputError(
            f"{board.name} ({board.core}) runs code for {' and '.join(board.targets)}, and this is "
            f"for {target}; {hint}"
        )


def boards_of(target: str | None) -> list[Board]:
    """Those that run its code, the usual one first; none for a target that is no Cortex-M."""
    return [board for board in BOARDS.values() if target in board.targets]
