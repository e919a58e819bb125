"""Float ONNX files as networks: names, MACs and outputs against torch, onnxruntime and onnx."""

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networks
import pytest
import token_networks
import torch
from onnx_cases import CASES, Case, data_of, model_of
from torch import nn

from mpsearch.errors import InputError
from mpsearch.graph.exporting import export_graph
from mpsearch.graph.graph_json import graph_to_json
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.importers.kinds import ONNX, detect
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.importers.onnx.interpreter import OnnxModule, compute_constant
from mpsearch.importers.onnx.loading import load_onnx
from mpsearch.importers.onnx.reading import array_of
from mpsearch.importers.onnx.steps import Plan, fold_constants, steps_of
from mpsearch.models.registry import build

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")


def _export(
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    path: Path,
    opset: int,
    dynamo: bool = False,
    free: bool = True,
) -> str:
    """Write the model by torch's own exporter, with a free batch or for one sample."""
    names = [f"in{index}" for index in range(len(inputs))]
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer ONNX exporter needs onnxscript")
    how: dict[str, object] = {"dynamo": dynamo, "opset_version": opset, "input_names": names}
    if free and dynamo:
        how["dynamic_shapes"] = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    elif free:
        how["dynamic_axes"] = {name: {0: "batch"} for name in names}
    samples = tuple(x[: 2 if free else 1] for x in inputs)
    logging.disable(logging.WARNING)  # the exporters are talkative
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(model, samples, str(path), external_data=False, **how)  # type: ignore[arg-type]
    finally:
        logging.disable(logging.NOTSET)
    return str(path)


def _layers(network: Network) -> list[tuple[str, str, int, int]]:
    return [(layer.name, layer.kind, layer.macs, layer.weights) for layer in network.layers]


EXPORTS = [
    (name, opset, opset == 18, free)
    for index, name in enumerate(networks.BUILDERS)
    for opset, free in (((11, True), (13, False), (17, True), (18, False))[index % 4],)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "opset", "dynamo", "free"), EXPORTS)
def test_torchs_exports_give_the_same_network_back(
    name: str, opset: int, dynamo: bool, free: bool, tmp_path: Path
) -> None:
    model, inputs, _ = networks.build(name)
    path = _export(model, inputs, tmp_path / "model.onnx", opset, dynamo, free)
    network = load_network(ModelSource(path)).network
    own = Network.from_module(model, inputs)
    assert sorted(_layers(network)) == sorted(_layers(own))
    assert network.input_names == tuple(f"in{index}" for index in range(len(inputs)))
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), own(*inputs), rtol=1e-5, atol=1e-5)


class Recurrent(nn.Module):
    """Two LSTM layers and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.near, self.far = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last = self.rnn(x)[0][:, -1]
        return self.near(last), torch.sigmoid(self.far(last))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["language", "vision-fused", "sequence-first", "recurrent"])
def test_a_batch_that_the_exporter_folded_in_is_free_again(name: str, tmp_path: Path) -> None:
    """Class tokens, heads behind the batch, tokens in front of it, initial states, tied weights."""
    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    if name == "recurrent":
        torch.manual_seed(0)
        model, inputs = Recurrent().eval(), (torch.randn(5, 6, 3),)
    else:
        model, inputs, _ = token_networks.build(name, 5)
    path = _export(model, inputs, tmp_path / "model.onnx", 17, free=False)
    network, own = load_network(ModelSource(path)).network, Network.from_module(model, inputs)
    if name == "language":  # its positions are a constant in the file, not a table
        layers = [layer for layer in own.layers if layer.name != "positions"]
        assert [layer.macs for layer in network.layers] == [layer.macs for layer in layers]
    else:
        assert sorted(_layers(network)) == sorted(_layers(own))
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), own(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_trained_size_network_keeps_names_and_converts(tmp_path: Path) -> None:
    model, inputs = build("resnet20").eval(), (torch.randn(3, 3, 32, 32),)
    path = _export(model, inputs, tmp_path / "resnet20.onnx", 13)
    module, examples = load_onnx(path)
    network, own = Network.from_module(module, examples), Network.from_module(model, inputs)
    assert _layers(network) == _layers(own)
    save(module, tmp_path / "model.pt", examples)
    again = load_network(ModelSource(str(tmp_path / "model.pt"))).network
    assert again.digest == network.digest
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs), own(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.label}" for i, case in enumerate(CASES)])
def test_operators_agree_with_onnxruntime(case: Case) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    model, data = model_of(case), data_of(case)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    expected = runtime.InferenceSession(model.SerializeToString(), options).run(None, data)
    constants = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
    outputs = tuple(value.name for value in model.graph.output)
    plan = Plan(tuple(data), outputs, steps_of(model.graph), constants, {}, case.opset)
    plan = fold_constants(plan, compute_constant)
    found: Any = {name: torch.from_numpy(plan.constants[name]) for name in outputs if not data}
    if data:
        with torch.no_grad():
            rows = tuple(torch.from_numpy(array) for array in data.values())
            found = OnnxModule(plan, lambda *_: None).run(rows)
    tensors = list(found.values()) if isinstance(found, dict) else [found]
    for tensor, array in zip(tensors, expected, strict=True):
        torch.testing.assert_close(
            tensor, torch.from_numpy(array), rtol=1e-5, atol=1e-5, check_stride=False
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_operator_can_be_written_into_an_mpsearch_file(tmp_path: Path) -> None:
    """Exported with a free batch, no operator leaves the allow-list."""
    path, refused, mixed, exported = tmp_path / "one.onnx", {}, [], 0
    for case in CASES:
        model = model_of(case)
        if case.outputs > 1 or case.operator in ("LSTM", "GRU", "RNN") or not data_of(case):
            continue
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        path.write_bytes(model.SerializeToString())
        try:
            graph = export_graph(*load_onnx(str(path)))
        except InputError as error:  # some cases mix samples or need the batch that they name
            mixed.append(str(error))
            continue
        exported += 1
        try:
            graph_to_json(graph)
        except InputError as error:
            refused[case.label] = str(error)
    assert not refused
    assert exported > 5 * len(CASES) // 6
    known = ("samples into", "holds them", "Sizes of tensors", "Size does not match")
    assert [text for text in mixed if not any(part in text for part in known)] == []


def test_foreign_and_damaged_files_are_named(tmp_path: Path) -> None:
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", 1, ["n", 3])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    content = model.SerializeToString()
    good = tmp_path / "anything"
    good.write_bytes(content)
    assert detect(good) == ONNX
    for data, message in (
        (content[:-9], "damaged or truncated ONNX"),
        (b"\x08\x07 not a model", "unknown format"),
        (b"\x20\0\0\0ORTM" + bytes(40), "onnxruntime's own format"),
    ):
        good.write_bytes(data)
        with pytest.raises(InputError, match=message):
            detect(good)
