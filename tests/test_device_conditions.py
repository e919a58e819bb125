"""What a device tells about itself, and which changes make its times invalid."""

from dataclasses import replace

import pytest
from device_profiles import PROFILE

from mpsearch.device.conditions import (
    Moment,
    invalid_reasons,
    last_state,
    other_work,
    read_machine,
    read_moment,
)
from mpsearch.device.exported import is_native, machine_of
from mpsearch.device.profile import Machine, State, device_latency, is_virtual
from mpsearch.device.session import Run
from mpsearch.device.timing import latency_of
from mpsearch.errors import InputError

COOL = {
    "governor": "performance", "frequency_khz": "1500000", "temperature_mc": "48312",
    "throttled": "throttled=0x0",
}  # fmt: skip


def _moments(*changes: dict[str, str]) -> list[Moment]:
    return [read_moment(COOL | change) for change in ({}, *changes)]


def test_facts_of_a_raspberry_pi() -> None:
    facts = {
        "system": "Linux 6.6.31+rpt-rpi-v8", "architecture": "aarch64", "cpu_name": "",
        "cpu_part": "0xd08", "board": "Raspberry Pi 4 Model B Rev 1.4", "cores": "4",
        "memory_kb": "3882000",
    }  # fmt: skip
    assert read_machine(facts) == Machine(
        "Linux 6.6.31+rpt-rpi-v8", "aarch64", "Raspberry Pi 4 Model B Rev 1.4, Cortex-A72", 4,
        3882000 * 1024,
    )  # fmt: skip
    assert read_machine({"cpu_part": "0xfff"}).cpu_model == "CPU part 0xfff"
    assert read_machine({"cores": "x"}) == Machine("unknown", "unknown", None, None, None)
    assert read_moment(COOL).state == State("performance", 1_500_000_000, 48.312, False)
    assert read_moment({"throttled": "error=1"}).state == State(None, None, None, None)


def test_nothing_changed() -> None:
    warm = {"temperature_mc": "61000", "frequency_khz": "1490000"}
    assert invalid_reasons(_moments(warm, warm)) == ()
    assert invalid_reasons([read_moment({})] * 3) == ()
    # throttled before this run, since the device was switched on, and not now
    past = [read_moment(COOL | {"throttled": "throttled=0x50000"})] * 2
    assert invalid_reasons(past) == ()
    assert last_state(past).throttled is False


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([{"throttled": "throttled=0x50005"}], "throttled (under-voltage, throttled)"),
        ([{"throttled": "throttled=0x8"}, {}], "throttled (soft temperature limit)"),
        ([{}, {"throttled": "throttled=0x20000"}], "throttled (frequency capped)"),
        ([{"governor": "powersave"}, {}], "governor changed from performance to powersave"),
        ([{"governor": ""}], "governor changed from performance to unknown"),
        ([{"frequency_khz": "600000"}, {}], "frequency fell from 1,500 to 600 MHz"),
        ([{"frequency_khz": "1400000"}], "frequency fell from 1,500 to 1,400 MHz"),
    ],
)
def test_what_disturbs_a_run(changes: list[dict[str, str]], reason: str) -> None:
    moments = _moments(*changes)
    (found,) = invalid_reasons(moments)
    assert reason in found
    assert last_state(moments).throttled is ("throttled (" in reason)


def test_a_device_that_throttles_from_the_beginning() -> None:
    hot = [read_moment(COOL | {"throttled": "throttled=0x50004"})] * 3
    assert invalid_reasons(hot) == ("the device throttled (throttled)",)


@pytest.mark.parametrize(
    ("machine", "architecture", "native"),
    [
        (183, "aarch64", True), (183, "x86_64", False), (62, "x86_64", True),
        (62, "aarch64", False), (40, "aarch64", True), (40, "armv7l", True), (183, "armv7l", False),
        (258, "loongarch64", True), (183, "loongarch64", False),
    ],
)  # fmt: skip
def test_a_program_for_another_processor_is_emulated(
    machine: int, architecture: str, native: bool
) -> None:
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\2\0" + machine.to_bytes(2, "little")
    assert machine_of(header) == machine
    assert is_native(header, architecture) is native
    big = b"\x7fELF\x02\x02\x01" + b"\0" * 9 + b"\0\2" + machine.to_bytes(2, "big")
    assert machine_of(big) == machine
    assert machine_of(b"#!/bin/sh") is None


@pytest.mark.parametrize(
    ("name", "virtual"),
    [
        ("linux,dummy-virt, Cortex-A72", True), ("riscv-virtio,qemu", True),
        ("QEMU KVM Virtual Machine", True), ("QEMU Virtual CPU version 2.5+", True),
        ("VMware, Inc. VMware20,1", True), ("XENVM-4.17", True),
        ("IBM pSeries (emulated by qemu)", True),
        ("Raspberry Pi 4 Model B Rev 1.4, Cortex-A72", False), ("AMD EPYC", False),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", False), (None, False),
    ],
)  # fmt: skip
def test_a_machine_that_calls_itself_virtual_is_no_device(name: str | None, virtual: bool) -> None:
    """Also in a profile that does not say so itself."""
    machine = replace(PROFILE.machine, cpu_model=name)
    assert is_virtual(machine) is virtual
    if virtual:
        with pytest.raises(InputError, match="virtual machine, refused as device latency"):
            device_latency(replace(PROFILE, machine=machine))


def _run(wall: float, cpu: float) -> Run:
    return Run(0, int(1e9 * wall), int(1e9 * cpu), 0, 0, 0, False, "")


def _counts(before: str, after: str) -> Moment:
    facts = {"ticks_before": before, "ticks_after": after, "ticks_per_second": "100"}
    return read_moment(COOL | facts)


def test_other_work_is_what_cores_did_beside_the_program() -> None:
    """Four cores for 10 s: 2,500 of 4,000 ticks were busy, and 1,000 of them by the program."""
    moments = [_counts("0 0", "100 1000"), _counts("2600 5000", "2700 5100")]
    found = other_work(["steady"], moments, [[_run(10, 10)]], 4)
    assert found is not None
    assert "(steady: 1.5 of 4 cores)" in found
    idle = [_counts("0 0", "100 1000"), _counts("1150 5000", "1200 5100")]
    assert other_work(["steady"], idle, [[_run(10, 10)]], 4) is None
    found = other_work(["steady"], idle, [[_run(10, 4), _run(0.01, 0)]], 4)
    assert found is not None
    assert "the program ran for 40% of its time" in found
    # too short to count ticks, starting processes, and a kernel that does not count
    short = [_counts("0 0", "0 0"), _counts("10 100", "10 100")]
    assert other_work(["process"], short, [[_run(0.01, 0.001)] * 9], 4) is None
    for text in ("", "1", "a b", "1 2 3", "-1 2", f"{10**30} 1"):
        unknown = [_counts("0 0", text), _counts(text, "0 0")]
        assert other_work(["steady"], unknown, [[_run(1, 1)]], None) is None


def test_percentiles_are_values_that_occurred() -> None:
    """101 times that are known: exactly 50, 90 and 99 of them are smaller."""
    times = [1_000_000 * (1 + (37 * place) % 101) for place in range(101)]
    latency = latency_of(times)
    for value, below in (
        (latency.minimum_s, 0), (latency.median_s, 50), (latency.p90_s, 90), (latency.p99_s, 99)
    ):  # fmt: skip
        assert sum(t / 1e9 < value for t in times) == below
    assert latency_of([7]).p99_s == 7e-9
