"""Instructions, flash, RAM and stack of three networks on five Cortex-M, counted in QEMU.

    python benchmarks/microcontrollers.py
    python benchmarks/microcontrollers.py --networks resnet8 --targets cortex-m4 --steps

Every network is exported as a firmware project at every assignment, built with `make` and run as
`mpsearch device run` does it: its outputs must be those of the integer reference, and its
instructions are counted exactly. Needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and
qemu-system-arm.

TinyM²Net-battlefield and ResNet-8 are bundled networks and DS-CNN is MLPerf Tiny's; they have
random weights, seeded, which changes no instruction but those of saturation. "code" is flash above
the constants (weights, biases, scales, tables), the start-up code included; "arena" is the static
memory of all tensors, and "bound" what no placing of them can go below.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from ds_cnn import DSCNN

from mpsearch.data import Data
from mpsearch.device.emulation import run_on_board
from mpsearch.device.exported import read_firmware
from mpsearch.exporters.c.folder import export_c
from mpsearch.exporters.c.targets import find_target
from mpsearch.exporters.firmware.boards import boards_of
from mpsearch.exporters.firmware.project import Firmware
from mpsearch.graph.network import Network
from mpsearch.models.registry import architecture
from mpsearch.models.registry import build as build_model
from mpsearch.post_training.quantizing import apply
from mpsearch.post_training.repairing import PostTraining
from mpsearch.tables.choice import Choice

NETWORKS = ("tinym2net-battlefield", "resnet8", "ds-cnn")
TARGETS = tuple(f"cortex-m{number}" for number in (0, 3, 4, 7, 33, 55))
ASSIGNMENTS = ("w8a8", "w4a8", "w4a4")
_SAMPLES = 16


@dataclass(frozen=True)
class Row:
    """What one firmware took; bytes, and instructions of one inference."""

    network: str
    target: str
    assignment: str
    flags: str
    macs: int
    instructions: int
    flash: int
    constants: int
    arena: int
    bound: int
    stack: int
    steps: tuple[tuple[str, int], ...]

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        return (
            self.network, self.target, self.assignment, self.flags,
            f"{self.instructions / self.macs:.2f}", f"{self.instructions:,}",
            f"{self.constants:,}", f"{self.flash - self.constants:,}", f"{self.arena:,}",
            f"{self.bound:,}", f"{self.stack:,}",
        )  # fmt: skip


HEAD = (
    "network", "target", "bits", "flags", "per MAC", "instructions", "constants", "code", "arena",
    "bound", "stack",
)  # fmt: skip


def network_and_data(name: str) -> tuple[Network, Data]:
    """Seeded random weights and inputs."""
    torch.manual_seed(0)
    if name == "ds-cnn":
        module: torch.nn.Module = DSCNN().eval()
        shapes: list[tuple[int, ...]] = [(1, 49, 10)]
    else:
        module = build_model(name)
        shapes = [tuple(shape) for shape in architecture(name).inputs.values()]
    inputs = tuple(torch.randn(_SAMPLES, *shape) for shape in shapes)
    return Network.from_module(module, inputs), Data("random", inputs, None)


def measured(
    name: str, targets: Mapping[str, tuple[str, ...]], assignments: tuple[str, ...]
) -> Iterator[Row]:
    """A row for each assignment, target and set of flags."""
    network, data = network_and_data(name)
    for assignment in assignments:
        choices = dict.fromkeys((layer.name for layer in network.layers), Choice.parse(assignment))
        quantized = apply(network, choices, data, PostTraining(rounding="nearest"))
        for target, flags in targets.items():
            (board, *_) = boards_of(target)
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder, "firmware")
                document = export_c(
                    quantized, data, place, target=find_target(target), firmware=Firmware(board)
                ).document
                exported = read_firmware(place, board.name)
                for flag in flags:
                    limits = (board.flash.size, board.ram.size)
                    found = run_on_board(exported, board, limits, (flag,)).board
                    assert found is not None
                    yield _row(name, target, assignment, flag, document, found)


def _row(
    name: str, target: str, assignment: str, flag: str, document: Mapping[str, Any], found: Any
) -> Row:
    names = [f"{step['kind']} {step['layer']}" for step in document["steps"]]
    return Row(
        name, target, assignment, flag,
        sum(layer["macs"] for layer in document["layers"]),
        found.instructions, found.flash_bytes, sum(document["constant_bytes"].values()),
        document["arena"]["peak_bytes"], document["arena"]["lower_bound_bytes"],
        found.stack_bytes, tuple(zip(names, found.step_instructions, strict=True)),
    )  # fmt: skip


def line(cells: tuple[str, ...]) -> str:
    """A row of Markdown."""
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("--networks", default=",".join(NETWORKS), show_default=True)
@click.option("--targets", default=",".join(TARGETS), show_default=True)
@click.option("--assignments", default=",".join(ASSIGNMENTS), show_default=True)
@click.option("--flags", default="-O2,-Os", show_default=True, help="Each by itself.")
@click.option("--steps", is_flag=True, help="And the instructions of every step.")
def main(networks: str, targets: str, assignments: str, flags: str, steps: bool) -> None:
    """Print a table in Markdown."""
    click.echo(line(HEAD))
    click.echo(line(("---",) * len(HEAD)))
    wanted = {target: tuple(flags.split(",")) for target in targets.split(",")}
    rows = []
    for name in networks.split(","):
        for row in measured(name, wanted, tuple(assignments.split(","))):
            click.echo(line(row.cells()))
            rows.append(row)
    for row in rows if steps else []:
        click.echo(f"\n{row.network} {row.target} {row.assignment} {row.flags}")
        for step, count in row.steps:
            click.echo(f"{count:>12,}  {step}")


if __name__ == "__main__":
    main()
