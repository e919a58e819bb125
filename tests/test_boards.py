"""Firmware of every Cortex-M in QEMU: integers, instructions, stack, memories, and what fails."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import integer_networks
import pytest
from boards import needs_boards, network

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.device.emulation import count, emulate
from mpsearch.device.exported import Exported, read_firmware
from mpsearch.device.firmware import (
    CHECK,
    STEPS,
    WHOLE,
    Built,
    TooLarge,
    build,
    refuse_overflow,
)
from mpsearch.device.measuring import ReferenceMismatch
from mpsearch.device.profile import device_latency, load_device_profile
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import export_c
from mpsearch.exporters.c.targets import TARGETS
from mpsearch.exporters.firmware.boards import BOARDS, Memory, board_named
from mpsearch.exporters.firmware.project import Firmware, board_files
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

FLAGS = ("-O0", "-Werror")  # quick to compile, and any warning of -Wall -Wextra -pedantic fails
PAIRS = [(name, target) for name, board in BOARDS.items() for target in board.targets]
M4 = BOARDS["mps2-an386"]
RUN, MAIN = "void network_run(void) {\n", "int main(void) {\n"


def _export(folder: Path, target: str, firmware: Firmware | None = None) -> Path:
    quantized, data = network()
    export_c(quantized, data, folder, target=TARGETS[target], firmware=firmware)
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
    board = board_named(name)
    exported = read_firmware(_export(tmp_path / "firmware", target), name)
    (tmp_path / "project").mkdir()
    built = build(exported, board, FLAGS, tmp_path / "project")
    counted = count(built, STEPS, exported, board, 60)
    assert counted.outputs == exported.expected
    assert len(counted.steps[0]) == len(exported.steps)
    assert min(counted.instructions) > 1000
    # the first sample's class, by the main function that people get
    codes = [int(code) for code in exported.expected[0].split()]
    assert emulate(board, built.programs[WHOLE], 20) == [f"class {codes.index(max(codes))}"]


@needs_boards
def test_a_network_that_gives_its_class_prints_that(tmp_path: Path) -> None:
    model, inputs = integer_networks.build("classes", 8)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    quantized = quantize(network, choices, calibrate(network, data))
    export_c(quantized, data, tmp_path / "firmware", target=TARGETS["cortex-m3"])
    board = BOARDS["mps2-an385"]
    exported = read_firmware(tmp_path / "firmware", board.name)
    (tmp_path / "project").mkdir()
    built = build(exported, board, FLAGS, tmp_path / "project", steps=False)
    assert emulate(board, built.programs[WHOLE], 20) == [f"class {exported.expected[0]}"]


@needs_boards
def test_counts_repeat_exactly_and_steps_add_up(built: Built, exported: Exported) -> None:
    whole, steps = (count(built, name, exported, M4, 60) for name in (CHECK, STEPS))
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
    """340 M rounds of a loop of two instructions, which also wraps the clock of 24 bits; and 20,000
    bytes that are written at their lower end."""
    before = count(built, CHECK, exported, M4, 60)
    folder = built.programs[WHOLE].parent.parent
    samples = (folder / "check/input.f32").read_bytes()
    (folder / "check/input.f32").write_bytes(exported.one)
    one = replace(exported, expected=exported.expected[:1])
    code = (
        "    volatile char deep[20000];\n    deep[0] = 1;\n    (void)deep[0];\n"
        '    __asm__ volatile("ldr r0, =340000000\\n1: subs r0, #1\\n bne 1b" ::: "r0", "cc");\n'
    )
    try:
        with _changed(built, "network.c", RUN, code):
            after = count(built, CHECK, one, M4, 120)
    finally:
        (folder / "check/input.f32").write_bytes(samples)
    assert after.instructions[0] - before.instructions[0] == pytest.approx(680_000_001, abs=90)
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
        "Solve for a smaller budget; the largest layer is 'head', the tensors take "
        f"{exported.arena_bytes:,} bytes of RAM.",
    )


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
    assert run(["gate", *limits, "--device", "device.json"]) == 0
    limits = ["--max-instructions", str(found.instructions - 1)]
    assert run(["gate", *limits, "--device", "device.json"]) == 1
    assert run(["gate", "--max-latency", "1s", "--device", "device.json"]) == 2
    capsys.readouterr()
    # to the byte, both at once, and nothing is written
    exact = ["--flash", f"{found.flash_bytes}B", "--ram", f"{found.ram_bytes}B", "-o", "exact.json"]
    assert run([*words, *exact]) == 0
    short = [f"{found.flash_bytes - 1}B", f"{found.ram_bytes - 1}B"]
    capsys.readouterr()
    assert run([*words, "--flash", short[0], "--ram", short[1], "-o", "short.json"]) == 1
    said = capsys.readouterr().err
    assert f"flash: {found.flash_bytes:,} bytes, 1 more than the" in said
    assert f"RAM with the stack: {found.ram_bytes:,} bytes, 1 more than the" in said
    assert not Path("short.json").exists()
