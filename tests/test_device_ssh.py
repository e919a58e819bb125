"""`mpsearch device run` over a real sshd on a loopback port, and all that a connection can do."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exports import insert, replace_file, small_export
from loopback_sshd import MISSING, Loopback, serve

from mpsearch.cli import run
from mpsearch.device.exported import Compiler, read_export
from mpsearch.device.measuring import measure
from mpsearch.device.profile import device_latency, load_device_profile
from mpsearch.device.timing import Settings
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"there is no {', '.join(MISSING)}")
SETTINGS = Settings(
    modes=("steady",), repeat=5, warm_up=2, timeout=20, compiler=Compiler(flags=("-O0",))
)
QUICK = ("--flags", "-O0", "--runs", "3", "--repeat", "5", "--warm-up", "2")
RUN = "            network_run();"
AARCH64, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    try:
        with serve(tmp_path_factory.mktemp("sshd")) as loopback:
            yield loopback
    except RuntimeError as error:
        pytest.skip(f"sshd does not start here: {error}")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_export(tmp_path_factory.mktemp("export") / "net")


@pytest.fixture
def pi(daemon: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The device; nothing of a session may be left on it, whatever happened."""
    monkeypatch.setenv("PATH", f"{daemon.folder}:{os.environ['PATH']}")
    (daemon.folder / "calls").write_text("")
    yield daemon
    daemon.environment.write_text("")
    _wait_for(lambda: not daemon.processes() and not list(daemon.tmp.iterdir()))


@pytest.fixture
def own(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the export to change, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(export, tmp_path / "net"))


