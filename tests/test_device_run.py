"""`mpsearch device run` on this machine: what it measures, and what it refuses."""

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exports import insert, replace_file, small_export, small_network

from mpsearch.cli import run
from mpsearch.device.exported import Compiler, read_export
from mpsearch.device.measuring import measure
from mpsearch.device.profile import DeviceProfile, device_latency, load_device_profile
from mpsearch.device.session import Session
from mpsearch.device.timing import Settings
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError
from mpsearch.quantization.packing import size_bytes
from mpsearch.tables.provenance import network_digest

QUICK = ("--flags", "-O0", "--runs", "3", "--repeat", "5", "--warm-up", "2")
SETTINGS = Settings(runs=3, repeat=5, warm_up=2, timeout=20, compiler=Compiler(flags=("-O0",)))
RUN = "            network_run();"
AARCH64, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
needs_qemu = pytest.mark.skipif(
    None in (shutil.which(AARCH64), shutil.which(QEMU)), reason=f"there is no {AARCH64} or {QEMU}"
)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_export(tmp_path_factory.mktemp("export") / "net")


@pytest.fixture
def own(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to change, in an empty working directory; temporary folders go into it, too."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(export, tmp_path / "net"))


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert run(["device", "run", "net", "--host", "local", *QUICK, *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) <= 2
    assert not Path("device.json").exists()
    assert list(Path("tmp").iterdir()) == []
    return said.err


@needs_cc
def test_a_run_here_writes_a_profile(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "run", "net", "--host", "local", *QUICK]) == 0
    printed = capsys.readouterr().out
    profile = load_device_profile("device.json")
    quantized, _ = small_network()
    document = json.loads((own / "export.json").read_text())
    assert profile.network == network_digest(quantized.assignment)
    assert sum(document["constant_bytes"].values()) == profile.constant_bytes
    assert profile.constant_bytes >= size_bytes(quantized.source, quantized.assignment)
    assert profile.arena_bytes == document["arena"]["peak_bytes"]
    assert profile.checked_samples == 4
    assert (profile.host, profile.emulated, profile.invalid) == ("local", False, ())
    assert profile.machine.architecture == os.uname().machine
    assert profile.machine.cores == os.sysconf("SC_NPROCESSORS_ONLN")
    assert profile.process is not None
    assert profile.cold is not None
    assert profile.steady is not None
    assert (profile.process.latency.runs, profile.cold.runs, profile.steady.runs) == (3, 3, 5)
    assert device_latency(profile) == profile.steady.median_s
    assert f"{1000 * profile.steady.median_s:.3f}" in printed
    assert "4 samples give the integers of the reference" in printed
    assert list(Path("tmp").iterdir()) == []


@needs_cc
def test_json_and_one_mode(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--mode", "steady", "-o", "other.json", "--json"]
    assert run(["device", "run", "net", "--host", "local", *QUICK, *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(Path("other.json").read_text())
    assert document["process"] is None
    assert document["cold"] is None
    with pytest.raises(InputError, match="no process runs"):
        device_latency(load_device_profile("other.json"), "process")


@needs_cc
def test_each_mode_measures_what_it_says(own: Path) -> None:
    """A program with known sleeps and a known memory: 100 ms before, 200 ms in the first two
    inferences, 10 ms in all others, 100 ms at the end, 24 MiB."""
    code = (
        "#define _GNU_SOURCE\n#include <unistd.h>\n"
        "static int before(void) { usleep(100000); return 0; }\n"
        "static void inference(void) { static int again; usleep(again++ > 1 ? 10000 : 200000); }\n"
        "static void after(void) { static char memory[24 << 20]; memset(memory, 1, sizeof memory);"
        " usleep(100000); }\n"
    )
    text = (own / "main.c").read_text().replace("#define _POSIX_C_SOURCE 199309L\n", "")
    text = text.replace(RUN, f"{RUN}\n            inference();")
    text = text.replace("    FILE *file;\n", "    FILE *file;\n    before();\n    atexit(after);\n")
    replace_file(own, "main.c", code + text)
    # What is shortest in three measurements has room for a busy machine; every sleep is missed or
    # counted twice beyond these ends, each time.
    ends = {
        "process": (0.400, 0.600), "initialisation": (0.100, 0.200), "first": (0.200, 0.400),
        "minimum": (0.010, 0.100), "p90": (0.010, 0.200),  # both slow ones are the warm-up
    }  # fmt: skip
    shortest = dict.fromkeys(ends, math.inf)
    for _ in range(3):
        profile = measure(read_export(own), "local", SETTINGS)
        assert profile.process is not None
        assert profile.cold is not None
        assert profile.steady is not None
        assert profile.process.peak_memory_bytes is not None
        assert 24 << 20 <= profile.process.peak_memory_bytes < 30 << 20
        found = {
            "process": profile.process.latency.minimum_s,
            "initialisation": profile.cold.initialisation_s, "first": profile.cold.first_s,
            "minimum": profile.steady.minimum_s, "p90": profile.steady.p90_s,
        }  # fmt: skip
        assert all(found[name] >= low for name, (low, _) in ends.items()), found
        shortest = {name: min(shortest[name], seconds) for name, seconds in found.items()}
        if all(shortest[name] < high for name, (_, high) in ends.items()):
            break
    else:
        pytest.fail(f"longer than what the program sleeps: {shortest}")


@needs_cc
def test_another_integer_is_a_mismatch_and_nothing_is_timed(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *rest = (own / "check" / "output.txt").read_text().splitlines()
    changed = [first, *(f"{int(line.split()[0]) + 1} {line.split(' ', 1)[1]}" for line in rest[:2])]
    replace_file(own, "check/output.txt", "\n".join([*changed, *rest[2:], ""]))
    said = _fails(capsys, code=1)
    assert "2 of 4 samples give other integers on local" in said
    assert "first: sample 1); nothing was timed" in said


@needs_cc
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("if (runs) for (;;) {}", "did not end within 1 s on local and was killed while timing"),
        ("for (;;) {}", "was killed while comparing with the reference"),
        ("if (runs) abort();", "crashed on local while timing cold starts: SIGABRT"),
        ("*(volatile int *)8 = 1;", "crashed on local while comparing with the reference: SIGSEGV"),
        ('if (runs) return fail("too", " hot");', "failed on local while timing cold starts: "
         "network: error: too hot"),
        ("if (runs) runs = 9;", "printed no times that mpsearch understands"),
        ('if (runs) { fprintf(stderr, "[[[["); return 0; }', "printed no times"),
    ],
)  # fmt: skip
def test_a_program_that_fails(
    code: str, message: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    insert(own, RUN, code)
    assert message in _fails(capsys, "--timeout", "1", "--mode", "cold")


@needs_cc
def test_a_hung_program_is_killed_with_what_it_started(own: Path) -> None:
    code = 'if (fork() == 0) { execlp("sleep", "sleep", "4711.25", (char *)0); } for (;;) {}'
    insert(own, RUN, code)
    text = (own / "main.c").read_text()
    replace_file(own, "main.c", text.replace("#include <time.h>", "#include <time.h>\n"
                                             "#include <unistd.h>"))  # fmt: skip
    assert run(["device", "run", "net", "--host", "local", *QUICK, "--timeout", "1"]) == 2
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(b"4711.25" in line for line in running)


@needs_qemu
def test_emulated_runs_are_marked_and_refused(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--compile", "here", "--cc", AARCH64, "--launch-prefix", f"{QEMU} -cpu cortex-a72"]
    assert run(["device", "run", "net", "--host", "local", *QUICK, *words]) == 0
    assert "EMULATED" in capsys.readouterr().out
    profile = load_device_profile("device.json")
    assert profile.emulated
    assert profile.launch_prefix == (QEMU, "-cpu", "cortex-a72")
    assert AARCH64 in profile.compiler
    assert profile.program_bytes is not None
    assert profile.program_bytes > 100_000  # static
    with pytest.raises(InputError, match="obtained under emulation, refused as device latency"):
        device_latency(profile)


@pytest.mark.skipif(shutil.which(AARCH64) is None, reason=f"there is no {AARCH64}")
@pytest.mark.skipif(
    os.uname().machine == "aarch64" or Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists(),
    reason="this machine starts aarch64 programs",
)
def test_a_program_for_another_processor_is_not_started(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _fails(capsys, "--compile", "here", "--cc", AARCH64)
    assert "the program is not for local" in said


@needs_cc
def test_words_of_the_user_are_never_read_by_a_shell(own: Path) -> None:
    hostile = "$(touch pwned) `touch pwned` ; touch pwned & 'a b'"
    words = ["--launch-prefix", f'env "A={hostile}"', "--flags", f'-O0 "-DA={hostile}"']
    arguments = ["device", "run", "net", "--host", "local", *QUICK, *words, "--mode", "steady"]
    assert run(arguments) == 0
    profile = load_device_profile("device.json")
    assert profile.launch_prefix == ("env", f"A={hostile}")
    assert profile.emulated
    assert not list(Path().rglob("pwned"))


@needs_cc
@pytest.mark.parametrize("where", ["device", "here"])
def test_what_does_not_compile(where: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--compile", where)
    said = _fails(capsys, *words, "--cc", "no-such-cc")
    assert "no-such-cc" in said
    assert "sudo apt install gcc" in said
    assert where == "here" or "--compile here" in said
    replace_file(own, "border.c", "int x = undeclared_thing;\n")
    assert "undeclared_thing" in _fails(capsys, *words)


def test_what_is_no_export(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((own / "export.json").read_text())

    def write(**changes: object) -> None:
        (own / "export.json").write_text(json.dumps(document | changes))

    original = (own / "network.c").read_bytes()
    (own / "network.c").write_bytes(original + b" ")
    assert "network.c was changed after the export; export again" in _fails(capsys)
    (own / "network.c").unlink()
    assert "network.c is missing" in _fails(capsys)
    (own / "network.c").write_bytes(original)
    old = (own / "main.c").read_text().replace("--warm-up", "--nothing")
    new = (own / "main.c").read_text()
    replace_file(own, "main.c", old)
    assert "older mpsearch" in _fails(capsys)
    replace_file(own, "main.c", new)
    write(format="mpsearch.front")
    assert 'expected "format": "mpsearch.c_export"' in _fails(capsys)
    write(version=7)
    assert "has version 7" in _fails(capsys)
    write(inputs=[{"name": "x", "shape": [5]}])
    assert "is damaged: check/input.f32 does not hold the samples" in _fails(capsys)
    write(files={"../../outside.c": "sha256:0"})
    assert "is damaged" in _fails(capsys)
    (own / "export.json").write_text("{")
    assert "is not an export.json" in _fails(capsys)
    (own / "export.json").unlink()
    assert "mpsearch export QUANTIZED --format c" in _fails(capsys)
    shutil.rmtree(own)
    assert "is not a C export" in _fails(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mode", "hot"), "--mode: got 'hot'; expected some of process,cold,steady"),
        (("--cc", ""), "--cc: got nothing"),
        (("--flags", "'"), '--flags: got "\'": No closing quotation'),
        (("--launch-prefix", "'a\nb'"), "expected words of printable text"),
        (("-o", "absent/device.json"), "-o: there is no folder absent"),
        (("--repeat", "99999"), "more than 100,000"),
        (("--host", "-oProxyCommand=touch pwned"), "got the host '-oProxyCommand"),
        (("--host", "pi raspberry"), "expected local, NAME, USER@NAME"),
        (("--host", "`touch pwned`"), "got the host"),
        (("--host", ""), "got the host ''"),
        (("--host", "pi@-oX"), "got the host"),
    ],
)
def test_calls_that_are_wrong(
    words: tuple[str, ...], message: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _fails(capsys, *words)
    assert not Path("pwned").exists()


@needs_cc
def test_a_device_that_throttles_gives_an_invalid_profile(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake /sys, and a vcgencmd that says in the third of four states that the device is too hot
    and lowers its clock."""
    cpu = own.parent / "sys" / "devices" / "system" / "cpu"
    for place, khz in enumerate((600_000, 1_800_000)):
        (cpu / f"cpu{place}" / "cpufreq").mkdir(parents=True)
        (cpu / f"cpu{place}" / "cpufreq" / "scaling_cur_freq").write_text(f"{khz}\n")
    (cpu / "cpu0" / "cpufreq" / "scaling_governor").write_text("ondemand\n")
    zone = own.parent / "sys" / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("55123\n")
    (own.parent / "bin").mkdir()
    fake = own.parent / "bin" / "vcgencmd"
    calls = own.parent / "calls"
    fake.write_text(
        f'#!/bin/sh\necho "$1" >> {calls}\n'
        f"[ $(wc -l < {calls}) -ge $LIMIT ] || exec echo throttled=0x0\n"
        f"echo 700000 > {cpu}/cpu1/cpufreq/scaling_cur_freq\necho throttled=0x40004\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LIMIT", "99")
    exported = read_export(own)

    def profile() -> DeviceProfile:
        return measure(exported, "local", SETTINGS, root=str(own.parent))

    good = profile()
    assert calls.read_text() == "get_throttled\n" * 4  # before, and after each mode
    state = good.before
    assert (state.governor, state.frequency_hz) == ("ondemand", 1_800_000_000)
    assert (state.temperature_c, state.throttled) == (55.123, False)
    assert good.invalid == ()
    monkeypatch.setenv("LIMIT", "7")  # 3 calls after the 4 of above
    hot = profile()
    assert hot.invalid == (
        "the device throttled (throttled)", "the frequency fell from 1,800 to 700 MHz"
    )  # fmt: skip
    assert hot.after.throttled is True
    assert hot.steady is not None
    with pytest.raises(InputError, match="is invalid: the device throttled"):
        device_latency(hot)


@needs_cc
def test_an_invalid_run_is_stored_with_its_reasons_and_exit_code_1(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own.parent / "bin").mkdir()
    fake = own.parent / "bin" / "vcgencmd"
    fake.write_text("#!/bin/sh\necho throttled=0x50005\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    assert run(["device", "run", "net", "--host", "local", *QUICK, "--mode", "steady"]) == 1
    said = capsys.readouterr()
    assert "invalid run: the device throttled (under-voltage, throttled)" in said.err
    assert "THROTTLED" in said.out
    assert load_device_profile("device.json").invalid


@needs_cc
def test_another_folder_of_the_device(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it is called no shell reads it; one that cannot be used names the way out."""
    strange = own.parent / "a b'$(touch out)`touch out`;\"*"
    strange.mkdir()
    insert(own, RUN, 'fputs("here\\n", stderr); if (system("pwd >&2")) return 1; return 1;')
    words = ["device", "run", "net", "--host", "local", *QUICK, "--device-folder"]
    assert run([*words, str(strange)]) == 2
    assert "a b" in capsys.readouterr().err
    assert list(strange.iterdir()) == []
    assert not Path("out").exists()
    assert run([*words, str(own / "none")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("mpsearch: error: cannot make a temporary folder on local: ")
    assert "--device-folder, or as TMPDIR in what its shell reads" in said[1]
    assert run([*words, "relative"]) == 2
    assert "expected an absolute path" in capsys.readouterr().err


@needs_cc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing(number: int, own: Path) -> None:
    insert(own, RUN, "for (;;) {}")
    words = ["device", "run", "net", "--host", "local", *QUICK]
    with subprocess.Popen(
        [sys.executable, "-m", "mpsearch", *words], stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        _wait_for(lambda: _running(own.parent / "tmp"))
        process.send_signal(number)
        process.wait(20)
    _wait_for(lambda: not _running(own.parent / "tmp") and not list(Path("tmp").iterdir()))


def _running(folder: Path) -> list[str]:
    """Programs of the export that run in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            inside = (path / "cwd").readlink().is_relative_to(folder)
            line = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if inside and line.startswith(b"./network"):
            found.append(line.decode())
    return found


def _wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_sessions_that_are_cut_off_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many, because the end of the input and the signal of its watcher race on the device."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for _ in range(20):
        with contextlib.suppress(KeyError), Session("local") as device:
            assert device.ask("describe").facts["architecture"] == os.uname().machine
            assert len(list(tmp_path.iterdir())) == 1
            raise KeyError
        assert list(tmp_path.iterdir()) == []


def test_a_session_that_says_nothing_or_nonsense(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mpsearch.device import session

    def command(text: str) -> None:
        monkeypatch.setattr(session, "command_for", lambda host: ["sh", "-c", text])

    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.3)
    command("cat > /dev/null")
    with (
        pytest.raises(DeviceError, match="said nothing for 0 s while connecting"),
        Session("pi"),
    ):
        pass
    ready = 'echo hello; echo \'{"event": "done", "exit": 0}\';'
    for answer in (
        "hello", '{"event": "run", "wall_ns": "1"}', '{"event": "what"}', "[1]", "\x1b",
        '{"event": "done", "exit": Infinity}', '{"event": "done", "exit": 1e999}',
        '{"event": "done", "exit": 0.0}', '{"event": "done", "exit": true}',
        f'{{"event": "done", "exit": {10**30}}}', f'{{"event": "done", "exit": {"9" * 5000}}}',
        f'{{"event": "text", "line": "{"x" * 5000}"}}', '{"event": "text", "line": 1}',
        f'{{"event": "fact", "name": "x", "value": "{"x" * 5000}"}}',
        '{"event": "fact", "name": "x", "value": NaN}', "[" * 9000,
    ):  # fmt: skip
        command(f"{ready} sleep 0.2; printf '%s\\n' '{answer}'; cat > /dev/null")
        with (
            pytest.raises(DeviceError, match="sent what mpsearch does not") as refused,
            Session("pi") as device,
        ):
            device.ask("state", doing="reading")
        assert "\x1b" not in str(refused.value)
    # what has no end: events, a line, words for people; before the first answer, and after it
    monkeypatch.setattr(session, "MOST_BYTES", 1 << 22)
    text = '{"event": "text", "line": "x"}'
    for flood, much in ((f"yes '{text}'", "lines"), ("cat /dev/zero", "4 MiB"),
                        ("yes x 3>&1 >&2", "4 MiB")):  # fmt: skip
        command(f"exec {flood}")  # a child of the shell would go on without it
        with pytest.raises(DeviceError, match=f"sent more than .*{much} while conn"), Session("pi"):
            pass
        command(f"{ready} sleep 0.2; exec {flood}")
        with (
            pytest.raises(DeviceError, match=f"sent more than .*{much} while reading"),
            Session("pi") as device,
        ):
            device.ask("state", doing="reading")
    command(f"{ready} sleep 0.2; echo 'the plug was pulled' >&2")
    with (
        pytest.raises(DeviceError, match="broke while reading: the plug was pulled"),
        Session("pi") as device,
    ):
        device.ask("state", doing="reading")


@needs_cc
@needs_qemu
def test_the_commands_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those for a Raspberry Pi are read by the command line, and not run."""
    from mpsearch.commands import device

    page = (Path(__file__).parent.parent / "docs" / "device.md").read_text()
    monkeypatch.chdir(tmp_path)
    (python,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(python, "docs/device.md", "exec"), {})
    measured = 0
    for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").strip().splitlines():
            words = shlex.split(line)
            assert words[0] == "mpsearch"
            if "pi@raspberrypi" in words:
                context = device.run.make_context("run", words[3:])
                assert context.params["host"] == "pi@raspberrypi"
                continue
            measured += words[1] == "device"
            assert run(words[1:]) == 0
    assert measured == 4
    assert load_device_profile("device.json").steady is not None
    assert load_device_profile("emulated.json").emulated
