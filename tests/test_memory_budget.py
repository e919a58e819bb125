"""A file cannot make its reader allocate more than its budget.

The sizes asked for are far beyond any machine's: were something allocated before it was counted,
torch's or numpy's own error would come first.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import edit_header
from torch import nn

from mpsearch.cli import run
from mpsearch.data import bind
from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.memory_budget import SPARE, TIMES, of_load
from mpsearch.graph.memory_watch import _needed
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import load, save
from mpsearch.importers.loading import ModelSource, load_network, read_tensors
from mpsearch.importers.onnx.loading import load_onnx
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

MEGABYTE, HUGE = 1 << 20, 1 << 25  # HUGE × HUGE floats are 4 million GB


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An mpsearch file of one linear layer."""
    path = tmp_path_factory.mktemp("plain") / "model.pt"
    save(nn.Linear(4, 3), path, (torch.zeros(1, 4),))
    return path.read_bytes()


def _call(name: str, target: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    node = {"name": name, "op": "call_function", "target": target, "args": list(args)}
    return {**node, "kwargs": kwargs}


def _node(name: str) -> dict[str, str]:
    return {"node": name}


def _with(plain: bytes, path: Path, *nodes: dict[str, Any]) -> Path:
    """The file with nodes ahead of its layer."""

    def change(header: Any) -> None:
        graph = header["graph"]
        place = next(i for i, node in enumerate(graph) if node["op"] == "call_function")
        graph[place:place] = nodes

    path.write_bytes(plain)
    edit_header(path, change)
    return path


SIZE = _call("n", "aten.sym_size.int", _node("input_1"), 0)
FULL = _call("f", "aten.full.default", [HUGE, HUGE], 1.0)
ONE = _call("o", "aten.full.default", [1, 1], 1.0)
IMAGE = _call("i", "aten.full.default", [1, 1, 2, 2], 1.0)
INDEX = _call("z", "aten.zeros_like.default", _node("i"), dtype={"dtype": "int64"})
LONG = _call("e", "aten.expand.default", _node("o"), [HUGE, 1])
# Operators that allocate by a number in the file, or more than they are given: the nodes ahead of
# the call, its operator and its arguments.
GROWING: dict[str, tuple[Sequence[dict[str, Any]], tuple[Any, ...]]] = {
    "one_hot": ([INDEX], (_node("z"), HUGE * HUGE)),
    "diag_embed": ([], (_node("i"), HUGE)),
    "affine_grid_generator": (
        [_call("t", "aten.full.default", [1, 2, 3], 1.0)],
        (_node("t"), [1, 1, HUGE, HUGE], False),
    ),
    "im2col": ([], (_node("i"), [1, 1], [1, 1], [HUGE, HUGE], [1, 1])),
    "max_unpool2d": ([INDEX], (_node("i"), _node("z"), [HUGE, HUGE])),
    "fft_rfft": ([], (_node("i"), HUGE * HUGE)),
    "fft_irfft": ([], (_node("i"), HUGE * HUGE)),
    "tile": ([], (_node("i"), [HUGE, HUGE])),
    "_upsample_bilinear2d_aa": ([], (_node("i"), [HUGE, HUGE], False)),
    "_upsample_nearest_exact2d": ([], (_node("i"), [HUGE, HUGE])),
    "adaptive_max_pool2d": ([], (_node("i"), [HUGE, HUGE])),
    "cdist": ([LONG], (_node("e"), _node("e"))),
    "outer": (
        [_call("e", "aten.expand.default", _node("o"), [1, HUGE]),
         _call("s", "aten.squeeze.dim", _node("e"), 0)], (_node("s"), _node("s")),
    ),
    "kron": ([LONG], (_node("e"), _node("e"))),
    "bilinear": (
        [_call("e", "aten.expand.default", _node("o"), [2, HUGE]),
         _call("u", "aten.unsqueeze.default", _node("o"), 0),
         _call("w", "aten.expand.default", _node("u"), [1, HUGE, HUGE])],
        (_node("e"), _node("e"), _node("w")),
    ),
    "unbind": ([LONG], (_node("e"),)),
    "unsafe_chunk": ([LONG], (_node("e"), HUGE)),
    "reflection_pad3d": (
        [_call("u", "aten.expand.default", _node("i"), [HUGE, HUGE, 2, 2])],
        (_node("u"), [1, 1, 1, 1, 1, 1]),
    ),
    "index_put": (
        [_call("e", "aten.expand.default", _node("o"), [HUGE, HUGE]), INDEX],
        (_node("e"), [_node("z")], _node("o")),
    ),
    "complex": (
        [_call("e", "aten.expand.default", _node("o"), [HUGE, HUGE])], (_node("e"), _node("e"))
    ),
}  # fmt: skip
HOSTILE: dict[str, tuple[Sequence[dict[str, Any]], str]] = {
    "constant": ([FULL], "aten.full.default would need 4,194,304.0 GB"),
    "copy of a view": (
        [ONE, _call("e", "aten.expand.default", _node("o"), [HUGE, HUGE]),
         _call("c", "aten.clone.default", _node("e"))], "aten.clone.default would need",
    ),
    "repeats in the data": (
        [_call("r", "aten.full.default", [4], 2**48),
         _call("w", "aten.repeat_interleave.Tensor", _node("r"))],
        "aten.repeat_interleave.Tensor would need",
    ),
    "pad": ([ONE, _call("p", "aten.pad.default", _node("o"), [0, HUGE, 0, HUGE])], "would need"),
    "text": ([_call("m", "operator.mul", "ab" * 99, HUGE)], "expected sizes and numbers"),
    "list": ([_call("m", "operator.mul", [1, 2], HUGE)], "expected sizes and numbers"),
    "results": (
        [_call("k", "aten.chunk.default", _node("input_1"), 2),
         _call("m", "operator.mul", _node("k"), HUGE)], "expected sizes and numbers",
    ),
    "squares": (
        [SIZE, _call("q0", "operator.add", _node("n"), 2)]
        + [_call(f"q{i}", "operator.mul", _node(f"q{i - 1}"), _node(f"q{i - 1}"))
           for i in range(1, 60)], "may take 1312 bits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_graphs_of_an_mpsearch_file(name: str, plain: bytes, tmp_path: Path) -> None:
    nodes, message = HOSTILE[name]
    path = _with(plain, tmp_path / "model.pt", *nodes)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("operator", GROWING)
def test_operators_that_allocate_by_a_number(operator: str, plain: bytes, tmp_path: Path) -> None:
    ahead, args = GROWING[operator]
    overload = {"unbind": "int"}.get(operator, "default")
    call = _call("q", f"aten.{operator}.{overload}", *args)
    path = _with(plain, tmp_path / "model.pt", ONE, IMAGE, *ahead, call)
    with pytest.raises(InputError, match=r"would need [\d,.]+ GB of memory beside"):
        load(path)


def test_what_is_alive_at_once_counts_and_what_is_freed_does_not(
    plain: bytes, tmp_path: Path
) -> None:
    shape = [256, 256]  # 256 KB each
    ones = [_call(f"f{i}", "aten.full.default", shape, 1.0) for i in range(9)]
    together = [*ones, _call("c", "aten.stack.default", [_node(f"f{i}") for i in range(9)])]
    chain = [ones[0], *(_call(f"r{i}", "aten.relu.default", _node(f"r{i - 1}" if i else "f0"))
                        for i in range(9))]  # fmt: skip
    path = _with(plain, tmp_path / "model.pt", *together)
    with pytest.raises(InputError, match=r"beside 1.0 MB in use; the limit .* is 1.1 MB"):
        load(path, MEGABYTE + MEGABYTE // 8)
    load(path, 8 * MEGABYTE)
    load(_with(plain, path, *chain), MEGABYTE + MEGABYTE // 8)


def test_the_default_is_four_times_the_file_and_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with of_load(path), of_load(path, 1):  # a load inside of a load has no budget of its own
        memory_budget.expect(4000 + SPARE, "all of it")
        with pytest.raises(InputError, match=r"one byte more would need"):
            memory_budget.expect(TIMES * 1000 + SPARE + 1, "one byte more")
        memory_budget.reserve(SPARE, "half")
        with pytest.raises(InputError, match=r"beside 1.0 GB in use"):
            memory_budget.expect(4001, "the rest")
    memory_budget.expect(HUGE * HUGE, "outside of a load nothing is counted")


def test_inputs_and_unrolled_sequences(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(plain)
    edit_header(path, lambda header: header["inputs"][0].update(shape=[HUGE, HUGE]))
    with pytest.raises(InputError, match=r"inputs .* would need 4,194,304.0 GB"):
        load(path)

    class Sequence_(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(2, 3, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            last: torch.Tensor = self.rnn(x)[0][:, -1]
            return last

    save(Sequence_(), path, (torch.zeros(1, 40, 2),))
    with pytest.raises(InputError, match=r"a graph of 40 recurrent steps would need"):
        load(path, MEGABYTE)


def test_shapes_of_a_quantized_file(plain: bytes, tmp_path: Path) -> None:
    network = Network.from_module(nn.Linear(4, 3), (torch.zeros(1, 4),))
    histograms = calibrate(network, bind(Arrays("test", {"x0": torch.randn(8, 4)}), network))
    choices = {layer.name: Choice(32, 8) for layer in network.layers}
    path = tmp_path / "quantized.pt"
    save_quantized(quantize(network, choices, histograms), path)
    edit_header(path, lambda h: h["layers"][0].update(weight="other", shape=[HUGE, HUGE]))
    with pytest.raises(InputError, match=r"aten.zeros.default would need"):
        load_quantized(path)


def test_a_compressed_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.randint(256, (MEGABYTE,))}, path)  # 7 of 8 bytes are zero
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with of_load(path, MEGABYTE), pytest.raises(InputError, match=r"its tensors would need 8.0 MB"):
        read_tensors(str(path))


def test_the_option_of_the_commands(
    plain: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(plain)
    words = [str(path), "--max-model-memory", "64B", "-o", str(tmp_path / "out")]
    for command in ("profile", "convert"):
        assert run([command, *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "the limit for this file is 64 B: give --max-model-memory SIZE" in said[0]


onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
make = onnx.helper


def _onnx(path: Path, nodes: Sequence[Any], functions: Sequence[Any] = (), **constants: Any) -> str:
    graph = make.make_graph(
        list(nodes), "g",
        [make.make_tensor_value_info("x", 1, ["n", 4])],
        [make.make_tensor_value_info("y", 1, ["n", "k"])],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )  # fmt: skip
    imports = [make.make_opsetid("", 17), make.make_opsetid("local", 1)]
    model = make.make_model(graph, opset_imports=imports, ir_version=8, functions=functions)
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.mark.parametrize(
    ("operator", "constants", "message"),
    [
        ("Pad", {"a": np.ones((1, 1), np.float32), "b": np.array([0, 0, HUGE, HUGE])},
         r"node 'd' \(Pad\): .*constant_pad_nd.* would need"),
        ("OneHot", {"a": np.arange(9), "b": np.array(2**50), "c": np.array([0, 1], np.float32)},
         r"OneHot\): a tensor of shape .* would need"),
        ("Tile", {"a": np.ones((1, 1), np.float32), "b": np.array([HUGE, HUGE])},
         r"Tile\): .*repeat.* would need"),
        ("Add", {"a": np.arange(1000)[:, None], "b": np.arange(1000)[None]},
         r"Add\): a tensor of shape \['1000', '1000'\] would need 7.6 MB"),
        ("MatMul", {"a": np.ones((800, 1), np.float32), "b": np.ones((1, 800), np.float32)},
         r"MatMul\): the operator aten.mm.default would need 2.4 MB"),
    ],
)  # fmt: skip
def test_constants_of_an_onnx_file(
    operator: str, constants: dict[str, Any], message: str, tmp_path: Path
) -> None:
    nodes = [
        make.make_node(operator, list(constants), ["d"]),
        make.make_node("ReduceSum", ["d"], ["e"], keepdims=0),
        make.make_node("Cast", ["e"], ["f"], to=1),
        make.make_node("Add", ["x", "f"], ["y"]),
    ]
    path = _onnx(tmp_path / "net.onnx", nodes, **constants)
    with of_load(path, 2 * MEGABYTE), pytest.raises(InputError, match=message):
        load_onnx(path)


def test_functions_of_an_onnx_file_that_call_each_other(tmp_path: Path) -> None:
    def function(name: str, callees: tuple[str, str]) -> Any:
        nodes = [
            make.make_node(callees[0], ["a"], ["b"], domain="local" * (callees[0] != "Relu")),
            make.make_node(callees[1], ["b"], ["c"], domain="local" * (callees[1] != "Relu")),
        ]
        imports = [make.make_opsetid("", 17), make.make_opsetid("local", 1)]
        return make.make_function("local", name, ["a"], ["c"], nodes, imports)  # fmt: skip

    doubled = [function("F0", ("Relu", "Relu"))]
    doubled += [function(f"F{i}", (f"F{i - 1}", f"F{i - 1}")) for i in range(1, 30)]
    path = tmp_path / "net.onnx"
    node = make.make_node("F29", ["x"], ["y"], domain="local")
    with pytest.raises(InputError, match=r"with its functions written out would need 4,.* GB"):
        load_network(ModelSource(_onnx(path, [node], doubled)))
    endless = [function("F0", ("F1", "Relu")), function("F1", ("F0", "Relu"))]
    node = make.make_node("F0", ["x"], ["y"], domain="local")
    with pytest.raises(InputError, match=r"call each other without end"):
        load_network(ModelSource(_onnx(path, [node], endless)))
    load_network(ModelSource(_onnx(path, [node], doubled[:1])))


def test_no_operator_makes_more_than_was_asked_for() -> None:
    """The oracle is what torch makes: the sizes that are counted without it are none too small."""
    x, row, image = torch.randn(4, 6), torch.randn(6), torch.randn(2, 4, 9, 7)
    aten = torch.ops.aten
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (aten.add.Tensor, (x, row.expand(5, 1, 6))),
        (aten.mul.Tensor, (torch.ones((), dtype=torch.int8), x.double())),
        (aten.div.Tensor, (torch.ones(3, 1, dtype=torch.int8), torch.ones(2, dtype=torch.uint8))),
        (aten.relu.default, (x.expand(3, 4, 6),)),
        (aten.sum.default, (torch.ones(7, dtype=torch.int8),)),
        (aten.sum.dim_IntList, (image, [-1, 1])),
        (aten.mean.dim, (image, [2, 3], True)),
        (aten.amax.default, (image, [])),
        (aten.mm.default, (x, torch.randn(6, 9))),
        (aten.addmm.default, (row, x, torch.randn(6, 6))),
        (aten.bmm.default, (image[0], torch.randn(4, 7, 8))),
        (aten.cat.default, ([x, x.double()], 1)),
        (aten.max_pool2d_with_indices.default, (image, [2], [1], [1], [1], True)),
        (aten.max_pool2d_with_indices.default, (image[0], [3, 2], [], [1, 0])),
        (aten.avg_pool2d.default, (image, [5, 3], [2, 2], [2, 1], True)),
        (aten.convolution.default, (image, torch.randn(6, 2, 3, 2), None, [2, 1], [1, 2], [1, 2],
                                    False, [0, 0], 2)),
        (aten.convolution.default, (image, torch.randn(4, 3, 3, 2), None, [2, 3], [1, 0], [2, 1],
                                    True, [1, 0], 2)),
        (aten.native_batch_norm.default, (image, None, None, None, None, True, 0.1, 1e-5)),
        (aten.full.default, ([50, 3], 1.0)),
        (aten.constant_pad_nd.default, (x, [100, 100])),
    ]  # fmt: skip
    for operator, arguments in calls:
        made = operator(*arguments)
        made = made if isinstance(made, tuple) else (made,)
        taken = sum(result.untyped_storage().nbytes() for result in made)
        assert _needed(operator, arguments, {}) >= taken, operator
        assert _needed(operator, arguments, {}) <= 8 * taken + 64, operator
