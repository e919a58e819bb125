"""LiteRT files as people have them: codes for weights, names, signatures, and what is refused."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from litert_files import Graph, interpreter, run

from mpsearch.cli import run as mpsearch_run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.litert.flatbuffer import Scales
from mpsearch.exporters.litert.model import build
from mpsearch.graph.network import Network
from mpsearch.importers.kinds import LITERT, detect
from mpsearch.importers.litert.loading import load_litert
from mpsearch.importers.litert.sparsity import Level, Sparsity, dense
from mpsearch.importers.loading import ModelSource, load_network, notes_of
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

Array = np.ndarray[Any, Any]


def written(path: Path, graph: Graph, outputs: Any) -> str:
    path.write_bytes(graph.content(outputs))
    return str(path)


def outputs_of(path: str, *inputs: Array) -> list[Array]:
    module, _ = load_litert(path)
    with torch.no_grad():
        found = module(*map(torch.from_numpy, inputs))
    return [y.numpy() for y in (found.values() if isinstance(found, dict) else [found])]


def codes_of(weight: Array, kind: str, axis: int) -> tuple[Array, Scales, Array]:
    """(codes, their scales, what they stand for): the largest entry of a channel is the largest
    code."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    top = {"INT8": 127, "INT4": 7, "INT2": 1, "UINT8": 127}[kind]
    steps = np.abs(weight).max(axis=others) / top if kind != "UINT8" else np.abs(weight).max() / top
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)] if kind != "UINT8" else []
    steps = np.asarray(steps, dtype=np.float32)
    codes = np.round(weight / steps.reshape(shape)).astype(np.int64)
    zero = 128 if kind == "UINT8" else 0
    scales = Scales(tuple(map(float, steps.reshape(-1))), zero, axis)
    return codes + zero, scales, (codes * steps.reshape(shape)).astype(np.float32)


@pytest.mark.parametrize("kind", ["INT8", "INT4", "INT2", "UINT8", "FLOAT16"])
def test_weights_of_any_width_are_the_numbers_that_they_stand_for(
    kind: str, tmp_path: Path
) -> None:
    """Against LiteRT on a float file of the dequantized weights."""
    rng = np.random.default_rng(0)
    kernel, matrix = rng.normal(size=(4, 3, 3, 2)), rng.normal(size=(5, 4))
    files = []
    for narrow in (True, False):
        graph = Graph()
        x = graph.input("x", 6, 6, 2)
        weights = []
        for weight in (kernel, matrix):
            if kind == "FLOAT16":
                half = weight.astype(np.float16)
                number = graph.const(half if narrow else half.astype(np.float32),
                                     "FLOAT16" if narrow else "")  # fmt: skip
                if narrow:
                    number = graph.op("DEQUANTIZE", [number])
                    graph.file.tensors[number].shape = np.array(weight.shape, np.int32)
            else:
                codes, scales, real = codes_of(weight, kind, 0)
                number = graph.const(codes, kind, scales=scales) if narrow else graph.const(real)
            weights.append(number)
        values: dict[str, Any] = {"strideH": 1, "strideW": 1, "padding": 1}
        y = graph.op("CONV_2D", [x, weights[0], graph.random(4)], "Conv2DOptions",
                     shape=(1, 4, 4, 4), **values)  # fmt: skip
        axes = graph.const(np.array([1, 2], np.int32))
        y = graph.op("MEAN", [y, axes], "ReducerOptions", shape=(1, 4))
        y = graph.op("FULLY_CONNECTED", [y, weights[1]], "FullyConnectedOptions", shape=(1, 5))
        files.append(graph.file.content(graph.inputs, {"y": y}))
    path = tmp_path / "net.tflite"
    path.write_bytes(files[0])
    sample = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    (found,) = outputs_of(str(path), sample)
    np.testing.assert_allclose(found, run(files[1], [sample])[0], rtol=1e-5, atol=1e-5)
    notes = notes_of(load_litert(str(path))[0])
    assert any(kind.lower() in note for note in notes)


def integer_net() -> tuple[Graph, int, Array, Array]:
    """int8 through and through; the range of the convolution's output hides a ReLU."""
    graph = Graph()
    rng = np.random.default_rng(3)
    x = graph.input("x", 6, 6, 2, kind="INT8", scales=Scales((0.05,), 3))
    codes, scales, kernel = codes_of(rng.normal(size=(4, 3, 3, 2)), "INT8", 0)
    steps = tuple(s * 0.05 for s in scales.scales)
    bias = rng.integers(-400, 400, 4)
    weight = graph.const(codes, "INT8", "net/c/Conv2D", scales)
    shift = graph.const(bias, "INT32", scales=Scales(steps))
    y = graph.op(
        "CONV_2D", [x, weight, shift], "Conv2DOptions", kind="INT8", version=3,
        scales=Scales((0.04,), -128), strideH=1, strideW=1, padding=1,
    )  # fmt: skip
    return graph, y, kernel, bias * np.array(steps)


