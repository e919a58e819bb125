"""ONNX files that are damaged, hostile, or of a kind that cannot be a network here."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.cli import run
from mpsearch.errors import InputError, MissingExtraError
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.importers.onnx.batch import place_of_batch
from mpsearch.importers.onnx.calls import TensorNames, layer_of_node
from mpsearch.importers.onnx.loading import load_onnx

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
helper = onnx.helper


def _model(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, Sequence[int | str]]] = (("x", ("n", 4)),),
    constants: Sequence[tuple[str, Any]] = (),
    opset: int = 17,
    output: str = "y",
    domains: Sequence[str] = (),
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, 1, list(shape)) for name, shape in inputs],
        [helper.make_tensor_value_info(output, 1, ["n", "k"])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _saved(model: Any, folder: Path) -> str:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)
PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"], "/head/MatMul")


def test_batch_arithmetic_leaves_only_the_batch_in_the_graph(tmp_path: Path) -> None:
    """Shape -> Gather -> Mul -> Concat -> Reshape, as exporters write a reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Gather", ["s", "one"], ["c"]),
        helper.make_node("Mul", ["c", "two"], ["k"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Unsqueeze", ["k", "axes"], ["k1"]),
        helper.make_node("Concat", ["n1", "k1"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    numbers = [(n, np.array(v, dtype=np.int64)) for n, v in (("zero", 0), ("one", 1), ("two", 2))]
    numbers.append(("axes", np.array([0], dtype=np.int64)))
    path = _saved(_model(nodes, [("x", ("n", 3, 2))], numbers), tmp_path)
    network = load_network(ModelSource(path)).network
    x = torch.randn(5, 3, 2)
    assert torch.equal(network(x), x.reshape(5, 6))
    names = {str(node.target) for node in network.graph.graph.nodes if node.op == "call_function"}
    assert names <= {"aten.sym_size.int", "aten.reshape.default"}


@pytest.mark.parametrize(
    ("before", "now", "target", "ahead", "place"),
    [
        ((1, 8, 4), (3, 8, 4), (1, 32), 1, 0),  # flatten
        ((1, 8, 4), (3, 8, 4), (8, 4), 1, 0),  # rows: N·8 of them
        ((1, 2, 5, 4), (3, 2, 5, 4), (2, 5, 4), 1, 0),  # heads behind the batch
        ((2, 5, 4), (6, 5, 4), (1, 2, 5, 4), 1, 0),  # and apart again
        ((5, 1, 8), (5, 3, 8), (5, 8), 1, 0),  # tokens in front of it
        ((5, 1, 8), (5, 3, 8), (5, 2, 4), 1, 1),  # torch's attention over [T, N, C]
        ((5, 8), (15, 8), (5, 1, 8), 5, 1),  # tokens and batch apart again
        ((2, 6), (4, 6), (2, 3, 2), 1, 0),  # a file of two samples
    ],
)
def test_the_batch_is_found_in_reshape_targets(
    before: Any, now: Any, target: Any, ahead: int, place: int
) -> None:
    batch = 2 if before == (2, 6) else 1
    assert place_of_batch(before, now, target, batch, ahead) == place


def test_samples_that_mix_are_refused(tmp_path: Path) -> None:
    """A mean over the batch of one is harmless in the file, and wrong for more."""
    node = helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1)
    nodes = [node, helper.make_node("Sub", ["x", "m"], ["y"])]
    path = _saved(_model(nodes, [("x", (1, 4))]), tmp_path)
    with pytest.raises(InputError, match="samples mix"):
        load_onnx(path)


def test_names_stay_apart_and_legal() -> None:
    names = TensorNames()
    wanted = ["a.weight", "a.weight", "a:weight", "a", "forward.weight", "r.weight_ih_l0", "é.__w"]
    found = [names.fresh(name) for name in [*wanted, "r.weight_ih_l0", "a.weight.x", "/b//c:0"]]
    assert len(set(found)) == len(found)
    assert found[:2] == ["a.weight", "a_1.weight"]
    assert "r.weight_ih_l1" in found
    root = nn.Module()
    for name in found:  # no name is the beginning of another
        module = root
        *path, leaf = name.split(".")
        for part in path:
            module.add_module(part, module._modules.get(part) or nn.Module())
            module = module.get_submodule(part)
        module.register_buffer(leaf, torch.zeros(1))
    assert layer_of_node("/layer1/layer1.0/conv1/Conv", {}) == "layer1.0.conv1"
    scopes = {"pkg.torch.onnx.name_scopes": "['', 'encoder', 'encoder.fc', 'linear']"}
    assert layer_of_node("node_linear", scopes) == "encoder.fc"


def _unknown_operators() -> Any:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], "first"),
        helper.make_node("NonZero", ["a"], ["b"], "second"),
        helper.make_node("QAttention", ["b"], ["y"], "third", domain="com.microsoft"),
    ]
    return _model(nodes, domains=["com.microsoft"])