def _wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def _fails(capsys: pytest.CaptureFixture[str], host: str, *words: str, code: int = 2) -> str:
    assert run(["device", "run", "net", "--host", host, *QUICK, *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) <= 2
    assert not Path("device.json").exists()
    return said.err


def test_a_run_over_ssh_compiles_checks_and_measures(
    own: Path, pi: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    pi.environment.write_text("echo 'Welcome to \"Pi\" {1}'\n")  # what a login shell may print
    assert run(["device", "run", "net", "--host", "pi", *QUICK]) == 0
    assert "4 samples give the integers of the reference" in capsys.readouterr().out
    profile = load_device_profile("device.json")
    assert (profile.host, profile.emulated) == ("pi", False)
    assert device_latency(profile, "process") > device_latency(profile, "steady")
    (call,) = pi.calls()
    assert call[call.index("--") + 1] == "pi"
    assert not any("HostKey" in word or "KnownHosts" in word for word in call)


@pytest.mark.skipif(
    None in (shutil.which(AARCH64), shutil.which(QEMU)), reason=f"there is no {AARCH64} or {QEMU}"
)
def test_aarch64_programs_under_an_emulator(own: Path, pi: Loopback) -> None:
    """A device that says aarch64 and has no compiler: only static programs and samples arrive."""
    tools = own.parent / "bin"
    tools.mkdir()
    uname = shutil.which("uname")
    _program(tools / "uname", f'[ "$1" != -m ] || exec echo aarch64\nexec {uname} "$@"')
    pi.environment.write_text(f"PATH={tools}:$PATH\n")
    words = ["--compile", "here", "--cc", AARCH64, "--launch-prefix", f"{QEMU} -cpu cortex-a72"]
    assert run(["device", "run", "net", "--host", "pi", *QUICK, *words]) == 0
    profile = load_device_profile("device.json")
    assert profile.machine.architecture == "aarch64"
    assert profile.emulated
    with pytest.raises(InputError, match="refused as device latency"):
        device_latency(profile)


def test_a_program_of_another_processor_counts_as_emulated(own: Path, pi: Loopback) -> None:
    """No prefix: the kernel of such a device would start an emulator by itself."""
    other = "x86_64" if os.uname().machine == "aarch64" else "aarch64"
    tools = own.parent / "bin"
    tools.mkdir()
    _program(tools / "uname", f'[ "$1" != -m ] || exec echo {other}\necho Linux 6')
    pi.environment.write_text(f"PATH={tools}:$PATH\n")
    profile = measure(read_export(own), "pi", SETTINGS)
    assert profile.machine.architecture == other
    assert profile.emulated
    pi.environment.write_text("")
    assert measure(read_export(own), "pi", replace(SETTINGS, emulated=True)).emulated


def _program(path: Path, text: str) -> None:
    assert not path.is_symlink()  # it would be the machine's own program
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_device_without_a_compiler(
    own: Path, pi: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = own.parent / "bin"
    tools.mkdir()
    for name in (
        "sh dd mktemp mkfifo tar head cat rm mkdir tr cut sed tail getconf wc od env"
    ).split():
        with contextlib.suppress(FileNotFoundError):
            (tools / name).symlink_to(shutil.which(name) or "")
    _program(tools / "uname", 'case "$1" in -m) echo aarch64 ;; *) echo Linux 6 ;; esac')
    pi.environment.write_text(f"PATH={tools}\n")
    said = _fails(capsys, "pi")
    assert "pi has no compiler cc; install one there (sudo apt install gcc)" in said
    assert "--compile here --cc aarch64-linux-gnu-gcc" in said


def test_a_wrong_or_unknown_host_key_is_never_accepted(
    own: Path, pi: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    known = (pi.folder / "known_hosts").read_text()
    assert "host key of changed is not the one that this machine knows" in _fails(capsys, "changed")
    assert "host key of unknown is not known here" in _fails(capsys, "unknown")
    assert (pi.folder / "known_hosts").read_text() == known


def test_devices_that_cannot_be_reached(
    own: Path, pi: Loopback, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot reach dead: " in (said := _fails(capsys, "dead"))
    assert "Connection refused" in said
    assert "stranger refused the login" in _fails(capsys, "stranger")
    monkeypatch.setenv("PATH", str(own))
    assert "there is no ssh on this machine; install it" in _fails(capsys, "pi")


def test_another_integer_on_the_device(
    own: Path, pi: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    results = (own / "check" / "output.txt").read_text()
    replace_file(own, "check/output.txt", results.replace(" ", " 1", 1))
    assert "1 of 4 samples give other integers on pi" in _fails(capsys, "pi", code=1)


def test_a_hung_program_is_killed_on_the_device(
    own: Path, pi: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    insert(own, RUN, "if (runs) for (;;) {}")
    assert "did not end within 1 s on pi and was killed" in _fails(capsys, "pi", "--timeout", "1")


@pytest.mark.parametrize("end", ["device", "here"])
def test_a_connection_that_breaks_in_the_middle_of_a_run(end: str, own: Path, pi: Loopback) -> None:
    """The fixture checks that the program is dead and the folder gone, on the device as well."""
    insert(own, RUN, "if (runs) for (;;) {}")
    failures: list[str] = []

    def call() -> None:
        with pytest.raises(DeviceError) as failed:
            measure(read_export(own), "pi", SETTINGS)
        failures.append(str(failed.value))

    thread = threading.Thread(target=call)
    thread.start()
    _wait_for(lambda: any(b"--repeat" in _line(pid) for pid in pi.processes()))
    time.sleep(0.2)
    assert list(pi.tmp.iterdir()) != []
    if end == "device":
        victims = [pid for pid in pi.processes() if _line(pid).startswith(b"sshd")]
    else:
        victims = [pid for pid in _children(os.getpid()) if b"ssh" in _line(pid)]
        victims.remove(pi.daemon.pid)
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    thread.join(20)
    (failure,) = failures
    assert "the connection to pi broke while timing repeats" in failure
    assert "Nothing was stored" in failure


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from _mounted(tmp_path / "disk", "size=256k")


@pytest.fixture
def noexec_disk(tmp_path: Path) -> Iterator[Path]:
    yield from _mounted(tmp_path / "disk", "noexec")


def _mounted(place: Path, options: str) -> Iterator[Path]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk of that kind cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_device_that_starts_no_programs_in_its_temporary_folder(
    own: Path, pi: Loopback, noexec_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pi.environment.write_text(f"TMPDIR={noexec_disk}\n")
    said = _fails(capsys, "pi")
    assert "pi starts no programs in its temporary folder" in said
    assert "TMPDIR" in said
    _wait_for(lambda: list(noexec_disk.iterdir()) == [])


@pytest.mark.parametrize("taken", [0, 220])
def test_a_full_disk_on_the_device(
    taken: int, own: Path, pi: Loopback, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full while it compiles, and full before the files have arrived."""
    if taken:
        (small_disk / "taken").write_bytes(b"x" * (taken << 10))
    pi.environment.write_text(f"TMPDIR={small_disk}\n")
    # ballast: without it the program would fit
    code = "static const unsigned char ballast[400000] = {1};\n"
    replace_file(
        own,
        "main.c",
        code
        + (own / "main.c")
        .read_text()
        .replace(
            "    FILE *file;\n", "    FILE *file;\n    if (argc > 99) return ballast[argc];\n"
        ),
    )
    said = _fails(capsys, "pi")
    assert "the disk of pi is full: " in said
    assert "No space left on device" in said
    _wait_for(lambda: {path.name for path in small_disk.iterdir()} <= {"taken"})


def test_a_device_that_throttles(
    own: Path, pi: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = own.parent / "bin"
    tools.mkdir()
    _program(tools / "vcgencmd", f"echo x >> {own.parent}/calls\n"
             f"[ $(wc -l < {own.parent}/calls) -eq 1 ] && echo throttled=0x0 && exit\n"
             "echo throttled=0x20002")  # fmt: skip
    pi.environment.write_text(f"PATH={tools}:$PATH\n")
    assert run(["device", "run", "net", "--host", "pi", *QUICK, "--mode", "steady"]) == 1
    said = capsys.readouterr()
    assert "invalid run: the device throttled (frequency capped)" in said.err
    assert "wrote device.json" in said.out
    profile = load_device_profile("device.json")
    assert (profile.before.throttled, profile.after.throttled) == (False, True)
    with pytest.raises(InputError, match="is invalid"):
        device_latency(profile)
