"""`hwmon[:NAME]`: a power monitor that the device's kernel reads, such as an INA219 hat.

Files of /sys/class/hwmon/hwmonN as the kernel documents them (Documentation/hwmon: sysfs-interface,
ina2xx, powerz): power1_input in µW, in*_input in mV, curr1_input in mA. They are read on the device
by a fixed shell script, which gives numbers back; over ssh it is the script's standard input.
"""

import contextlib
import math
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from mpsearch.device.power import PowerError, Recording, Sample, number
from mpsearch.device.power_command import PATIENCE, Line, recording

SYSFS = "/sys/class/hwmon"
INTERVAL = 0.1  # an INA219 as Linux sets it up converts once in 68 ms
# Where the supply's voltage is; in0 of an INA is the shunt's. POWER-Z are USB-C testers.
_VOLTAGE = {"powerz": "in0_input"}
METERS = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina238", "ina260", "powerz")
# Largest voltage of the shunt in µV, from the data sheets (INA219: as Linux sets it up). More than
# that is shown as the end of the range, so the end must not be taken for a current.
_RANGE = {
    "ina219": 320_000,
    "ina220": 320_000,
    "ina226": 81_920,
    "ina230": 81_920,
    "ina231": 81_920,
}
MOST_LISTED = 1 << 16  # bytes
DEFAULT_SHUNT = 10_000  # µΩ, what the driver takes unless it is told

_LIST = """
for d in "$1"/hwmon*; do
  name=; read -r name 2>/dev/null < "$d/name" || continue
  line="${d##*/} $name"
  for f in power1_input in0_input in1_input curr1_input; do
    if [ -r "$d/$f" ]; then line="$line $f"; fi
  done
  shunt=; if [ -r "$d/shunt_resistor" ]; then read -r shunt < "$d/shunt_resistor"; fi
  echo "$line shunt=$shunt"
done
echo end
"""
# /proc/uptime and read are no process of their own: what measures should take no power.
_READ = """
d=$1; wait=$2; shift 2
echo begin
while :; do
  read -r line rest < /proc/uptime || exit 3
  for f; do
    value=; read -r value 2>/dev/null < "$d/$f" || { echo "cannot read $f"; exit 3; }
    line="$line $value"
  done
  echo "$line" || exit 3
  sleep "$wait"
done
"""


@dataclass(frozen=True)
class Sensor:
    """One folder below /sys/class/hwmon. shunt: in µΩ, None where the driver has no such file."""

    folder: str
    name: str
    files: tuple[str, ...]
    shunt: int | None

    @property
    def read_files(self) -> tuple[str, ...]:
        """Voltage and current where there are both, else the power.

        Older drivers tell power in steps of 20 or 25 mW; 4 mV times 1 mA is finer.
        """
        both = (_VOLTAGE.get(self.name, "in1_input"), "curr1_input")
        if set(both) <= set(self.files):
            return both
        return ("power1_input",) if "power1_input" in self.files else ()

    @property
    def largest_ma(self) -> float:
        """The current in mA at which the chip is at its end."""
        if not self.shunt or self.name not in _RANGE:
            return math.inf
        return 1e3 * _RANGE[self.name] / self.shunt


@dataclass(frozen=True)
class Hwmon:
    """A sensor of the device, by its name (ina219) or folder (hwmon2); by itself if it is the only
    power monitor.

    shell: the program that runs the script, ("sh",) here or ("ssh", …, HOST, "sh") there. remote:
    its arguments go through a shell of that machine. root is the folder of the sensors.
    """

    text: str
    wanted: str | None = None
    shell: tuple[str, ...] = ("sh",)
    remote: bool = False
    root: str = SYSFS
    interval: float = INTERVAL
    patience: float = PATIENCE

    @contextlib.contextmanager
    def record(self) -> Iterator[Recording]:
        """Find the sensor and read it every `interval` seconds."""
        sensor = self.sensor()
        folder = f"{self.root}/{sensor.folder}"
        with recording(
            f"the sensor {sensor.name} ({sensor.folder})",
            self._arguments(folder, f"{self.interval:g}", *sensor.read_files),
            partial(_convert, sensor),
            _READ,
            self.patience,
            _shunt_notes(sensor),
        ) as lines:
            yield lines

    def sensor(self) -> Sensor:
        """The one that is meant. Raises PowerError when there is none, or more than one."""
        sensors = self._listed()
        if self.wanted is None:
            fitting = [one for one in sensors if one.name in METERS and one.read_files]
        else:
            fitting = [
                one for one in sensors if self.wanted in (one.name, one.folder) and one.read_files
            ]
        if len(fitting) == 1:
            return fitting[0]
        shown = ", ".join(f"{one.folder} {one.name}" for one in fitting or sensors) or "nothing"
        if fitting:
            raise PowerError(f"several power monitors: {shown}; choose one, as in hwmon:hwmon2")
        raise PowerError(
            f"no power monitor{f' {self.wanted}' if self.wanted else ''} on the device: "
            f"{self.root} has {shown[:300]}; load its driver, see docs/power.md"
        )

    def _arguments(self, *words: str) -> tuple[str, ...]:
        quoted = tuple(shlex.quote(word) for word in words) if self.remote else words
        return (*self.shell, "-s", "--", *quoted)

    def _listed(self) -> list[Sensor]:
        try:
            process = subprocess.Popen(
                self._arguments(self.root),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
            )
        except OSError as error:
            raise PowerError(f"{self.shell[0]} cannot be started: {error.strerror}") from None
        assert process.stdin is not None
        assert process.stdout is not None
        late, said = threading.Timer(3 * self.patience, process.kill), b""
        late.start()
        try:
            with process:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(_LIST.encode())
                process.stdin.close()
                while len(said) <= MOST_LISTED and (chunk := process.stdout.read(4096)):
                    said += chunk
                if len(said) > MOST_LISTED:
                    process.kill()
        finally:
            in_time = late.is_alive()
            late.cancel()
        if len(said) > MOST_LISTED:
            raise PowerError(f"the device lists more than {MOST_LISTED >> 10} KiB of sensors")
        if not in_time:
            raise PowerError("the device did not list its sensors in time")
        lines = said.decode(errors="replace").strip().split("\n")
        if process.returncode != 0 or "end" not in lines:
            raise PowerError(f"the sensors cannot be listed: {ascii(lines[-1])[1:-1][:200]}")
        return [one for line in lines if (one := _sensor(line)) is not None]


