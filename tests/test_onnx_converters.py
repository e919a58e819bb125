"""ONNX as converters write it, against onnxruntime: open ends, free batches, If nodes, shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
helper = onnx.helper
Array = np.ndarray[Any, Any]
Node = helper.make_node


def _random(*shape: int) -> Array:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.5).astype(np.float32)


def _whole(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


@dataclass(frozen=True)
class Case:
    """Nodes from `x` to `s`; a product behind them makes a network. `N` is the free batch."""

    name: str
    nodes: Sequence[Any]
    constants: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: {"x": ("N", 8)})
    opset: int = 15
    ir: int = 8
    outputs: Sequence[str] = ()
    fix: Mapping[str, Any] = field(default_factory=dict)
    batch_dim: Mapping[str, int] = field(default_factory=dict)
    sample_axis: int = 0
    layers: int = 0
    """How many there are, where a file that is read otherwise has more or fewer."""


W = _random(8, 4)
_PRODUCT = Node("MatMul", ["s", "w"], ["y"], "/head/MatMul")
_PLANES = {"x": ("N", 2, 4)}


def _slice(name: str, starts: Any, ends: Any, axes: Any, steps: Any = None) -> Case:
    constants = {"b": starts, "e": ends, "a": axes}
    if steps is not None:
        constants["p"] = steps
    node = Node("Slice", ["x", *constants], ["s"])
    return Case(f"slice-{name}", [node], {k: np.asarray(v) for k, v in constants.items()})


def _branch(nodes: Sequence[Any], output: str, constants: Mapping[str, Array] = {}) -> Any:
    value = helper.make_tensor_value_info(output, 1, ["k", "n"])
    stored = [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()]
    return helper.make_graph(list(nodes), "branch", [], [value], stored)


def _if(condition: str, output: str, then: Any, otherwise: Any) -> Any:
    return Node("If", [condition], [output], then_branch=then, else_branch=otherwise)


_NEVER = _branch([Node("Det", ["x"], ["t"])], "t")  # an operator that is not read
_RANK = [
    Node("Shape", ["x"], ["sh"]),
    Node("Shape", ["sh"], ["rk"]),
    Node("Equal", ["rk", "two"], ["c"]),
]
_INNER = _if(
    "d", "inner",
    _branch([Node("Transpose", ["v"], ["vt"]), Node("MatMul", ["x", "vt"], ["q"], "/deep/MatMul")],
            "q", {"v": _random(8, 8)}),
    _NEVER,
)  # fmt: skip
_IFS = (
    Case("if-on-a-rank",
         [*_RANK, _if("c", "s", _branch([Node("Relu", ["x"], ["t"])], "t"), _NEVER)],
         {"two": _whole(2)}),
    Case("if-of-a-constant-hands-on-a-value-from-outside",
         [_if("c", "s", _branch([Node("Identity", ["x"], ["t"])], "t"), _NEVER)],
         {"c": np.array(True)}),
    Case("ifs-whose-branches-share-names",
         [_if("c", "m", _branch([Node("Relu", ["x"], ["t"])], "t"), _NEVER),
          _if("c", "s", _branch([Node("Sigmoid", ["m"], ["t"])], "t"), _NEVER)],
         {"c": np.array([True])}),
    Case("if-in-an-if-with-weights-of-its-own-and-two-readers",
         [*_RANK, Node("Not", ["c"], ["n"]), Node("Not", ["n"], ["d"]),
          _if("c", "r", _branch([_INNER, Node("Add", ["inner", "b"], ["t"])], "t",
                                {"b": _random(8)}), _NEVER),
          Node("Mul", ["r", "r"], ["r2"]), Node("Add", ["r", "r2"], ["s"])],
         {"two": _whole(2)}, layers=2),
)  # fmt: skip
_SIZES = [
    Node("Shape", ["x"], ["sh"]),
    Node("Cast", ["sh"], ["sh32"], to=6),
    Node("Slice", ["sh32", "zero", "one", "zero"], ["n"]),
]
_SHAPES = (
    Case("tensorflows-flatten",
         [*_SIZES, Node("Concat", ["n", "rest"], ["t32"], axis=0),
          Node("Cast", ["t32"], ["t"], to=7), Node("Reshape", ["x", "t"], ["s"])],
         {"zero": _whole(0), "one": _whole(1), "rest": np.array([-1], dtype=np.int32)}, _PLANES),
    Case("a-batch-that-is-divided-again",
         [*_SIZES, Node("Mul", ["n", "two"], ["m"]), Node("Div", ["m", "two"], ["k"]),
          Node("Concat", ["k", "rest"], ["t32"], axis=0), Node("Cast", ["t32"], ["t"], to=7),
          Node("Reshape", ["x", "t"], ["s"])],
         {"zero": _whole(0), "one": _whole(1), "two": np.array([2], dtype=np.int32),
          "rest": np.array([-1], dtype=np.int32)}, _PLANES),
    Case("positions-from-range-and-tile",
         [Node("Shape", ["x"], ["sh"]), Node("Gather", ["sh", "i"], ["n"]),
          Node("Range", ["i", "three", "j"], ["p"]), Node("Unsqueeze", ["p", "zero"], ["p1"]),
          Node("Unsqueeze", ["n", "zero"], ["n1"]), Node("Concat", ["n1", "one"], ["t"], axis=0),
          Node("Tile", ["p1", "t"], ["pp"]), Node("Gather", ["table", "pp"], ["e"]),
          Node("Add", ["x", "e"], ["s"])],
         {"i": np.array(0), "j": np.array(1), "three": np.array(3), "zero": _whole(0),
          "one": _whole(1), "table": _random(6, 8)}, {"x": ("N", 3, 8)}),
    Case("an-expand-with-where", [
          Node("Equal", ["t", "minus"], ["q"]), Node("Where", ["q", "ones", "t"], ["u"]),
          Node("Expand", ["k", "u"], ["e"]), Node("Add", ["x", "e"], ["s"])],
         {"t": _whole(-1, 8), "minus": _whole(-1), "ones": _whole(1, 1), "k": _random(1, 1)}),
    Case("constants-as-attributes",
         [Node("Constant", [], ["k"], value_float=2.0),
          Node("Constant", [], ["t"], value_ints=[-1, 8]),
          Node("Mul", ["x", "k"], ["m"]), Node("Reshape", ["m", "t"], ["s"])]),
    Case("a-batch-written-as-1", [Node("Reshape", ["x", "t"], ["s"])], {"t": _whole(1, -1)},
         _PLANES),
    Case("initializers-among-the-inputs", [Node("Identity", ["x"], ["s"])], opset=9, ir=3),
)  # fmt: skip
_CLIPS = (
    Case("clip-by-computed-numbers",
         [Node("Shape", ["x"], ["sh"]), Node("Gather", ["sh", "i"], ["d"]),
          Node("Cast", ["d"], ["f"], to=1), Node("Div", ["f", "k"], ["hi"]),
          Node("Neg", ["hi"], ["lo"]), Node("Clip", ["x", "lo", "hi"], ["s"])],
         {"i": np.array(1), "k": np.float32(20)}),
)  # fmt: skip
_LARGE = Case(
    "a-large-plane-made-larger",
    [Node("Resize", ["x", "", "k"], ["r"], mode="nearest", nearest_mode="floor",
          coordinate_transformation_mode="asymmetric"),
     Node("ReduceMax", ["r"], ["m"], axes=[1, 2], keepdims=0),
     Node("Slice", ["m", "first", "last", "one"], ["s"])],
    {"k": np.array([1, 1, 2, 2], dtype=np.float32), "first": _whole(0), "last": _whole(8),
     "one": _whole(1)},
    {"x": ("N", 1, 96, 96)},
)  # fmt: skip
_T, _F, _H = 4, 8, 3


def _recurrent(kind: str, gates: int, name: str, directions: int = 1, **attributes: Any) -> Case:
    """Time first, with lengths of the sequences that follow from shapes."""
    both = {"direction": "bidirectional"} if directions == 2 else {}
    nodes = [
        Node("Shape", ["x"], ["sh"]),
        Node("Slice", ["sh", "zero", "one"], ["t"]),
        Node("Slice", ["sh", "one", "two"], ["n"]),
        Node("Expand", ["t", "n"], ["l64"]),
        Node("Cast", ["l64"], ["l"], to=6),
        Node(kind, ["x", "W", "R", "B", "l"], ["Y", "last"], hidden_size=_H, **both, **attributes),
        Node("Transpose", ["Y"], ["moved"], perm=[0, 2, 1, 3]),
        Node("Reshape", ["moved", "out"], ["s"]),
    ]
    constants = {
        "W": _random(directions, gates * _H, _F),
        "R": _random(directions, gates * _H, _H),
        "B": _random(directions, 2 * gates * _H),
        "zero": _whole(0), "one": _whole(1), "two": _whole(2),
        "out": _whole(_T, -1, directions * _H), "w": _random(directions * _H, 4),
    }  # fmt: skip
    return Case(f"{kind}-{name}", nodes, constants, {"x": (_T, "N", _F)}, sample_axis=1)


def _foreign(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    return Node(operator, inputs, [output], domain="com.microsoft", **attributes)


_FUSED = (
    Case("fused-convolutions-with-a-sum-and-activations",
         [_foreign("FusedConv", ["x", "k", "b"], "a", activation="Relu", pads=[1, 1]),
          _foreign("FusedConv", ["a", "k2", "b", "x"], "c", activation="LeakyRelu",
                   activation_params=[0.2]),
          Node("Reshape", ["c", "flat"], ["s"])],
         {"k": _random(2, 2, 3), "k2": _random(2, 2, 1), "b": _random(2), "flat": _whole(-1, 8)},
         _PLANES, layers=3),
    Case("fused-products-and-activations",
         [_foreign("FusedMatMul", ["x", "x"], "q", alpha=0.25, transB=1),
          Node("MatMul", ["q", "v"], ["m"], "/mid/MatMul"),
          _foreign("BiasGelu", ["m", "b"], "g"),
          _foreign("SkipLayerNormalization", ["g", "x", "one", "b"], "n", epsilon=1e-3),
          _foreign("FastGelu", ["n"], "f"), _foreign("QuickGelu", ["f"], "s", alpha=1.5)],
         {"v": _random(3, 8), "b": _random(8), "one": _random(8) + 1}, {"x": ("N", 3, 8)},
         layers=2),
    Case("a-fused-gemm",
         [_foreign("FusedGemm", ["x", "v", "b"], "s", transB=1, activation="Relu")],
         {"v": _random(8, 8), "b": _random(8)}, layers=2),
)  # fmt: skip
_RECURRENT = (
    _recurrent("GRU", 3, "resets-before-the-product", directions=2),
    _recurrent("LSTM", 4, "full-lengths"),
    _recurrent("GRU", 3, "full-lengths", linear_before_reset=1),
    Case("GRU-states-in-and-out",
         [Node("GRU", ["x", "W", "R", "B", "", "h"], ["Y", "s1"], hidden_size=_H,
               linear_before_reset=1),
          Node("Squeeze", ["Y", "one"], ["s"]), Node("Identity", ["s1"], ["hn"])],
         {"W": _random(1, 3 * _H, _F), "R": _random(1, 3 * _H, _H), "B": _random(1, 6 * _H),
          "one": _whole(1), "w": _random(_H, 4)},
         {"x": (_T, "N", _F), "h": (1, "N", _H)}, outputs=("y", "hn"), sample_axis=1),
)  # fmt: skip
_LARGEST = 2**31 - 1
CASES = (
    _slice("int32-max", [0, 0], [_LARGEST, 8], [0, 1]),
    _slice("1e9", [0, 0], [10**9, 10**9], [0, 1]),
    _slice("int64-max", [0], [2**63 - 1], [0]),
    _slice("open-start", [-(2**31), 0], [_LARGEST, _LARGEST], [0, 1]),
    _slice("backwards-to-an-open-end", [-1, 0], [-(2**63), _LARGEST], [1, 0], [-1, 1]),
    _slice("backwards-from-an-open-start", [_LARGEST], [-(10**9)], [1], [-1]),
    *(
        Case(
            f"batch-written-as-{size!r}",
            [Node("Relu", ["x"], ["s"])],
            inputs={"x": (size, 8)},
        )
        for size in (-1, 0, "")
    ),
    *_IFS,
    *_SHAPES,
    *_CLIPS,
    _LARGE,
    *_RECURRENT,
    *_FUSED,
    Case(
        "a-number-that-decides",
        [Node("Equal", ["sr", "k"], ["c"]),
         _if("c", "s", _branch([Node("Relu", ["x"], ["t"])], "t"), _NEVER)],
        {"k": np.array(16000)}, {"x": ("N", 8), "sr": ()}, fix={"sr": 16000},
    ),
)  # fmt: skip


def _model(case: Case) -> Any:
    stored = {"w": W, **case.constants}
    used = {*case.outputs, *(n for node in (*case.nodes, _PRODUCT) for n in node.input)}
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()]
    inputs = [
        helper.make_tensor_value_info(name, 7 if name == "sr" else 1, list(shape))
        for name, shape in case.inputs.items()
    ]
    assert {t.name for t in tensors if t.name not in used} <= {"b", "v"}
    if case.ir < 4:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    outputs = [helper.make_empty_tensor_value_info(name) for name in case.outputs or ("y",)]
    for value in outputs:
        value.type.tensor_type.elem_type = 1
    graph = helper.make_graph([*case.nodes, _PRODUCT], "g", inputs, outputs, tensors)
    imports = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=case.ir)


def _feeds(case: Case, samples: int) -> dict[str, Array]:
    free = ("N", "", -1, 0)
    feeds = {
        name: _random(*(samples if size in free else size for size in shape))
        for name, shape in case.inputs.items()
        if name not in case.fix
    }
    return {**feeds, **{name: np.array(value) for name, value in case.fix.items()}}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_converters_write_is_read_as_onnxruntime_runs_it(case: Case, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    path = tmp_path / "model.onnx"
    path.write_bytes(_model(case).SerializeToString())
    network = load_network(ModelSource(str(path), fix=case.fix, batch_dim=case.batch_dim)).network
    assert any(layer.kind == "linear" for layer in network.layers)
    assert len(network.layers) == (case.layers or len(network.layers))
    one_by_one = case.name == "a-batch-written-as-1"  # runtimes take one sample only
    feeds = _feeds(case, 1 if one_by_one else 5)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    shapes = {n: tuple("N" if size == 0 else size for size in s) for n, s in case.inputs.items()}
    content = _model(replace(case, inputs=shapes)).SerializeToString()
    session = runtime.InferenceSession(content, options)
    expected = [torch.from_numpy(y) for y in session.run(None, feeds)]
    rows = [torch.from_numpy(x) for name, x in feeds.items() if name not in case.fix]
    with torch.no_grad():
        found = network(*(x.movedim(case.sample_axis, 0) for x in rows))
    moved = [y.movedim(case.sample_axis, 0).flatten(1) for y in expected]
    torch.testing.assert_close(found.flatten(1), torch.cat(moved, 1), rtol=1e-4, atol=1e-5)
    assert _runs_on(network, 3)


def _runs_on(network: Network, samples: int) -> bool:
    rows = [torch.zeros(samples, *shape) for shape in network.input_shapes]
    return len(network(*rows)) == samples


def test_outputs_that_are_the_same_for_all_data_are_left_out(tmp_path: Path) -> None:
    """A table, a length for every sample, a count: whatever follows from sizes alone."""
    nodes = [
        Node("Relu", ["x"], ["s"]),
        Node("Shape", ["x"], ["sh"]),
        Node("Gather", ["sh", "zero"], ["n"]),
        Node("ConstantOfShape", ["n"], ["lengths"],
             value=onnx.numpy_helper.from_array(np.array([7.0], dtype=np.float32))),
        Node("Mul", ["table", "table"], ["anchors"]),
        Node("ReduceSum", ["marks"], ["count"], keepdims=0),
        Node("Cast", ["s"], ["marks"], to=7),
    ]  # fmt: skip
    nodes = [*nodes[:5], nodes[6], nodes[5]]
    case = Case("", nodes, {"zero": _whole(0), "table": _random(8, 4)},
                outputs=("lengths", "y", "anchors", "count"))  # fmt: skip
    path = tmp_path / "model.onnx"
    model = _model(case)
    model.graph.output[3].type.tensor_type.elem_type = 7
    path.write_bytes(model.SerializeToString())
    loaded = load_network(ModelSource(str(path)))
    assert [output.shape for output in loaded.network.outputs] == [(4,)]
    assert loaded.notes == (
        "outputs that are the same for all data are left out: lengths, anchors",
    )
    x = torch.from_numpy(_random(3, 8))
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(x), x.relu() @ torch.from_numpy(W))
    del model.graph.output[1], model.graph.output[2]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="none of its outputs follows from the inputs' data"):
        load_network(ModelSource(str(path)))


@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 0), (np.int8, -128), (np.int8, 5)])
def test_a_quantized_file_is_the_float_network_of_its_codes(
    kind: Any, zero: int, tmp_path: Path
) -> None:
    """Codes that end at zero are the ReLU that the quantizer took out; steps between vanish."""
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (8, 4)).astype(np.int8)
    scales, bias = np.array([0.01, 0.02, 0.005, 0.03], dtype=np.float32), random.integers(-9, 9, 4)
    nodes = [
        Node("QuantizeLinear", ["x", "sx", "five"], ["xq"]),
        Node("DequantizeLinear", ["xq", "sx", "five"], ["xf"]),
        Node("DequantizeLinear", ["fc.weight", "sw"], ["wf"], axis=1),
        Node("DequantizeLinear", ["bq", "sb"], ["bf"]),
        Node("MatMul", ["xf", "wf"], ["m"], "/fc/MatMul"),
        Node("Add", ["m", "bf"], ["a"]),
        Node("QuantizeLinear", ["a", "sx", "z"], ["aq"]),
        Node("DequantizeLinear", ["aq", "sx", "z"], ["y"]),
    ]
    constants = {
        "sx": np.float32(0.05), "five": np.int8(5), "fc.weight": codes, "sw": scales,
        "bq": bias.astype(np.int32), "sb": np.float32(0.1), "z": np.array(zero, dtype=kind),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["N", 8])],
        [helper.make_tensor_value_info("y", 1, ["N", 4])],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    loaded = load_network(ModelSource(str(path)))
    assert [layer.name for layer in loaded.network.layers] == ["fc"]
    assert "read as a float network" in loaded.notes[0]
    x = _random(5, 8)
    expected = x @ (codes * scales) + bias * np.float32(0.1)
    if zero != 5:
        expected = np.maximum(expected, 0)
    with torch.no_grad():
        found = loaded.network(torch.from_numpy(x))
    torch.testing.assert_close(found.numpy(), expected.astype(np.float32), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "batch_dim", "fix", "message"),
    [
        ("a-number-that-decides", {}, {}, "'sr' is a single number.*--fix sr=1"),
        ("a-number-that-decides", {}, {"rs": 1}, "no input 'rs'; expected one of x, sr"),
        ("a-number-that-decides", {}, {"sr": 0.5}, "'sr' takes whole numbers of int64"),
        ("a-number-that-decides", {}, {"sr": [1, 2]}, "sr=1,2: got 2 numbers.*a single number"),
        ("a-number-that-decides", {"sr": 0}, {"sr": 1}, "expected one of them"),
        ("a-number-that-decides", {}, {"sr": 8000}, r"Det \(node 's/t'|Det \(node 's'"),
        ("if-on-a-rank", {"x": 2}, {}, "'x' has 2 dimensions; expected 0 to 1"),
        ("if-on-a-rank", {"h": 1}, {}, "no input or output 'h'; expected one of x, y"),
        ("if-on-a-rank", {"y": 1}, {}, r"y=1: output 'y' has the shape .* along dimension 0"),
        ("if-on-a-rank", {}, {"x": "one"}, "expected a number or a list of numbers"),
    ],
)
def test_options_that_do_not_fit_a_file_are_named(
    name: str, batch_dim: dict[str, int], fix: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (case,) = (case for case in CASES if case.name == name)
    path = tmp_path / "model.onnx"
    path.write_bytes(_model(case).SerializeToString())
    with pytest.raises(InputError, match=message) as caught:
        load_network(ModelSource(str(path), batch_dim=batch_dim, fix=fix))
    assert str(path) in str(caught.value)
    assert len(caught.value.lines) <= 2
