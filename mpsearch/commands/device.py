"""`mpsearch device`: what an export takes on the device that it is for."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.device_board import run_on_board
from mpsearch.commands.device_options import (
    NOT_OF_BOARDS,
    OF_BOARDS,
    check_one_place,
    compiler_of,
    device_options,
    is_given,
    power_of,
    power_options,
    refuse_given,
)
from mpsearch.commands.device_serial import ON_SERIAL, SERIAL_REPEAT, run_on_serial
from mpsearch.commands.device_table import table
from mpsearch.commands.suggesting import Commands
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.device.profile import DeviceProfile, Mode, State


@click.group(cls=Commands)
def device() -> None:
    """Measure an export on a Raspberry Pi or another device, over ssh or right here.

    \b
    Examples:
      mpsearch device run network --host pi@raspberrypi
      mpsearch device run network --host local -o here.json
      mpsearch device run firmware --board mps2-an386
      mpsearch device run firmware --serial /dev/ttyACM0 --clock 168MHz
      mpsearch device table model.pt --host pi@raspberrypi
    """


device.add_command(table)


@device.command()
@click.argument("folder", metavar="EXPORT", type=click.Path(file_okay=True))
@device_options
@click.option(
    "--mode", default="process,cold,steady", show_default=True, help="Which times to take."
)
@click.option(
    "--runs", type=click.IntRange(1, 10_000), default=50, show_default=True,
    help="Processes for each of the modes process and cold.",
)  # fmt: skip
@click.option(
    "--repeat", type=click.IntRange(1, 99_999), default=200, show_default=True,
    help="Inferences of the mode steady.",
)  # fmt: skip
@click.option(
    "--warm-up", type=click.IntRange(1, 99_999), default=20, show_default=True,
    help="Inferences before them that do not count.",
)  # fmt: skip
@click.option("--launch-prefix", default="", metavar="WORDS", help="An emulator and its options.")
@click.option("--emulated", is_flag=True, help="The device itself is an emulator.")
@click.option("--serial", metavar="PORT[:SPEED]", help="A board with the firmware, 115200 baud.")
@click.option("--clock", metavar="168MHz", help="--serial: its clock [default: as it says].")
@click.option("--flash", metavar="145KB", help="--board: what the firmware may take of the flash.")
@click.option("--ram", metavar="64KB", help="--board: of the RAM, with the stack.")
@power_options
@click.option("-o", "--output", default="device.json", show_default=True, help="The profile.")
@json_option
def run(
    folder: str,
    host: str | None,
    board: str | None,
    serial: str | None,
    clock: str | None,
    folder_there: str,
    mode: str,
    runs: int,
    repeat: int,
    warm_up: int,
    timeout: int,
    where: str,
    cc: str,
    flags: str,
    launch_prefix: str,
    emulated: bool,
    flash: str | None,
    ram: str | None,
    power: str | None,
    power_interval: float | None,
    idle_seconds: float,
    power_seconds: float,
    output: str,
    as_json: bool,
) -> int:
    """Run EXPORT, a folder of `mpsearch export --format c`, and write what it took.

    The program is compiled, must give the reference's integers, and is timed in three modes that
    are never merged: process (spawn to exit), cold (initialisation and first inference in a fresh
    process) and steady (repeats after a warm-up). Exit code 1 when the integers differ, and when
    the device throttled, changed its governor or lowered its frequency: the profile is then written
    with the reasons. What ran under an emulator is no device latency and is marked so.

    With --board EXPORT is firmware (`mpsearch export --target cortex-m4`): it is built here and run
    in QEMU, must give the reference's integers, and its instructions are counted, in all and of
    each step. Exit code 1 when it takes more flash or RAM than the board, --flash or --ram have.

    With --serial EXPORT is firmware whose build/serial.elf is on a board already: it gets the
    samples over the port, must give the reference's integers, and counts its cycles.

    With --power the network is looped in front of a meter as well: joules per inference above the
    idle device, and the peak less idle. A faulty meter gives no number, and exit code 1.

    \b
    Example:
      mpsearch device run network --host pi@raspberrypi
      mpsearch device run network --host pi@raspberrypi --compile here
      mpsearch device run network --host pi@raspberrypi --power hwmon:ina219
      mpsearch device run firmware --board mps2-an386 --flash 256KB --ram 64KB
      mpsearch device run firmware --serial /dev/ttyACM0 --clock 168MHz
    """
    check_one_place(host=host, board=board, serial=serial)
    if not Path(output).absolute().parent.is_dir():
        raise InputError(f"-o: there is no folder {Path(output).parent}; make it first")
    if board is not None:
        refuse_given("--board", {*NOT_OF_BOARDS, "clock"})
        return run_on_board(folder, board, flags, flash, ram, timeout, output, as_json)
    if serial is not None:
        refuse_given("--serial", set(click.get_current_context().params) - ON_SERIAL)
        count = repeat if is_given("repeat") else SERIAL_REPEAT
        return run_on_serial(folder, serial, clock, count, timeout, emulated, output, as_json)
    assert host is not None
    refuse_given("--host", {*OF_BOARDS, "clock"})
    from mpsearch.commands.console import progress
    from mpsearch.device.exported import read_export, split_words
    from mpsearch.device.measuring import measure, steps_of
    from mpsearch.device.profile import save_device_profile, to_document
    from mpsearch.device.timing import Settings
    from mpsearch.device.transport import check_folder, check_host

    check_host(host)
    check_folder(folder_there)
    meter = power_of(host, power, power_interval, idle_seconds, power_seconds)
    settings = Settings(
        modes=_modes(mode), runs=runs, repeat=repeat, warm_up=warm_up, timeout=timeout,
        compiler=compiler_of(where, cc, flags),
        launch_prefix=split_words("--launch-prefix", launch_prefix), emulated=emulated,
        folder=folder_there,
    )  # fmt: skip
    exported = read_export(folder)
    with progress(f"measuring on {host}", steps_of(settings, meter), asks=True) as step:
        profile = measure(exported, host, settings, step, power=meter, asking=step.paused)
    save_device_profile(profile, output)
    if as_json:
        print_json(to_document(profile))
    else:
        _print(profile, output)
    for reason in profile.invalid:
        echo(f"invalid run: {reason}", err=True)
    if profile.power_failure is not None:
        echo(f"no energy: {profile.power_failure}", err=True)
    return 1 if profile.invalid or profile.power_failure else 0


def _modes(text: str) -> "tuple[Mode, ...]":
    from mpsearch.device.timing import MODES

    wanted = [word.strip() for word in text.split(",")]
    for word in wanted:
        if word not in MODES:
            raise InputError(f"--mode: got {word!r}; expected some of {','.join(MODES)}")
    return tuple(mode for mode in MODES if mode in wanted)


def _print(profile: "DeviceProfile", output: str) -> None:
    from mpsearch.device.energy import energy_lines
    from mpsearch.tables.units import format_size

    machine = profile.machine
    cores = "" if machine.cores is None else f", {machine.cores} cores"
    memory = "" if machine.memory_bytes is None else f", {format_size(machine.memory_bytes)}"
    echo(f"{profile.host}: {machine.cpu_model or machine.architecture}{cores}{memory}")
    echo(f"  {machine.system} {machine.architecture}; {profile.compiler} {profile.flags}")
    echo(f"  checked: {profile.checked_samples} samples give the integers of the reference")
    assert profile.program_bytes is not None
    echo(
        f"  program {format_size(profile.program_bytes)}, constants "
        f"{format_size(profile.constant_bytes)}, static memory {format_size(profile.arena_bytes)}"
    )
    print_table(("times in ms", "runs", "median", "p90", "p99"), _rows(profile))
    if profile.process and profile.process.peak_memory_bytes is not None:
        echo(f"peak memory of the process: {format_size(profile.process.peak_memory_bytes)}")
    for line in [] if profile.energy is None else energy_lines(profile.energy):
        echo(line)
    echo(f"before: {_state(profile.before)}")
    echo(f"after:  {_state(profile.after)}")
    if profile.emulated:
        echo("EMULATED: these are not the times of a device, and none will be taken for one")
    for note in profile.notes:
        echo(f"note: {note}")
    echo(f"wrote {output}")


def _rows(profile: "DeviceProfile") -> list[tuple[str, ...]]:
    def row(name: str, runs: int, *seconds: float) -> tuple[str, ...]:
        shown = [f"{1000 * value:.3f}" for value in seconds]
        return (name, f"{runs:,}", *shown, *[""] * (3 - len(shown)))

    rows = []
    if profile.process:
        its = profile.process.latency
        rows.append(row("process: spawn to exit", its.runs, its.median_s, its.p90_s, its.p99_s))
    if profile.cold:
        rows.append(row("cold: initialisation", profile.cold.runs, profile.cold.initialisation_s))
        rows.append(row("cold: first inference", profile.cold.runs, profile.cold.first_s))
    if profile.steady:
        its = profile.steady
        rows.append(row("steady: one inference", its.runs, its.median_s, its.p90_s, its.p99_s))
    return rows


def _state(state: "State") -> str:
    words = [
        f"governor {state.governor}" if state.governor else "",
        f"{state.frequency_hz / 1e6:,.0f} MHz" if state.frequency_hz else "",
        "" if state.temperature_c is None else f"{state.temperature_c:.1f} °C",
        "" if state.throttled is None else ("THROTTLED" if state.throttled else "not throttled"),
    ]
    return ", ".join(word for word in words if word) or "the device does not tell its state"