def _shunt_notes(sensor: Sensor) -> tuple[str, ...]:
    """A shunt that nobody seems to have set: the power is wrong by the ratio of the two."""
    if sensor.shunt != DEFAULT_SHUNT or sensor.name == "ina260":
        return ()
    return (
        f"{sensor.folder}/shunt_resistor is the driver's default, {DEFAULT_SHUNT} µΩ; many boards "
        "carry 100000, and then all powers are 10 times too large: see docs/power.md",
    )


def _sensor(line: str) -> Sensor | None:
    """`hwmon2 ina219 in1_input curr1_input shunt=10000`; None for anything else."""
    words = line.split()
    if len(words) < 3 or not re.fullmatch(r"hwmon\d+", words[0]):
        return None
    if not words[1].isprintable() or not words[-1].startswith("shunt="):
        return None
    shunt = words[-1].removeprefix("shunt=")
    return Sensor(words[0], words[1], tuple(words[2:-1]), int(shunt) if shunt.isdecimal() else None)


def _convert(sensor: Sensor, lines: Sequence[Line]) -> list[Sample]:
    """Device times to ours: the line that took the least time gives the difference of the clocks.

    A line arrives after it was written, so the smallest (arrival - uptime) is nearest the truth;
    it is late by the quickest way through the network. Uptime has steps of 10 ms. A login shell may
    print its own words before the script begins.
    """
    begin = next((n for n, (_, text) in enumerate(lines, start=1) if text == "begin"), len(lines))
    lines = lines[begin:]
    read = [_numbers(sensor, text) for _, text in lines]
    difference = min(
        (line[0] - values[0] for line, values in zip(lines, read, strict=True)), default=0.0
    )
    return [(values[0] + difference, _milliwatts(sensor, values[1:])) for values in read]


def _numbers(sensor: Sensor, text: str) -> list[float]:
    try:
        values = [number(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != 1 + len(sensor.read_files):
        raise PowerError(
            f"the sensor {sensor.name} ({sensor.folder}) gave {text[:60]!a}; is it still connected?"
        )
    return values


def _milliwatts(sensor: Sensor, values: Sequence[float]) -> float:
    if len(values) == 1:
        return values[0] / 1e3
    if abs(values[1]) > 0.995 * sensor.largest_ma:
        raise PowerError(
            f"the sensor {sensor.name} ({sensor.folder}) shows {values[1]:g} mA, the end of its "
            "range: the device takes more; use a smaller shunt"
        )
    milliwatts = values[0] * values[1] / 1e3
    # A tester between two plugs has no wrong way round: its sign tells the direction.
    return abs(milliwatts) if sensor.name == "powerz" else milliwatts


def hwmon(text: str, rest: str, shell: tuple[str, ...] = ("sh",), remote: bool = False) -> Hwmon:
    """`hwmon`, `hwmon:ina219` or `hwmon:hwmon2` -> Hwmon. Raises PowerError for other names."""
    if rest and not re.fullmatch(r"[A-Za-z0-9_]{1,40}", rest):
        raise PowerError(
            f"--power {ascii(text[:60])[1:-1]}: expected hwmon, hwmon:NAME or hwmon:hwmonN"
        )
    return Hwmon(text, rest or None, shell, remote)
