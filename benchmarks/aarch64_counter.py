"""Count the instructions that an aarch64 function executes, without a device: unicorn as a CPU.

pip install unicorn        # and gcc-aarch64-linux-gnu, binutils of the same
"""

import importlib.util
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPILER = "aarch64-linux-gnu-gcc"
FLAGS = ("-std=c99", "-O2", "-nostdlib", "-static")
# what gcc compiles for, and the model of unicorn that runs it: it knows no A76, whose dot products
# its largest model has
CPU = "cortex-a72"
CPUS = {CPU: "UC_CPU_ARM64_A72", "cortex-a76": "UC_CPU_ARM64_MAX"}
_STACK, _STACK_BYTES, _RETURN = 0x7000_0000, 1 << 20, 0x6000_0000
_PAGE = 4096
_INSTRUCTION = 4

# What a program without a C library needs. The copies take 16 bytes at a time, as a library's do.
MEMORY = """
#include <stddef.h>
#include <stdint.h>
typedef struct { uint64_t a, b; } __attribute__((packed, may_alias)) both;
void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    unsigned char *t = to; const unsigned char *f = from;
    for (; n >= 16; n -= 16, t += 16, f += 16) *(both *)t = *(const both *)f;
    while (n--) { *t++ = *f++; __asm__ volatile(""); }
    return to;
}
void *memset(void *to, int value, size_t n) {
    unsigned char *t = to; const uint64_t eight = (unsigned char)value * 0x0101010101010101u;
    const both all = {eight, eight};
    for (; n >= 16; n -= 16, t += 16) *(both *)t = all;
    while (n--) { *t++ = (unsigned char)value; __asm__ volatile(""); }
    return to;
}
"""


@dataclass(frozen=True)
class Program:
    """A linked program: bytes to load by address, the size that they take, functions by address;
    `cpu` is one of CPUS."""

    segments: tuple[tuple[int, bytes, int], ...]
    symbols: dict[str, tuple[int, int]]
    cpu: str


@dataclass(frozen=True)
class Counts:
    """Instructions in all, by function, and by call of the function that was started: [before the
    first call, up to the second, …]."""

    total: int
    functions: dict[str, int]
    calls: list[int]


def missing() -> str | None:
    """What a count needs and is not there, in words; None when all is."""
    if importlib.util.find_spec("unicorn") is None:
        return "unicorn is not installed (pip install unicorn)"
    return None if shutil.which(COMPILER) else f"there is no {COMPILER}"


def build(
    sources: Sequence[Path], folder: Path, entry: str, flags: Sequence[str] = (), cpu: str = CPU
) -> Program:
    """Compile for one of CPUS and link without a library; `entry` is kept as the start."""
    memory, linked = folder / "memory.c", folder / "counted"
    memory.write_text(MEMORY)
    command = [COMPILER, *FLAGS, f"-mcpu={cpu}", *flags, "-fno-tree-loop-distribute-patterns"]
    command += [f"-Wl,-e,{entry}", "-o", str(linked), *map(str, sources), str(memory), "-lgcc"]
    subprocess.run(command, check=True)
    listing = subprocess.run(
        ["aarch64-linux-gnu-nm", "-S", linked], check=True, capture_output=True, text=True
    ).stdout
    symbols = {}
    for words in map(str.split, listing.splitlines()):
        if len(words) == 4:  # address, size, kind, name
            symbols[words[3]] = (int(words[0], 16), int(words[1], 16))
    return Program(tuple(_segments(linked.read_bytes())), symbols, cpu)


def _segments(elf: bytes) -> list[tuple[int, bytes, int]]:
    """(address, bytes, size in memory) of what a 64-bit little-endian ELF file loads."""
    (start,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    found = []
    for place in range(start, start + size * count, size):
        kind, _, offset, address, _, stored, memory, _ = struct.unpack_from("<IIQQQQQQ", elf, place)
        if kind == 1:
            found.append((address, elf[offset : offset + stored], memory))
    return found


class Machine:
    """A program in an emulated processor."""

    def __init__(self, program: Program) -> None:
        unicorn: Any = importlib.import_module("unicorn")
        arm64_const: Any = importlib.import_module("unicorn.arm64_const")
        self.program = program
        self.registers = arm64_const
        self.cpu: Any = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.cpu.ctl_set_cpu_model(getattr(arm64_const, CPUS[program.cpu]))
        self.blocks: list[tuple[int, int]] = []
        pages = set()
        for address, _, size in program.segments:
            pages |= set(range(address // _PAGE, (address + max(size, 1) - 1) // _PAGE + 1))
        for page in sorted(pages):
            self.cpu.mem_map(page * _PAGE, _PAGE)
        for address, content, _ in program.segments:
            self.cpu.mem_write(address, content)
        self.cpu.mem_map(_STACK, _STACK_BYTES)
        self.cpu.mem_map(_RETURN, _PAGE)
        self.cpu.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # floating point, vectors
        self.cpu.hook_add(unicorn.UC_HOOK_BLOCK, self._enter)

    def _enter(self, _cpu: object, address: int, size: int, _data: object) -> None:
        self.blocks.append((address, size))

    def call(self, name: str, *arguments: int) -> int:
        """Run a function with integer arguments; its result."""
        self.blocks.clear()
        for number, value in enumerate(arguments):
            self.cpu.reg_write(self.registers.UC_ARM64_REG_X0 + number, value)
        self.cpu.reg_write(self.registers.UC_ARM64_REG_SP, _STACK + _STACK_BYTES - 64)
        self.cpu.reg_write(self.registers.UC_ARM64_REG_LR, _RETURN)
        self.cpu.emu_start(self.program.symbols[name][0], _RETURN)
        return int(self.cpu.reg_read(self.registers.UC_ARM64_REG_X0))

    def count(self, name: str, *arguments: int) -> Counts:
        """Run a function and count; every block that is entered is executed to its end."""
        self.call(name, *arguments)
        start, size = self.program.symbols[name]
        ranges = sorted(
            (at, at + length, symbol) for symbol, (at, length) in self.program.symbols.items()
        )
        functions: Counter[str] = Counter()
        owners: dict[int, str] = {}
        calls: list[int] = []
        for address, length in self.blocks:
            if address not in owners:
                owners[address] = next((s for a, b, s in ranges if a <= address < b), "?")
            if start <= address < start + size:
                calls.append(0)
            functions[owners[address]] += length // _INSTRUCTION
            calls[-1] += length // _INSTRUCTION
        return Counts(sum(functions.values()), dict(functions), calls)
