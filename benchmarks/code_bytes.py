"""Bytes of flash that the C export's code takes on each microcontroller, for `solve --flash`.

    python benchmarks/code_bytes.py               # writes mpsearch/exporters/c/code_bytes.json
    python benchmarks/code_bytes.py --targets cortex-m4

A function's bytes are those that linking it adds to a program without any, with all that it calls.
What several call counts for each of them, so that a sum is never below what a firmware takes; the
kernels of layers, which share much, are linked together in every combination. "base" is the rest
of a small firmware: start-up, timer, UART, float in and out. Needs gcc-arm-none-eabi and
libnewlib-arm-none-eabi; measured with -O2, as the firmware's Makefile has it.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import click
import torch
from torch import nn

from mpsearch.data import Data
from mpsearch.device.exported import read_firmware
from mpsearch.device.firmware import WHOLE, build
from mpsearch.exporters.c.code_bytes import LAYERS
from mpsearch.exporters.c.folder import export_c, kernel_sources
from mpsearch.exporters.c.targets import TARGETS, Target
from mpsearch.exporters.firmware.boards import boards_of
from mpsearch.graph.network import Network
from mpsearch.post_training.quantizing import apply
from mpsearch.post_training.repairing import PLAIN
from mpsearch.tables.choice import Choice

TABLE = Path(__file__).parent.parent / "mpsearch/exporters/c/code_bytes.json"
_PROTOTYPE = re.compile(r"^void (mps_\w+)\((?:const (mps_\w+) \*step)?", re.MULTILINE)
_SIZES = re.compile(r"^(\.\S+)\s+(\d+)\s", re.MULTILINE)
_KEPT = {".text", ".rodata", ".data", ".ARM.exidx"}


def _run(folder: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout


def _exported(target: Target, folder: Path) -> dict[str, int]:
    """A small network as firmware; its constants by kind."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        x = torch.randn(8, 2, 6, 6)
    data = Data("random", (x,), None)
    network = Network.from_module(model.eval(), (x,))
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    quantized = apply(network, choices, data, PLAIN)
    document = export_c(quantized, data, folder, target=target).document
    constants: dict[str, int] = document["constant_bytes"]
    return constants


def measure(target: Target) -> dict[str, object]:
    """What the table has of one target."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "firmware"
        constants = _exported(target, folder)
        header = (folder / "kernels.h").read_text()
        found = _PROTOTYPE.findall(header)
        structs = sorted({struct for _, struct in found if struct})
        sources = kernel_sources(target)
        compiler = (target.compiler, *target.flags, "-O2", "-std=c99", "-ffunction-sections",
                    "-fdata-sections")  # fmt: skip
        for source in sources:
            _run(folder, *compiler, "-c", source, "-o", f"{source}.o")
        objects = [f"{source}.o" for source in sources]
        sizes = "".join(f"char {s}_bytes[sizeof({s})];\n" for s in structs)
        (folder / "sizes.c").write_text(f'#include "kernels.h"\n{sizes}')
        _run(folder, *compiler, "-c", "sizes.c", "-o", "sizes.o")
        listed = _run(folder, "arm-none-eabi-nm", "-S", "sizes.o")
        size_of = {
            words[3].removesuffix("_bytes"): int(words[1], 16)
            for words in map(str.split, listed.splitlines())
        }
        nothing = _linked(folder, compiler, objects)
        functions = {
            function: {
                "code": _linked(folder, compiler, objects, function) - nothing,
                "step": size_of.get(struct, 0),
            }
            for function, struct in found
        }
        together = {
            " ".join(names): _linked(folder, compiler, objects, *names) - nothing
            for count in range(2, len(LAYERS) + 1)
            for names in combinations(LAYERS, count)
        }
        board = boards_of(target.name)[0]
        place = Path(name) / "build"
        place.mkdir()
        built = build(read_firmware(folder, board.name), board, ("-O2",), place, (WHOLE,))
        used = ("mps_convolve_patches", "mps_multiply_patches")
        rest = together[" ".join(used)] + sum(functions[name]["step"] for name in used)
        base = built.flash_bytes - sum(constants.values()) - rest
        return {"base": max(base, 0), "functions": functions, "layers": together}


def _linked(folder: Path, compiler: Sequence[str], objects: Sequence[str], *functions: str) -> int:
    """Bytes of a program with these functions."""
    known = "".join(f"extern void {function}(void);\n" for function in functions)
    kept = ", ".join(f"(void *){function}" for function in (*functions, "0"))
    main = "void entry(void) { keep[0] = 0; }"
    (folder / "stub.c").write_text(f"{known}void *volatile keep[] = {{{kept}}};\n{main}\n")
    _run(
        folder, *compiler, "--specs=nano.specs", "-nostartfiles", "-Wl,--gc-sections,-eentry",
        "stub.c", *objects, "-o", "stub.elf", "-lm",
    )  # fmt: skip
    listed = _run(folder, "arm-none-eabi-size", "-A", "stub.elf")
    return sum(int(size) for name, size in _SIZES.findall(listed) if name in _KEPT)


@click.command()
@click.option("--targets", help="Some of them, with commas [default: all microcontrollers].")
def main(targets: str | None) -> None:
    """Measure, and write the table."""
    names = targets.split(",") if targets else [t.name for t in TARGETS.values() if t.bare]
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {"targets": {}}
    for name in names:
        table["targets"][name] = measure(TARGETS[name])
        click.echo(f"{name}: base {table['targets'][name]['base']}")
    version = subprocess.run(
        ["arm-none-eabi-gcc", "-dumpfullversion"], capture_output=True, text=True, check=True
    ).stdout.strip()
    table = {"compiler": f"arm-none-eabi-gcc {version} -O2", "targets": table["targets"]}
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
