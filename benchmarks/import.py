"""Every file format of every network: load time, layers, MACs, and how far outputs are away.

Run `python benchmarks/import.py`; `--quick` leaves ResNet-50 out. Needs the extras `onnx` and
`keras`, and for the two published Keras files MPSEARCH_DATA.

Layers are compared with a count by hand. MACs are compared with a counter that knows nothing of
mpsearch: torch's FlopCounterMode on the network itself, divided by 2 (attention's products, which
stay in float, are added to the layers'; the matrices of an LSTM, which it does not see, by hand),
for Keras files the same on Keras's own network with its torch backend. Outputs are compared with
those of the network that was written: torch's or Keras's own. Load time is the median of three
calls of `mpsearch.importers.loading.load_network` in a running process, and in brackets its ratio
to a peer in the same run: torch.export of the same network, or Keras's own loader.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from import_keras import keras_files
from import_subjects import SUBJECTS, Inputs, Subject, Written, made
from torch import nn
from zoo_networks.counting import torch_macs

import mpsearch
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.profiling.float_operators import float_part

OPSETS = (11, 13, 17, 21)


def torch_files(subject: Subject, folder: Path) -> Iterator[tuple[str, Callable[[], Written]]]:
    """(format, function that writes it) for everything that torch or mpsearch writes."""
    model, inputs = made(subject), subject.inputs()
    with torch.no_grad():
        expected = model(*inputs)
    macs = torch_macs(model, inputs) + subject.recurrent_macs
    shapes = tuple(tuple(x.shape[1:]) for x in inputs)

    def written(
        name: str, write: Callable[[str], object], trust: bool
    ) -> tuple[str, Callable[[], Written]]:
        def make() -> Written:
            suffix = ".pt2" if "archive" in name else ""
            path = str(folder / f"{subject.name}-{name.replace(' ', '-')}{suffix}")
            write(path)
            shaped = "TorchScript" in name  # the other formats carry the shapes of their inputs
            source = ModelSource(path, trust=trust, input_shapes=shapes if shaped else ())
            return Written(source, inputs, expected, macs, subject.layers)

        return name, make

    dynamic = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    yield written("mpsearch file", lambda path: mpsearch.save(model, path, inputs), False)
    yield written(
        "torch.export archive",
        lambda path: torch.export.save(
            torch.export.export(model, inputs, dynamic_shapes=_shapes(model, dynamic)), path
        ),
        True,
    )
    if all(x.is_floating_point() for x in inputs):  # shapes alone do not tell integers
        yield written(
            "TorchScript traced", lambda path: torch.jit.trace(model, inputs).save(path), True
        )
        yield written("TorchScript scripted", lambda path: torch.jit.script(model).save(path), True)
    for opset in OPSETS:
        yield written(f"ONNX opset {opset}", partial(_onnx, model, inputs, opset), False)


def _shapes(model: nn.Module, dynamic: tuple[Any, ...]) -> tuple[Any, ...]:
    return (dynamic,) if type(model).__name__ == "TinyM2Net" else dynamic


def _onnx(model: nn.Module, inputs: Inputs, opset: int, path: str) -> None:
    """Opsets up to 17 by torch's older exporter, later ones by the newer."""
    names = [f"input{index}" for index in range(len(inputs))]
    if opset < 18:
        torch.onnx.export(
            model, inputs, path, opset_version=opset, dynamo=False, input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names},
        )  # fmt: skip
    else:
        dynamic = tuple({0: torch.export.Dim("batch")} for _ in inputs)
        torch.onnx.export(
            model, inputs, path, opset_version=opset, dynamo=True, external_data=False,
            dynamic_shapes=_shapes(model, dynamic), input_names=names,
        )  # fmt: skip


def measure(file: Written) -> tuple[Network, float]:
    """(network, median seconds of three loads)."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        network = load_network(file.source).network
        seconds.append(time.perf_counter() - begin)
    return network, statistics.median(seconds)


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters of other formats write about themselves, some of them past Python's streams."""
    sys.stdout.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
            yield
        finally:
            logging.disable(logging.NOTSET)
            sys.stdout.flush()
            for stream, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)


def row(name: str, kind: str, make: Callable[[], Written], export_seconds: float) -> Sequence[str]:
    """One line of the table; a refusal is a line, too."""
    try:
        with quiet():
            file = make()
    except Exception as error:  # the framework's own writer cannot
        return (name, kind, "", "", "", "", f"not written: {type(error).__name__}")
    try:
        with quiet():
            network, seconds = measure(file)
    except InputError as error:
        return (name, kind, "", "", "", "", f"refused: {str(error).splitlines()[0][:90]}")
    with torch.no_grad():
        outputs = network(*file.inputs)
        outputs = outputs if file.finish is None else file.finish(outputs)
    macs = sum(layer.macs for layer in network.layers)
    outside = float_part(network).macs
    return (
        name,
        kind,
        f"{seconds:.2f} s ({seconds / export_seconds:.2f})",
        f"{len(network.layers)} of {file.layers}",
        f"{macs:,}" + (f" + {outside:,}" if outside else ""),
        "equal" if macs + outside == file.macs else f"{file.macs:,}",
        f"{float((outputs - file.expected).abs().max()):.1e}",
    )


def export_seconds(subject: Subject) -> float:
    """Median of three torch.export runs of the network itself."""
    model, inputs = made(subject), subject.inputs()
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        with quiet():
            torch.export.export(model, inputs)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without ResNet-50")
    parser.add_argument("--only", help="one network")
    arguments = parser.parse_args()
    print("| network | format | load (of peer) | layers, by hand | MACs | counter | difference |")
    print("|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for subject in SUBJECTS:
            if (subject.large and arguments.quick) or arguments.only not in (None, subject.name):
                continue
            unit = export_seconds(subject)
            for kind, make in torch_files(subject, Path(folder)):
                print("| " + " | ".join(row(subject.name, kind, make, unit)) + " |", flush=True)
        if arguments.only is None:
            with quiet():
                entries = list(keras_files(Path(folder)))
            for name, kind, make, unit in entries:
                print("| " + " | ".join(row(name, kind, make, unit)) + " |", flush=True)


if __name__ == "__main__":
    main()
