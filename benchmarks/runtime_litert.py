"""LiteRT as a peer: files of `mpsearch export --format litert`, one thread, XNNPACK as it comes."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from runtime_peers import Peer
from runtime_subjects import Subject

from mpsearch.exporters.litert.model import build
from mpsearch.running.plugins import litert

# Loading, one run, and nothing else: what a user's shortest script does.
SCRIPT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
raw, at = np.fromfile(sys.argv[2], dtype=np.float32), 0
for entry in interpreter.get_input_details():
    count = int(np.prod(entry["shape"]))
    interpreter.set_tensor(entry["index"], raw[at : at + count].reshape(entry["shape"]))
    at += count
interpreter.invoke()
print(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""


def _litert(assignment: str, kind: str, subject: Subject, folder: Path) -> Peer:
    path = folder / f"{assignment}.tflite"
    path.write_bytes(build(subject.quantized(assignment), subject.data).content)
    interpreter = litert("interpreter").Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    entries = [
        (entry["index"], np.ascontiguousarray(x[:1].numpy()))
        for entry, x in zip(interpreter.get_input_details(), subject.data.inputs, strict=True)
    ]

    def run() -> None:
        for index, x in entries:
            interpreter.set_tensor(index, x)
        interpreter.invoke()

    def command(sample: Path) -> Sequence[str]:
        return [sys.executable, "-c", SCRIPT, str(path), str(sample)]

    return Peer(f"LiteRT {assignment.upper()}", kind, run, command)


def litert_int8(subject: Subject, folder: Path) -> Peer:
    """W8A8."""
    return _litert("w8a8", "litert int8", subject, folder)


def litert_int4(subject: Subject, folder: Path) -> Peer:
    """W4A8: convolutions leave XNNPACK, which has no int4 ones, for LiteRT's own kernels."""
    return _litert("w4a8", "litert int4", subject, folder)


PEERS = (litert_int8, litert_int4)
