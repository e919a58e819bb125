"""README.md of an export: figures, and how to build, check and embed it."""

from collections.abc import Mapping
from math import prod
from typing import Any

from mpsearch.exporters.c.storage import elements
from mpsearch.exporters.firmware.project import Firmware
from mpsearch.exporters.packages.layout import how_to_take
from mpsearch.integer.graph import IntegerGraph
from mpsearch.running.streams import c_comment, markdown_text
from mpsearch.tables.units import format_size


def readme(graph: IntegerGraph, document: Mapping[str, Any], firmware: Firmware | None) -> str:
    """The text for people who hold only the folder."""
    if "package" in document:
        return _head(document) + how_to_take(document["package"]) + _memory(document)
    if firmware is None:
        return (
            _head(document) + _program(document) + _memory(document) + _embedding(graph, document)
        )
    return _head(document) + _firmware(firmware, document) + _memory(document)


def _head(document: Mapping[str, Any]) -> str:
    return f"""# An integer network in C99

Made by mpsearch {document["mpsearch"]}. Integers only, no allocation, no dependency; the arithmetic
is defined in mpsearch's docs/integer.md, and results equal those of its reference bit by bit.

"""


def _program(document: Mapping[str, Any]) -> str:
    inputs = ", ".join(
        f"{markdown_text(entry['name'])} ({'x'.join(map(str, entry['shape']))})"
        for entry in document["inputs"]
    )
    return f"""    make            # build/network and build/libnetwork.a
    make check      # the samples in check/ must give the stored integers
    make size       # code and constants of what firmware needs
    build/network --input check/input.f32 --repeat 100

CMake works as well: `cmake -S . -B build && cmake --build build`. Other flags or compilers:
`make CC=aarch64-linux-gnu-gcc CFLAGS="-O2 -mcpu=cortex-a72"`. The command line reads samples as raw
float32, all inputs one after the other: {inputs}.
With `--codes` it reads the codes of all entries instead.

"""


def _firmware(firmware: Firmware, document: Mapping[str, Any]) -> str:
    board = firmware.board
    flash, ram = firmware.limits
    return f"""Firmware for {document["target"]}, linked for {board.name} ({board.core}): at most \
{format_size(flash)} of flash and
{format_size(ram)} of RAM with the stack; more is an error of the linker, with the bytes.

    sudo apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm make
    make            # build/firmware.elf, and the bytes that it takes of flash and RAM
    make run        # its class for the first sample of check/, in QEMU
    make check      # all samples in check/ must give the stored integers, in QEMU
    mpsearch device run . --board {board.name}
    make serial     # build/serial.elf, to be flashed for the next one
    mpsearch device run . --serial /dev/ttyACM0

`--board` checks too, and says what one inference takes: instructions, in all and of each step,
flash, RAM, and the stack, which it paints. Emulation counts instructions; it tells no time.
`--serial` does that on a real board, in cycles and seconds.

| file | what it is |
|---|---|
| `main.c` | a sample in, its class out |
| `board.h`, `board.ld`, `uart.c` | all that is of this board: clock, memories, UART |
| `startup.c`, `firmware.ld`, `clock.c` | the same for every Cortex-M |
| `check.c`, `semihosting.c` | `make check`: samples from this machine; no part of a product |
| `protocol.c`, `digest.h` | `make serial`: samples over the UART; no part of a product |
| `network.c`, `border.c` and the rest | the network; `border.c` alone computes with floats |

"""


def _memory(document: Mapping[str, Any]) -> str:
    constants, arena = document["constant_bytes"], document["arena"]
    flash = "\n".join(f"| {name} | {size:,} |" for name, size in constants.items())
    layers = "\n".join(
        f"| {markdown_text(row['layer'])} | {row['w_bits']} | {row['a_bits']} | {row['macs']:,} "
        f"| {row['weight_bytes']:,} |"
        for row in document["layers"]
    )
    sram = f"{arena['peak_bytes']:,} bytes ({format_size(arena['peak_bytes'])})"
    sizes = "make" if document["firmware"] else "make size"
    shows = "your build shows them" if "package" in document else f"`{sizes}` shows them"
    count = len(arena["packed"])
    code = document.get("code_bytes")
    most = "" if code is None else f", at most {code:,} bytes with -O2"
    packed = f"; {count} of the tensors have two or four codes in a byte" if count else ""
    return f"""## Memory

| constants (flash) | bytes |
|---|---|
{flash}
| together | {sum(constants.values()):,} |

Code and the steps' descriptions come on top{most}: {shows}. Weights, biases and scales
together are the size that mpsearch predicted: {document["size_bytes"]:,} bytes.

Static memory (SRAM) of all tensors: {sram}. No placing can go
below {arena["lower_bound_bytes"]:,} bytes, the largest sum of what is alive at once{packed}.
The stack needs less than {document["stack_bytes"]:,} bytes.

| layer | weight bits | activation bits | MACs | weight bytes |
|---|---|---|---|---|
{layers}
"""


def _embedding(graph: IntegerGraph, document: Mapping[str, Any]) -> str:
    shapes = [tuple(entry["shape"]) for entry in document["inputs"]]
    inputs = "\n".join(
        f"static float x{place}[{prod(shape)}]; "
        + c_comment(f"{entry['name']}, {'x'.join(map(str, shape)) or '1'}: your values")
        for place, (entry, shape) in enumerate(zip(document["inputs"], shapes, strict=True))
    )
    names = ", ".join(f"x{place}" for place in range(len(shapes)))
    words, declared, answer = _answer(graph)
    return f"""
## Embedding

Real numbers in, {words}. Save this as `example.c` beside this folder:

```c
#include <stdio.h>

#include "border.h"
#include "network.h"

{inputs}

int main(void) {{
    const float *inputs[NETWORK_INPUTS] = {{{names}}};
{declared}    for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
        network_quantize(entry, inputs[network_entries[entry].input]);
    network_run();
{answer}    return 0;
}}
```

    make
    cc -std=c99 -I. ../example.c border.c build/libnetwork.a -lm -o build/example
    build/example

In a project of yours take all `.c` files but `main.c` and `step_times.c`, and all headers.
`border.c` turns real numbers into codes and back (`network_quantize`, `network_real`) and is the
only file with floating point: leave it out where codes come from elsewhere (`mps_set` and `mps_get`
in `integers.h` write and read one). Scales and zero points are also in export.json. A run reuses
the memory of what it reads: quantize again before the next one.
"""


def _answer(graph: IntegerGraph) -> tuple[str, str, str]:
    """In words, what the example declares, and what it does with the output."""
    if len(graph.output.shape) == 1 and elements(graph.output) > 1 and not graph.gives_classes:
        largest = """    for (int i = 1; i < NETWORK_OUTPUTS; i++)
        if (network_real(i) > network_real(best))
            best = i;
    printf("class %d\\n", best); /* where each output is the score of a class */
"""
        return "the class out", "    int best = 0;\n", largest
    printed = """    for (int i = 0; i < NETWORK_OUTPUTS; i++)
        printf("%g\\n", network_real(i));
"""
    return "the class out" if graph.gives_classes else "real numbers out", "", printed
