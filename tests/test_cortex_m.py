"""Layers for Cortex-M give the integers of the reference: with DSP instructions, with what stands
in for them, on 32-bit registers, and on Armv6-M, which faults where a word is not aligned."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cortex_m_layers import Case, make_case

from mpsearch.exporters.c.families import CORTEX_M

HERE = Path(__file__).parent
CORE = HERE.parent / "mpsearch" / "exporters" / "c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
ARM, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
CASES, MOST = 180, 8000  # bytes of memory: a board has 16 KiB


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Case]]:
    """The folder of cases.h, and the cases."""
    source = np.random.default_rng(0)
    made = [make_case(source, case) for case in range(CASES)]
    made = [case for case in made if case.memory <= MOST]
    folder = tmp_path_factory.mktemp("cases")
    table = ",\n".join(
        "{" + ", ".join(f".{key} = {value}" for key, value in case.entry.items()) + "}"
        for case in made
    )
    memory = max(case.memory for case in made)
    text = "".join(case.text for case in made)
    text += f"#define CASES {len(made)}\n#define MEMORY {memory}\n"
    (folder / "cases.h").write_text(f"{text}static const test_case cases[] = {{\n{table}\n}};\n")
    return folder, made


def _sources() -> list[Path]:
    return [HERE / "cortex_m_cases.c", *(CORE / name for name in CORTEX_M.sources)]


def _needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")


def _build(compiler: str, program: Path, folder: Path, *flags: str) -> None:
    done = subprocess.run(
        [
            compiler, *STRICT, *flags, f"-I{CORE}", f"-I{CORE / 'cortex_m'}", f"-I{folder}",
            *_sources(), "-o", program,
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]


def _check(command: list[str | Path], made: list[Case]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    printed = (done.stdout + done.stderr).splitlines()
    failed = [f"{line} {made[int(line)].about}" for line in printed if line.isdigit()]
    assert done.returncode == 0, "\n".join(
        [f"{len(failed)} of {len(made)}", *failed[:12], done.stderr[:3000]]
    )


@pytest.mark.parametrize("flags", [("-DMPS_DSP_TWIN",), ()], ids=["twin", "registers"])
def test_on_a_host_within_their_memory(
    flags: tuple[str, ...], cases: tuple[Path, list[Case]], tmp_path: Path
) -> None:
    _needs("gcc")
    sanitizers = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    folder, made = cases
    _build("gcc", tmp_path / "cases", folder, "-O1", *sanitizers, *flags)
    _check([tmp_path / "cases"], made)


CORES = {  # board, where flash and RAM begin, how many KiB they are
    "cortex-m0": ("microbit", 0, 256, 0x20000000, 16),
    "cortex-m3": ("mps2-an385", 0, 4096, 0x20000000, 4096),
    "cortex-m4": ("mps2-an386", 0, 4096, 0x20000000, 4096),
    "cortex-m33": ("mps2-an505", 0x10000000, 4096, 0x38000000, 4096),
}


@pytest.mark.parametrize("core", CORES)
def test_on_an_emulated_core(core: str, cases: tuple[Path, list[Case]], tmp_path: Path) -> None:
    _needs(ARM, QEMU)
    folder, made = cases
    board, *memories = CORES[core]
    names = ("FLASH_START", "FLASH_KIB", "RAM_START", "RAM_KIB")
    sizes = [f"-Wl,--defsym={name}={value}" for name, value in zip(names, memories, strict=True)]
    flags = (
        f"-mcpu={core}",
        "-mthumb",
        "-Os",
        "-nostartfiles",
        "-T",
        str(HERE / "cortex_m_cases.ld"),
    )
    _build(ARM, tmp_path / "cases.elf", folder, *flags, *sizes)
    _check(
        [QEMU, "-M", board, "-display", "none", "-semihosting", "-kernel", tmp_path / "cases.elf"],
        made,
    )
