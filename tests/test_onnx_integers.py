"""ONNX files whose operators work on codes, against the float network of those codes by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.graph.network_file import NetworkFile
from mpsearch.importers.loading import ModelSource, load_network

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
Array = np.ndarray[Any, Any]
Node = onnx.helper.make_node
RANDOM = np.random.default_rng(0)


def codes(kind: Any, *shape: int) -> Array:
    low, high = (0, 256) if kind == np.uint8 else (-128, 128)
    return RANDOM.integers(low, high, shape).astype(kind)


def real(array: Array, scale: Any, zero: Any) -> torch.Tensor:
    """scale·(code − zero)"""
    return torch.from_numpy((array.astype(np.float64) - zero) * scale).float()


def loaded(
    path: Path, nodes: Sequence[Any], constants: Mapping[str, Any], shape: Sequence[Any]
) -> NetworkFile:
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info("x", 1, list(shape))],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(
        onnx.helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    )
    return load_network(ModelSource(str(path)))


def foreign(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    return Node(operator, inputs, [output], domain="com.microsoft", **attributes)


def test_scales_found_at_run_time_leave_the_weights_codes(tmp_path: Path) -> None:
    """A convolution, an LSTM and a product, as `quantize_dynamic` writes them."""
    kernel, weight = codes(np.uint8, 4, 2, 3), codes(np.int8, 5, 3)
    ih, hh = codes(np.int8, 1, 4, 20), codes(np.int8, 1, 5, 20)
    columns, gates = RANDOM.uniform(0.01, 0.02, 3), RANDOM.uniform(0.004, 0.01, 20)
    zeros = np.array([1, -2, 3], dtype=np.int8)
    nodes = [
        Node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        Node("ConvInteger", ["xq", "conv.weight_quantized", "xz", "kz"], ["c"], pads=[1, 1]),
        Node("Cast", ["c"], ["cf"], to=1),
        Node("Mul", ["xs", "ks"], ["cs"]),
        Node("Mul", ["cf", "cs"], ["h"]),
        Node("Transpose", ["h"], ["time"], perm=[2, 0, 1]),
        foreign("DynamicQuantizeLSTM",
                ["time", "W", "R", "", "", "", "", "", "ws", "wz", "rs", "wz"], "Y", hidden_size=5),
        Node("Gather", ["Y", "last"], ["states"], axis=0),
        Node("Squeeze", ["states", "one"], ["s"]),
        Node("DynamicQuantizeLinear", ["s"], ["sq", "ss", "sz"]),
        Node("MatMulInteger", ["sq", "fc.weight_quantized", "sz", "fz"], ["m"]),
        Node("Cast", ["m"], ["mf"], to=1),
        Node("Mul", ["ss", "fs"], ["ms"]),
        Node("Mul", ["mf", "ms"], ["y"]),
    ]  # fmt: skip
    constants = {
        "conv.weight_quantized": kernel, "kz": np.uint8(120), "ks": np.float32(0.01),
        "W": ih, "R": hh, "ws": np.array([0.007], dtype=np.float32),
        "wz": np.zeros(1, dtype=np.int8),
        "rs": gates.astype(np.float32).reshape(1, 20), "last": np.array(5), "one": np.array([0]),
        "fc.weight_quantized": weight, "fz": zeros, "fs": columns.astype(np.float32),
    }  # fmt: skip
    file = loaded(tmp_path / "model.onnx", nodes, constants, ("N", 2, 6))
    assert [layer.kind for layer in file.network.layers] == ["conv1d", *["linear"] * 3]
    assert "without the 3 steps that quantize" in file.notes[0]
    x = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0))
    line = F.conv1d(x, real(kernel, 0.01, 120), padding=1).permute(2, 0, 1)
    w = real(ih[0], 0.007, 0).T[_torch_order()]
    r = real(hh[0], gates, 0).T[_torch_order()]
    zero = torch.zeros(1, 3, 5)
    line, *_ = torch.lstm(line, (zero, zero), [w, r], False, 1, 0.0, False, False, False)
    expected = line[-1] @ real(weight, columns, zeros)
    with torch.no_grad():
        torch.testing.assert_close(file.network(x), expected, rtol=1e-4, atol=1e-4)


def _torch_order() -> list[int]:
    """Rows of the gates i, o, f, c as i, f, c, o."""
    return [gate * 5 + row for gate in (0, 2, 3, 1) for row in range(5)]


def test_operators_on_codes_are_their_float_operators(tmp_path: Path) -> None:
    """As `quantize_static` writes them; a range that begins at zero is a ReLU."""
    kernel, weight, bias = codes(np.int8, 4, 2, 3, 3), codes(np.int8, 4, 3), codes(np.int8, 4)
    scales = RANDOM.uniform(0.005, 0.01, 4)
    row = codes(np.int8, 3).astype(np.int32)
    parts = {
        "xs": np.float32(0.02), "xz": np.uint8(128), "one": np.float32(0.05), "z0": np.uint8(0),
        "conv.weight": kernel, "ks": scales.astype(np.float32), "kz": np.zeros(4, np.int8),
        "conv.bias": bias.astype(np.int32), "flat": np.array([0, 4]),
        "fc.weight": weight, "fs": np.float32(0.01), "fz": np.int8(3), "row": row,
    }  # fmt: skip
    q, one = ("xs", "xz"), ("one", "z0")
    nodes = [
        Node("QuantizeLinear", ["x", *q], ["xq"]),
        Node("QLinearConv", ["xq", *q, "conv.weight", "ks", "kz", *one, "conv.bias"], ["c"],
             pads=[1] * 4),
        Node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        foreign("QLinearSigmoid", ["p", *one, *q], "g"),
        foreign("QLinearMul", ["p", *one, "g", *q, *q], "m"),
        foreign("QLinearAdd", ["m", *q, "p", *one, *q], "a"),
        foreign("QLinearGlobalAveragePool", ["a", *q, *q], "n"),
        Node("Reshape", ["n", "flat"], ["f"]),
        foreign("QGemm", ["f", *q, "fc.weight", "fs", "fz", "row", *q], "o"),
        foreign("QLinearConcat", [*q, "o", *q, "f", *q], "k", axis=1),
        Node("DequantizeLinear", ["k", *q], ["y"]),
    ]  # fmt: skip
    path = tmp_path / "model.onnx"
    file = loaded(path, nodes, parts, ("N", 2, 6, 6))
    assert [layer.name for layer in file.network.layers] == ["conv", "fc"]
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    each = scales.astype(np.float32).reshape(4, 1, 1, 1)
    unit = np.float32(0.02) * each.reshape(4)
    h = F.conv2d(x, real(kernel, each, 0), real(bias, unit, 0), padding=1).relu()
    p = F.max_pool2d(h, 2)
    f = (p.sigmoid() * p + p).mean((2, 3))
    o = f @ real(weight, np.float32(0.01), 3) + real(row, 0.02 * 0.01, 0)
    with torch.no_grad():
        torch.testing.assert_close(file.network(x), torch.cat([o, f], 1), rtol=1e-4, atol=1e-4)
    nodes[1].input[3] = "xq"
    with pytest.raises(InputError, match=r"it is quantized already, and .*QLinearConv"):
        loaded(path, nodes, {k: v for k, v in parts.items() if k != "conv.weight"}, ("N", 2, 6, 6))
