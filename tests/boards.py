"""Firmware for tests: which tools it needs, a small export for every target, and its project."""

import shutil
import subprocess
from functools import cache

import pytest
from exports import small_network

from mpsearch.data import Data
from mpsearch.quantization.quantized import QuantizedNetwork

TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm", "make")


def _missing() -> str:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return ", ".join(missing)
    words = [TOOLS[0], "-print-file-name=nano.specs"]
    found = subprocess.run(words, capture_output=True, text=True).stdout
    return "" if "/" in found else "newlib for arm-none-eabi"


needs_boards = pytest.mark.skipif(bool(_missing()), reason=f"there is no {_missing()} here")


@cache
def network() -> tuple[QuantizedNetwork, Data]:
    """The small network, once."""
    return small_network()
