"""`mpsearch device table`."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table, progress
from mpsearch.commands.device_options import (
    NOT_OF_BOARDS,
    OF_BOARDS,
    check_one_place,
    compiler_of,
    device_options,
    power_of,
    power_options,
    refuse_given,
)
from mpsearch.commands.loading import load_model_and_data
from mpsearch.commands.options import ModelOptions, model_options

if TYPE_CHECKING:
    from mpsearch.device.tabulating import MeasuredTable, Prediction
    from mpsearch.device.timing import Settings
    from mpsearch.tables.table import LayerTable

NOTABLE = 0.2  # of predicted over measured; on an idle machine they differ by a few percent


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path())
@device_options
@click.option(
    "--profile", default="profile.csv", show_default=True, type=click.Path(),
    help="The table whose layers and choices are measured.",
)  # fmt: skip
@click.option("--data", metavar="D", help="Calibration data [default: the model file's sample].")
@click.option(
    "--assignment",
    metavar="FILE",
    type=click.Path(),
    help="Also predict and measure this one [default: assignment.json, where it is].",
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True,
    help="Times that every choice is measured, in turn; the median counts.",
)  # fmt: skip
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=200, show_default=True,
    help="Inferences of one round.",
)  # fmt: skip
@power_options
@click.option(
    "--target", metavar="T", help="--board: the processor to export for [default: the board's own]."
)
@click.option("-o", "--output", type=click.Path(), help="[default: the table itself]")
@model_options
@json_option
def table(
    path: str,
    host: str | None,
    board: str | None,
    folder_there: str,
    timeout: int,
    where: str,
    cc: str,
    flags: str,
    profile: str,
    data: str | None,
    assignment: str | None,
    rounds: int,
    repeat: int,
    power: str | None,
    power_interval: float | None,
    idle_seconds: float,
    power_seconds: float,
    target: str | None,
    output: str | None,
    as_json: bool,
    model: ModelOptions,
) -> None:
    """Measure what every layer of MODEL takes at every choice on a device.

    Adds the column latency_s to profile.csv, so that `mpsearch solve --limit latency_s=5ms` keeps
    to the time of that device: the network is exported with every choice everywhere, checked
    against the reference, and the clock is read between its steps. A layer's time includes what
    follows it (pooling, additions), so the total is that of the whole network; predicted and
    measured totals are printed side by side. With --power every choice is looped for a meter, and
    the column energy_j shares its joules above idle out to the layers by their time.

    With --board firmware runs in QEMU, and the column is instructions: exact counts and no times,
    for `mpsearch solve --limit instructions=20M`.

    \b
    Example:
      mpsearch device table model.pt --host pi@raspberrypi
      mpsearch device table model.pt --host local --flags "-O2 -mavx2"
      mpsearch device table model.pt --host pi@raspberrypi --power hwmon:ina219
      mpsearch device table model.pt --board mps2-an386
    """
    check_one_place(host=host, board=board)
    if assignment is None and Path("assignment.json").exists():
        assignment = "assignment.json"
    if board is not None:
        refuse_given("--board", NOT_OF_BOARDS)
        from mpsearch.commands.device_board_table import count_on_board

        count_on_board(
            model.source(path), board, target, flags, timeout, profile, data, assignment,
            output or profile, as_json,
        )  # fmt: skip
        return
    assert host is not None
    refuse_given("--host", OF_BOARDS)

    from mpsearch.device.measured_table import LATENCY
    from mpsearch.device.tabulating import measure_table, steps_of
    from mpsearch.device.timing import Settings
    from mpsearch.device.transport import check_folder, check_host
    from mpsearch.tables.assignment import Assignment
    from mpsearch.tables.table import LayerTable

    check_host(host)
    check_folder(folder_there)
    meter = power_of(host, power, power_interval, idle_seconds, power_seconds)
    compiler = compiler_of(where, cc, flags)
    settings = Settings(repeat=repeat, timeout=timeout, compiler=compiler, folder=folder_there)
    before = LayerTable.read_csv(profile)
    chosen = None if assignment is None else Assignment.load(assignment).layers
    loaded, bound = load_model_and_data(model.source(path), data, "calibration", need_labels=False)
    total = steps_of(before, rounds, chosen is not None, meter is not None)
    with progress(f"measuring on {host}", total, asks=True) as step:
        found = measure_table(
            loaded.network, bound, before, host, settings, rounds, chosen, step,
            power=meter, asking=step.paused,
        )  # fmt: skip
    output = output or profile
    origin = _provenance(found, settings, host, rounds)
    write_table(found.table, profile, output, "device_table", origin)
    if as_json:
        print_json({"output": output, **origin})
        return
    _print(found)
    echo(f"wrote {output}", f"next: {next_command(found.table, output, LATENCY)}")


def write_table(
    table: "LayerTable", profile: str, output: str, key: str, origin: dict[str, Any]
) -> None:
    """Write the table, and beside it the provenance of `profile` with `origin` as `key`."""
    from mpsearch.files.whole import write_atomic
    from mpsearch.tables.provenance import load_provenance, provenance_path

    table.write_csv(output)
    provenance = dict(load_provenance(profile))
    if provenance:
        provenance[key] = origin
        write_atomic(provenance_path(output), json.dumps(provenance, indent=2) + "\n")


def next_command(table: "LayerTable", path: str, column: str) -> str:
    """A search that has an answer: half-way between the column's least and that of all largest."""
    from mpsearch.search.feasible_limits import ranges

    found = ranges(table)[column]
    least, most = float(found.least), float(found.most)
    middle = (least + most) / 2
    limit = f"{middle:.3g}" if middle < 1000 else f"{middle:.0f}"
    if float(limit) < least:  # rounded down, where all choices take the same
        limit = repr(found.least)
    named = [] if path == "profile.csv" else [path]
    unit = "s" if column.endswith("_s") else ""
    return shlex.join(["mpsearch", "solve", *named, "--limit", f"{column}={limit}{unit}"])


