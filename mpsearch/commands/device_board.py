"""`mpsearch device run EXPORT --board B`: a firmware in QEMU."""

from typing import TYPE_CHECKING

from mpsearch.commands.console import echo, print_json, print_table, progress
from mpsearch.tables.units import format_count, format_size, parse_bytes

if TYPE_CHECKING:
    from mpsearch.device.exported import Exported
    from mpsearch.device.profile import Board, DeviceProfile

ON_BOARD = {"board", "flags", "flash", "ram", "timeout", "output", "as_json"}
EMULATED = "EMULATED: instructions, not time; no latency of a device will be taken from them"


def run_on_board(
    folder: str,
    name: str,
    flags: str,
    flash: str | None,
    ram: str | None,
    timeout: int,
    output: str,
    as_json: bool,
) -> int:
    """Run a firmware, write its profile and show it; the options as texts."""
    from mpsearch.device.emulation import run_on_board
    from mpsearch.device.exported import read_firmware, split_words
    from mpsearch.device.profile import save_device_profile, to_document
    from mpsearch.exporters.firmware.boards import board_named
    from mpsearch.exporters.firmware.project import firmware_for

    board = board_named(name)
    words = split_words("--flags", flags)
    exported = read_firmware(folder, name)
    asked = exported.firmware
    firmware = firmware_for(
        exported.target,
        name,
        asked["flash"] if flash is None else parse_bytes(flash),
        asked["ram"] if ram is None else parse_bytes(ram),
    )
    assert firmware is not None
    with progress(f"running on {name} in QEMU", 1) as step:
        profile = run_on_board(exported, board, firmware.limits, words, timeout)
        step()
    save_device_profile(profile, output)
    if as_json:
        print_json(to_document(profile))
        return 0
    assert profile.board is not None
    _print(profile, profile.board, exported, firmware.limits)
    echo(f"wrote {output}")
    return 0


def _print(
    profile: "DeviceProfile", board: "Board", exported: "Exported", limits: tuple[int, int]
) -> None:
    flash, ram = limits
    echo(f"{profile.host}, {profile.machine.cpu_model}: code for {board.target}")
    echo(f"  {profile.compiler} {profile.flags}")
    echo(f"  checked: {profile.checked_samples} samples give the integers of the reference")
    echo(f"  flash {_bytes(board.flash_bytes)} of {format_size(flash)}: the firmware as linked")
    echo(
        f"  RAM {_bytes(board.ram_bytes)} of {format_size(ram)}: tensors "
        f"{_bytes(profile.arena_bytes)}, stack {_bytes(board.stack_bytes)}"
    )
    per_mac = board.instructions / max(1, exported.macs)
    echo(f"  {_count(board.instructions)} instructions an inference, {per_mac:.2f} a MAC")
    print_table(
        ("step", "", "layer", "instructions", "share"),
        [
            (str(number), *words, f"{taken:,}", f"{100 * taken / max(1, board.instructions):.1f} %")
            for number, (*words, taken) in enumerate(
                zip(exported.kinds, exported.steps, board.step_instructions, strict=True), start=1
            )
        ],
        naming=3,
    )
    echo(EMULATED)


def _bytes(count: int) -> str:
    return format_size(count) if count < 1024 else f"{format_size(count)} ({count:,} B)"


def _count(count: int) -> str:
    return f"{count:,}" if count < 1000 else f"{format_count(count)} ({count:,})"
