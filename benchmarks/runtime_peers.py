"""What the C program is compared with: other runtimes on the same sample, on one core.

A peer is a function `(Subject, folder) -> Peer` in PEERS. To add a runtime, write such a function.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from runtime_subjects import FLOAT, Subject

from mpsearch.exporters.onnx.between_quantizers import (
    DEFAULT,
    PRECISE,
    SessionSetting,
    open_session,
)
from mpsearch.exporters.onnx.model import onnx_model

# Loading, one run, and nothing else: what a user's shortest script does.
SCRIPT = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
for entry in sys.argv[3:]:
    options.add_session_config_entry(*entry.split("="))
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
raw, at, inputs = np.fromfile(sys.argv[2], dtype=np.float32), 0, {}
for entry in session.get_inputs():
    shape = (1, *entry.shape[1:])
    count = int(np.prod(shape))
    inputs[entry.name] = raw[at : at + count].reshape(shape)
    at += count
print(session.run(None, inputs)[0])
"""


@dataclass(frozen=True)
class Peer:
    """One runtime with one model.

    `kind`: the fastest of kind `int8` is the peer that the ratios are against; others (`fp32`, …)
    stand for themselves. `run`: one inference of the sample in this process. `command`: the same as
    a process of its own that reads the sample from a file of raw float32, or None.
    """

    name: str
    kind: str
    run: Callable[[], object]
    command: Callable[[Path], Sequence[str]] | None


def _onnxruntime(
    name: str, kind: str, subject: Subject, path: Path, setting: SessionSetting
) -> Peer:
    """One model under one setting. Inputs and output are bound, so that a run copies nothing."""
    session = open_session(path.read_bytes(), setting)
    binding = session.io_binding()
    for entry, x in zip(session.get_inputs(), subject.data.inputs, strict=True):
        binding.bind_cpu_input(entry.name, np.ascontiguousarray(x[:1].numpy()))
    binding.bind_output(session.get_outputs()[0].name)
    entries = [f"{key}={value}" for key, value in setting.config.items()]

    def command(sample: Path) -> Sequence[str]:
        return [sys.executable, "-c", SCRIPT, str(path), str(sample), *entries]

    return Peer(name, kind, lambda: session.run_with_iobinding(binding), command)


def fp32(subject: Subject, folder: Path) -> Peer:
    """The float network, batch norms folded."""
    path = folder / "fp32.onnx"
    path.write_bytes(onnx_model(subject.quantized(FLOAT)).SerializeToString())
    return _onnxruntime("onnxruntime fp32", "fp32", subject, path, DEFAULT)


def our_int8(subject: Subject, folder: Path) -> Peer:
    """`mpsearch export --format onnx` at W8A8, onnxruntime's default options."""
    path = folder / "w8a8.onnx"
    path.write_bytes(onnx_model(subject.quantized("w8a8")).SerializeToString())
    return _onnxruntime("onnxruntime int8, our QDQ", "int8", subject, path, DEFAULT)


def our_exact_int8(subject: Subject, folder: Path) -> Peer:
    """The same without products that saturate, where the processor has no VNNI."""
    path = folder / "w8a8.onnx"
    name = "onnxruntime int8, our QDQ, exact"
    return replace(_onnxruntime(name, "exact int8", subject, path, PRECISE), command=None)


def their_int8(subject: Subject, folder: Path) -> Peer:
    """onnxruntime's own static quantization of the float model, per channel, QDQ."""
    path = folder / "static.onnx"
    fp32(subject, folder)
    quantize_static(
        folder / "fp32.onnx",
        path,
        _Reader(subject),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    name = "onnxruntime int8, quantize_static"
    return _onnxruntime(name, "int8", subject, path, DEFAULT)


class _Reader:
    """The calibration samples one by one, as onnxruntime asks for them."""

    def __init__(self, subject: Subject) -> None:
        self.rows = iter([
            {
                name: x[row : row + 1].numpy()
                for name, x in zip(subject.network.input_names, subject.data.inputs, strict=True)
            }
            for row in range(len(subject.data))
        ])  # fmt: skip

    def get_next(self) -> dict[str, Any] | None:
        return next(self.rows, None)


PEERS: tuple[Callable[[Subject, Path], Peer], ...] = (fp32, our_int8, our_exact_int8, their_int8)


def machine() -> dict[str, str]:
    """Processor and runtime, for the head of the tables."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else "unknown",
        "onnxruntime": str(onnxruntime.__version__),
    }