def _provenance(
    found: "MeasuredTable", settings: "Settings", host: str, rounds: int
) -> dict[str, Any]:
    """Where the column comes from, and how far its totals are from whole networks."""
    machine = found.device.machine
    return {
        "host": host,
        "cpu": machine.cpu_model,
        "architecture": machine.architecture,
        "system": machine.system,
        "compiler": found.device.compiler,
        "flags": " ".join(settings.compiler.flags),
        "rounds": rounds,
        "repeat": settings.repeat,
        "totals": [
            {
                "name": one.name,
                "predicted_s": one.predicted_s,
                "measured_s": one.measured_s,
                **_energy(one),
            }
            for one in found.predictions
        ],
    }


def _energy(one: "Prediction") -> dict[str, Any]:
    if one.energy is None:
        return {}
    return {"predicted_j": one.predicted_j, "energy": asdict(one.energy)}


def _print(found: "MeasuredTable") -> None:
    from mpsearch.tables.units import format_amount

    print_table(
        ["layer", *map(str, found.table.choices)],
        [[layer, *cells(found.table, layer, "latency_s")] for layer in found.table.layer_names],
        title="latency of one inference",
    )
    print_table(
        ["whole network", "predicted", "measured", "predicted / measured"],
        [
            [
                one.name,
                format_amount("latency_s", one.predicted_s),
                format_amount("latency_s", one.measured_s),
                f"{one.ratio:.3f}",
            ]
            for one in found.predictions
        ],
    )
    powered = [(one, one.energy) for one in found.predictions if one.energy is not None]
    if powered:
        print_table(
            ["whole network", "predicted", "measured", "± (95 %)"],
            [
                [
                    one.name,
                    *(
                        "" if joules is None else format_amount("energy_j", joules)
                        for joules in (
                            one.predicted_j, energy.joules_per_inference, energy.joules_half_width
                        )
                    ),
                ]
                for one, energy in powered
            ],
            title="energy of one inference above idle",
        )  # fmt: skip
        for note in dict.fromkeys(note for _, energy in powered for note in energy.warnings):
            echo(f"note: {note}")
    if any(abs(one.ratio - 1) > NOTABLE for one in found.predictions):
        echo(
            f"note: predicted and measured differ by more than {NOTABLE:.0%}; when something else "
            "runs on the device, whole networks are interrupted and single steps are not"
        )


def cells(table: "LayerTable", layer: str, column: str) -> list[str]:
    """What the layer takes at every choice of the table, empty where it has not got that one."""
    from mpsearch.tables.units import format_amount

    values, position = table.column(column), table.layer_names.index(layer)
    rows = table.row_index[position].tolist()
    return ["" if row < 0 else format_amount(column, float(values[row])) for row in rows]
