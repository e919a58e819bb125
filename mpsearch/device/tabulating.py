"""Measure every layer at every choice on a device: whole networks, with the clock between steps.

From times of steps, measured on a device, to seconds of layers.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from mpsearch.data import Data
from mpsearch.device.conditions import invalid_reasons
from mpsearch.device.energy import Power
from mpsearch.device.exported import Exported, read_export
from mpsearch.device.measured_table import (
    ENERGY,
    LATENCY,
    by_layer,
    by_time,
    check_layers,
    column_of,
    uniform_assignments,
    with_columns,
)
from mpsearch.device.measuring import Prepared, energy_on, install, prepare, read_state
from mpsearch.device.power import Manual, PowerError
from mpsearch.device.profile import Energy
from mpsearch.device.session import Session
from mpsearch.device.timing import Settings, run_program, safe_word, time_repeats
from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import export_c
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable


@dataclass(frozen=True)
class StepTimes:
    """Median seconds of each step of one program, in order, and of a whole run with its clocks.

    Reading the clock is taken off every step.
    """

    seconds: tuple[float, ...]
    whole_s: float
    runs: int


def parse_step_times(lines: Sequence[str], steps: int) -> StepTimes:
    """What step_times.c prints: `STEP NANOSECONDS` for each step, then `0 CLOCK WHOLE RUNS`.

    Raises InputError for anything else, for it comes from another machine.
    """
    try:
        *times, last = [[int(word) for word in line.split()] for line in lines]
        if [time[0] for time in times] != list(range(1, steps + 1)):
            raise ValueError("steps are missing")
        zero, clock, whole, runs = last
        numbers = (clock, whole, runs, *(ns for _, ns in times))
        if zero or min(numbers) < 0 or max(numbers) > 2**63:
            raise ValueError("a number is negative, or has more than 64 bits")
        seconds = tuple(max(0, ns - clock) * 1e-9 for _, ns in times)
        return StepTimes(seconds, whole * 1e-9, runs)
    except (ValueError, IndexError) as error:
        raise InputError(
            f"the device did not print the times of {steps} steps ({error}); got {lines[:2]!r}"
        ) from None


def median_of_rounds(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The median of each layer over rounds: a round that was disturbed does not count."""
    all_rounds = list(rounds)
    return {layer: median(one[layer] for one in all_rounds) for layer in all_rounds[0]}


ASSIGNMENT = "assignment"
MOST_STEP_RUNS = 1000  # MOST_RUNS of step_times.c


@dataclass(frozen=True)
class Prediction:
    """A whole network: the sum of its layers' latencies, and its own steady latency, in seconds;
    the same for joules, where they were measured."""

    name: str
    predicted_s: float
    measured_s: float
    predicted_j: float | None = None
    energy: Energy | None = None

    @property
    def ratio(self) -> float:
        """Predicted / measured."""
        return self.predicted_s / self.measured_s


@dataclass(frozen=True)
class MeasuredTable:
    """The table with its new column, predictions beside measurements, and the device."""

    table: LayerTable
    predictions: tuple[Prediction, ...]
    device: Prepared


@dataclass(frozen=True)
class Programs:
    """Two programs of one export on the device: the network, and the one that times its steps."""

    exported: Exported
    whole: Session
    steps: Session
    prepared: Prepared


