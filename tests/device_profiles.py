"""Device profiles for tests, none of it measured: of a computer, and of an emulated board."""

from dataclasses import replace

from mpsearch.device.profile import (
    Board,
    ColdRuns,
    Cycles,
    DeviceProfile,
    Energy,
    Latency,
    Machine,
    ProcessRuns,
    State,
)

PROFILE = DeviceProfile(
    export_digest="sha256:" + "a" * 64,
    network="sha256:" + "b" * 64,
    host="pi@raspberrypi",
    machine=Machine("Linux 6.6.31", "aarch64", "Cortex-A72", 4, 4_000_000_000),
    compiler="gcc 12.2.0",
    flags="-O2",
    program_bytes=250_000,
    constant_bytes=213_888,
    arena_bytes=131_136,
    checked_samples=4,
    process=ProcessRuns(Latency(50, 0.012, 0.013, 0.015, 0.011), 2_000_000),
    cold=ColdRuns(20, 0.0005, 0.009),
    steady=Latency(200, 0.0071, 0.0073, 0.0080, 0.0070),
    before=State("performance", 1_500_000_000, 48.3, False),
    after=State("performance", 1_500_000_000, 52.1, False),
    invalid=(),
    launch_prefix=(),
    emulated=False,
    energy=Energy("manual:2800,3700", 2800.0, 3600.0, 3700.0, 10.5, 1400, 0.006, 900.0, 11),
    model_digest="sha256:" + "c" * 64,
    quantized_digest="sha256:" + "d" * 64,
    cycles=Cycles("cortex-m4", 168_000_000, 1_192_800, (1_000_000, 192_800), 2_048),
)
ON_BOARD = replace(
    PROFILE,
    host="mps2-an386",
    machine=Machine("no system", "cortex-m4", "Cortex-M4 in QEMU", 1, 4_194_304),
    process=None,
    cold=None,
    steady=None,
    energy=None,
    launch_prefix=("qemu-system-arm", "-machine", "mps2-an386"),
    emulated=True,
    notes=("emulated: instructions, not time",),
    board=Board("cortex-m4", 20_000_000, (12_000_000, 8_000_000), 148_480, 65_536, 6_000),
)
