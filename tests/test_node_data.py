"""Overlays for Model Explorer: keys are nodes of the exported file that compute the layer."""

import json
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert")

import integer_networks  # noqa: E402
import torch  # noqa: E402
from report_runs import make_run  # noqa: E402
from torch import nn  # noqa: E402

from mpsearch.cli import run  # noqa: E402
from mpsearch.data import Data  # noqa: E402
from mpsearch.exporters.litert.model import build  # noqa: E402
from mpsearch.exporters.onnx.model import onnx_model  # noqa: E402
from mpsearch.graph.network import Network  # noqa: E402
from mpsearch.quantization.calibration import calibrate  # noqa: E402
from mpsearch.quantization.quantized import quantize  # noqa: E402
from mpsearch.running.plugins import litert  # noqa: E402
from mpsearch.tables.choice import Choice  # noqa: E402

# What node_data_builder.py of ai-edge-model-explorer 0.1.34 has, the fields that are used here.
FIELDS = {"name": str, "results": dict, "gradient": list}


@pytest.fixture(scope="module")
def exported() -> dict[str, bytes]:
    """A convolution called `one` and a linear layer `two`, as in the run whose facts are known."""
    inputs = (torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0)),)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = integer_networks.Function(
            lambda m, x: m.two(torch.relu(m.one(x)).flatten(1)),
            one=nn.Conv2d(2, 3, 3), two=nn.Linear(48, 4),
        ).eval()  # fmt: skip
    network = Network.from_module(model, inputs)
    data = Data("test", inputs, None)
    choices = {"one": Choice(8, 8), "two": Choice(4, 8)}
    quantized = quantize(network, choices, calibrate(network, data))
    onnx_bytes = onnx_model(quantized).SerializeToString()
    return {"q.onnx": onnx_bytes, "q.tflite": build(quantized, data).content}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: dict[str, bytes]) -> Path:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path)
    for name, content in exported.items():
        Path(name).write_bytes(content)
    return tmp_path


def values_of(export: str, name: str) -> dict[str, float]:
    document = json.loads(Path(f"{export}.{name}.json").read_text())
    assert {key: type(value) for key, value in document.items()} == FIELDS
    assert [set(stop) for stop in document["gradient"]] == [{"stop", "bgColor", "textColor"}] * 2
    assert [stop["stop"] for stop in document["gradient"]] == [0, 1]
    assert all(set(result) == {"value"} for result in document["results"].values())
    return {node: result["value"] for node, result in document["results"].items()}


def test_the_nodes_that_compute_a_layer_have_its_bits_omega_and_size(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the run: `one` at w8a8 (Ω 0.5, 1200 bytes), `two` at w4a4 (Ω 1.0, 424 bytes)."""
    assert run(["report", "--node-data", "q.onnx"]) == 0
    assert "wrote q.onnx.omega.json" in capsys.readouterr().out
    nodes = onnx.load("q.onnx").graph.node
    convolution, linear = (
        next(node.name for node in nodes if node.op_type == kind) for kind in ("Conv", "Gemm")
    )
    assert values_of("q.onnx", "bits") == {convolution: 8, linear: 4}
    assert values_of("q.onnx", "omega") == {convolution: 0.5, linear: 1.0}
    assert values_of("q.onnx", "size") == {convolution: 1200, linear: 424}
    assert run(["report", "--node-data", "q.tflite", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["node_data"] == [f"q.tflite.{name}.json" for name in ("bits", "omega", "size")]
    computed = written_by("q.tflite")
    bits = values_of("q.tflite", "bits")
    assert {computed[node]: width for node, width in bits.items()} == {
        "CONV_2D": 8, "FULLY_CONNECTED": 4
    }  # fmt: skip


def written_by(path: str) -> dict[str, str]:
    """Tensor -> the operator that writes it, read with the schema alone."""
    schema = litert("schema_py_generated")
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(Path(path).read_bytes(), 0))
    graph = model.subgraphs[0]
    return {
        graph.tensors[number].name.decode(): names[model.operatorCodes[one.opcodeIndex].builtinCode]
        for one in graph.operators
        for number in one.outputs
    }


def test_what_cannot_be_shown_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert run(["report", *words]) == 2
        return capsys.readouterr().err

    Path("net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 8)
    assert "is a Keras file; expected an exported" in refused("--node-data", "net.h5")
    assert "no such file" in refused("--node-data", "nowhere.onnx")
    assert "go with one run" in refused(".", ".", "--node-data", "q.onnx")
    make_run(folder, second="three")
    capsys.readouterr()
    assert run(["report", "--node-data", "q.onnx"]) == 0
    assert "no node of q.onnx computes three" in capsys.readouterr().out
    text = Path("profile.csv").read_text()
    Path("profile.csv").write_text(text.replace("one,", "other,"))
    for name in ("assignment.json", "front.json", "evaluation.json"):
        Path(name).unlink()
    assert "there is no assignment" in refused("--node-data", "q.onnx")
    assert run(["solve", "--size", "1700B"]) == 0
    capsys.readouterr()
    assert "has none of the layers of this run (other, three" in refused("--node-data", "q.onnx")
