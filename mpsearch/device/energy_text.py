"""An energy in words: joules above idle first, the paper's peak less idle beside them."""

from mpsearch.device.profile import Energy


def energy_lines(energy: Energy) -> list[str]:
    """Lines for the terminal; every warning is one."""
    lines = []
    if energy.joules_per_inference is not None:
        half = energy.joules_half_width
        error = "" if half is None else f" ± {1e3 * half:.2g} (95 %)"
        lines.append(
            f"energy above idle: {1e3 * energy.joules_per_inference:.4g}{error} mJ per inference, "
            f"{energy.inferences:,} in {energy.seconds:.1f} s"
        )
    if energy.mean_mw is not None:
        lines.append(
            f"  power: {energy.mean_mw:,.0f} mW less {energy.idle_mw:,.0f} mW idle is "
            f"{energy.mean_mw - energy.idle_mw:,.0f} mW, from {energy.samples} samples"
        )
    lines.append(
        f"  peak less idle, as in the TinyM²Net paper: {energy.peak_minus_idle_mw:,.0f} mW"
    )
    return [*lines, *(f"  note: {warning}" for warning in energy.warnings)]