def measure_table(
    network: Network,
    data: Data,
    table: LayerTable,
    host: str,
    settings: Settings,
    rounds: int = 3,
    assignment: Mapping[str, Choice] | None = None,
    step: Callable[[], None] = lambda: None,
    root: str = "",
    power: Power | None = None,
    asking: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> MeasuredTable:
    """Export the network with every choice everywhere and time its steps on `host`.

    A layer's `latency_s` is the median over rounds of its step and of what follows it (pooling,
    addition, rescaling), so a total over all layers is the latency of the whole network (HAWQ-V3,
    Yao et al. 2021, section 3.4, with the user's own hardware). Rounds go over all choices in turn.
    With `power` every network is looped for the meter as well, and `energy_j` is its energy shared
    out by time. root: where /sys lies on the device; asking: see Session. Raises InputError for
    layers that table and network do not share, and for an emulator; DeviceError when the device
    slowed down meanwhile; PowerError for a faulty meter.
    """
    if power is not None and isinstance(power.source, Manual):
        raise PowerError(
            "--power manual:… has no joules for energy_j; give a meter that can be read, or none"
        )
    check_layers(table, {layer.name for layer in network.layers})
    wanted: dict[str, Mapping[str, Choice]] = {
        str(choice): choices for choice, choices in uniform_assignments(table).items()
    }
    if assignment is not None:
        wanted[ASSIGNMENT] = assignment
    exports = _exports(network, data, wanted)
    layers: dict[str, list[dict[str, float]]] = {name: [] for name in wanted}
    wholes: dict[str, list[float]] = {name: [] for name in wanted}
    with ExitStack() as stack:
        programs = {}
        for name, exported in exports.items():
            programs[name] = _install(stack, exported, host, settings, asking)
            step()
        first = next(iter(programs.values()))
        first.whole.ask(f"root {safe_word(root)}", doing="preparing")
        moments = [read_state(first.whole)]
        for _ in range(rounds):
            for name, program in programs.items():
                layers[name].append(_layers(program, settings))
                wholes[name].append(time_repeats(program.whole, settings).median_s)
                step()
            moments.append(read_state(first.whole))
        energies = {}
        if power is not None:
            for name, program in programs.items():
                energies[name] = energy_on(program.whole, settings, power)
                moments.append(read_state(first.whole))
                step()
    _check_undisturbed(host, invalid_reasons(moments))
    seconds = {name: median_of_rounds(found) for name, found in layers.items()}
    columns = {LATENCY: column_of(table, seconds)}
    if energies:
        shares = {name: by_time(_joules(energies[name]), seconds[name]) for name in wanted}
        columns[ENERGY] = column_of(table, shares)
    made = with_columns(table, columns)
    predictions = tuple(
        Prediction(
            name,
            float(made.total(choices, LATENCY)),
            median(wholes[name]),
            float(made.total(choices, ENERGY)) if energies else None,
            energies.get(name),
        )
        for name, choices in wanted.items()
    )
    return MeasuredTable(made, predictions, first.prepared)


def _joules(energy: Energy) -> float:
    assert energy.joules_per_inference is not None  # numbers read by eye were refused
    return energy.joules_per_inference


def _check_undisturbed(host: str, reasons: tuple[str, ...]) -> None:
    if reasons:
        raise DeviceError(
            f"{host} did not keep its speed: {'; '.join(reasons)}; nothing was written.",
            "Cool the device, fix its governor and measure again.",
        )


def steps_of(table: LayerTable, rounds: int, assignment: bool, power: bool = False) -> int:
    """How often `measure_table` calls `step`."""
    return (len(table.choices) + assignment) * (1 + rounds + power)


def _exports(
    network: Network, data: Data, wanted: Mapping[str, Mapping[str, Choice]]
) -> dict[str, Exported]:
    """An export for every assignment, read into memory."""
    calibration, exports = calibrate(network, data), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, choices in wanted.items():
            export_c(quantize(network, choices, calibration), data, Path(folder, name))
            exports[name] = read_export(Path(folder, name))
    return exports


def _install(
    stack: ExitStack,
    exported: Exported,
    host: str,
    settings: Settings,
    asking: Callable[[], AbstractContextManager[None]],
) -> Programs:
    """Both programs, the network checked against the reference."""
    whole = stack.enter_context(Session(host, settings.folder, asking))
    prepared = prepare(whole, exported, settings)
    if prepared.emulated:
        why = f" ({'; '.join(prepared.notes)})" if prepared.notes else ""
        raise InputError(
            f"programs run under an emulator on {host}{why}, refused as device latency; measure on "
            "the device itself"
        )
    flags = (*settings.compiler.flags, "-DMPS_STEP_TIMES")
    timed = replace(settings, compiler=replace(settings.compiler, flags=flags))
    steps = stack.enter_context(Session(host, settings.folder, asking))
    install(steps, exported, timed)
    return Programs(exported, whole, steps, prepared)


def _layers(program: Programs, settings: Settings) -> dict[str, float]:
    """One round: seconds of every layer."""
    runs, steps = str(min(settings.repeat, MOST_STEP_RUNS)), program.exported.steps
    run_program(program.steps, settings, "timing steps", "one.f32", runs, output="output")
    lines = program.steps.ask("results", doing="reading the times", lines=len(steps)).outputs
    return by_layer(steps, parse_step_times(lines, len(steps)).seconds)
