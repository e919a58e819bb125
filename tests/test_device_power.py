"""`mpsearch device run --power`: energy of a real program in front of a simulated meter."""

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import integer_networks
import numpy as np
import pytest
from exports import small_export
from loopback_sshd import MISSING, serve

from mpsearch.cli import run
from mpsearch.device import measuring
from mpsearch.device.energy import Power
from mpsearch.device.exported import Compiler, read_export
from mpsearch.device.measured_table import by_time
from mpsearch.device.measuring import loop_on, measure, prepare, steps_of
from mpsearch.device.power import manual
from mpsearch.device.power_hwmon import Hwmon
from mpsearch.device.power_source import power_source
from mpsearch.device.profile import load_device_profile
from mpsearch.device.session import Session
from mpsearch.device.timing import Settings
from mpsearch.device.transport import shell_of
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs" / "power.md").read_text()
PACKAGE = ROOT / "mpsearch" / "device"
QUICK = ("--flags", "-O0", "--runs", "3", "--repeat", "5", "--warm-up", "2", "--mode", "steady")
SETTINGS = Settings(("steady",), 3, 5, 2, 20, Compiler(flags=("-O0",)))


def _busy(folder: Path) -> bool:
    """A program called network runs in a session's folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0] == b"./network" and folder in (process / "cwd").readlink().parents:
                return True
    return False


# 2 W, and 700 mW more while a program called network runs in the folder of a session
METER = """
import os, random, time
def busy():
    for process in os.listdir("/proc"):
        try:
            words = open(f"/proc/{process}/cmdline", "rb").read().split(b"\\0")
            if words[0] == b"./network" and os.readlink(f"/proc/{process}/cwd").startswith(HERE):
                return True
        except OSError:
            pass
    return False