def _quantized() -> Any:
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"])
    return _model([node], constants=[("s", np.float32(0.1))])


def _branch(operator: str, output: str) -> Any:
    value = helper.make_tensor_value_info(output, 1, None)
    return helper.make_graph([helper.make_node(operator, ["x"], [output])], "b", [], [value])


def _if_on_data() -> Any:
    """An If whose condition is the sign of a sum."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node(
            "If", ["c"], ["y"], "choice",
            then_branch=_branch("Relu", "a"), else_branch=_branch("Neg", "b"),
        ),
    ]  # fmt: skip
    return _model(nodes, constants=[("zero", np.float32(0))])


def _if_on_batch() -> Any:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Equal", ["n", "three"], ["c"]),
        helper.make_node(
            "If", ["c"], ["y"], "choice",
            then_branch=_branch("Relu", "a"), else_branch=_branch("Neg", "b"),
        ),
    ]  # fmt: skip
    return _model(nodes, constants=[("zero", np.array(0)), ("three", np.array(3))])


def _loop() -> Any:
    state = [helper.make_tensor_value_info(name, 1, None) for name in ("v", "w")]
    body = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["w"]), helper.make_node("Identity", ["c"], ["d"])], "b",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, []),
         state[0]],
        [helper.make_tensor_value_info("d", 9, []), state[1]],
    )  # fmt: skip
    node = helper.make_node("Loop", ["one", "", "x"], ["y"], "again", body=body)
    return _model([node], constants=[("one", np.array(1))])


def _split_batch() -> Any:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], "/halves/Split", axis=0, num_outputs=2),
        helper.make_node("Concat", ["b", "a"], ["y"], axis=0),
    ]
    return _model(nodes, opset=18)


def _cycle() -> Any:
    nodes = [helper.make_node("Add", ["x", "y"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    return _model(nodes)


def _huge_constant() -> Any:
    node = helper.make_node("ConstantOfShape", ["s"], ["c"])
    nodes = [node, helper.make_node("Add", ["x", "c"], ["y"])]
    return _model(nodes, constants=[("s", np.array([2**40, 2**20]))])


def _huge_expansion() -> Any:
    node = helper.make_node("Expand", ["x", "s"], ["y"])
    return _model([node], constants=[("s", np.array([2**33, 1, 1]))])


def _wrong_bytes() -> Any:
    model = _model([PRODUCT], constants=[("w", WEIGHT)])
    model.graph.initializer[0].dims[0] = 2**40
    return model


def _external(location: str) -> Any:
    model = _model([PRODUCT], constants=[("w", WEIGHT)])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_unknown_operators(), r"Det \(node 'first'.*NonZero.*com.microsoft.QAttention"),
        (_quantized(), "quantized already"),
        (_loop(), r"'again' \(Loop\) is control flow"),
        (_if_on_data(), r"'choice' \(If\) is control flow: its condition 'c' depends on the data"),
        (_if_on_batch(), "'choice'.*follows from the number of samples"),
        (_split_batch(), r"'/halves/Split' \(Split\) makes a constant of the number of samples"),
        (_cycle(), "damaged ONNX file"),
        (_huge_constant(), r"ConstantOfShape\): a tensor .* would need .*--max-model"),
        (_huge_expansion(), r"Expand\): a tensor of shape .* would need"),
        (_wrong_bytes(), "damaged"),
        (_model([PRODUCT], [("x", ("n", 2**20, 2**20))], [("w", WEIGHT)]),
         r"input 'x' of the shape .* would need 8,192.0 GB"),
        (_model([PRODUCT], [("x", ("n", "t"))], [("w", WEIGHT)]), "--input-shape"),
        (_model([PRODUCT], [("x", ())], [("w", WEIGHT)]), "single number"),
        (_model([PRODUCT], [("x", ("n", 5))], [("w", WEIGHT)]), r"/head/MatMul"),
        (_model([PRODUCT], constants=[("w", WEIGHT)], opset=7), "got opset 7; expected 9 to"),
        (_model([PRODUCT], constants=[("w", WEIGHT)], opset=99), "got opset 99"),
        (_external("../outside.bin"), "outside of the model's folder; it was not read"),
        (_external("/etc/hostname"), "outside of the model's folder; it was not read"),
        (_external("link.bin"), "outside of the model's folder; it was not read"),
        (_external("missing.bin"), "which is missing"),
        (_external("short.bin"), "needs 48 bytes"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_are_one_clear_error(
    model: Any, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "short.bin").write_bytes(bytes(5))
    path = _saved(model, folder)
    with pytest.raises(InputError, match=message) as caught:
        load_network(ModelSource(path))
    assert path in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_external_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    network = load_network(ModelSource(_saved(_external("weights.bin"), tmp_path))).network
    assert [(layer.name, layer.kind) for layer in network.layers] == [("head", "linear")]
    assert torch.equal(network.weight(network.layers[0]), torch.from_numpy(WEIGHT.T.copy()))


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_weights_of_any_width_become_float32(kind: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=10 if kind == np.float16 else 11),
        helper.make_node("MatMul", ["h", "w"], ["y"], "head"),
    ]
    model = _model(nodes, constants=[("w", WEIGHT.astype(kind))])
    model.graph.output[0].type.tensor_type.elem_type = 10 if kind == np.float16 else 11
    network = load_network(ModelSource(_saved(model, tmp_path))).network
    x = torch.randn(3, 4)
    torch.testing.assert_close(network(x), x @ torch.from_numpy(WEIGHT))


def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Every byte of a small file flipped in turn: an error of one line, or a network."""
    content = _model([PRODUCT], constants=[("w", WEIGHT)]).SerializeToString()
    path = tmp_path / "model.onnx"
    messages = []
    for position in range(0, len(content), 2):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :]
        )
        try:
            load_onnx(str(path))
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > len(content) // 8
    assert all(message.count("\n") <= 1 for message in messages)


