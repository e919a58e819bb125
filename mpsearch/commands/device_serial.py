"""`mpsearch device run EXPORT --serial PORT`: a firmware that is on a board already."""

from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING

from mpsearch.commands.console import echo, print_json, print_table, progress
from mpsearch.errors import InputError
from mpsearch.tables.units import format_count, format_size, parse_count

if TYPE_CHECKING:
    from mpsearch.device.exported import Exported
    from mpsearch.device.profile import Cycles, DeviceProfile

SERIAL_REPEAT = 10  # where --repeat is not given: a sample may take seconds to be sent
ON_SERIAL = {"folder", "serial", "clock", "repeat", "timeout", "emulated", "output", "as_json"}
"""The options that go with --serial."""


def run_on_serial(
    folder: str,
    port: str,
    clock: str | None,
    repeat: int,
    timeout: int,
    emulated: bool,
    output: str,
    as_json: bool,
) -> int:
    """Run a firmware over its port, write its profile and show it; the options as texts."""
    from mpsearch.device.exported import read_flashed
    from mpsearch.device.profile import save_device_profile, to_document
    from mpsearch.device.serial_port import parse_port
    from mpsearch.device.serial_run import SerialSettings, lines_to_send, run_on_serial

    parse_port(port)
    hertz = None if clock is None else parse_clock(clock)
    settings = SerialSettings(port, hertz, repeat, timeout, emulated)
    exported = read_flashed(folder)
    with progress(f"running at {port}", lines_to_send(exported, settings)) as step:
        profile = run_on_serial(exported, settings, step)
    save_device_profile(profile, output)
    if as_json:
        print_json(to_document(profile))
        return 0
    assert profile.cycles is not None
    _print(profile, profile.cycles, exported, "" if hertz else ", as the firmware says")
    echo(f"wrote {output}")
    return 0


def parse_clock(text: str) -> int:
    """`168MHz` -> 168000000; `Hz` may be left out. Raises InputError for anything else."""
    number = text.strip()
    number = number[:-2] if number.lower().endswith("hz") else number
    with suppress(InputError):
        hertz = parse_count(number)
        if isinstance(hertz, Fraction) and 1000 <= hertz <= 10**11:
            return int(hertz)
    raise InputError(f"--clock: got {text!r}; expected a frequency such as 168MHz")


def _print(profile: "DeviceProfile", cycles: "Cycles", exported: "Exported", whose: str) -> None:
    echo(f"{profile.host}: {cycles.target} at {cycles.clock_hz / 1e6:,.10g} MHz{whose}")
    echo(f"  checked: {profile.checked_samples} samples give the integers of the reference")
    echo(
        f"  RAM: tensors {format_size(profile.arena_bytes)}, stack "
        f"{format_size(cycles.stack_bytes)}"
    )
    assert profile.steady is not None
    per_mac = cycles.cycles / max(1, exported.macs)
    echo(
        f"  {format_count(cycles.cycles)} cycles an inference ({cycles.cycles:,}), {per_mac:.2f} a "
        f"MAC: {1000 * profile.steady.median_s:.3f} ms; median of {profile.steady.runs} runs"
    )
    print_table(
        ("step", "", "layer", "cycles", "share"),
        [
            (str(number), *words, f"{taken:,}", f"{100 * taken / cycles.cycles:.1f} %")
            for number, (*words, taken) in enumerate(
                zip(exported.kinds, exported.steps, cycles.step_cycles, strict=True), start=1
            )
        ],
        naming=3,
    )
    if profile.emulated:
        echo("EMULATED: these are not the cycles of a device, and none will be taken for one")
