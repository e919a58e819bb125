"""What a device gets of a C export: sources, samples, and the reference's integers to compare.

The program for the device: where it is compiled, and which processor it is for.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from mpsearch.device.transport import clean, telling
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import FORMAT, VERSION
from mpsearch.exporters.firmware.boards import board_named
from mpsearch.exporters.folders import DOCUMENT, LARGEST_MIB
from mpsearch.files.json_file import (
    by_name,
    check_form,
    list_of,
    null_or,
    read_document,
    text,
    whole,
)
from mpsearch.files.whole import digest
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import network_digest

_SOURCE = re.compile(r"[a-z][a-z0-9_]{0,40}\.[ch]")
_PROJECT = re.compile(r"Makefile|[a-z][a-z0-9_]{0,40}\.ld")
_INPUT, _OUTPUT = "check/input.f32", "check/output.txt"
LARGEST = 1 << 28


@dataclass(frozen=True)
class Exported:
    """A C export that was read and found unchanged.

    sources: C files by name. steps: the layer that each step counts for, kinds: what it does.
    samples: float32 of all samples. one: that of the first. expected: a line of integers for each
    sample, from the reference. target: the processor that it was exported for, `any` for all.
    project: what builds a firmware of it, by name, and firmware: the board and the limits that it
    was exported with; both are empty for a program. macs: of one sample; largest: the layer with
    the most bytes. inputs: the elements of each.
    """

    digest: str
    network: str
    sources: Mapping[str, bytes]
    steps: tuple[str, ...]
    kinds: tuple[str, ...]
    samples: bytes
    one: bytes
    expected: tuple[str, ...]
    constant_bytes: int
    arena_bytes: int
    model_digest: str | None = None
    quantized_digest: str | None = None
    target: str = "any"
    project: Mapping[str, bytes] = field(default_factory=dict)
    firmware: Mapping[str, Any] = field(default_factory=dict)
    macs: int = 0
    largest: str = ""
    inputs: tuple[int, ...] = ()


def read_export(folder: str | os.PathLike[str]) -> Exported:
    """Read a folder of `mpsearch export --format c` whose program runs on a system with files.

    Raises InputError for anything else, for a file that is missing or was changed after the export,
    for firmware, and for an export of an mpsearch whose program cannot be timed.
    """
    exported = _read(Path(folder))
    if exported.firmware:
        board = exported.firmware["board"]
        raise InputError(
            f"{folder} is firmware for {exported.target}, which no --host runs; use --board {board}"
        )
    if b"--warm-up" not in exported.sources.get("main.c", b""):
        raise InputError(
            f"{folder} was written by an older mpsearch, whose program cannot be timed; export "
            "again"
        )
    return exported


def read_firmware(folder: str | os.PathLike[str], board: str) -> Exported:
    """Read a folder of `mpsearch export --target cortex-m…` that is to run on `board`. Raises
    InputError as `read_export`, and for an export that is no firmware."""
    exported = _read(Path(folder))
    if not exported.firmware:
        target = board_named(board).targets[-1]
        raise InputError(
            f"{folder} is no firmware: it was exported for {exported.target}; export it with "
            f"--target {target}, or run it with --host"
        )
    return exported


_OF_NETWORK = ("network.c", "network.h", "scales.h")


def read_flashed(folder: str | os.PathLike[str]) -> Exported:
    """Read a folder of `mpsearch export --target cortex-m…` whose firmware is on a board already.

    Only what says which network it is and what it must compute has to be as it was exported: the
    rest may have been changed for the board. Raises InputError as `read_firmware`.
    """
    exported = _read(Path(folder), lambda name: name in (*_OF_NETWORK, _INPUT, _OUTPUT))
    if not exported.firmware:
        raise InputError(
            f"{folder} is no firmware: it was exported for {exported.target}; export it with "
            "--target cortex-m4 or another Cortex-M, or run it with --host"
        )
    return exported


def _read(place: Path, wanted: Callable[[str], bool] = lambda name: True) -> Exported:
    raw, document = _document(place)
    try:
        check_form(document, _FORM, "")
        listed = {name: expected for name, expected in document["files"].items() if wanted(name)}
        contents = _contents(place, listed)
        samples, results = contents[_INPUT], contents[_OUTPUT].decode("ascii")
        expected = tuple(results.splitlines())
        inputs = tuple(prod(entry["shape"]) for entry in document["inputs"])
        size = 4 * sum(inputs)
        if size <= 0 or not expected or len(samples) != size * len(expected):
            raise ValueError(f"{_INPUT} does not hold the samples of {_OUTPUT}")
        choices = {layer["layer"]: Choice.from_json(layer) for layer in document["layers"]}
        layers = document["layers"]
        return Exported(
            digest=digest(raw),
            network=network_digest(choices),
            sources={name: data for name, data in contents.items() if _SOURCE.fullmatch(name)},
            steps=tuple(step["layer"] for step in document["steps"]),
            kinds=tuple(step["kind"] for step in document["steps"]),
            samples=samples,
            one=samples[:size],
            expected=expected,
            constant_bytes=sum(document["constant_bytes"].values()),
            arena_bytes=document["arena"]["peak_bytes"],
            model_digest=document.get("model_digest"),
            quantized_digest=document.get("quantized_digest"),
            target=document.get("target", "any"),
            project={name: data for name, data in contents.items() if _PROJECT.fullmatch(name)},
            firmware=document.get("firmware") or {},
            macs=sum(layer["macs"] for layer in layers),
            largest=max(layers, key=lambda layer: layer["size_bytes"], default={"layer": ""})[
                "layer"
            ],
            inputs=inputs,
        )
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{place / DOCUMENT} is damaged: {str(error)[:200]}; export again"
        ) from None


_FORM = {
    "files": by_name(text),
    "inputs": list_of({"shape": list_of(whole(1, 1 << 31))}),
    "layers": list_of(
        {
            "layer": text, "w_bits": whole(1, 64), "a_bits": whole(1, 64), "macs": whole(),
            "size_bytes": whole(),
        }
    ),
    "steps": list_of({"layer": text, "kind": text}),
    "constant_bytes": by_name(whole()),
    "arena": {"peak_bytes": whole()},
    "model_digest?": null_or(text),
    "quantized_digest?": null_or(text),
    "target?": text,
    "firmware?": null_or(
        {"board": text, "flash": null_or(whole(1)), "ram": null_or(whole(1))}
    ),
}  # fmt: skip


def _document(folder: Path) -> tuple[bytes, Mapping[str, Any]]:
    if not (folder / DOCUMENT).is_file():
        raise InputError(
            f"{folder} is not a C export: it has no {DOCUMENT}; make one with "
            "`mpsearch export QUANTIZED --format c -o FOLDER`"
        )
    place = folder / DOCUMENT
    document = read_document(place, DOCUMENT, FORMAT, VERSION, LARGEST_MIB, f"there is no {place}")
    return place.read_bytes(), document


def _contents(folder: Path, listed: Mapping[str, Any]) -> dict[str, bytes]:
    """Every listed file that a device needs, as it was exported."""
    contents = {}
    for name, expected in listed.items():
        if not (_SOURCE.fullmatch(name) or _PROJECT.fullmatch(name) or name in (_INPUT, _OUTPUT)):
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing; export again")
        if path.stat().st_size > LARGEST or digest(content := path.read_bytes()) != expected:
            raise InputError(
                f"{path} was changed after the export; export again, its figures would be those of "
                "another network"
            )
        contents[name] = content
    return contents


LAUNCHER = "tool/launcher.c"
SECONDS = 600
# e_machine of an ELF header -> what `uname -m` says where it runs without an emulator. A 64-bit
# kernel runs 32-bit programs of its family: the usual state of a 32-bit Raspberry Pi OS.
NATIVE = {
    3: ("i386", "i486", "i586", "i686", "x86_64"),
    40: ("arm", "armv6l", "armv7l", "armv8l", "aarch64"),
    62: ("x86_64",),
    183: ("aarch64",),
    243: ("riscv64",),
}
_CROSS = {
    "aarch64": "aarch64-linux-gnu-gcc", "armv6l": "arm-linux-gnueabihf-gcc",
    "armv7l": "arm-linux-gnueabihf-gcc", "riscv64": "riscv64-linux-gnu-gcc",
}  # fmt: skip


@dataclass(frozen=True)
class Compiler:
    """`words` of the compiler and its `flags`; `here` compiles on this machine, else the device."""

    words: tuple[str, ...] = ("cc",)
    flags: tuple[str, ...] = ("-O2",)
    here: bool = False


@dataclass(frozen=True)
class Built:
    """Files to send; which of them are programs; the compiler's own name where it ran here."""

    files: Mapping[str, bytes]
    programs: tuple[str, ...]
    compiler: str | None


