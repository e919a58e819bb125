"""The measured device beside the paper's Table 5: facts, and their table as text."""

from collections.abc import Callable

from mpsearch.device.profile import DeviceProfile, check_is_of_device
from mpsearch.errors import InputError
from mpsearch.reports.facts import DeviceFacts, DeviceRow
from mpsearch.reports.run_folder import Run
from mpsearch.reproduction.published import DEVICES
from mpsearch.tables.units import format_amount

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
    )
    rows = []
    for title, value_of, unit in quantities:
        values = [value_of(row) for row in facts.rows]
        if any(value is not None for value in values):
            rows.append([title, *("" if value is None else _text(unit, value) for value in values)])
    return ["", *(row.name for row in facts.rows)], rows


def _text(unit: str, value: float) -> str:
    return f"{value:.4g} mW" if unit == "_mw" else format_amount(unit, value)
