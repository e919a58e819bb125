"""Recipes for MAX78000, QONNX, Brevitas, esp-ppq and onnxruntime: the tools themselves take them.

Each runs as docs/recipes-edge.md says; of ai8x, which no package brings, the memory is laid out
anew.
"""

import json
import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documentation import ROOT, blocks
from recipe_bytes import kernel_words
from torch import nn

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.post_training.quantizing import apply
from mpsearch.post_training.repairing import PLAIN
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantized_file import save_quantized
from mpsearch.recipes import ai8x, brevitas, esp_ppq, onnxruntime, qonnx
from mpsearch.recipes.target import Recipe, bytes_column
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")

PAGE = (ROOT / "docs/recipes-edge.md").read_text()
ESP_PPQ = os.environ.get("MPSEARCH_ESP_PPQ", str(ROOT / "build/esp-ppq/bin/python"))
TARGETS = (
    ai8x.MAX78000, ai8x.MAX78002, brevitas.TARGET, esp_ppq.TARGET, onnxruntime.TARGET, qonnx.TARGET,
)  # fmt: skip
SHAPES = {"c1": (8, 3, 3, 3), "c2": (8, 8, 1, 1), "c3": (8, 8, 1, 1), "fc": (7, 72)}


def _snippet(heading: str, **names: Any) -> dict[str, Any]:
    """What the lines of the page's section define, run with these names."""
    (block,) = blocks(PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] + "\n")
    exec(block.text, names)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx: a layer whose result two others read, and a linear one."""
    made = tmp_path_factory.mktemp("recipes")
    draw = np.random.default_rng(0)
    constants = {f"{n}.weight": draw.normal(size=s).astype("f4") for n, s in SHAPES.items()}
    constants |= {f"{n}.bias": draw.normal(size=s[:1]).astype("f4") for n, s in SHAPES.items()}
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "c1.weight", "c1.bias"], ["a"], "/c1/Conv"),
        node("Relu", ["a"], ["b"], "/Relu"),
        node("Conv", ["b", "c2.weight", "c2.bias"], ["c"], "/c2/Conv"),
        node("Conv", ["b", "c3.weight", "c3.bias"], ["d"], "/c3/Conv"),
        node("Add", ["c", "d"], ["e"], "/Add"),
        node("Flatten", ["e"], ["f"], "/Flatten"),
        node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "/fc/Gemm", transB=1),
    ]
    ports = [("x", [1, 3, 5, 5]), ("y", [1, 7])]
    x, y = (onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in ports)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "net", [x], [y], tensors)
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9),
              made / "model.onnx")  # fmt: skip
    return made


@pytest.fixture(scope="module")
def samples() -> torch.Tensor:
    return torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def _recipe(names: Mapping[str, str], model: Path | None = None) -> Recipe:
    """The fixture's layers at choices."""
    layers = {}
    for name, choice in names.items():
        kind = "linear" if len(SHAPES[name]) == 2 else "conv2d"
        layers[name] = TableLayer(name, kind, shape=SHAPES[name]), Choice.parse(choice)
    return Recipe(layers, None if model is None else str(model))


def _bytes(target: Any, recipe: Recipe) -> int:
    assert all(not target.refused(layer, choice) for layer, choice in recipe.layers.values())
    costs = [target.costs(layer, choice) for layer, choice in recipe.layers.values()]
    return sum(cost[bytes_column(target.name)] for cost in costs)