def test_a_file_of_integers_is_the_float_network_that_it_stands_for(tmp_path: Path) -> None:
    graph, y, kernel, bias = integer_net()
    path = written(tmp_path / "net.tflite", graph, y)
    codes = np.random.default_rng(4).integers(-128, 128, (1, 6, 6, 2)).astype(np.int8)
    real = (codes.astype(np.float32) - 3) * np.float32(0.05)
    (found,) = outputs_of(path, real)
    theirs = (run(Path(path).read_bytes(), [codes])[0].astype(np.float32) + 128) * 0.04
    inside = theirs < 0.04 * 254  # the range ends there, the float network goes on
    assert np.abs(found - theirs)[inside].max() <= 0.04 * 0.51
    assert found.min() == 0
    first = torch.nn.functional.conv2d(
        torch.from_numpy(real).permute(0, 3, 1, 2),
        torch.from_numpy(kernel).permute(0, 3, 1, 2),
        torch.from_numpy(bias).float(),
    )
    np.testing.assert_allclose(found, first.relu().permute(0, 2, 3, 1).numpy(), atol=1e-5)
    notes = " ".join(notes_of(load_litert(path)[0]))
    assert "a file of integers, read as the float network" in notes
    assert "x = 0.05·(q - 3)" in notes


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.down = torch.nn.Conv2d(4, 4, 3, stride=2, groups=4)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(self.conv(x).relu()).relu()
        found: torch.Tensor = self.head(y.mean((2, 3)))
        return found


def test_our_own_export_comes_back(tmp_path: Path) -> None:
    """Names, and weights of 4 and 2 bits, to the last bit."""
    torch.manual_seed(0)
    network = Network.from_module(Small().eval(), (torch.randn(1, 2, 8, 8),))
    data = Data("own", (torch.randn(16, 2, 8, 8),), None)
    choices = {"conv": Choice(4, 8), "down": Choice(8, 8), "head": Choice(2, 8)}
    quantized = quantize(network, choices, calibrate(network, data))
    model = build(quantized, data)
    path = tmp_path / "net.tflite"
    path.write_bytes(model.content)
    back = load_network(ModelSource(str(path))).network
    assert [layer.name for layer in back.layers] == ["conv", "down", "head"]
    assert [layer.macs for layer in back.layers] == [layer.macs for layer in network.layers]
    for layer in back.layers:
        stored = model.network.layers[layer.name].weight
        assert stored is not None
        assert torch.equal(back.weight(layer).flatten(1), stored.dequantize())
    x = torch.randn(5, 2, 8, 8)
    with torch.no_grad():
        ours, theirs = back.graph(x), quantized.graph(x)
    assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


def classifier() -> tuple[Graph, dict[str, int]]:
    """conv, conv, flatten, dense: with the names that TensorFlow gives to fused tensors."""
    graph = Graph()
    x = graph.input("image", 6, 8, 3)
    name = "net/relu/Relu;net/bn/FusedBatchNormV3;net/first/Conv2D"
    weight = graph.const(graph.rng.normal(size=(4, 3, 3, 3)).astype(np.float32), name=name)
    values: dict[str, Any] = {"strideH": 2, "strideW": 2, "fusedActivationFunction": 1}
    y = graph.op("CONV_2D", [x, weight, graph.random(4)], "Conv2DOptions", **values)
    y = graph.conv(y, 4, 4)
    y = graph.op("RESHAPE", [y, graph.const(np.array([1, 48], np.int32))], "ReshapeOptions")
    y = graph.op(
        "FULLY_CONNECTED", [y, graph.random(5, 48, name="net/dense/MatMul"), graph.random(5)],
        "FullyConnectedOptions",
    )  # fmt: skip
    scores = graph.op("SOFTMAX", [y], "SoftmaxOptions", beta=1.0)
    return graph, {"logits": y, "scores": scores}


