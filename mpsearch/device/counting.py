"""Count every layer's instructions at every choice on a board in QEMU.

Whole networks, step by step, as `measure_table` measures seconds, with nothing to repeat: counts
are the same in every run.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mpsearch.data import Data
from mpsearch.device.emulation import Counted, count
from mpsearch.device.exported import read_firmware
from mpsearch.device.firmware import CHECK, STEPS, build, check_tools
from mpsearch.device.measured_table import (
    INSTRUCTIONS,
    by_layer,
    check_layers,
    column_of,
    uniform_assignments,
    with_columns,
)
from mpsearch.device.tabulating import ASSIGNMENT
from mpsearch.exporters.c.folder import export_c
from mpsearch.exporters.c.targets import find_target
from mpsearch.exporters.firmware.boards import Board, check_board
from mpsearch.exporters.firmware.project import Firmware
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable


@dataclass(frozen=True)
class CountedNetwork:
    """A whole network: the sum of its layers' instructions in the table, and its own."""

    name: str
    predicted: int
    counted: int


@dataclass(frozen=True)
class CountedTable:
    """The table with the column `instructions`, whole networks beside it, and the compiler."""

    table: LayerTable
    networks: tuple[CountedNetwork, ...]
    compiler: str


def count_table(
    network: Network,
    data: Data,
    table: LayerTable,
    board: Board,
    target: str,
    flags: tuple[str, ...] = ("-O2",),
    timeout: int = 120,
    assignment: Mapping[str, Choice] | None = None,
    step: Callable[[], None] = lambda: None,
) -> CountedTable:
    """Export the network with every choice everywhere, as firmware, and count its steps in QEMU.

    A layer's `instructions` are those of its step and of what follows it, of the sample of the
    check that takes most. Raises InputError for layers that table and network do not share and for
    missing tools, and as `run_on_board`.
    """
    check_board(board, target)
    check_layers(table, {layer.name for layer in network.layers})
    check_tools()
    wanted: dict[str, Mapping[str, Choice]] = {
        str(choice): choices for choice, choices in uniform_assignments(table).items()
    }
    if assignment is not None:
        wanted[ASSIGNMENT] = assignment
    calibration = calibrate(network, data)
    layers: dict[str, dict[str, float]] = {}
    wholes: dict[str, int] = {}
    compiler = ""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        project.mkdir()
        for name, choices in wanted.items():
            place = Path(folder, name)
            quantized = quantize(network, choices, calibration)
            export_c(quantized, data, place, target=find_target(target), firmware=Firmware(board))
            exported = read_firmware(place, board.name)
            built = build(exported, board, flags, project, (CHECK, STEPS))
            whole = count(built, CHECK, exported, board, timeout)
            steps = count(built, STEPS, exported, board, timeout)
            layers[name] = by_layer(exported.steps, steps.steps[_most(steps)])
            wholes[name] = whole.instructions[_most(whole)]
            compiler = built.compiler
            step()
    made = with_columns(table, {INSTRUCTIONS: column_of(table, layers)})
    networks = tuple(
        CountedNetwork(name, int(made.total(choices, INSTRUCTIONS)), wholes[name])
        for name, choices in wanted.items()
    )
    return CountedTable(made, networks, compiler)


def _most(counted: Counted) -> int:
    """The sample that takes most."""
    return max(range(len(counted.instructions)), key=counted.instructions.__getitem__)
