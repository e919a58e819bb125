"""One number of a device profile by the column that it limits: latency, peak memory, energy."""

from mpsearch.device.profile import (
    DeviceProfile,
    Mode,
    check_is_of_device,
    device_latency,
)
from mpsearch.errors import InputError


def device_figure(profile: DeviceProfile, column: str, mode: Mode = "steady") -> int | float:
    """`latency_s` (median of `mode`), `peak_memory_bytes` (of the process) or `energy_j` (joules
    of one inference above idle).

    Raises InputError for what was not measured, was measured under emulation, or is invalid.
    """
    if column == "latency_s":
        return device_latency(profile, mode)
    check_is_of_device(profile)
    if column == "peak_memory_bytes":
        memory = profile.process.peak_memory_bytes if profile.process else None
        if memory is None:
            raise InputError(
                f"the profile of {profile.host} has no peak memory; measure again with "
                "--mode process"
            )
        return memory
    if profile.energy is None:
        why = "" if profile.power_failure is None else f" ({profile.power_failure})"
        raise InputError(
            f"the profile of {profile.host} has no energy{why}; measure again with --power SOURCE"
        )
    if profile.energy.joules_per_inference is None:
        raise InputError(
            f"the profile of {profile.host} has no joules, because its power was read by eye; "
            "measure again with a meter that --power can read"
        )
    return profile.energy.joules_per_inference
