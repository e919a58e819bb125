"""The processors that the C export is written for."""

from collections.abc import Mapping
from dataclasses import dataclass

from mpsearch.errors import InputError, did_you_mean
from mpsearch.exporters.c.families import CORTEX_M, HELIUM, PORTABLE, Family


@dataclass(frozen=True)
class Target:
    """One kind of processor."""

    name: str
    description: str
    family: Family
    compiler: str
    """As it is called on a Debian machine."""
    flags: tuple[str, ...]
    """That name the processor; how far to optimize is said elsewhere."""
    bare: bool = False
    """True for a microcontroller, which gets firmware; False for a system with files."""


ANY = Target("any", "whatever compiles C99", PORTABLE, "cc", ())


def _cortex_m(number: int, family: Family, description: str, *more: str) -> Target:
    flags = (f"-mcpu=cortex-m{number}", "-mthumb", *more)
    compiler = "arm-none-eabi-gcc"
    return Target(f"cortex-m{number}", description, family, compiler, flags, bare=True)


_AARCH64 = "aarch64-linux-gnu-gcc"
_ALL = (
    _cortex_m(0, CORTEX_M, "Armv6-M"),
    _cortex_m(3, CORTEX_M, "Armv7-M"),
    _cortex_m(4, CORTEX_M, "Armv7E-M, DSP"),
    _cortex_m(7, CORTEX_M, "Armv7E-M, DSP"),
    _cortex_m(33, CORTEX_M, "Armv8-M, DSP"),
    _cortex_m(55, HELIUM, "Armv8.1-M, Helium", "-mfloat-abi=hard"),
    Target("cortex-a72", "Raspberry Pi 4", PORTABLE, _AARCH64, ("-mcpu=cortex-a72",)),
    Target("cortex-a76", "Raspberry Pi 5", PORTABLE, _AARCH64, ("-mcpu=cortex-a76",)),
    Target("x86-64", "x86 with AVX2", PORTABLE, "gcc", ("-march=x86-64-v3",)),
)
TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}


def find_target(name: str | None) -> Target:
    """The target of that name; `ANY` without one. Raises InputError for a name that is none."""
    if name is None:
        return ANY
    if name not in TARGETS:
        close = did_you_mean(name, TARGETS)
        raise InputError(f"got the target {name!r}{close}; expected one of {', '.join(TARGETS)}")
    return TARGETS[name]