def test_an_onnx_file_goes_through_the_whole_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convert, profile, solve, apply, evaluate from the command line."""
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((4, 1, 3, 3)).astype(np.float32)
    head = generator.standard_normal((3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "head.weight"], ["y"], transB=1),
    ]
    model = _model(
        nodes, [("image", ("n", 1, 6, 6))], [("conv.weight", kernel), ("head.weight", head)]
    )
    _saved(model, tmp_path)
    x = generator.standard_normal((48, 1, 6, 6)).astype(np.float32)
    network = load_network(ModelSource(str(tmp_path / "model.onnx"))).network
    np.savez(tmp_path / "data.npz", x0=x, y=network(torch.from_numpy(x)).argmax(1).numpy())
    monkeypatch.chdir(tmp_path)
    for command in (
        "convert model.onnx --data data.npz -o model.pt",
        "profile model.onnx --data data.npz --metric weight-mse",
        "solve --size w8",
        "apply model.pt -o quantized.pt",
        "evaluate model.onnx --assignment assignment.json --data data.npz --calibration data.npz",
    ):
        assert run(command.split()) == 0, command
    table = (tmp_path / "profile.csv").read_text()
    assert {line.split(",")[0] for line in table.splitlines()[1:]} == {"conv", "head"}


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(_model([PRODUCT], constants=[("w", WEIGHT)]), tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[onnx\]'"):
        load_network(ModelSource(path))