def split_words(option: str, text: str) -> tuple[str, ...]:
    """Words as a shell would split them, but never by a shell: `qemu-aarch64 -cpu 'a b'`.

    Raises InputError for an open quote and for a line break or another control character.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"{option}: got {ascii(text)[:80]}: {error}") from None
    if not all(word and word.isprintable() for word in words):
        raise InputError(f"{option}: got {ascii(text)[:80]}; expected words of printable text")
    return words


def build(exported: Exported, compiler: Compiler, prefix: tuple[str, ...]) -> Built:
    """What has to lie in the folder on the device. Raises InputError when it does not compile."""
    launcher = (files("mpsearch.device") / "launcher.c").read_bytes()
    sources = {f"source/{name}": data for name, data in exported.sources.items()}
    everywhere = {
        "check.f32": exported.samples,
        "one.f32": exported.one,
        "prefix": _lines(prefix),
    }
    if not compiler.here:
        return Built(
            {
                **everywhere, **sources, LAUNCHER: launcher,
                "compiler": _lines(compiler.words), "flags": _lines(compiler.flags),
                "architectures": b"",
            },
            (), None,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, data in {**sources, LAUNCHER: launcher}.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(data)
        codes = sorted(str(path) for path in (place / "source").glob("*.c"))
        version = _call(compiler.words, "--version").splitlines()
        _call(compiler.words, "-std=c99", "-O1", "-static", "-s", "-o", f"{place}/launcher",
              str(place / LAUNCHER))  # fmt: skip
        _call(compiler.words, "-std=c99", *compiler.flags, "-static", "-s", "-o",
              f"{place}/network", *codes, "-lm")  # fmt: skip
        programs = {name: (place / name).read_bytes() for name in ("launcher", "network")}
    machine = machine_of(programs["network"][:20])
    architectures = () if machine is None else NATIVE.get(machine, ())
    return Built(
        {**everywhere, **programs, "architectures": _lines(architectures)},
        ("launcher", "network"),
        clean(version[0]) if version else "unknown",
    )


def machine_of(header: bytes) -> int | None:
    """e_machine of an ELF header; None for another file."""
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    return int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")


def is_native(header: bytes, architecture: str) -> bool:
    """Whether a program with this header runs on `uname -m` without an emulator, as far as is
    known: a processor that no table knows can only run what is not for another."""
    machine = machine_of(header)
    if machine is None or machine not in NATIVE:
        return True
    return architecture in NATIVE[machine]


def cross_compiler(architecture: str) -> str:
    """What to say to somebody whose device has no compiler, or another processor."""
    if architecture in _CROSS:
        return f"--compile here --cc {_CROSS[architecture]}"
    return "--compile here with --cc and a compiler for it"


def _lines(words: tuple[str, ...]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


def _call(words: tuple[str, ...], *arguments: str) -> str:
    if shutil.which(words[0]) is None:
        package = f"gcc-{words[0].removesuffix('-gcc')}" if words[0].endswith("-gcc") else "gcc"
        raise InputError(
            f"there is no compiler {words[0]} on this machine; install it, for example with: "
            f"sudo apt install {package}"
        )
    try:
        done = subprocess.run(
            [*words, *arguments], capture_output=True, text=True, timeout=SECONDS, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{words[0]} did not end within {SECONDS} s") from None
    if done.returncode != 0:
        said = telling(done.stderr.splitlines()) or f"exit status {done.returncode}"
        raise InputError(f"{words[0]} cannot compile the export: {said}")
    return done.stdout