def test_layers_have_the_files_names_and_one_transpose_stands_at_the_border(
    tmp_path: Path,
) -> None:
    graph, outputs = classifier()
    path = written(tmp_path / "net.tflite", graph, outputs)
    assert detect(path) == LITERT
    network = load_network(ModelSource(path)).network
    found = [(layer.name, layer.kind, layer.macs) for layer in network.layers]
    assert found[0] == ("first", "conv2d", 3 * 4 * 27 * 4)
    assert [name for name, *_ in found[2:]] == ["dense"]
    assert [output.name for output in network.outputs] == ["logits", "scores"]
    assert network.input_names == ("image",)
    assert network.input_shapes == ((6, 8, 3),)
    turns = [n for n in network.graph.graph.nodes if "permute" in str(n.target)]
    assert len(turns) == 1  # the flattened image is not turned back: the dense layer's columns are


def test_a_converted_file_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    graph, outputs = classifier()
    path = written(tmp_path / "net.tflite", graph, outputs["logits"])
    assert mpsearch_run(["convert", "net.tflite", "-o", "net.pt"]) == 0
    sample = np.random.default_rng(0).normal(size=(3, 6, 8, 3)).astype(np.float32)
    network = load_network(ModelSource("net.pt")).network
    with torch.no_grad():
        found = network.graph(torch.from_numpy(sample)).numpy()
    for row in range(3):
        wanted = run(Path(path).read_bytes(), [sample[row : row + 1]])[0]
        np.testing.assert_allclose(found[row : row + 1], wanted, rtol=1e-4, atol=1e-4)
    capsys.readouterr()


def changed(change: Callable[[Graph], None]) -> Callable[[], bytes]:
    """A small network after a change that no writer would make."""

    def make() -> bytes:
        graph = Graph()
        y = graph.conv(graph.input("x", 4, 4, 2), 2, 3)
        graph.content(y)  # finds the shapes
        change(graph)
        return graph.file.content(graph.inputs, {"y": y})

    return make


def one(name: str, **more: Any) -> Callable[[], bytes]:
    """A file of one operator, which no interpreter looks at."""

    def make() -> bytes:
        graph = Graph()
        x = graph.input("x", 4, 4, 2)
        y = graph.op(name, [x], shape=(1, 4, 4, 2), called="net/odd", **more)
        return graph.file.content(graph.inputs, {"y": y})

    return make


def custom() -> bytes:
    graph = Graph()
    y = graph.op("CUSTOM", [graph.input("x", 4)], shape=(1, 4), called="net/odd")
    content = graph.file.content(graph.inputs, {"y": y})
    schema = graph.file.schema
    model = schema.ModelT.InitFromPackedBuf(bytearray(content))
    model.operatorCodes[0].customCode = "TFLite_Detection_PostProcess"
    builder = import_module("flatbuffers").Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def set_tensor(number: int, **fields: Any) -> Callable[[], bytes]:
    def change(graph: Graph) -> None:
        for name, value in fields.items():
            setattr(graph.file.tensors[number], name, value)

    return changed(change)


def set_operator(**fields: Any) -> Callable[[], bytes]:
    def change(graph: Graph) -> None:
        for name, value in fields.items():
            setattr(graph.file.operators[0], name, np.array(value, np.int32))

    return changed(change)


