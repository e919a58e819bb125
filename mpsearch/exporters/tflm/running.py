"""A file in TensorFlow Lite Micro's interpreter: its outputs, and what its arena takes."""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.litert.joined import WHOLE
from mpsearch.exporters.litert.model import LiteRtModel
from mpsearch.running.plugins import litert

MODULE = "mpsearch.exporters.tflm.interpreter"
_ARENA = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")


@dataclass(frozen=True)
class Arena:
    """Bytes of the arena: all of it, what tensors and scratch memory take (the same on every
    processor), and what describes them (with 64-bit pointers, as measured here)."""

    total: int
    tensors: int
    bookkeeping: int


@dataclass(frozen=True)
class MicroRun:
    """Outputs [N, …] as `mpsearch.exporters.litert.check.LiteRtNetwork` gives them."""

    outputs: torch.Tensor
    arena: Arena


def run(model: LiteRtModel, data: Data) -> MicroRun:
    """All of `data`, sample by sample.

    Raises InputError with what TensorFlow Lite Micro says where it does not take the file.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(model.content)
        arrays: Any = {f"x{place}": _given(x) for place, x in enumerate(data.inputs)}
        np.savez(folder / "inputs.npz", **arrays)
        done = subprocess.run(
            [sys.executable, "-P", "-m", MODULE, str(folder)],
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        if done.returncode != 0:
            raise InputError(
                f"TensorFlow Lite Micro does not take the file: {_said(done.stderr)}",
                "export with --format c, or --no-check to write it nevertheless",
            )
        with np.load(folder / "outputs.npz") as given:
            found = [given[f"y{place}"] for place in range(len(given.files))]
    sizes = {word: int(size) for word, size in _ARENA.findall(done.stderr)}
    return MicroRun(
        torch.from_numpy(_as_the_network(model, found)),
        Arena(sizes["total"], sizes["head"], sizes["tail"]),
    )


def _given(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """As the file takes it: numbers of rows in 32 bits."""
    return (x if x.is_floating_point() else x.to(torch.int32)).contiguous().numpy()


def _as_the_network(model: LiteRtModel, found: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Its one output, or all of them flattened side by side, which the signature names."""
    schema = litert("schema_py_generated")
    read = schema.ModelT.InitFromPackedBuf(model.content)
    order = list(read.subgraphs[0].outputs)
    (signature,) = read.signatureDefs
    place = {entry.name.decode(): order.index(entry.tensorIndex) for entry in signature.outputs}
    outputs = model.network.source.outputs
    if len(outputs) == 1:
        return found[place[WHOLE]].reshape(-1, *found[place[WHOLE]].shape[2:])
    flat = [found[place[output.name]] for output in outputs]
    return np.concatenate([values.reshape(len(values), -1) for values in flat], 1)


def _said(text: str) -> str:
    """The first line that is the interpreter's own."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("Traceback", "File ", "INFO"))]
    return (own or ["it ended without a word"])[0][:300]
