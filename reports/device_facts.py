"""The measured device beside the paper's Table 5: facts, and their table as text.

The price of each layer: what its next better choice costs, and what the limits are worth.
"""

from collections.abc import Callable
from math import isfinite

from mpsearch.device.profile import Board, DeviceProfile, check_is_of_device
from mpsearch.errors import InputError
from mpsearch.explaining.explaining import Decision, explain
from mpsearch.recipes.fitted import as_searched
from mpsearch.reports.facts import DeviceFacts, DeviceRow, LayerPrice, LimitPrice, PriceFacts
from mpsearch.reports.run_folder import Run
from mpsearch.reproduction.published import DEVICES
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.layer_choices import excludes_of, pins_of
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import COUNT_UNITS, format_amount, is_size

NAME = "this network"


def device_facts(run: Run, warnings: list[str]) -> DeviceFacts | None:
    """None without a device profile. What was measured under emulation, or while the device
    was slowed down, is a warning, and its figures are not shown."""
    profile = run.device
    if profile is None:
        return None
    machine = profile.machine
    words = (machine.cpu_model, machine.architecture, machine.system, profile.host)
    device = ", ".join(word for word in words if word)
    if profile.board is not None:
        return DeviceFacts(device, (_counted(profile, profile.board),), profile.notes, True)
    published = tuple(
        DeviceRow(case.title, case.process_s, peak_minus_idle_mw=case.peak_minus_idle_mw)
        for case in DEVICES
    )
    reason = _refusal(profile)
    if reason is not None:
        warnings.append(reason)
        return DeviceFacts(device, published)
    return DeviceFacts(device, (_measured(profile), *published), profile.notes)


def _refusal(profile: DeviceProfile) -> str | None:
    """Why the profile's figures are not those of the network shown; None: they are."""
    try:
        check_is_of_device(profile)
    except InputError as error:
        return " ".join(error.lines)
    return None


def _measured(profile: DeviceProfile) -> DeviceRow:
    process, cold, energy = profile.process, profile.cold, profile.energy
    mean = energy.mean_mw if energy else None
    return DeviceRow(
        NAME,
        process_s=process.latency.median_s if process else None,
        cold_s=cold.initialisation_s + cold.first_s if cold else None,
        steady_s=profile.steady.median_s if profile.steady else None,
        steady_p99_s=profile.steady.p99_s if profile.steady else None,
        peak_memory_bytes=process.peak_memory_bytes if process else None,
        program_bytes=profile.program_bytes,
        peak_minus_idle_mw=energy.peak_minus_idle_mw if energy else None,
        mean_minus_idle_mw=mean - energy.idle_mw if energy and mean is not None else None,
        energy_j=energy.joules_per_inference if energy else None,
    )


def _counted(profile: DeviceProfile, board: Board) -> DeviceRow:
    return DeviceRow(
        NAME,
        program_bytes=profile.program_bytes,
        instructions=board.instructions,
        ram_bytes=board.ram_bytes,
    )


def device_table(facts: DeviceFacts) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text, one row for each quantity that some network has: `7.1 ms`, `1.9 MB`,
    `798 mW`; empty where nothing is known."""
    quantities: tuple[tuple[str, Callable[[DeviceRow], float | None], str], ...] = (
        ("process", lambda row: row.process_s, "_s"),
        ("cold", lambda row: row.cold_s, "_s"),
        ("steady", lambda row: row.steady_s, "_s"),
        ("steady, p99", lambda row: row.steady_p99_s, "_s"),
        ("peak memory", lambda row: row.peak_memory_bytes, "_bytes"),
        ("program", lambda row: row.program_bytes, "_bytes"),
        ("peak above idle", lambda row: row.peak_minus_idle_mw, "_mw"),
        ("mean above idle", lambda row: row.mean_minus_idle_mw, "_mw"),
        ("energy", lambda row: row.energy_j, "_j"),
        ("instructions", lambda row: row.instructions, ""),
        ("RAM with the stack", lambda row: row.ram_bytes, "_bytes"),
    )
    rows = []
    for title, value_of, unit in quantities:
        values = [value_of(row) for row in facts.rows]
        if any(value is not None for value in values):
            rows.append([title, *("" if value is None else _text(unit, value) for value in values)])
    return ["", *(row.name for row in facts.rows)], rows


def _text(unit: str, value: float) -> str:
    return f"{value:.4g} mW" if unit == "_mw" else format_amount(unit, value)


SECONDS = 2.0  # for each search, of which there are one and two for every limit


def price_facts(table: LayerTable | None, assignment: Assignment | None) -> PriceFacts | None:
    """None without both, or of two tables; `reason` says why an assignment has no prices."""
    if table is None or assignment is None or not table.columns:
        return None
    if assignment.table_digest not in (None, table.digest):  # a warning already
        return None
    column = "size_bytes" if "size_bytes" in table.columns else table.columns[0]
    asked = assignment.search
    try:
        table = as_searched(table, asked)
        column = column if table.tool is None else table.size_column
        pins = pins_of(table, asked.get("pin", ()))
        excluded = excludes_of(table, asked.get("exclude", ()), asked.get("allow", ()))
        found = explain(table, assignment, pins, excluded, SECONDS)
    except InputError as error:
        return PriceFacts(column, "", (), (), " ".join(str(error).split()))
    most = max(found.totals.get(column, 0), 1)
    unit, unit_name = _unit(column, most)
    layers = [_layer(one, column, unit) for one in found.decisions]
    prices = [price for price in layers if price is not None]
    prices.sort(key=lambda price: -(price.per_unit or float("inf")))
    limits = tuple(
        LimitPrice(m.column, m.limit, m.per_unit, m.unit_name, m.step, m.more, m.less)
        for m in found.marginals
    )
    return PriceFacts(column, unit_name, limits, tuple(prices)) if prices or limits else None


def _layer(decision: Decision, column: str, unit: int) -> LayerPrice | None:
    """None for a layer that already has its least Ω."""
    better = decision.better
    if better is None:
        return None
    extra = better.changes.get(column, 0)
    saved = -better.omega
    per_unit = saved * unit / extra if extra > 0 else None
    if per_unit is not None and not isfinite(per_unit):
        per_unit = None
    return LayerPrice(
        decision.layers, decision.choice, better.choice, saved, extra, per_unit, tuple(better.over)
    )


def _unit(column: str, most: float) -> tuple[int, str]:
    """1 KB for sizes from 1 KB on; for counts the largest of 1, K, … below a thousandth."""
    if is_size(column):
        return (1024, "KB") if most >= 1024 else (1, "B")
    name = max((name for name, size in COUNT_UNITS.items() if 1000 * size <= max(most, 1000)),
               key=COUNT_UNITS.__getitem__)  # fmt: skip
    return COUNT_UNITS[name], name or "1"