def scaled(graph: Graph) -> None:
    quantization = graph.file.schema.QuantizationParametersT()
    quantization.scale = np.ones(2, np.float32)
    quantization.zeroPoint = np.zeros(2, np.int64)
    tensor = graph.file.tensors[1]
    tensor.type, tensor.quantization = graph.file.schema.TensorType.INT8, quantization
    graph.file.buffers[tensor.buffer].data = np.zeros(3 * 3 * 3 * 2, np.uint8)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "loop": (one("WHILE"), "cannot be read: WHILE ('net/odd')"),
    "state": (one("READ_VARIABLE"), "READ_VARIABLE of a variable without a handle"),
    "custom": (custom, "CUSTOM TFLite_Detection_PostProcess"),
    "unknown": (one("UNIQUE"), "docs/litert-import.md lists what can be read"),
    "activation": (
        one("MAX_POOL_2D", options="Pool2DOptions", filterHeight=1, filterWidth=1, strideH=1,
            strideW=1, fusedActivationFunction=5), "fused activation 5",
    ),
    "padding": (
        one("MAX_POOL_2D", options="Pool2DOptions", filterHeight=1, filterWidth=1, strideH=1,
            strideW=1, padding=7), "got the padding 7",
    ),
    "huge": (set_tensor(1, shape=np.array([2**30, 3, 3, 2], np.int32)), "of memory"),
    "shape": (set_tensor(1, shape=np.array([4, 3, 3, 2], np.int32)), "216 bytes; expected 288"),
    "negative": (set_tensor(1, shape=np.array([3, 3, -3, 2], np.int32)), "has the shape"),
    "output": (set_tensor(3, shape=np.array([1, 9, 9, 3], np.int32)), "and its operator gives"),
    "buffer": (set_tensor(1, buffer=77), "reads buffer 77"),
    "type": (set_tensor(1, type=5), "has the type STRING"),
    "reads": (set_operator(inputs=[0, 1, 55]), "reads tensor 55"),
    "cycle": (set_operator(inputs=[3, 1, 2]), "which nothing has written before"),
    "writes": (set_operator(outputs=[0]), "writes tensor 0"),
    "scales": (changed(scaled), "has 2 scales for axis 0"),
    "open": (
        set_tensor(0, shapeSignature=np.array([-1, -1, 4, 2], np.int32)),
        "leaves its sizes open (?x4x2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_said_in_one_or_two_lines(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    path = tmp_path / "net.tflite"
    path.write_bytes(make())
    with pytest.raises(InputError) as caught:
        load_network(ModelSource(str(path)))
    assert words in " ".join(caught.value.lines)
    assert str(path) in caught.value.lines[0]
    assert len(caught.value.lines) <= 2


def test_state_between_calls_is_an_input_and_an_output(tmp_path: Path) -> None:
    """Two handles of one variable; it is read, assigned, read again and assigned once more."""
    graph = Graph()
    x = graph.input("x", 3)
    handles = [
        graph.op("VAR_HANDLE", [], "VarHandleOptions", "RESOURCE", shape=(), sharedName=name)
        for name in (b"net/state", b"net/state", b"fixed")
    ]
    read: dict[str, Any] = {"options": "ReadVariableOptions", "shape": (1, 3)}
    add: dict[str, Any] = {"options": "AddOptions", "shape": (1, 3)}
    kept = graph.op("READ_VARIABLE", [handles[2]], **read)
    total = graph.op("ADD", [graph.op("READ_VARIABLE", [handles[0]], **read), x], **add)
    graph.op("ASSIGN_VARIABLE", [handles[1], total], "AssignVariableOptions", outputs=0)
    again = graph.op("ADD", [graph.op("READ_VARIABLE", [handles[0]], **read), kept], **add)
    graph.op("ASSIGN_VARIABLE", [handles[0], again], "AssignVariableOptions", outputs=0)
    weight = graph.random(2, 3, name="net/dense/MatMul")
    y = graph.op("FULLY_CONNECTED", [again, weight], "FullyConnectedOptions", shape=(1, 2))
    path = tmp_path / "net.tflite"
    path.write_bytes(graph.file.content(graph.inputs, {"y": y}))
    loaded = load_network(ModelSource(str(path)))
    assert loaded.network.input_names == ("x", "fixed", "net_state")
    assert [output.name for output in loaded.network.outputs] == ["y", "net/state_next"]
    assert "now 2 inputs (fixed, net/state)" in loaded.notes[0]
    rows = [torch.from_numpy(array) for array in np.random.default_rng(0).normal(size=(3, 5, 3))]
    after = sum(rows).float()  # type: ignore[union-attr]
    stored = graph.file.buffers[graph.file.tensors[weight].buffer].data
    matrix = torch.from_numpy(np.array(stored)).view(torch.float32).reshape(2, 3)
    with torch.no_grad():
        found = loaded.network(*(row.float() for row in rows))
    torch.testing.assert_close(found, torch.cat([after @ matrix.T, after], 1))


def test_a_truncated_file_is_said_to_be(tmp_path: Path) -> None:
    graph, outputs = classifier()
    content = graph.content(outputs)
    path = tmp_path / "net.tflite"
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match="damaged"):
            load_litert(str(path))


def test_samples_that_mix_are_refused(tmp_path: Path) -> None:
    """A sum over the samples has no meaning for another number of them."""
    graph = Graph()
    x = graph.input("x", 4)
    total = graph.op("SUM", [x, graph.const(np.array([0], np.int32))], "ReducerOptions",
                     keepDims=True)  # fmt: skip
    path = written(tmp_path / "net.tflite", graph, graph.op("ADD", [x, total], "AddOptions"))
    with pytest.raises(InputError, match="its samples mix"):
        load_litert(path)


