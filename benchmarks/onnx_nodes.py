"""The node tests that the package `onnx` ships, against mpsearch's reading of ONNX.

    python benchmarks/onnx_nodes.py [PART OF A NAME]

Prints what is refused and what differs, then the counts: tests that agree, that are refused by a
message, whose operators are not read at all, and that differ.
"""

import sys
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.importers.onnx.interpreter import OPERATORS, OnnxModule, compute_constant
from mpsearch.importers.onnx.reading import opset_of
from mpsearch.importers.onnx.steps import Plan, fold_constants, join_biases, steps_of


def _plain(value: Any) -> Any:
    """Numbers as mpsearch has them: floats as float32, unsigned integers as int64."""
    array = np.asarray(value)
    if array.dtype.kind in "US" or array.dtype == object:
        raise InputError("a type beyond floats, integers and bools")
    if array.dtype.kind == "f" or str(array.dtype) == "bfloat16":
        return array.astype(np.float32)
    return array.astype(np.int64) if array.dtype.kind == "u" else array


def _run(model: Any, inputs: list[Any], data: list[str]) -> list[Any]:
    """The outputs with the inputs named in `data` as data and all others as constants."""
    arrays = {v.name: _plain(a) for v, a in zip(model.graph.input, inputs, strict=False)}
    constants = {name: array for name, array in arrays.items() if name not in data}
    outputs = tuple(value.name for value in model.graph.output)
    plan = Plan(tuple(data), outputs, steps_of(model.graph), constants, {}, opset_of(model))
    module = OnnxModule(join_biases(fold_constants(plan, compute_constant)), lambda *_: None)
    with torch.no_grad():
        found = module.run(tuple(torch.from_numpy(np.array(arrays[name])) for name in data))
    return list(found.values()) if isinstance(found, dict) else [found]


def _compare(case: Any) -> str:
    """agrees, refused, or differs."""
    inputs, outputs = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    kinds = {n: np.asarray(a).dtype.kind for n, a in zip(names, inputs, strict=False)}
    floats = [name for name, kind in kinds.items() if kind == "f"] or names
    found, reason = None, ""
    # the first float as data and weights as constants, as in networks; else every float as data
    for data in (floats[:1], floats, names):
        try:
            found = _run(case.model, inputs, data)
            break
        except InputError as error:
            reason = str(error)
    if found is None:
        print(f"refused  {case.name}: {reason[:150]}")
        return "refused"
    half = any(np.asarray(a).dtype.itemsize == 2 for a in (*inputs, *outputs))
    for tensor, expected in zip(found, outputs, strict=True):
        wanted = torch.from_numpy(np.array(_plain(expected)))
        try:
            torch.testing.assert_close(
                tensor, wanted, rtol=1e-2 if half else 1e-3, atol=1e-2 if half else 1e-5,
                equal_nan=True, check_dtype=False, check_stride=False,
            )  # fmt: skip
        except AssertionError as error:
            print(f"differs  {case.name}: {' '.join(str(error).split())[:150]}")
            return "differs"
    return "agrees"


def main() -> None:
    """Run the tests whose name contains the first argument."""
    warnings.simplefilter("ignore")
    from onnx.backend.test.loader import load_model_tests

    part = sys.argv[1] if len(sys.argv) > 1 else ""
    counts: Counter[str] = Counter()
    for case in load_model_tests(kind="node"):
        assert case.model is not None
        nodes = case.model.graph.node
        if part not in case.name or not case.model.graph.input:
            continue
        if any(node.op_type not in OPERATORS or node.domain for node in nodes):
            counts["operators that are not read"] += 1
            continue
        try:
            counts[_compare(case)] += 1
        except InputError as error:  # in the test's data
            print(f"refused  {case.name}: {error}")
            counts["refused"] += 1
    print(", ".join(f"{count} {name}" for name, count in counts.most_common()))


if __name__ == "__main__":
    main()
