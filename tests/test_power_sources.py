"""Where samples come from: programs, recordings and sensors, sound and broken ones."""

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_meters import message_of

from mpsearch.cli import run as command_line
from mpsearch.device.energy import measure_energy
from mpsearch.device.power import Meter, PowerError, Sample
from mpsearch.device.power_command import Command
from mpsearch.device.power_csv import Csv, csv_source
from mpsearch.device.power_hwmon import Hwmon
from mpsearch.device.power_source import power_source

PYTHON = shlex.quote(sys.executable)
# 2 W at idle, 2.5 W while the file `busy` is there, 50 samples a second
METER = """
import pathlib, random, sys, time
while True:
    busy = pathlib.Path("busy").exists()
    print(2000 + 500 * busy + random.gauss(0, 10), flush=True)
    time.sleep(0.02)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _loop(seconds: float) -> tuple[float, float, int]:
    """The workload: the file `busy` is there meanwhile."""
    start = time.time()
    Path("busy").touch()
    time.sleep(seconds)
    Path("busy").unlink()
    return start, time.time(), 100


def _meter(program: str) -> Meter:
    Path("meter.py").write_text(program)
    source = power_source(f"command:{PYTHON} meter.py")
    assert isinstance(source, Command)
    return replace(source, patience=0.7)


def _samples(source: Meter, seconds: float) -> list[Sample]:
    with source.record() as recording:
        begin = time.time()
        return list(recording.samples(begin, begin + seconds))


def test_a_program_that_prints_milliwatts() -> None:
    energy = measure_energy(_meter(METER), _loop, 1.0, 1.0)
    assert energy.seconds is not None
    # the exact sleep is not known, so the truth comes from the loop's own time
    assert energy.joules_per_inference == pytest.approx(0.5 * energy.seconds / 100, rel=0.05)
    assert energy.source.startswith("command:")


def test_the_program_has_ended_when_the_measurement_has() -> None:
    source = _meter("import os\nopen('pid', 'w').write(str(os.getpid()))\n" + METER)
    _samples(source, 0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)


def test_a_program_gets_its_words_and_no_shell() -> None:
    Path("meter.py").write_text("import sys\nfor n in sys.argv[1:]: print(len(n), flush=True)")
    source = power_source(f"command:{PYTHON} meter.py '$(touch owned); a' `b` ;")
    assert isinstance(source, Command)
    text = message_of(lambda: _samples(source, 5))
    assert "exit code 0 after 3 lines" in text
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print(2000)", "ended with exit code 0 after 1 lines"),
        ("import sys\nprint(2000)\nsys.exit('no meter at /dev/ttyUSB0')", "no meter at"),
        ("import time\nprint('2,1 W', flush=True)\ntime.sleep(9)", "printed '2,1 W'; expected one"),
        ("import time\nprint('nan', flush=True)\ntime.sleep(9)", "printed 'nan'"),
        ("import time\nprint('\\x1b[2J' * 99, flush=True)\ntime.sleep(9)", "printed '"),
        ("import time\ntime.sleep(9)", "has printed nothing"),
        ("import time\nprint(2000, flush=True)\ntime.sleep(9)", "stopped 0."),
        ("import time\nout = open(1, 'w', 8192)\nout.write('2000\\n')\ntime.sleep(9)", "flush"),
        ("import sys, os\nwhile 1: os.write(1, b'9' * 99)", "stopped|printed"),
    ],
    ids=["ends", "fails", "rubbish", "nan", "controls", "silent", "stops", "kept back", "flood"],
)
def test_a_program_that_is_no_meter(program: str, message: str) -> None:
    text = message_of(lambda: _samples(_meter(program), 0.5))
    assert any(part in text for part in message.split("|")), text


def test_a_meter_that_dies_in_the_run_ends_the_measurement_with_its_words() -> None:
    program = METER.replace("    print", "    if busy: sys.exit('battery empty')\n    print")
    text = message_of(lambda: measure_energy(_meter(program), _loop, 0.5, 0.5))
    assert "exit code 1" in text
    assert "battery empty" in text


def test_a_dead_meter_is_seen_before_the_run() -> None:
    text = message_of(lambda: measure_energy(_meter("print(2000)"), _never, 0.3, 0.5))
    assert "exit code 0" in text


def _never(seconds: float) -> tuple[float, float, int]:
    raise AssertionError(f"the loop of {seconds} s must not run")


def test_a_program_that_is_asked_again_and_again() -> None:
    Path("meter.sh").write_text("printf x >> calls; wc -c < calls\n")
    source = power_source("command:sh meter.sh", interval=0.1)
    begin = time.time()
    assert not isinstance(source, Csv)
    samples = _samples(source, 0.55)  # type: ignore[arg-type]
    first = int(samples[0][1])
    assert first in (1, 2)  # the first call may be over before the time that is asked for begins
    assert [power for _, power in samples] == list(map(float, range(first, first + len(samples))))
    assert 3 <= len(samples) <= 8
    assert begin < samples[0][0] < samples[-1][0] <= time.time()
    assert samples[-1][0] >= begin + 0.55
    calls = Path("calls").stat().st_size
    time.sleep(0.3)
    assert Path("calls").stat().st_size == calls


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("sh -c 'exit 3'", "exit code 3"),
        ("sh -c 'echo warm'", "printed 'warm'"),
        ("sh -c 'sleep 9'", "did not end within 0.5 s"),
        ("./nothing-here", "cannot be started: No such file"),
    ],
)
def test_a_program_that_is_asked_and_fails(program: str, message: str) -> None:
    source = power_source(f"command:{program}", interval=0.1)
    assert isinstance(source, Command)
    assert message in message_of(lambda: _samples(replace(source, patience=0.5), 1))


def test_a_program_that_is_not_there() -> None:
    source = power_source("command:./nothing-here 1")
    assert isinstance(source, Command)
    assert "cannot be started: No such file" in message_of(lambda: _samples(source, 1))


RECORDER = """
import datetime, pathlib, random, sys, time
print("Sample;Timestamp;Voltage(V);Current(A)", flush=True)
for n in range(10**6):
    busy = pathlib.Path("busy").exists()
    amperes = (2 + 0.5 * busy + random.gauss(0, 0.01)) / 5.1
    when = datetime.datetime.fromtimestamp(time.time() - 100, datetime.timezone.utc)
    print(f"{n};{when.isoformat()};5,1;{amperes:.5f}".replace(".", ","), flush=True)
    time.sleep(0.02)
