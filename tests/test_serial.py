"""`mpsearch device run --serial`: the firmware's answers, and all that a port can do wrong."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import serial_boards
from exports import small_network
from serial_boards import Board, plugged_in

from mpsearch.cli import run
from mpsearch.commands.device_serial import parse_clock
from mpsearch.device.exported import Exported, read_flashed
from mpsearch.device.profile import device_figure, load_device_profile
from mpsearch.device.serial_port import open_port, parse_port
from mpsearch.device.serial_protocol import framed, unframed
from mpsearch.device.serial_run import SerialSettings, run_on_serial
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import export_c
from mpsearch.exporters.c.targets import find_target
from mpsearch.exporters.firmware.project import identity

GCC = shutil.which("gcc")


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial") / "firmware"
    quantized, data = small_network()
    export_c(quantized, data, folder, target=find_target("cortex-m4"))
    return folder


@pytest.fixture(scope="module")
def exported(firmware: Path) -> Exported:
    return read_flashed(firmware)


def _board(exported: Exported, **options: Callable[[str, bytes], bytes | None]) -> Board:
    return Board(exported, identity(exported.sources), **options)


def _run(exported: Exported, board: Board, timeout: int = 60) -> None:
    with plugged_in(board) as port:
        run_on_serial(exported, SerialSettings(port, timeout=timeout, repeat=1))


@pytest.mark.parametrize("text", ["hello", "x 0 0 00ff", "", "no sum", "y 0 -12 4"])
def test_a_line_has_the_checksum_that_the_firmware_computes(text: str) -> None:
    assert framed(text) == serial_boards.line(text)
    assert unframed(framed(text)[:-1]) == text
    assert unframed(framed(text + "1")[:-1].replace(b"1", b"2", 1)) is None


def test_the_command_writes_a_profile_with_cycles(
    firmware: Path, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "device.json"
    command = ["device", "run", str(firmware), "--clock", "1MHz", "-o", str(output), "--serial"]
    with plugged_in(board := _board(exported)) as port:
        assert run([*command, port, "--repeat", "2"]) == 0
    said = capsys.readouterr().out
    assert f"{port}: cortex-m4 at 1 MHz\n" in said
    assert f"checked: {len(exported.expected)} samples give the integers of the reference" in said
    assert board.runs == len(exported.expected) + 2
    profile = load_device_profile(output)
    # a step has 1000 + its number, less the two ticks that a reading takes
    cycles = sum(1000 + place for place in range(board.steps))
    assert profile.cycles is not None
    assert profile.cycles.cycles == cycles
    assert profile.cycles.step_cycles == tuple(1000 + place for place in range(board.steps))
    assert profile.cycles.stack_bytes == 512
    assert device_figure(profile, "latency_s") == pytest.approx(cycles / 1e6)
    with plugged_in(_board(exported)) as port:
        assert run([*command[:3], "--emulated", *command[5:], port, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cycles"]["clock_hz"] == 25_000_000
    with pytest.raises(InputError, match="under emulation"):
        device_figure(load_device_profile(output), "latency_s")


def _once(question: str, change: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes | None]:
    """Changes the first answer to a question that begins so."""
    left = [1]

    def spoil(asked: str, answer: bytes) -> bytes | None:
        if not asked.startswith(question) or not left:
            return answer
        left.clear()
        return change(answer)

    return spoil


@pytest.mark.parametrize("question", ["x 0", "run", "y", "s ", "last"])
@pytest.mark.parametrize("answer", [b"\xff\xfe\x00\n", b"no sum*0000\n"])
def test_a_damaged_line_is_asked_for_once_more(
    exported: Exported, question: str, answer: bytes
) -> None:
    board = _board(exported, spoil=_once(question, lambda _: answer))
    _run(exported, board)
    assert board.runs == len(exported.expected) + 1  # `run` itself is not


def test_what_is_said_beside_the_answers_is_left_out(exported: Exported) -> None:
    log = iter([b"I (12) my own log\n", b"", b"my log*0000\n"])
    board = _board(exported)
    board.spoil = lambda asked, answer: next(log, b"") + answer if asked[:1] in "rxy" else answer
    _run(exported, board)
    assert board.runs == len(exported.expected) + 1


def _always(question: str, given: bytes | None) -> Callable[[str, bytes], bytes | None]:
    return lambda asked, answer: given if asked.startswith(question) else answer


HELLO = serial_boards.line("hello 1 0123456789abcdef 25000000")
NEWER = serial_boards.line("hello 2 and whatever comes")
RESET = "was reset while"
FAULTS: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "silence": (_always("", None), r"did not answer within 2 s; is build/serial.elf"),
    "garbage": (_always("", b"\x80\x81~\n"), r"says .*no line of mpsearch's firmware; .* speed"),
    "deaf": (_always("sync", None), "stopped to answer while greeting"),
    "endless": (_always("", b"\x55" * 9000), r"says .*no line of mpsearch's firmware"),
    "another network": (_always("hello", HELLO), r"is of another network \(0123456789abcdef; "),
    "another version": (_always("hello", NEWER), "speaks version 2 of the protocol, this mps.* 1"),
    "reset while sending": (_once("x 1", lambda _: HELLO), f"{RESET} sending a sample"),
    "reset while running": (_once("run", lambda _: HELLO), f"{RESET} running the network"),
    "forgotten": (_once("x 1", lambda _: serial_boards.line("no order")), RESET),
    "hangs": (_always("run", None), "did not answer within 2 s while running the network; if"),
    "garbled": (_always("y", b"y 0 12*9999\n"), "garbles what it sends or gets, again and again"),
    "lost run": (_always("run", serial_boards.line("ran 0 1 1")), "garbles .* run 0 after run 0"),
    "strange": (
        _always("s ", serial_boards.line("s 1 x")),
        "answered 's 1 x' while reading the st",
    ),
    "too many": (_always("y 0", serial_boards.line("y 0 1 1 1 1 1 1 1")), "answered 'y 7' while"),
    "empty": (_always("y 0", serial_boards.line("y 0")), "answered 'y 0' while reading the output"),
}


# Found by waiting in vain; the others come at once, however slow this machine is.
SILENT = ("silence", "garbage", "deaf", "endless", "hangs")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_board_that_does_not_do_it_is_told_from_the_others(
    exported: Exported, fault: str
) -> None:
    spoil, said = FAULTS[fault]
    with pytest.raises(DeviceError, match=said) as caught:
        _run(exported, _board(exported, spoil=spoil), 2 if fault in SILENT else 60)
    assert len(caught.value.lines) <= 2
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("question", ["hello", "x 1", "run", "y"])
def test_a_cable_that_is_pulled_ends_it(exported: Exported, question: str) -> None:
    board = _board(exported)

    def pull(asked: str, answer: bytes) -> bytes | None:
        if asked.startswith(question):
            os.close(board.master)
            return None
        return answer

    board.spoil = pull
    with pytest.raises(DeviceError, match="is gone: the cable was pulled"):
        _run(exported, board)


def test_other_integers_are_exit_code_1(
    firmware: Path, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = _board(exported)
    board.known = dict.fromkeys(board.known, "1 2 3 4")
    with plugged_in(board) as port:
        command = ["device", "run", str(firmware), "--serial", port, "-o", str(tmp_path / "d.json")]
        assert run(command) == 1
    assert f"samples give other integers on {port} than the reference" in capsys.readouterr().err
    assert not (tmp_path / "d.json").exists()


CALLS = {
    "--serial ttyACM0": "expected a port such as /dev/ttyACM0",
    "--serial /dev/ttyACM0:123": "got the speed 123; expected one of 1200, ",
    "--serial /dev/there-is-none": "there is no serial port /dev/there-is-none; is the board plug",
    "--serial /dev/null": "/dev/null is no serial port",
    "--serial /dev/ttyACM0 --clock fast": "--clock: got 'fast'; expected a frequency such as 168M",
    "--serial /dev/ttyACM0 --cc gcc": "--cc does not go with --serial",
    "--serial /dev/ttyACM0 --host local": "got --host and --serial; expected one of --host, --boa",
    "--host local --clock 1MHz": "--clock does not go with --host",
    "--board mps2-an386 --clock 1MHz": "--clock does not go with --board",
}


@pytest.mark.parametrize("options", CALLS)
def test_wrong_calls_are_one_line(
    firmware: Path, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["device", "run", str(firmware), *options.split()]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert CALLS[options] in said


def test_ports_speeds_and_clocks() -> None:
    assert parse_port("/dev/ttyACM0") == ("/dev/ttyACM0", 115200)
    assert parse_port("/dev/serial/by-id/usb-a:1-if02:9600") == (
        "/dev/serial/by-id/usb-a:1-if02", 9600,
    )  # fmt: skip
    clocks = [parse_clock(text) for text in ("168MHz", "16 M", "25000000", "1.5GHz")]
    assert clocks == [168_000_000, 16_000_000, 25_000_000, 1_500_000_000]


def test_a_port_is_for_one_program_and_what_may_not_be_opened_says_how(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        plugged_in(_board(exported)) as path,
        open_port(path),
        pytest.raises(DeviceError, match="is in use by another program"),
    ):
        open_port(path)

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DeviceError, match="may not be opened by you; join its group"):
        open_port("/dev/ttyACM0")


def test_the_firmware_may_be_changed_for_its_board_but_not_its_network(
    firmware: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(firmware, folder)
    for name in ("uart.c", "board.h", "Makefile"):
        (folder / name).write_text("for my board")
    read_flashed(folder)
    (folder / "network.c").write_text("mine")
    with pytest.raises(InputError, match=r"network\.c was changed after the export"):
        read_flashed(folder)


@pytest.fixture(scope="module")
def native(firmware: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """protocol.c itself with the network, on this machine, over standard input and output."""
    if GCC is None:
        pytest.skip("there is no gcc")
    folder = tmp_path_factory.mktemp("native")
    (folder / "stub.c").write_text(serial_boards.STUB)
    left_out = {"main", "check", "startup", "clock", "uart", "semihosting", "sample"}
    sources = [str(path) for path in firmware.glob("*.c") if path.stem not in left_out]
    strict = "-std=gnu99 -O1 -g -Wall -Wextra -fsanitize=address,undefined -DMPS_STEP_TIMES".split()
    words = [GCC, *strict, f"-I{firmware}", "-o", str(folder / "served"), str(folder / "stub.c")]
    subprocess.run([*words, *sources, "-lm"], check=True)
    return folder / "served"


def test_the_firmware_s_own_code_answers(exported: Exported, native: Path) -> None:
    master, slave = os.openpty()
    process = subprocess.Popen([native], stdin=master, stdout=master)
    os.close(master)
    try:
        profile = run_on_serial(exported, SerialSettings(os.ttyname(slave), repeat=2))
    finally:
        os.close(slave)
        process.kill()
        process.wait()
    assert profile.cycles is not None
    # Its clock goes on by 7 with every reading: that is what a step takes, less a reading.
    assert profile.cycles.step_cycles == (0,) * len(exported.steps)
    assert profile.cycles.stack_bytes == 1234
    assert profile.checked_samples == len(exported.expected)


QUESTIONS = [  # in order, with the answers of a firmware that has just been started
    ("hello", r"hello 1 [0-9a-f]{16} 25000000"),
    ("nonsense", "no form"),
    ("sync 1234567", "sync 1234567"),
    ("sync", "no form"),
    ("run", "no order"),
    ("x 0 32 00000000", "no order"),
    ("x 1 0 00000000", "no order"),
    ("x 0 0 0000000", "no form"),
    ("x 0 0", "no form"),
    ("x 0 0 zz000000", "no form"),
    ("x -1 0 00000000", "no form"),
    ("x 0 99999999999 00000000", "no form"),
    (f"x 0 0 {'00' * 132}", "no form"),
    (f"x 0 0 {'00' * 400}", "no sum"),  # longer than its line
    (f"x 0 0 {'00' * 128}", "ok"),
    (f"x 0 32 {'00' * 4}", "ok"),
    (f"x 0 32 {'00' * 4} ", "no form"),
    ("y", "no form"),
    ("y 1x", "no form"),
    ("y 1000000", "y 1000000"),
    ("last", "ran 0 0 0"),
]


def test_the_firmware_refuses_what_is_no_question(native: Path) -> None:
    process = subprocess.Popen([native], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    lines = [framed(question) for question, _ in QUESTIONS]
    lines += [b"\n", b"hello*0000\n", b"*\n", b"hello\n"]
    out, _ = process.communicate(b"".join(lines), timeout=60)
    assert process.returncode == 0, "the sanitizers found nothing"
    found = [unframed(each) for each in out.splitlines()]
    assert re.fullmatch(QUESTIONS[0][1], found[0] or "")  # at its start
    assert found[-4:] == ["no sum"] * 4
    for (question, wanted), got in zip(QUESTIONS, found[1:-4], strict=True):
        assert re.fullmatch(wanted, got or ""), (question, got)


def test_the_firmware_takes_a_part_twice_and_a_sample_once(
    exported: Exported, native: Path
) -> None:
    lines, at = [], 0
    for place, size in enumerate(exported.inputs):
        for first in range(0, size, 32):
            part = exported.one[at + 4 * first : at + 4 * min(size, first + 32)]
            lines += 2 * [f"x {place} {first} {part.hex()}"]
        at += 4 * size
    questions = [*lines, "run", "run", "y 0", lines[-1], "last"]
    process = subprocess.Popen([native], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = process.communicate(b"".join(map(framed, questions)), timeout=60)
    found = [unframed(each) for each in out.splitlines()][1:]
    assert found[: len(lines)] == ["ok"] * len(lines)
    ran, again, outputs, late, last = found[len(lines) :]
    assert ran == last
    assert (ran or "").startswith("ran 1 ")
    assert (again, late) == ("no order", "no order")
    assert outputs == f"y 0 {' '.join(exported.expected[0].split()[:8])}"


@pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-system-arm", "arm-none-eabi-gcc", "make"))),
    reason="needs qemu-system-arm, arm-none-eabi-gcc and make",
)
def test_it_runs_on_a_board_in_qemu(firmware: Path, exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(firmware, tmp_path / "firmware")
    subprocess.run(["make", "-s", "serial"], cwd=tmp_path / "firmware", check=True)
    program = tmp_path / "firmware" / "build" / "serial.elf"
    words = "qemu-system-arm -machine mps2-an386 -display none -monitor none -serial pty -kernel"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*words.split(), program], stdout=log, stderr=log)
        try:
            said = serial_boards.wait_for(tmp_path / "log", "label serial0")
            (port,) = re.findall(r"/dev/pts/\d+", said)
            settings = SerialSettings(port, repeat=2, emulated=True)
            profile = run_on_serial(exported, settings)
            other = replace(exported, sources={**exported.sources, "network.c": b""})
            with pytest.raises(DeviceError, match="is of another network"):
                run_on_serial(other, settings)
        finally:
            process.kill()
            process.wait()
    assert profile.cycles is not None
    assert profile.cycles.clock_hz == 25_000_000
    assert 0 < profile.cycles.stack_bytes < 20_000
    with pytest.raises(DeviceError, match="there is no serial port"):
        run_on_serial(exported, settings)
