"""Small C exports, and changes to them that leave their digests right."""

import json
from pathlib import Path

import networks
import numpy as np

from mpsearch.data import Data
from mpsearch.exporters.c.folder import export_c
from mpsearch.files.whole import digest
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.choice import Choice


def small_network() -> tuple[QuantizedNetwork, Data]:
    """A network with two inputs at mixed bits, and the data of its ranges."""
    model, inputs, _ = networks.build("two-inputs", 6)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    names = [layer.name for layer in network.layers]
    choices = {name: Choice(4 if place % 2 else 8, 8) for place, name in enumerate(names)}
    return quantize(network, choices, calibrate(network, data)), data


def small_export(folder: Path) -> Path:
    """The same as a folder of `mpsearch export`."""
    quantized, data = small_network()
    export_c(quantized, data, folder)
    return folder


def replace_file(folder: Path, name: str, content: str) -> None:
    """Another content that export.json vouches for: the program of somebody else."""
    (folder / name).write_text(content)
    document = json.loads((folder / "export.json").read_text())
    document["files"][name] = digest(content)
    (folder / "export.json").write_text(json.dumps(document))


def insert(folder: Path, before: str, code: str) -> None:
    """C code before a line of the program's main.c."""
    text = (folder / "main.c").read_text()
    assert text.count(before) == 1
    replace_file(folder, "main.c", text.replace(before, f"{code}\n{before}"))


def expected_integers(folder: Path) -> np.ndarray:
    """The stored answer of the reference."""
    return np.loadtxt(folder / "check" / "output.txt", dtype=np.int64)