HERE = os.path.realpath(os.environ["TMPDIR"])
while True:
    print(2000 + 700 * busy() + random.gauss(0, 10), flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_export(tmp_path_factory.mktemp("export") / "net")


@pytest.fixture(autouse=True)
def _here(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").symlink_to(export)


def _run(*arguments: str) -> int:
    return run(["device", "run", "net", "--host", "local", *QUICK, *arguments])


def test_the_energy_of_a_program_in_front_of_a_meter(capsys: pytest.CaptureFixture[str]) -> None:
    """On a busy machine the meter and the program wait for each other, so that the meter misses
    parts of the run: one of three measurements must be right. A fault is in all of them."""
    Path("meter.py").write_text(METER)
    meter = f"command:{shlex.quote(sys.executable)} meter.py"
    seen = []
    for _ in range(3):
        code = _run("--power", meter, "--idle-seconds", "1.5", "--power-seconds", "2")
        said = capsys.readouterr()
        energy = load_device_profile("device.json").energy
        if code or energy is None:
            seen.append(said.err)
            continue
        assert energy.source == meter
        assert energy.seconds is not None
        assert energy.inferences is not None
        assert energy.joules_per_inference is not None
        assert energy.joules_half_width is not None
        assert energy.peak_minus_idle_mw is not None
        assert f"{1e3 * energy.joules_per_inference:.4g} ±" in said.out
        assert "only 1.5 s of idle" in said.out
        assert "as in the TinyM²Net paper" in said.out
        # the meter adds exactly 0.7 W while the program runs
        truth = 0.7 * energy.seconds / energy.inferences
        error = abs(energy.joules_per_inference - truth)
        seen.append(f"{energy.joules_per_inference} J, which is {truth} J; {energy}")
        if (
            1 < energy.seconds < 20  # counted beforehand
            and error < min(0.1 * truth, 2 * energy.joules_half_width)
            and abs(energy.peak_minus_idle_mw - 730) < 30
        ):
            return
    pytest.fail("\n".join(seen))


@pytest.fixture
def sensor(tmp_path: Path) -> Iterator[Path]:
    """A sensor of a fake /sys, whose current follows the program of a session over ssh."""
    folder = tmp_path / "sys" / "hwmon1"
    folder.mkdir(parents=True)
    values = {"name": "ina219", "in1_input": "5000", "curr1_input": "400"}
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")
    stop = threading.Event()

    def follow() -> None:
        random = np.random.default_rng(0)
        while not stop.wait(0.02):
            current = 400 + 140 * _busy(tmp_path / "sshd" / "tmp") + random.integers(-3, 4)
            (folder / "new").write_text(f"{current}\n")
            (folder / "new").rename(folder / "curr1_input")

    thread = threading.Thread(target=follow)
    thread.start()
    yield folder
    stop.set()
    thread.join()


@pytest.mark.skipif(bool(MISSING), reason=f"there is no {', '.join(MISSING)}")
def test_a_sensor_of_the_device_is_read_over_ssh(
    tmp_path: Path, sensor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sshd").mkdir()
    try:
        with serve(tmp_path / "sshd") as pi:
            monkeypatch.setenv("PATH", f"{pi.folder}:{os.environ['PATH']}")
            pi.environment.write_text("echo Welcome to pi\n")
            source = power_source("hwmon", shell=shell_of("pi"), remote=True)
            assert isinstance(source, Hwmon)
            power = Power(replace(source, root=str(sensor.parent)), 1.5, 1.5)
            profile = measure(read_export("net"), "pi", SETTINGS, power=power)
            end = time.monotonic() + 20
            while pi.processes():  # nothing goes on reading
                assert time.monotonic() < end
                time.sleep(0.05)
    except RuntimeError as error:
        pytest.skip(f"sshd does not start here: {error}")
    assert profile.power_failure is None
    energy = profile.energy
    assert energy is not None
    assert energy.seconds is not None
    assert energy.inferences is not None
    assert energy.joules_per_inference == pytest.approx(
        5 * 0.14 * energy.seconds / energy.inferences, rel=0.1
    )


def test_a_meter_that_dies_leaves_the_times(capsys: pytest.CaptureFixture[str]) -> None:
    Path("meter.py").write_text("import time\nprint(2000, flush=True)\ntime.sleep(1.5)\n")
    meter = f"command:{shlex.quote(sys.executable)} meter.py"
    assert _run("--power", meter, "--idle-seconds", "1", "--power-seconds", "1") == 1
    profile = load_device_profile("device.json")
    assert profile.energy is None
    assert profile.steady is not None
    assert profile.power_failure is not None
    assert "ended with exit code 0" in profile.power_failure
    assert f"no energy: {profile.power_failure}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_table_gets_joules_that_solve_can_limit(capsys: pytest.CaptureFixture[str]) -> None:
    model, inputs = integer_networks.build("pools", 8)
    save(model, "model.pt", inputs, {"x0": inputs[0]})
    names = [layer.name for layer in Network.from_module(model, inputs).layers]
    rows = [Row(name, Choice(w, 8), 1.0, 0.0, {"size_bytes": w}) for name in names for w in (4, 8)]
    LayerTable.from_rows([Layer(name) for name in names], rows).write_csv("profile.csv")
    Path("meter.py").write_text(METER)
    meter = ["--power", f"command:{shlex.quote(sys.executable)} meter.py"]
    quick = ["--rounds", "1", "--repeat", "20", "--idle-seconds", "1", "--power-seconds", "1.2"]
    words = ["device", "table", "model.pt", "--host", "local", *quick]
    assert run([*words, "--power", "manual:2700,3498"]) == 2
    assert "no joules for energy_j" in capsys.readouterr().err
    for attempt in range(3):  # on a busy machine the meter and the loop wait for each other
        code = run([*words, *meter, "--json"])
        said = capsys.readouterr()
        totals = [] if code else json.loads(said.out)["totals"]
        energies = [one["energy"] for one in totals]
        truths = [0.7 * energy["seconds"] / energy["inferences"] for energy in energies]
        if code == 0 and [e["joules_per_inference"] for e in energies] == pytest.approx(
            truths, rel=0.15
        ):
            break
        assert attempt < 2, f"three times {energies} is not {truths}: {said.err}"
    table = LayerTable.read_csv("profile.csv")
    assert table.columns == ("size_bytes", "latency_s", "energy_j")
    for one, choice in zip(totals, (Choice(4, 8), Choice(8, 8)), strict=True):
        choices = dict.fromkeys(names, choice)
        assert one["predicted_j"] == pytest.approx(one["energy"]["joules_per_inference"])
        assert table.total(choices, "energy_j") == pytest.approx(one["predicted_j"])
    ratio = table.column("energy_j") / table.column("latency_s")  # watts, the same in one network
    assert len(set(np.round(ratio, 6))) <= 2
    assert run(["solve", "--limit", "energy_j=1", "-o", "a.json"]) == 0
    assert run(["solve", "--limit", "energy_j=1e-12", "-o", "b.json"]) == 1


def test_joules_are_shared_out_by_time() -> None:
    assert by_time(6.0, {"a": 1.0, "b": 2.0}) == {"a": 2.0, "b": 4.0}


def test_numbers_read_by_eye(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--power", "manual:2700,3498") == 0
    said = capsys.readouterr().out
    assert "peak less idle, as in the TinyM²Net paper: 798 mW" in said
    assert "no joules can be claimed" in said
    assert "mJ per inference" not in said
    energy = json.loads(Path("device.json").read_text())["energy"]
    assert energy["joules_per_inference"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--power", "usb"), "expected command:PROGRAM"),
        (("--power-interval", "1"), "belongs to --power command:PROGRAM"),
        (("--power", "hwmon", "--power-interval", "1"), "is for command:PROGRAM"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert _run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("device.json").exists()


def test_quick_networks_are_looped_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST_RUNS", 1000)
    exported = read_export("net")
    with Session("local") as session:
        prepare(session, exported, SETTINGS)
        start, end, inferences = loop_on(session, SETTINGS)(1.0)
    assert inferences > 2000
    assert 0.8 < end - start < 9


def test_a_meter_is_a_step_of_the_progress() -> None:
    power = Power(manual("manual:1,2", "1,2"))
    assert steps_of(SETTINGS, power) == steps_of(SETTINGS) + 1


def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    (line,) = re.findall(r"```sh\nmpsearch (.*?)\n```", DOCS)
    Path("meter.py").write_text(program)
    Path("network").symlink_to("net")
    words = [word.replace("python3", sys.executable) for word in shlex.split(line)]
    assert words[:3] == ["device", "run", "network"]
    short = ("--idle-seconds", "1", "--power-seconds", "1")
    # Of 40 runs of noise one exceeds its 95 % interval, so that three in a row mean a fault.
    codes = (run([*words, *QUICK, *short]) for _ in range(3))
    assert 1 in codes
    said = capsys.readouterr().err
    assert re.search(
        r"no energy: the run takes -?[\d.]+ ± [\d.]+ mW \(95 %\) more than idle, which may be\s",
        said,
    )


def test_the_sources_in_the_docs_are_understood() -> None:
    sources = re.findall(r'--power (?:"([^"]+)"|(\w+:\S+))', DOCS)
    kinds = [type(power_source(quoted or plain)).__name__ for quoted, plain in sources]
    assert set(kinds) == {"Command", "Csv", "Hwmon", "Manual"}
    assert len(kinds) >= 6


def test_the_messages_in_the_docs_are_said() -> None:
    """Every message of the last table is one that the package has, less its numbers."""
    table = DOCS[DOCS.index("## What a faulty meter gets") :]
    code = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # strings over several lines
    messages = [row.split("|")[2] for row in table.splitlines() if row.count("|") == 3][2:]
    assert len(messages) >= 10
    for message in messages:
        for quoted in re.findall(r"`([^`]+)`", message):
            parts = re.split(r"[-+]?\d[\d.]*(?: s)?|…|'\w+'|±", quoted)
            for part in (part.strip(" :;") for part in parts):
                assert part in code, part