@pytest.mark.parametrize("first", ["w4a8", "w16a16", "w32a32"])
def test_onnxruntime(
    first: str, folder: Path, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor of its file has the assigned type, and the constants are those predicted."""
    monkeypatch.chdir(folder)
    recipe = _recipe({"c1": first, "c2": "w8a8", "c3": "w4a16", "fc": "w16a8"},
                     folder / "model.onnx")  # fmt: skip
    (folder / "recipe.json").write_bytes(onnxruntime.TARGET.write(recipe))
    runtime = pytest.importorskip("onnxruntime", reason="the package is not installed")

    class Reader:
        def __init__(self) -> None:
            self.left = iter([{"x": row[None].numpy()} for row in samples])

        def get_next(self) -> Any:
            return next(self.left, None)

    _snippet("onnxruntime", reader=Reader())
    model = onnx.load("quantized.onnx")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    kind = onnx.TensorProto.DataType.Name
    stored = 0
    for tensor in constants.values():
        count = int(np.prod(tensor.dims))
        stored += (count + 1) // 2 if "INT4" in kind(tensor.data_type) else (
            count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )  # fmt: skip
    for name, (_, choice) in recipe.layers.items():
        (layer,) = (n for n in model.graph.node if n.name.startswith(f"/{name}/"))
        for place, bits, letter in ((0, choice.a_bits, "U"), (1, choice.w_bits, "")):
            if bits == 32:
                assert layer.input[place] in {"x", f"{name}.weight"}
                continue
            zero = constants[made[layer.input[place]].input[2]]
            assert kind(zero.data_type) == f"{letter}INT{bits}"
    assert stored == _bytes(onnxruntime.TARGET, recipe)
    got, float32 = (
        runtime.InferenceSession(file).run(None, {"x": samples[:1].numpy()})[0]
        for file in ("quantized.onnx", "model.onnx")
    )
    assert np.abs(got - float32).max() < 0.5 * np.abs(float32).max()  # 4 bits are coarse


def _quantized(
    folder: Path, samples: torch.Tensor, recipe: Recipe, settings: Any = PLAIN
) -> QuantizedNetwork:
    network = load_network(ModelSource(str(folder / "model.onnx"))).network
    choices = {name: choice for name, (_, choice) in recipe.layers.items()}
    return apply(network, choices, Data("drawn", (samples,), None), settings)


def test_qonnx(
    folder: Path,
    samples: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    coarsest_scales: None,
) -> None:
    """It computes the quantized network, and its own count of bits is the packed weights'."""
    pytest.importorskip("qonnx", reason="the package qonnx is not installed")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("onnx.IR_VERSION", onnx.IR_VERSION)
    names = {"c1": "w3a8", "c2": "w8a2", "c3": "w2a16", "fc": "w5a5"}
    network = _quantized(folder, samples, _recipe(names))
    save_quantized(network, "quantized.pt")
    recipe = _recipe(names, folder / "quantized.pt")
    (folder / "recipe.qonnx").write_bytes(qonnx.TARGET.write(recipe))
    got = _snippet("QONNX", x=samples[:4].numpy())
    with torch.no_grad():
        wanted = network(samples[:4]).numpy()
    (y,) = got["y"].values()
    # a sum in another order may move one activation to the next code: most are equal to the last
    near = np.abs(y - wanted) <= 1e-4 * np.abs(wanted).max()
    assert near.mean() >= 0.9

    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.util.inference_cost import inference_cost

    typed = got["model"].transform(InferDataTypes(allow_scaledint_dtypes=True))
    found = inference_cost(typed, preprocess=False, discount_sparsity=False)["total_cost"]
    bits = {
        f"SCALEDINT<{choice.w_bits}>": float(np.prod(layer.shape))
        for layer, choice in recipe.layers.values() if layer.name != "fc"
    }  # fmt: skip  # qonnx counts no memory of Gemm
    assert {name: found[f"mem_w_{name}"] for name in bits} == bits
    channels = sum(layer.shape[0] for layer, _ in recipe.layers.values())
    packed = sum(-(-int(np.prod(layer.shape)) * choice.w_bits // 8)
                 for layer, choice in recipe.layers.values())  # fmt: skip
    assert _bytes(qonnx.TARGET, recipe) == packed + 8 * channels
    with pytest.raises(InputError, match="is quantized otherwise than the assignment says"):
        qonnx.TARGET.write(_recipe({**names, "c1": "w4a8"}, folder / "quantized.pt"))


def test_brevitas(folder: Path, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It builds layers whose integers have the bits, and leaves the others as they are."""
    pytest.importorskip("brevitas", reason="the package brevitas is not installed")
    monkeypatch.chdir(folder)
    names = {"c1": "w3a8", "c2": "w2a32", "c3": "w32a32", "fc": "w5a4"}
    Path("recipe.json").write_bytes(brevitas.TARGET.write(_recipe(names)))
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({
        name: nn.Linear(shape[1], shape[0]) if len(shape) == 2
        else nn.Conv2d(shape[1], shape[0], shape[2])
        for name, shape in SHAPES.items()
    })  # fmt: skip
    before = model["c1"].weight.detach().clone()
    said = _snippet("Brevitas", model=model)
    assert set(said["layers"]) == {"c1", "c2", "fc"}
    assert type(model["c3"]) is nn.Conv2d
    assert torch.equal(model["c1"].weight, before)
    for name, choice in names.items():
        if name == "c3":
            continue
        layer: Any = model[name]
        codes = layer.quant_weight().int()
        assert codes.abs().max() == 2 ** (Choice.parse(choice).w_bits - 1) - 1
        assert layer.quant_weight().scale.numel() == SHAPES[name][0]
        read = Choice.parse(choice).a_bits
        assert layer.input_quant.is_quant_enabled == (read != 32)
        if read != 32:
            layer(torch.randn(2, *((72,) if name == "fc" else (3, 5, 5))))
            assert layer.input_quant.bit_width() == read


@pytest.mark.skipif(not Path(ESP_PPQ).exists(), reason="esp-ppq has no environment of its own")
def test_esp_ppq(folder: Path, tmp_path: Path) -> None:
    """It exports an .espdl file with these operations, and the tensors predicted."""
    recipe = _recipe({"c1": "w16a16", "c2": "w8a8", "c3": "w8a16", "fc": "w8a8"},
                     folder / "model.onnx")  # fmt: skip
    (tmp_path / "recipe.json").write_bytes(esp_ppq.TARGET.write(recipe))
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (block,) = blocks(PAGE.partition("\n## esp-ppq\n")[2].partition("\n## ")[0] + "\n")
    (tmp_path / "run.py").write_text(block.text + _ESP_PPQ_EXPORTS)
    done = subprocess.run(
        [ESP_PPQ, "run.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bits"] == {
        "/c1/Conv": [16, 16], "/Relu": [16], "/c2/Conv": [8, 8], "/c3/Conv": [16, 8],
        "/fc/Gemm": [8, 8],
    }  # fmt: skip
    assert found["bytes"] == _bytes(esp_ppq.TARGET, recipe)


_ESP_PPQ_EXPORTS = """
import torch
from esp_ppq.parser.espdl.FlatBuffers.Dl.Model import Model

setting.quantize_activation_setting.calib_algorithm = "minmax"
graph = espdl_quantize_onnx(
    "model.onnx", "out.espdl", [torch.randn(1, 3, 5, 5)] * 8, 8, [1, 3, 5, 5],
    target="esp32p4", setting=setting, error_report=False,
)
bits = {}
for name in dispatching:
    config = graph.operations[name].config.input_quantization_config
    bits[name] = [one.num_of_bits for one in config[:2]]
file = open("out.espdl", "rb").read()
written = Model.GetRootAs(file, 16).Graph()
size = 0
for place in range(written.InitializerLength()):
    tensor = written.Initializer(place)
    if tensor.Name().decode().rpartition(".")[2] in ("weight", "bias"):
        size += 16 * tensor.RawDataLength() + -(-8 * tensor.ExponentsLength() // 16) * 16
print()
print(json.dumps({"bits": bits, "bytes": size}))
"""


def test_ai8x_policy() -> None:
    """ai8x-training reads bits by the names of modules, of which the convolution is a part."""
    yaml = pytest.importorskip("yaml")
    names = {"c1.op": 4, 'a: "b"\n': 1, "3": 8}
    layers = {
        name: (TableLayer(name, "conv2d", shape=(8, 3, 3, 3)), Choice(bits, 8))
        for name, bits in names.items()
    }
    policy = yaml.safe_load(ai8x.MAX78000.write(Recipe(layers)))
    assert policy["weight_bits"] == 8
    assert policy["overrides"] == {
        name.removesuffix(".op"): {"weight_bits": bits} for name, bits in names.items()
    }


@pytest.mark.parametrize("target", [ai8x.MAX78000, ai8x.MAX78002], ids=lambda target: target.name)
def test_ai8x_memory(target: Any) -> None:
    """What is within the limit fits, on any processors; where all are shared no word is spared."""
    draw = random.Random(0)
    (column, limit), *_ = target.limits.items()
    for shared in (True, False) * 20:
        memory: list[list[tuple[int, int]]] = [[] for _ in range(64)]  # what is taken, from, to
        total = top = 0
        while True:
            channels = draw.choice((64, 128, 512) if shared else (1, 3, 16, 20, 60, 64, 100, 128))
            kernel = draw.choice([(1, 1), (3, 3), (6,)])
            shape = (draw.choice((4, 10, 48, 64, 100, 130, 500)), channels, *kernel)
            bits = draw.choice((1, 2, 4, 8))
            layer, choice = TableLayer("c", shape=shape), Choice(bits, 8)
            assert not target.refused(layer, choice)
            cost, pixels = target.costs(layer, choice), int(np.prod(kernel))
            processors, words = kernel_words(shape[0], channels, pixels, bits, False)
            assert cost[bytes_column(target.name)] == 9 * processors * cost[column]
            assert cost[column] - words in range(4)
            if total + cost[column] > limit:
                break
            total += cost[column]
            start = draw.randrange(0, 64 - processors + 1, 4)
            taken = sorted({one for row in memory[start : start + processors] for one in row})
            offset = 0
            for begin, end in taken:
                if begin < offset + words:
                    offset = max(offset, -(-end // 4) * 4)
            for row in memory[start : start + processors]:
                row.append((offset, offset + words))
            top = max(top, offset + words)
        assert top <= limit
        assert not shared or total - top < 4


# AI85SimpleNet's layers: outputs, inputs, kernel, first and last processor in cifar100-simple.yaml
SIMPLE_NET = [
    (16, 3, 3, 0, 2), (20, 16, 3, 4, 19), (20, 20, 3, 20, 39), (20, 20, 3, 40, 59),
    (20, 20, 3, 0, 19), (20, 20, 3, 20, 39), (44, 20, 3, 40, 59), (48, 44, 3, 0, 43),
    (48, 48, 3, 0, 47), (96, 48, 3, 0, 47), (512, 96, 1, 0, 47), (128, 512, 1, 0, 63),
    (128, 128, 3, 0, 63), (100, 128, 1, 0, 63),
]  # fmt: skip


def test_ai8x_of_a_published_network() -> None:
    """Its description is published for this memory, of which 8 bits need the last word."""
    free = [0] * 64  # with its processors no layer finds room below another
    for outputs, inputs, kernel, first, last in SIMPLE_NET:
        layer = TableLayer("c", "conv2d", shape=(outputs, inputs, kernel, kernel))
        cost = ai8x.MAX78000.costs(layer, Choice(8, 8))
        processors = slice(first, last + 1)
        assert cost["ai8x_bytes"] == 9 * cost["ai8x_words"] * len(free[processors])
        end = max(free[processors]) + cost["ai8x_words"]
        free[processors] = [end] * len(free[processors])
    assert max(free) == ai8x.MAX78000.limits["ai8x_words"]


def test_ai8x_flattened() -> None:
    """A matrix may flatten up to 16 pixels; a shape with its pixels says which."""
    target, choice = ai8x.MAX78000, Choice(8, 8)

    def words(*shape: int) -> int:
        return target.costs(TableLayer("fc", "linear", shape=shape), choice)["ai8x_words"]

    # 21 outputs of 64 channels x 4 pixels: 84 bytes on each processor, in words of 9: 10, so 12
    assert words(21, 64, 2, 2) == 12
    assert words(21, 256) == words(21, 16, 4, 4) == 40  # 21 x 16 bytes: 38 words
    assert target.refused(TableLayer("fc", "linear", shape=(10, 64, 17, 17)), choice)
    assert not target.refused(TableLayer("fc", "linear", shape=(10, 64, 16, 16)), choice)


@pytest.mark.parametrize(
    ("target", "layer", "choice", "why"),
    [
        (TARGETS, TableLayer("c", "conv2d"), "w8a8", "the shape of its weight is not known"),
        (TARGETS, TableLayer("c", "conv2d", shape=(8,)), "w8a8", "one dimension"),
        (TARGETS, TableLayer("c", "embedding", shape=(8, 8)), "w8a8", "of the kind embedding"),
        (TARGETS, TableLayer("c", shape=(8, 8)), "Q4_K", "no formats by name"),
        (TARGETS, TableLayer("c", shape=(8, 64)), "w8g32a8", "none by groups"),
        (TARGETS, TableLayer("c", shape=(8, 64)), "w9a8", "bits|w8a8"),
        (TARGETS, TableLayer("c", shape=(8, 64)), "w8a12", "bits|w8a8"),
        (TARGETS[2:5], TableLayer("c", shape=(8, 64)), "w32a8", "float with float|w8a8"),
        (TARGETS[:2], TableLayer("c", "conv2d", shape=(8, 8, 5, 5)), "w8a8", "no conv2d of 5 x 5"),
        (TARGETS[:1], TableLayer("c", shape=(8, 2000, 1, 1)), "w8a8", "2000 channels are over"),
        (TARGETS[:2], TableLayer("c", shape=(2000, 8)), "w8a8", "2000 outputs .* over 1024"),
        (TARGETS[:2], TableLayer("c", shape=(8, 17000)), "w8a8", "17000 inputs are over 1024"),
        (TARGETS[:2], TableLayer("c", "depthwise_conv2d", shape=(8, 1, 3, 3)), "w8a8", "kind"),
        (TARGETS[3:4], TableLayer("c", "conv_transpose2d", shape=(8, 8, 3, 3)), "w8a8", "kind"),
        (TARGETS[3:4], TableLayer("c", "depthwise_conv2d", shape=(8, 1, 3, 3)), "w8a16", "groups"),
        (TARGETS[3:4], TableLayer("c", shape=(8, 1, 3, 3)), "w8a16", "in groups"),
    ],
)  # fmt: skip
def test_refused(target: tuple[Any, ...], layer: TableLayer, choice: str, why: str) -> None:
    """Each says in a few words why it does not take a layer."""
    for one in target:
        said = one.refused(layer, Choice.called(choice))
        assert any(part in said for part in why.split("|")) or all(
            part in said for part in why.split(" .* ")
        ), said


def test_bad_input(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model, one of another kind, a layer or a name that the model lacks: one line each."""
    text = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(2)}, text)
    nameless = onnx.load(folder / "model.onnx")
    grouped = onnx.load(folder / "model.onnx")
    grouped.graph.node[0].attribute.append(onnx.helper.make_attribute("group", 3))
    onnx.save(grouped, tmp_path / "grouped.onnx")
    nameless.graph.node[0].name = ""
    onnx.save(nameless, tmp_path / "nameless.onnx")
    model, own = folder / "model.onnx", _recipe({"c1": "w8a8"}, None)
    unknown = Recipe({"c1.weigth": own.layers["c1"]}, str(model))
    for target in (esp_ppq.TARGET, onnxruntime.TARGET):
        for recipe, message in (
            (own, "name it with --model"),
            (Recipe(own.layers, str(text)), "'state dict'; expected the ONNX file"),
            (unknown, "has no layer 'c1.weigth'; did you mean 'c1.weight'"),
            (Recipe(own.layers, str(tmp_path / "nameless.onnx")), "'c1' has no name"),
        ):
            with pytest.raises(InputError) as error:
                target.write(recipe)
            assert message in str(error.value)
            assert len(error.value.lines) == 1
    with pytest.raises(InputError, match=r"'c1': convolutions in groups have .* choose w16a16"):
        esp_ppq.TARGET.write(_recipe({"c1": "w8a16"}, tmp_path / "grouped.onnx"))
    same = Recipe(dict.fromkeys(("c1", "c1.weight"), own.layers["c1"]), str(model))
    with pytest.raises(InputError, match=r"layers 'c1' and 'c1\.weight' are both"):
        onnxruntime.TARGET.write(same)
    with pytest.raises(InputError, match="name its file with --model"):
        qonnx.TARGET.write(own)
    with pytest.raises(InputError, match="carries no sample to calibrate on"):
        qonnx.TARGET.write(Recipe(own.layers, str(model)))
