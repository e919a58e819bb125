"""Run a file in the interpreter of PyPI's tflite-micro, in a process of its own.

It prints the arena's use from C++ to standard error, and a file that it does not like may end the
process: neither belongs into the caller's.

    python -m mpsearch.exporters.tflm.interpreter FOLDER

reads FOLDER/model.tflite and FOLDER/inputs.npz (`x0` [N, …], `x1`, …, in the file's order), runs
sample by sample and writes FOLDER/outputs.npz (`y0` [N, …], …).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np


def run(folder: Path) -> None:
    """Raises RuntimeError where the interpreter does not take the file; it has printed why."""
    from tflite_micro import runtime  # type: ignore[import-untyped,import-not-found,unused-ignore]

    content = (folder / "model.tflite").read_bytes()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=_room(content))
    with np.load(folder / "inputs.npz") as given:
        inputs = [given[f"x{place}"] for place in range(len(given.files))]
    rows: list[list[np.ndarray[Any, Any]]] = []
    for row in range(len(inputs[0])):
        for place, values in enumerate(inputs):
            interpreter.set_input(values[row : row + 1], place)
        interpreter.invoke()
        rows.append([interpreter.get_output(place) for place in range(_outputs(content))])
    interpreter.print_allocations()
    columns = zip(*rows, strict=True)
    found: Any = {f"y{place}": np.stack(column) for place, column in enumerate(columns)}
    np.savez(folder / "outputs.npz", **found)


def _graph(content: bytes) -> Any:
    from tflite_micro import runtime  # type: ignore[import-untyped,import-not-found,unused-ignore]

    return runtime.convert_bytearray_to_object(content).subgraphs[0]


def _outputs(content: bytes) -> int:
    return len(_graph(content).outputs)


def _room(content: bytes) -> int:
    """More than enough: every tensor in 8 bytes an element at once, and what describes them."""
    elements = sum(int(np.prod(tensor.shape)) for tensor in _graph(content).tensors)
    return 8 * elements + 16 * len(content) + (1 << 20)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
