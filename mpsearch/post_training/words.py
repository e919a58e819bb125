"""How a network was quantized, as the options that ask for it; knows no torch."""

from collections.abc import Mapping
from typing import Any


def usual_ranges(rounding: str, bias_correction: bool) -> str:
    """The range method where none is named; without any repair each layer stands for itself."""
    return "mse" if rounding == "nearest" and not bias_correction else "auto"


def options_of(settings: Mapping[str, Any] | None) -> list[str]:
    """The options that ask for recorded settings of PostTraining: {"rounding": "nearest", …} ->
    ["--rounding", "nearest", …]; none for the defaults.

    A record that is empty or missing is of the first version, which repaired nothing unasked.
    """
    settings = settings or {"rounding": "nearest", "correct_bias": False}
    words = []
    plain = usual_ranges(settings.get("rounding", "adaptive"), settings.get("correct_bias", True))
    for option, usual in (("ranges", plain), ("rounding", "adaptive"), ("seed", 0)):
        if (value := settings.get(option, usual)) != usual:
            words += [f"--{option}", str(value)]
    words += ["--per-tensor"] if settings.get("per_tensor") else []
    words += ["--equalize"] if settings.get("equalize") else []
    words += ["--learn-scales"] if settings.get("learn_scales") else []
    wide = settings.get("wide", "32")  # before there was a choice, sums had 32 bits
    words += ["--wide", str(wide)] if wide != "auto" else []
    return [*words, *([] if settings.get("correct_bias", True) else ["--no-bias-correction"])]
