"""Firmware of every Cortex-M in QEMU: integers, instructions, stack, memories, and what fails."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from boards import needs_boards, network
from documentation import ROOT, blocks, commands

from mpsearch.cli import run
from mpsearch.device.emulation import Counted, count, emulate, parse
from mpsearch.device.exported import Exported, read_firmware
from mpsearch.device.firmware import (
    CHECK,
    STEPS,
    WHOLE,
    Built,
    TooLarge,
    build,
    check_limits,
    check_tools,
    refuse_overflow,
)
from mpsearch.device.measuring import ReferenceMismatch
from mpsearch.device.profile import device_latency, load_device_profile
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import export_c
from mpsearch.exporters.c.targets import TARGETS
from mpsearch.exporters.firmware.boards import BOARDS, Board, Memory, board_named
from mpsearch.exporters.firmware.project import Firmware, board_files, firmware_for
from mpsearch.tables.provenance import load_provenance
from mpsearch.tables.table import LayerTable

FLAGS = ("-O0", "-Werror")  # quick to compile, and any warning of -Wall -Wextra -pedantic fails
M4 = BOARDS["mps2-an386"]  # the one that every other test runs on
PAIRS = [
    (name, target) for name, board in BOARDS.items() for target in board.targets if name != M4.name
]
RUN, MAIN = "void network_run(void) {\n", "int main(void) {\n"


def _export(folder: Path, target: str, of_classes: bool = False) -> Path:
    quantized, data = network(of_classes)
    export_c(quantized, data, folder, target=TARGETS[target])
    return folder


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A firmware for Cortex-M4 that nobody changes."""
    return _export(tmp_path_factory.mktemp("m4") / "firmware", "cortex-m4")


@pytest.fixture(scope="module")
def exported(export: Path) -> Exported:
    return read_firmware(export, M4.name)


