"""The Keras files of `benchmarks/import.py`, with what Keras computes through its torch backend."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

import torch
from import_subjects import Written
from torch.utils.flop_counter import FlopCounterMode

from mpsearch.importers.loading import ModelSource
from mpsearch.models.tinym2net_keras import write_keras

# name -> (file in MPSEARCH_DATA/pretrained, layers counted by hand, ends in a softmax)
PUBLISHED = {
    "MLPerf Tiny ResNet-8": ("pretrainedResnet.h5", 1 + 3 * 2 + 2 + 1, True),
    "MLPerf Tiny autoencoder": ("ad01.h5", 10, False),
}
BUNDLED = {"tinym2net-battlefield": 14, "tinym2net-covid": 15}


def keras_files(folder: Path) -> Iterator[tuple[str, str, Callable[[], Written], float]]:
    """(network, format, function that makes the entry, seconds in which Keras itself loads it)."""
    for name, layers in BUNDLED.items():
        for suffix in (".keras", ".h5"):
            path = str(folder / f"{name}{suffix}")
            write_keras(name, path)
            yield _entry(name, path, suffix, layers, False)
    if "MPSEARCH_DATA" in os.environ:
        for name, (file, layers, softmax) in PUBLISHED.items():
            path = str(Path(os.environ["MPSEARCH_DATA"]) / "pretrained" / file)
            yield _entry(name, path, ".h5 of Keras 2", layers, softmax)


def _entry(
    name: str, path: str, suffix: str, layers: int, softmax: bool
) -> tuple[str, str, Callable[[], Written], float]:
    import keras

    begin = time.perf_counter()
    model: Any = keras.saving.load_model(path, compile=False)
    seconds = time.perf_counter() - begin
    random = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(2, *x.shape[1:], generator=random) for x in model.inputs)

    def make() -> Written:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model([x[:1] for x in inputs])
        with torch.no_grad():
            expected = model(list(inputs)).detach()
        finish = _softmax if softmax else None
        return Written(
            ModelSource(path), inputs, expected,
            int(counter.get_total_flops()) // 2, layers, finish,
        )  # fmt: skip

    return name, f"Keras {suffix}", make, seconds


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits, dim=1)