"""


@pytest.fixture
def _recorder() -> Iterator[None]:
    """Another program, whose clock is 100 s late, writes a European table."""
    Path("recorder.py").write_text(RECORDER)
    with Path("meter.csv").open("w") as table:
        process = subprocess.Popen([sys.executable, "recorder.py"], stdout=table)
    time.sleep(0.3)
    yield
    process.terminate()
    process.wait()


CSV = "csv:meter.csv?time=Timestamp&voltage=Voltage(V)&current=Current(A)"


@pytest.mark.usefixtures("_recorder")
def test_a_recording_of_another_program() -> None:
    source = power_source(CSV.replace("current=", "offset=100&current="))
    energy = measure_energy(source, _loop, 1.0, 1.0)
    assert energy.seconds is not None
    assert energy.joules_per_inference == pytest.approx(0.5 * energy.seconds / 100, rel=0.05)


@pytest.mark.usefixtures("_recorder")
def test_a_recording_with_another_clock_says_by_how_much() -> None:
    source = power_source(CSV)
    assert isinstance(source, Csv)
    text = message_of(lambda: measure_energy(replace(source, patience=0.3), _loop, 0.3, 0.3))
    assert "ends 99." in text or "ends 100." in text
    assert "offset=SECONDS" in text


S = 1e9  # seconds: 2001-09-09 01:46:40 UTC
TABLES: dict[str, tuple[str, str, list[tuple[float, float]]]] = {
    "plain": ("t,P\n1e9,2000\n1000000001,2.5\n", "time=t&power=P", [(S, 2000), (S + 1, 2.5)]),
    "watts": ("t,P(W)\n1000000000,2.5\n", "time=t&power=P(W)&unit=W", [(S, 2500)]),
    "microwatts": ("t\tP\n1000000000\t2500000\n", "time=t&power=P&unit=uW", [(S, 2500)]),
    "V and A": ("t,U,I\n1000000000,5,0.5\n", "time=t&voltage=U&current=I", [(S, 2500)]),
    "mV and uA": (
        "t,U,I\n1000000000,5000,500000\n",
        "time=t&voltage=U&current=I&voltage_unit=mV&current_unit=uA", [(S, 2500)],
    ),
    "V and mA": (
        "t,U,I\n1000000000,5,500\n", "time=t&voltage=U&current=I&current_unit=mA", [(S, 2500)]
    ),
    "milliseconds": ("t,P\n1000000000500,1\n", "time=t&power=P", [(S + 0.5, 1)]),
    "microseconds": ("t,P\n1000000000500000,1\n", "time=t&power=P", [(S + 0.5, 1)]),
    "from the start": (
        "t,P\n0,1\n0.5,2\n", "time=t&power=P&start=1000000000", [(S, 1), (S + 0.5, 2)]
    ),
    "ms from the start": (
        "t,P\n500,2\n", "time=t&power=P&start=1000000000&time_unit=ms", [(S + 0.5, 2)]
    ),
    "a stop watch": (
        "t,P\n0:00:12.5,2\n", "time=t&power=P&start=2001-09-09T01:46:40Z", [(S + 12.5, 2)]
    ),
    "ISO": ("t,P\n2001-09-09 01:46:40.250Z,2\n", "time=t&power=P", [(S + 0.25, 2)]),
    "ISO with a zone": ("t,P\n2001-09-09T03:46:40+02:00,2\n", "time=t&power=P", [(S, 2)]),
    "a form": (
        "t,P\n09.09.2001 01:46:40 +0000,2\n",
        "time=t&power=P&format=%25d.%25m.%25Y %25H:%25M:%25S %25z", [(S, 2)],
    ),
    "offset": ("t,P\n1000000001.2,2\n", "time=t&power=P&offset=-1.2", [(S, 2)]),
    "names that need care": (
        '"a&b, c",100%\n1000000000,7\n', "time=a%26b, c&power=100%25", [(S, 7)]
    ),
    "spaces": (
        "t  U I\n1000000000 5 0.5\n", "time=t&voltage=U&current=I&separator=space", [(S, 2500)]
    ),
    "decimal commas": ("t;P\n1000000000,5;2500,25\n", "time=t&power=P", [(S + 0.5, 2500.25)]),
    "byte order mark, CRLF": ("\ufefft,P\r\n1000000000,5\r\n", "time=t&power=P", [(S, 5)]),
    "being written": ("t,P\n1000000000,5\n1000000001,2", "time=t&power=P", [(S, 5)]),
    "two recordings": (
        "\nt,P\n1000000000,5\n\nt,P\n1000000009,6\n", "time=t&power=P", [(S, 5), (S + 9, 6)]
    ),
    "packets": (
        "t,P\n1000000000.03,1\n1000000000.01,2\n", "time=t&power=P", [(S + 0.01, 2), (S + 0.03, 1)]
    ),
    "nothing yet": ("", "time=t&power=P", []),
    "a header": ("t,P\n", "time=t&power=P", []),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table(name: str) -> None:
    table, query, expected = TABLES[name]
    Path("a b.csv").write_bytes(table.encode())
    source = power_source(f"csv:a b.csv?{query}")
    assert isinstance(source, Csv)
    got = source.read(0.0)
    assert np.array(got).reshape(-1, 2) == pytest.approx(
        np.array(expected).reshape(-1, 2), abs=1e-6
    )


def test_a_date_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-5")  # five hours east
    time.tzset()
    try:
        Path("m.csv").write_text("t,P\n2001-09-09 06:46:40,2\n")
        assert csv_source("", "m.csv?time=t&power=P").read(0.0) == [(1e9, 2.0)]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("t,Power\n1000000000,5\n", "0 columns 'P'; expected one; its header has t, Power"),
        ("t,P,P\n1000000000,5,6\n", "2 columns 'P'"),
        ("t,P\n1000000000,five\n", "line 2: got 'five'"),
        ("t,P\n1000000000,5\n1000000001,\n", "line 3: got ''"),
        ("t,P\n1000000000,nan\n", "line 2: got 'nan'"),
        ("t,P\n1000000000\n", "line 2: got"),
        ("t,P\nyesterday,5\n", "line 2: got 'yesterday'"),
        ("t,P\n1e300,5\n1000000000,5\n", "time goes back"),
        ("t,P\n1000003600,5\n1000000000,5\n", "line 3: time goes back by 3600.0 s"),
    ],
)
def test_a_table_that_cannot_be_read(table: str, message: str) -> None:
    Path("m.csv").write_text(table)
    source = csv_source("", "m.csv?time=t&power=P")
    assert message in message_of(lambda: source.read(0.0))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "cannot read the samples in m.csv: No such file"),
        ("t,P\n", "holds no sample"),
        ("t,P\n0,5\n9,6\n", "its times begin at 0: give start=TIME"),
        ("t,P\n1000000000,5\n1000000009,6\n", "offset=SECONDS"),
    ],
)
def test_a_recording_without_the_run(table: str | None, message: str) -> None:
    if table is not None:
        Path("m.csv").write_text(table)
    source = replace(csv_source("", "m.csv?time=t&power=P"), patience=0.1)
    assert message in message_of(lambda: _samples(source, 0.1))


def test_a_wrong_column_is_seen_before_the_run() -> None:
    Path("m.csv").write_text("t,Power\n1000000000,5\n")
    source = power_source("csv:m.csv?time=t&power=P")
    assert "columns 'P'" in message_of(lambda: measure_energy(source, _never, 0.1, 0.1))


def test_a_recording_that_comes_late_is_waited_for() -> None:
    begin = time.time()

    def write() -> None:
        rows = [f"{begin + n / 10},{2000 + n}" for n in range(30)]
        Path("m.csv").write_text("\n".join(["t,P", *rows, ""]))

    timer = threading.Timer(0.5, write)
    timer.start()
    samples = _samples(csv_source("", "m.csv?time=t&power=P"), 1.0)
    timer.join()
    assert len(samples) in (29, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("csv:m.csv", "got ''; expected csv:FILE?time=COLUMN"),
        ("csv:m.csv?power=P", "names no file or no time"),
        ("csv:?time=t&power=P", "names no file or no time"),
        ("csv:m.csv?time=t", "expected power=COLUMN"),
        ("csv:m.csv?time=t&voltage=U", "expected power=COLUMN"),
        ("csv:m.csv?time=t&power=P&voltage=U&current=I", "expected power=COLUMN"),
        ("csv:m.csv?time=t&voltage=U&current=I&unit=W", "expected power=COLUMN"),
        ("csv:m.csv?time=t&power=P&time=u", "each once"),
        ("csv:m.csv?time=t&power=P&colour=red", "got 'colour=red'"),
        ("csv:m.csv?time=t&power=P&unit=kW", "unit is 'kW'; expected mW, W, uW"),
        ("csv:m.csv?time=t&power=P&offset=late", "offset is 'late'; expected seconds"),
        ("csv:m.csv?time=t&power=P&time_unit=h", "time_unit is 'h'"),
        ("csv:m.csv?time=t&power=P&start=noon", "start is 'noon'"),
        ("csv:m.csv?time=t&power=P&separator=|", "separator is one of comma"),
        ("command:", "names no program"),
        ("command:a 'b", "No closing quotation"),
        ("manual:2700", "expected manual:IDLE,PEAK"),
        ("manual:3498,2700", "expected 0 < IDLE <= PEAK"),
        ("manual:nan,nan", "expected manual:IDLE,PEAK"),
        ("hwmon:../../etc", "expected hwmon, hwmon:NAME"),
        ("csv:a\nb.csv?time=t&power=P", "expected one line"),
        ("usb", "expected command:PROGRAM, csv:FILE"),
    ],
)
def test_a_source_that_is_not_understood(text: str, message: str) -> None:
    assert message in message_of(lambda: power_source(text))


@pytest.mark.parametrize("interval", [0.0, 61.0, float("nan")])
def test_an_interval_that_cannot_be(interval: float) -> None:
    assert "0.001 to 60" in message_of(lambda: power_source("command:meter", interval))


def test_an_interval_belongs_to_a_command() -> None:
    assert "is for command:" in message_of(lambda: power_source("hwmon", 1.0))


# -- hwmon


def _sensor(folder: Path, name: str, **files: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    for file, value in files.items():
        (folder / file).write_text(f"{value}\n")
    return folder


INA = {"in0_input": 5, "in1_input": 5100, "curr1_input": 490, "power1_input": 2_480_000}


def _hwmon(root: Path, text: str = "hwmon") -> Hwmon:
    source = power_source(text)
    assert isinstance(source, Hwmon)
    return replace(source, root=str(root), interval=0.02, patience=0.6)


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("ina219", INA, 5.1 * 490),  # finer than its power in steps of 20 mW
        ("ina226", {"power1_input": 2_475_000}, 2475.0),
        ("ina260", INA, 5.1 * 490),
        ("powerz", {"in0_input": 5100, "in1_input": 400, "curr1_input": -490}, 5.1 * 490),
    ],
)
def test_a_sensor(tmp_path: Path, name: str, files: dict[str, int], expected: float) -> None:
    _sensor(tmp_path / "sys" / "hwmon0", "cpu_thermal", temp1_input=48_000)
    _sensor(tmp_path / "sys" / "hwmon1", name, **files)
    samples = _samples(_hwmon(tmp_path / "sys"), 0.3)
    assert len(samples) > 5
    assert [power for _, power in samples] == pytest.approx([expected] * len(samples))
    assert abs(samples[-1][0] - time.time()) < 1


def _follow_busy(folder: Path, stop: threading.Event) -> None:
    random = np.random.default_rng(0)
    while not stop.wait(0.01):
        amperes = (400 + 100 * Path("busy").exists()) + random.integers(-5, 6)
        (folder / "new").write_text(f"{amperes}\n")
        (folder / "new").rename(folder / "curr1_input")


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Path]:
    """A sensor whose current follows the workload."""
    folder = _sensor(
        tmp_path / "sys of; touch owned" / "hwmon3", "ina219", **INA, shunt_resistor=10_000
    )
    stop = threading.Event()
    thread = threading.Thread(target=_follow_busy, args=(folder, stop))
    thread.start()
    yield folder.parent
    stop.set()
    thread.join()


# As sshd does it: the words become one text for the login shell of the other machine.
SSH = ("sh", "-c", 'exec sh -c "$*"', "ssh", "sh")


@pytest.mark.parametrize("remote", [False, True])
def test_energy_from_a_sensor_here_and_there(moving: Path, remote: bool) -> None:
    source = _hwmon(moving)
    if remote:
        source = replace(source, shell=SSH, remote=True)
    energy = measure_energy(source, _loop, 1.0, 1.0)
    assert energy.seconds is not None
    assert energy.joules_per_inference == pytest.approx(0.51 * energy.seconds / 100, rel=0.05)
    assert "driver's default" in energy.warnings[0]
    assert not Path("owned").exists()


def test_the_clocks_of_both_machines_are_compared(tmp_path: Path) -> None:
    """A connection that keeps every third line back for 0.15 s: all samples lie where the device
    said, moved by one difference of the clocks, which is that of the quickest line."""
    _sensor(tmp_path / "sys" / "hwmon0", "ina219", **INA)
    slow = """
        sh "$@" | while read -r line; do
            case $line in [0-9]*) n=$((n + 1)); echo "${line%% *}" >> told;; esac
            if [ $((n % 3)) = 2 ]; then sleep 0.15; fi
            echo "$line"
        done"""
    source = replace(_hwmon(tmp_path / "sys"), shell=("sh", "-c", slow, "slow"))
    with replace(source, interval=0.1, patience=20.0).record() as recording:
        samples = list(recording.samples(0, time.time() + 1.0))
    told = [float(line) for line in Path("told").read_text().split()][: len(samples)]
    moved = [seconds - uptime for (seconds, _), uptime in zip(samples, told, strict=True)]
    assert len(moved) >= 4
    assert moved == pytest.approx([moved[0]] * len(moved), abs=1e-4)
    between = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    assert -0.03 < moved[0] - between < 0.14  # uptime has steps of 10 ms


@pytest.mark.parametrize(
    ("sensors", "text", "message"),
    [
        ({}, "hwmon", "no power monitor on the device"),
        ({"hwmon0": "cpu_thermal"}, "hwmon", "has hwmon0 cpu_thermal; load its driver"),
        (
            {"hwmon0": "ina219", "hwmon1": "ina226"},
            "hwmon",
            "several power monitors: hwmon0 ina219",
        ),
        ({"hwmon0": "ina219", "hwmon1": "ina219"}, "hwmon:ina219", "several power monitors"),
        ({"hwmon0": "ina219"}, "hwmon:hwmon1", "no power monitor hwmon1"),
    ],
)
def test_no_sensor_or_too_many(
    tmp_path: Path, sensors: dict[str, str], text: str, message: str
) -> None:
    for folder, name in sensors.items():
        _sensor(tmp_path / "sys" / folder, name, **(INA if "ina" in name else {}))
    assert message in message_of(lambda: _samples(_hwmon(tmp_path / "sys", text), 0.1))


@pytest.mark.parametrize("text", ["hwmon:hwmon1", "hwmon:other"])
def test_one_of_several_sensors(tmp_path: Path, text: str) -> None:
    _sensor(tmp_path / "sys" / "hwmon0", "ina219", **INA)
    _sensor(tmp_path / "sys" / "hwmon1", "other", power1_input=1_000_000)
    assert _samples(_hwmon(tmp_path / "sys", text), 0.1)[0][1] == 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "curr1_input").unlink(), "gave 'cannot read curr1_input'"),
        (lambda folder: (folder / "curr1_input").write_text("garbage\n"), "garbage'; is it still"),
        (lambda folder: (folder / "curr1_input").write_text("1 2\n"), "is it still connected"),
    ],
)
def test_a_sensor_that_goes_away(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    folder = _sensor(tmp_path / "sys" / "hwmon0", "ina219", **INA)
    with _hwmon(tmp_path / "sys").record() as recording:
        now = time.time()
        assert recording.samples(now, now + 0.1)
        change(folder)
        assert message in message_of(lambda: recording.samples(now, now + 1))


@pytest.mark.parametrize(
    ("name", "shunt", "ma", "inside"),
    [
        ("ina226", 100_000, 819, False),  # 81.92 mV / 0.1 Ω: less than a Raspberry Pi 4 may take
        ("ina226", 100_000, 810, True),
        ("ina226", 10_000, 819, True),
        ("ina219", 100_000, 3200, False),
        ("ina219", 100_000, 819, True),
    ],
)
def test_a_sensor_at_the_end_of_its_range(
    tmp_path: Path, name: str, shunt: int, ma: int, inside: bool
) -> None:
    files = {"in1_input": 5100, "curr1_input": ma, "shunt_resistor": shunt}
    _sensor(tmp_path / "sys" / "hwmon0", name, **files)
    source = _hwmon(tmp_path / "sys")
    if inside:
        assert _samples(source, 0.1)[0][1] == pytest.approx(5.1 * ma)
    else:
        assert "the end of its range" in message_of(lambda: _samples(source, 0.1))


def test_words_of_a_login_shell_are_no_samples(tmp_path: Path) -> None:
    _sensor(tmp_path / "sys" / "hwmon0", "ina219", **INA)
    greeting = 'echo "Welcome to pi"; echo "1 2 3"; exec sh "$@"'
    source = replace(_hwmon(tmp_path / "sys"), shell=("sh", "-c", greeting, "ssh"))
    samples = _samples(source, 0.2)
    assert [power for _, power in samples] == pytest.approx([2499.0] * len(samples))


def test_a_machine_that_cannot_be_reached(tmp_path: Path) -> None:
    shell = ("sh", "-c", "echo 'ssh: connect to host pi: No route to host' >&2; exit 255", "ssh")
    source = replace(_hwmon(tmp_path), shell=shell)
    assert "No route to host" in message_of(lambda: _samples(source, 0.1))
    gone = replace(_hwmon(tmp_path), shell=("./no-ssh",))
    assert "cannot be started" in message_of(lambda: _samples(gone, 0.1))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("yes hwmon0", "lists more than 64 KiB of sensors"),
        ("cat /dev/zero", "lists more than 64 KiB of sensors"),
        ("yes x >&2", "lists more than 64 KiB of sensors"),
        ("exec sleep 5", "did not list its sensors in time"),
        ("echo the plug was pulled; exit 3", "cannot be listed: the plug was pulled"),
        ("exit 3", "cannot be listed: "),
    ],
)
def test_a_list_of_sensors_without_end_or_none(program: str, message: str) -> None:
    Path("shell").write_text(f"#!/bin/sh\n{program}\n")
    Path("shell").chmod(0o755)
    source = Hwmon("hwmon", shell=(str(Path("shell").absolute()),), patience=0.3)
    begin = time.monotonic()
    with pytest.raises(PowerError, match=message):
        source.sensor()
    assert time.monotonic() - begin < 4.5


def test_a_connection_that_breaks_in_the_run(tmp_path: Path) -> None:
    _sensor(tmp_path / "sys" / "hwmon0", "ina219", **INA)
    broken = """
        if [ "$#" -gt 3 ]; then
            timeout 0.3 sh "$@"; echo "closed by remote host" >&2; exit 255
        fi
        exec sh "$@\""""
    source = replace(_hwmon(tmp_path / "sys"), shell=("sh", "-c", broken, "ssh"))
    text = message_of(lambda: _samples(source, 1.0))
    assert "exit code 255" in text
    assert "closed by remote host" in text


def test_power_errors_leave_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert PowerError("x").exit_code == 2
    assert command_line(["no-such-command"]) == 2
    capsys.readouterr()