@pytest.fixture(scope="module")
def built(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Its project, built once; tests change a file, build again and change it back."""
    return build(exported, M4, FLAGS, tmp_path_factory.mktemp("project"))


@needs_boards
@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_every_board_gives_the_integers_of_the_reference(
    name: str, target: str, tmp_path: Path
) -> None:
    board, of_classes = board_named(name), target == "cortex-m3"
    exported = read_firmware(_export(tmp_path / "firmware", target, of_classes), name)
    (tmp_path / "project").mkdir()
    built = build(exported, board, FLAGS, tmp_path / "project", (WHOLE, STEPS))
    counted = count(built, STEPS, exported, board, 60)
    _check(counted, exported, built, board, of_classes)


def _check(
    counted: Counted, exported: Exported, built: Built, board: Board, of_classes: bool = False
) -> None:
    """The reference's integers, and their first class by the main function that people get."""
    assert counted.outputs == exported.expected
    assert min(counted.instructions) > 100
    assert counted.stack_bytes < TARGETS[exported.target].family.stack  # which the linker keeps
    codes = [int(code) for code in exported.expected[0].split()]
    best = codes[0] if of_classes else codes.index(max(codes))
    assert best != 0
    assert emulate(board, built.programs[WHOLE], 20) == [f"class {best}"]


@needs_boards
def test_counts_repeat_exactly_and_steps_add_up(built: Built, exported: Exported) -> None:
    whole, steps = (count(built, name, exported, M4, 60) for name in (CHECK, STEPS))
    _check(whole, exported, built, M4)
    assert whole == count(built, CHECK, exported, M4, 60)
    for total, parts in zip(whole.instructions, steps.steps, strict=True):
        assert abs(sum(parts) - total) <= 40 * (len(parts) + 1)  # a tick is 40 instructions


@contextmanager
def _changed(built: Built, name: str, before: str, code: str) -> Iterator[None]:
    """With code behind the first `before` of a project's file, built."""
    folder = built.programs[WHOLE].parent.parent
    path, original = folder / name, (folder / name).read_text()
    assert before in original
    try:
        path.write_text(original.replace(before, before + code, 1))
        assert _make(folder, "build/check.elf").returncode == 0
        yield
    finally:
        path.write_text(original)
        assert _make(folder, "build/check.elf").returncode == 0


def _make(folder: Path, program: str) -> "subprocess.CompletedProcess[str]":
    words = ["make", "-s", f"CFLAGS={' '.join(FLAGS)}", "STACK=0", program]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


@needs_boards
def test_instructions_and_stack_of_known_code_are_found(built: Built, exported: Exported) -> None:
    """10 M rounds of a loop of two instructions, while the clock wraps four times, every 2^16
    ticks and not every 2^24; and 20,000 bytes that are written at their lower end."""
    before = count(built, CHECK, exported, M4, 60)
    code = (
        "    volatile char deep[20000];\n    deep[0] = 1;\n    (void)deep[0];\n"
        '    __asm__ volatile("ldr r0, =5000000\\n1: subs r0, #1\\n bne 1b" ::: "r0", "cc");\n'
    )
    with (
        _changed(built, "clock.c", "#define PERIOD 0x", "10000u\n#define WHOLE 0x"),
        _changed(built, "network.c", RUN, code),
    ):
        after = count(built, CHECK, exported, M4, 60)
    for few, many in zip(before.instructions, after.instructions, strict=True):
        wraps = (many - few) // (40 << 16)
        assert wraps == 3  # or one more, by where it begins
        # each wrap is an interrupt of some instructions
        assert many - few == pytest.approx(10_000_001 + 30 * wraps, abs=200)
    assert 20_000 <= after.stack_bytes - before.stack_bytes <= 20_064


@needs_boards
@pytest.mark.parametrize(
    ("file", "before", "code", "message"),
    [
        ("network.c", RUN, "    for (;;)\n        ;\n", "did not end within 1 s on mps2-an386"),
        ("network.c", RUN, '    __asm__ volatile("udf #0");\n', "crashed on mps2-an386: a fault"),
        (
            "check.c",
            "    uart_start();\n",
            '    uart_text("hello\\n");\n',
            "printed 'hello'; export again",
        ),
        ("check.c", MAIN, "    semihost_exit(0);\n", "did not print the counts"),
        ("check.c", MAIN, "    semihost_exit(7);\n", "qemu-system-arm ended with 7"),
    ],
)
def test_a_firmware_that_fails_is_told(
    built: Built, exported: Exported, file: str, before: str, code: str, message: str
) -> None:
    timeout = 1 if "did not end" in message else 60
    with (
        _changed(built, file, before, code),
        pytest.raises(DeviceError, match=re.escape(message)),
    ):
        count(built, CHECK, exported, M4, timeout)


@needs_boards
def test_other_integers_than_the_reference_are_refused(built: Built, exported: Exported) -> None:
    wrong = replace(exported, expected=("1 2 3 4", *exported.expected[1:]))
    with pytest.raises(ReferenceMismatch, match=r"1 of 4 samples .* on mps2-an386") as caught:
        count(built, CHECK, wrong, M4, 60)
    assert caught.value.exit_code == 1


@needs_boards
def test_a_board_that_is_too_small_says_by_how_many_bytes(built: Built, exported: Exported) -> None:
    """The linker's own words, for memories that are 100 and 8 bytes too small."""
    small = replace(
        M4,
        flash=Memory(0, built.flash_bytes - 100),
        ram=Memory(0x20000000, built.static_bytes - 8),
    )
    folder = built.programs[WHOLE].parent.parent
    memories = (folder / "board.ld").read_bytes()
    (folder / "board.ld").write_bytes(board_files(Firmware(small))["board.ld"])
    try:
        done = _make(folder, "build/firmware.elf")
    finally:
        (folder / "board.ld").write_bytes(memories)
    assert done.returncode != 0
    with pytest.raises(TooLarge) as caught:
        refuse_overflow(done.stderr, exported, small)
    assert caught.value.exit_code == 1
    assert caught.value.lines == (
        f"the firmware does not fit mps2-an386: flash: 100 bytes more than the "
        f"{built.flash_bytes - 100:,} of the board; RAM: 8 bytes more than the "
        f"{built.static_bytes - 8:,} of the board",
        "Solve with --size, or with --ram, which names the fullest step; the largest layer is "
        f"'head', the tensors take {exported.arena_bytes:,} bytes of RAM.",
    )


@needs_boards
def test_a_stack_that_takes_all_that_is_left_is_told(built: Built, exported: Exported) -> None:
    small = replace(M4, ram=Memory(0x20000000, built.static_bytes + 200))
    with pytest.raises(TooLarge, match="needs more than the 200 bytes that mps2-an386 has left"):
        count(built, CHECK, exported, small, 60)


@needs_boards
def test_the_command_writes_counts_that_are_no_times(
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["device", "run", str(export), "--board", M4.name, "--flags", "-O0"]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "EMULATED: instructions, not time" in said
    profile = load_device_profile("device.json")
    found = profile.board
    assert found is not None
    assert profile.emulated
    assert f"({found.instructions:,}) instructions an inference" in said
    assert found.ram_bytes > found.stack_bytes + profile.arena_bytes
    assert len(found.step_instructions) == len(
        json.loads((export / "export.json").read_text())["steps"]
    )
    with pytest.raises(InputError, match="refused as device latency"):
        device_latency(profile)
    limits = ["--max-instructions", str(found.instructions)]
    assert run(["gate", *limits, "--device-file", "device.json"]) == 0
    limits = ["--max-instructions", str(found.instructions - 1)]
    assert run(["gate", *limits, "--device-file", "device.json"]) == 1
    assert run(["gate", "--max-latency", "1s", "--device-file", "device.json"]) == 2
    capsys.readouterr()
    # to the byte, both at once, and nothing is written
    exported = read_firmware(export, M4.name)
    static = found.ram_bytes - found.stack_bytes
    built = Built({}, "", found.flash_bytes, static)
    check_limits(exported, M4, built, found.stack_bytes, (found.flash_bytes, found.ram_bytes))
    short = [f"{found.flash_bytes - 1}B", f"{found.ram_bytes - 1}B"]
    capsys.readouterr()
    assert run([*words, "--flash", short[0], "--ram", short[1], "-o", "short.json"]) == 1
    said = capsys.readouterr().err
    assert f"flash: {found.flash_bytes:,} bytes, 1 more than the" in said
    assert f"RAM with the stack: {found.ram_bytes:,} bytes, 1 more than the" in said
    assert f"the stack {found.stack_bytes:,}." in said
    assert not Path("short.json").exists()


@needs_boards
def test_the_commands_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With quick builds. The table's counts are those of whole networks, and limit a search."""
    monkeypatch.chdir(tmp_path)
    page = blocks((ROOT / "docs" / "boards.md").read_text())
    exec(compile(page[0].text, "docs/boards.md", "exec"), {})
    ran = []
    for block in page[1:]:
        for command in commands(block):
            program, *words = shlex.split(command)
            if program == "make":
                done = subprocess.run([program, "-s", *words, "CFLAGS=-O0"], capture_output=True)
                assert done.stdout.splitlines()[-1].startswith(b"class ")
            else:
                assert run([*words, *(["--flags", "-O0"] if words[0] == "device" else [])]) == 0
            ran.append(words[1])
    assert {"run", "table", "firmware"} < set(ran)
    table = LayerTable.read_csv("profile.csv")
    # 2,592 MACs against 288: what is counted for one layer is not that of the other
    for choice in table.choices:
        convolution, linear = (
            table.column("instructions")[table.row_of(name, choice)] for name in ("0", "4")
        )
        assert convolution > 4 * linear > 1000
    totals = load_provenance("profile.csv")["board_table"]["totals"]
    for one in totals[:2]:  # of one choice everywhere; 40 instructions for each of 4 steps
        assert abs(one["predicted"] - one["counted"]) <= 40 * 5
    assert run(["solve", "--limit", "instructions=1K", "-o", "none.json"]) == 1


def test_missing_tools_are_named_with_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        check_tools()
    assert str(caught.value) == (
        "a board needs arm-none-eabi-gcc, qemu-system-arm, make, which this machine lacks; install "
        "with: sudo apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm make"
    )
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm", "make"):  # a compiler without its library
        (tmp_path / tool).write_text("#!/bin/sh\necho nano.specs\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.raises(
        InputError, match="the C library of arm-none-eabi, which this machine lacks"
    ):
        check_tools()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got no place to run; expected one of --host, --board"),
        (["--board", M4.name, "--host", "local"], "got --host and --board; expected one of"),
        (["--board", "mps2"], "got the board 'mps2'; expected one of mps2-an385, mps2-an386,"),
        (
            ["--board", "mps2-an385"],
            "mps2-an385 (Cortex-M3) runs code for cortex-m0 and cortex-m3, and this is for "
            "cortex-m4; take --board mps2-an386",
        ),
        (["--board", M4.name, "--mode", "cold"], "--mode does not go with --board; leave it out"),
        (["--board", M4.name, "--cc", "gcc"], "--cc does not go with --board"),
        (["--host", "local", "--ram", "64KB"], "--ram does not go with --host"),
        (["--board", M4.name, "--ram", "64"], "the size '64' has no unit"),
        (["--board", M4.name, "--ram", "9MB"], "--ram: got 9,437,184 bytes, and mps2-an386"),
        (["--board", M4.name, "--flags", "-O2 '"], "--flags: got"),
        (["--board", M4.name, "-o", "absent/x.json"], "-o: there is no folder absent"),
        (["--host", "local"], "is firmware for cortex-m4, which no --host runs; use --board mps2-"),
    ],
)  # fmt: skip
def test_calls_that_are_wrong(
    words: list[str],
    message: str,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["device", "run", str(export), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_program_is_no_firmware(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(export, tmp_path / "program")
    document = json.loads((export / "export.json").read_text())
    program = {**document, "target": "any", "firmware": None}
    (tmp_path / "program" / "export.json").write_text(json.dumps(program))
    assert run(["device", "run", str(tmp_path / "program"), "--board", "mps2-an500"]) == 2
    said = capsys.readouterr().err
    assert "is no firmware: it was exported for any; export it with --target cortex-m7" in said


@pytest.mark.parametrize(
    ("target", "board", "flash", "message"),
    [
        (
            None,
            "mps2-an386",
            None,
            "--target is not given; expected --target with one of cortex-",
        ),
        (
            "cortex-a72",
            None,
            1000,
            "--board, --flash and --ram are of firmware, and --target is c",
        ),
        ("cortex-m4", "mps2-an500", None, "runs code for cortex-m7, and this is for cortex-m4"),
        ("cortex-m55", None, 1 << 20, "--flash: got 1,048,576 bytes, and mps3-an547 has 524,288"),
    ],
)
def test_firmware_that_no_board_takes(
    target: str | None, board: str | None, flash: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        firmware_for(target, board, flash)


def test_limits_are_the_sizes_of_the_memories() -> None:
    """`--flash 145KB --ram 64KB` of the command, which the linker holds a firmware to."""
    firmware = firmware_for("cortex-m33", None, 145 * 1024, 64 * 1024)
    assert firmware is not None
    script = board_files(firmware)["board.ld"].decode()
    assert "FLASH (rx) : ORIGIN = 0x10000000, LENGTH = 148480\n" in script
    assert "RAM (rw) : ORIGIN = 0x38000000, LENGTH = 65536\n" in script


def test_counts_are_ticks_of_the_boards_clock_less_the_reading() -> None:
    """By hand, at 20 MHz: (1000 - 0.5) * 50 of a run; two steps of the second sample."""
    board = BOARDS["mps2-an505"]
    lines = ["# clock 500", "1 -2", "# step 7", "# step 0", "# ticks 1000", "# stack 96",
             "3 4", "# step 9", "# step 1", "# ticks 1001", "# stack 104"]  # fmt: skip
    found = parse(lines, 2, board)
    assert found.outputs == ("1 -2", "3 4")
    assert found.instructions == (49975, 50025)
    assert found.steps == ((325, 0), (425, 25))
    assert found.stack_bytes == 104
    for bad in (lines[:-1], lines[1:], [*lines, "# ticks 5"], [*lines, "5"]):
        with pytest.raises(DeviceError, match="did not print the counts of 2 steps"):
            parse(bad, 2, board)
