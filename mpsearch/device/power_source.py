"""The text of `--power` as a source of samples."""

from mpsearch.device.power import FORMS, Manual, Meter, PowerError, manual
from mpsearch.device.power_command import command
from mpsearch.device.power_csv import csv_source
from mpsearch.device.power_hwmon import hwmon

LONGEST = 1000


def power_source(
    text: str,
    interval: float | None = None,
    shell: tuple[str, ...] = ("sh",),
    remote: bool = False,
) -> Meter | Manual:
    """`command:…`, `csv:…`, `hwmon…` or `manual:…`; see docs/power.md.

    interval: of `--power-interval`, for a command that prints one number and ends. shell, remote:
    how a shell is started on the device, for hwmon. Raises PowerError for what is none of these.
    """
    if not text.isprintable() or len(text) > LONGEST:  # it is stored in the profile
        raise PowerError(f"--power: expected one line of text up to {LONGEST} characters")
    kind, _, rest = text.partition(":")
    if interval is not None and kind != "command":
        raise PowerError("--power-interval is for command:PROGRAM, which it starts again and again")
    if kind == "command":
        return command(text, rest, interval)
    if kind == "csv":
        return csv_source(text, rest)
    if kind == "hwmon":
        return hwmon(text, rest, shell, remote)
    if kind == "manual":
        return manual(text, rest)
    raise PowerError(f"--power {ascii(text[:60])[1:-1]}: expected {FORMS}")
