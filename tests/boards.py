"""Firmware for tests: which tools it needs, a small export for every target, and its project."""

import shutil
import subprocess
from functools import cache

import integer_networks
import pytest
from exports import small_network

from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.choice import Choice

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
def network(of_classes: bool = False) -> tuple[QuantizedNetwork, Data]:
    """The small network, or one whose output is the class itself; once."""
    if not of_classes:
        return small_network()
    model, inputs = integer_networks.build("classes", 8)
    network = Network.from_module(model, inputs)
    data = Data(
        "test", tuple(x.roll(-1, 0) for x in inputs), None
    )  # begins with another class than 0
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    return quantize(network, choices, calibrate(network, data)), data
