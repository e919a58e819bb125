"""The device and its state, from the facts that it told, and what makes a run invalid."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpsearch.device.profile import Machine, State
from mpsearch.device.session import Run

# `CPU part` of /proc/cpuinfo on Arm, which names no model: the parts of common boards (Arm Ltd.,
# MIDR_EL1 of each core's reference manual).
_PARTS = {
    "0xb76": "ARM1176", "0xc07": "Cortex-A7", "0xc08": "Cortex-A8", "0xc09": "Cortex-A9",
    "0xc0f": "Cortex-A15", "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd0d": "Cortex-A77", "0xd41": "Cortex-A78",
}  # fmt: skip
# vcgencmd get_throttled (Raspberry Pi documentation, "vcgencmd"): bit n now, bit n + 16 since boot.
_NOW = {
    0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit",
}  # fmt: skip
NOTABLE = 0.2  # of a core that others keep busy, of its time that a program had to wait
LEAST_SECONDS = 0.5  # between two moments: a kernel counts in ticks of 10 ms
LONG_RUN_NS = 50_000_000  # of a run: starting a process is waiting, too
SAME_FREQUENCY = 0.95  # one step of a Raspberry Pi's clock is 100 MHz of at most 2400


@dataclass(frozen=True)
class Ticks:
    """Seconds of all cores together since the start of the device: busy ones, and all."""

    busy: float
    all: float


@dataclass(frozen=True)
class Moment:
    """A State with the bits behind `throttled`; None where the device has no such command.

    began, ended: the counts of all cores before and after the state was read.
    """

    state: State
    bits: int | None
    began: Ticks | None = None
    ended: Ticks | None = None


def read_machine(facts: Mapping[str, str]) -> Machine:
    """Facts of `describe`; None for what the device did not tell."""
    part = facts.get("cpu_part", "")
    names = (facts.get("cpu_name"), _PARTS.get(part, f"CPU part {part}" if part else None))
    model = next((name for name in names if name), None)
    board = facts.get("board")
    memory = _number(facts, "memory_kb")
    return Machine(
        system=facts.get("system") or "unknown",
        architecture=facts.get("architecture") or "unknown",
        cpu_model=", ".join(word for word in (board, model) if word) or None,
        cores=_number(facts, "cores"),
        memory_bytes=None if memory is None else 1024 * memory,
    )


def read_moment(facts: Mapping[str, str]) -> Moment:
    """Facts of `state`: kHz, thousandths of a degree, `throttled=0x50005`."""
    khz, heat = _number(facts, "frequency_khz"), _number(facts, "temperature_mc")
    match = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", facts.get("throttled", ""))
    bits = int(match[1], 16) if match else None
    state = State(
        governor=facts.get("governor") or None,
        frequency_hz=None if khz is None else 1000 * khz,
        temperature_c=None if heat is None else heat / 1000,
        throttled=None if bits is None else bool(bits & 0xF),
    )
    return Moment(state, bits, _ticks(facts, "ticks_before"), _ticks(facts, "ticks_after"))


def other_work(
    modes: Sequence[str],
    moments: Sequence[Moment],
    runs: Sequence[Sequence[Run]],
    cores: int | None,
) -> str | None:
    """What else the device did while it was measured; None where that is little or not known.

    moments: one more than modes, around each of them; runs: of the program in each mode. Said are
    the cores that were busy less what the program had of them, and how much of its time it ran.
    """
    found = []
    for mode, before, after, its in zip(modes, moments, moments[1:], runs, strict=False):
        words = []
        if before.ended is not None and after.began is not None:
            seconds = (after.began.all - before.ended.all) / (cores or 1)
            own = sum(run.cpu_ns for run in its) / 1e9
            busy = after.began.busy - before.ended.busy - own
            if seconds >= LEAST_SECONDS and busy > NOTABLE * seconds:
                words.append(f"{busy / seconds:.1f} of {cores or 1} cores")
        long = [run for run in its if run.wall_ns >= LONG_RUN_NS]
        share = sum(run.cpu_ns for run in long) / max(1, sum(run.wall_ns for run in long))
        if long and share < 1 - NOTABLE:
            words.append(f"the program ran for {share:.0%} of its time")
        if words:
            found.append(f"{mode}: {', '.join(words)}")
    if not found:
        return None
    return (
        f"other work ran on the device while it was measured ({'; '.join(found)}), which makes "
        "times longer; stop it and measure again"
    )


def _ticks(facts: Mapping[str, str], name: str) -> Ticks | None:
    words = facts.get(name, "").split()
    if len(words) != 2 or not all(re.fullmatch(r"\d{1,15}", word) for word in words):
        return None
    hertz = max(1, _number(facts, "ticks_per_second") or 100)
    return Ticks(int(words[0]) / hertz, int(words[1]) / hertz)


def last_state(moments: Sequence[Moment]) -> State:
    """The state at the end; throttled where it was at any time since the first."""
    first, last = moments[0], moments[-1]
    if last.bits is None or first.bits is None:
        return last.state
    began = last.bits & ~first.bits & 0xF0000
    seen = any(moment.state.throttled for moment in moments[1:])
    state = last.state
    return State(state.governor, state.frequency_hz, state.temperature_c, seen or began != 0)


def invalid_reasons(moments: Sequence[Moment]) -> tuple[str, ...]:
    """Why times between these moments mean nothing: throttling, another governor, a lower clock."""
    reasons = []
    bits = 0
    for moment in moments:
        bits |= (moment.bits or 0) & 0xF
    if moments[0].bits is not None and moments[-1].bits is not None:
        bits |= (moments[-1].bits & ~moments[0].bits) >> 16 & 0xF
    if bits:
        kinds = ", ".join(name for bit, name in _NOW.items() if bits >> bit & 1)
        reasons.append(f"the device throttled ({kinds})")
    states = [moment.state for moment in moments]
    governors = list(dict.fromkeys(state.governor for state in states))
    if len(governors) > 1:
        shown = " to ".join(str(governor or "unknown") for governor in governors)
        reasons.append(f"the governor changed from {shown}")
    clocks = [state.frequency_hz for state in states if state.frequency_hz]
    if clocks and min(clocks) < SAME_FREQUENCY * clocks[0]:
        reasons.append(
            f"the frequency fell from {clocks[0] / 1e6:,.0f} to {min(clocks) / 1e6:,.0f} MHz"
        )
    return tuple(reasons)


def _number(facts: Mapping[str, str], name: str) -> int | None:
    text = facts.get(name, "").strip()
    return int(text) if re.fullmatch(r"-?\d{1,15}", text) else None
