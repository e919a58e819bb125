"""`mpsearch device table MODEL --board B`: instructions of layers, counted in QEMU."""

from typing import TYPE_CHECKING

from mpsearch.commands.console import echo, print_json, print_table, progress
from mpsearch.commands.device_board import EMULATED
from mpsearch.commands.device_table import cells, next_command, write_table
from mpsearch.commands.loading import load_model_and_data
from mpsearch.tables.units import format_count

NOTABLE = 0.05  # of predicted over counted; networks with one choice are at 1.00

if TYPE_CHECKING:
    from mpsearch.device.counting import CountedTable
    from mpsearch.importers.loading import ModelSource


def count_on_board(
    source: "ModelSource",
    name: str,
    target: str | None,
    flags: str,
    timeout: int,
    profile: str,
    data: str | None,
    assignment: str | None,
    output: str,
    as_json: bool,
) -> None:
    """Count, write the table and show it; the options as texts."""
    from mpsearch.device.counting import count_table
    from mpsearch.device.exported import split_words
    from mpsearch.device.measured_table import INSTRUCTIONS
    from mpsearch.exporters.firmware.boards import board_named
    from mpsearch.tables.assignment import Assignment
    from mpsearch.tables.table import LayerTable

    board = board_named(name)
    target = target or board.targets[-1]
    words = split_words("--flags", flags)
    before = LayerTable.read_csv(profile)
    chosen = None if assignment is None else Assignment.load(assignment).layers
    loaded, bound = load_model_and_data(source, data, "calibration", need_labels=False)
    total = len(before.choices) + (chosen is not None)
    with progress(f"counting on {name} in QEMU", total) as step:
        found = count_table(
            loaded.network, bound, before, board, target, words, timeout, chosen, step
        )
    origin = {
        "board": name,
        "target": target,
        "compiler": found.compiler,
        "flags": " ".join(words),
        "emulated": True,
        "totals": [
            {"name": one.name, "predicted": one.predicted, "counted": one.counted}
            for one in found.networks
        ],
    }
    write_table(found.table, profile, output, "board_table", origin)
    if as_json:
        print_json({"output": output, **origin})
        return
    _print(found, INSTRUCTIONS)
    echo(EMULATED, f"wrote {output}", f"next: {next_command(found.table, output, INSTRUCTIONS)}")


def _print(found: "CountedTable", column: str) -> None:
    print_table(
        ["layer", *map(str, found.table.choices)],
        [[layer, *cells(found.table, layer, column)] for layer in found.table.layer_names],
        title="instructions of one inference",
    )
    print_table(
        ["whole network", "predicted", "counted", "predicted / counted"],
        [
            [
                one.name,
                format_count(one.predicted),
                format_count(one.counted),
                f"{one.predicted / max(1, one.counted):.4f}",
            ]
            for one in found.networks
        ],
    )
    if any(abs(one.predicted / max(1, one.counted) - 1) > NOTABLE for one in found.networks):
        echo(
            f"note: predicted and counted differ by more than {NOTABLE:.0%}; a layer stores its "
            "output at the bits of the layer that reads it, and fewer bits than 8 take longer",
            "judge an answer by its own count: mpsearch device run, gate --max-instructions",
        )