def test_open_sizes_are_said(tmp_path: Path) -> None:
    """A file for images of any size is read for the one that is wanted, as LiteRT resizes it."""
    graph, rng = Graph(), np.random.default_rng(0)
    x = graph.input("x", 4, 4, 2)
    y = graph.op("MAX_POOL_2D", [graph.conv(x, 2, 3)], "Pool2DOptions", filterWidth=2,
                 filterHeight=2, strideW=2, strideH=2)  # fmt: skip
    graph.content(y)
    for tensor in (graph.file.tensors[n] for n in (x, *graph.unknown)):
        tensor.shapeSignature = np.array([-1, -1, -1, tensor.shape[3]], np.int32)
    (tmp_path / "net.tflite").write_bytes(graph.file.content(graph.inputs, {"y": y}))
    module, examples = load_litert(str(tmp_path / "net.tflite"), [(8, 6, 2)])
    assert [tuple(one.shape) for one in examples] == [(1, 8, 6, 2)]
    wide = rng.normal(size=(2, 8, 6, 2)).astype(np.float32)
    runner = interpreter(graph.file.content(graph.inputs, {"y": y}))
    runner.resize_tensor_input(0, wide.shape)
    runner.allocate_tensors()
    runner.set_tensor(0, wide)
    runner.invoke()
    with torch.no_grad():
        found = module(torch.from_numpy(wide)).numpy()
    np.testing.assert_allclose(found, runner.get_tensor(y), rtol=1e-5, atol=1e-5)
    for wrong in ((8, 6, 3), (8, 6), (8, 0, 2)):
        with pytest.raises(InputError, match=r"leaves its sizes open .*--input-shape 16x16x2"):
            load_litert(str(tmp_path / "net.tflite"), [wrong])


@pytest.mark.data
@pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA names the real data")
def test_keyword_spotting_has_its_accuracy() -> None:
    """MLPerf Tiny's DS-CNN: 901 of 1,000 clips, as its PyTorch twin has."""
    folder = Path(os.environ["MPSEARCH_DATA"]) / "kws"
    network = load_network(ModelSource(str(folder / "kws_ref_model_float32.tflite"))).network
    clips = np.load(folder / "kws01_open_mfcc.npz")
    x = (clips["mfcc"].astype(np.float32) - 83) * np.float32(0.58470291)
    with torch.no_grad():
        found = network.graph(torch.from_numpy(x[..., None])).argmax(1).numpy()
    assert (found == clips["labels"]).sum() == 901
    assert [layer.name for layer in network.layers][-1] == "dense"
    assert len(network.layers) == 10


ROWS, NUMBERS = Level(2), np.array([1.0, 2.0, 3.0], dtype=np.float32)


def columns(segments: list[int], indices: list[int]) -> Level:
    return Level(4, np.array(segments), np.array(indices))


@pytest.mark.parametrize(
    ("order", "blocks", "levels"),
    [
        ((0, 0), (), (ROWS, columns([0, 1, 3], [0, 1, 3]))),
        ((0,), (), (ROWS,)),
        ((0, 1, 2), (7,), (ROWS, columns([0, 1, 3], [0, 1, 3]), Level(1))),
        ((0, 1), (), (ROWS, columns([0, 1, 3], [0, 1, 4]))),
        ((0, 1), (), (ROWS, columns([0, 1, 3], [0, -1, 3]))),
        ((0, 1), (), (ROWS, columns([0, 3], [0, 1, 3]))),
        ((0, 1), (), (ROWS, columns([0, 4, 3], [0, 1, 3]))),
        ((0, 1), (), (ROWS, columns([1, 1, 3], [0, 1, 3]))),
        ((0, 1), (), (ROWS, columns([0, 1, 2], [0, 1]))),
        ((0, 1), (), (Level(2**31 - 1), columns([0, 1, 3], [0, 1, 3]))),
        ((0, 1), (), (Level(-2), columns([0, 1, 3], [0, 1, 3]))),
        ((0, 1, 2), (0,), (ROWS, columns([0, 1, 3], [0, 1, 3]), columns([0, 3], [0, 1, 2]))),
    ],
)
def test_places_of_sparse_numbers_that_do_not_fit_are_refused(
    order: tuple[int, ...], blocks: tuple[int, ...], levels: tuple[Level, ...]
) -> None:
    """The same tensor without the fault is read."""
    whole = Sparsity((0, 1), (), (ROWS, columns([0, 1, 3], [0, 1, 3])))
    assert dense(NUMBERS, whole, (2, 4), "w").tolist() == [[1, 0, 0, 0], [0, 2, 0, 3]]
    with pytest.raises(InputError, match="the sparse w does not say where its numbers lie"):
        dense(NUMBERS, Sparsity(order, blocks, levels), (2, 4), "w")
