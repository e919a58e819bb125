"""Every output of a LiteRT file has a tensor, a scale, a name and a check of its own."""

from collections.abc import Callable
from typing import Any

import integer_networks
import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.litert.check import KERNELS, LiteRtNetwork, check
from mpsearch.exporters.litert.flatbuffer import SIGNATURE
from mpsearch.exporters.litert.joined import JoinedOutputs
from mpsearch.exporters.litert.model import LiteRtModel, build
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import lay_out, split_outputs
from mpsearch.integer.inference import outputs
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.running.plugins import litert
from mpsearch.tables.choice import Choice

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (extra litert)")

Arrange = Callable[[Any, torch.Tensor, torch.Tensor], Any]


def _joined(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.cat([m.box(h), m.score(h)], 1)


# How a network gives boxes of some hundred pixels and scores of a few units, from maps and means.
ARRANGED: dict[str, Arrange] = {
    "by name": lambda m, g, h: {"box": m.box(h), "score": m.score(h)},
    "three ranks": lambda m, g, h: (m.box(h), m.score(h).mean(1), g),
    "one": lambda m, g, h: _joined(m, h),
    "clipped": lambda m, g, h: torch.clamp(_joined(m, h), -1.0, 170.0),
    "cut": lambda m, g, h: _joined(m, h)[:, 1:6],
    "turned": lambda m, g, h: torch.cat(
        [m.boxes(g).flatten(2).transpose(1, 2), m.scores(g).flatten(2).transpose(1, 2)], 2
    ).transpose(1, 2),
    "read again": lambda m, g, h: (_joined(m, h), m.after(_joined(m, h))),
    "twice": lambda m, g, h: [m.score(h)] * 2 + [m.box(h)],
    "called output": lambda m, g, h: {"output": m.score(h), "box": m.box(h)},
    "softmax": lambda m, g, h: {"box": m.box(h), "p": torch.softmax(m.score(h), 1)},
}


def _detector(kind: str) -> tuple[QuantizedNetwork, Data]:
    def forward(m: Any, x: torch.Tensor) -> Any:
        maps = torch.relu(m.stem(x))
        return ARRANGED[kind](m, maps, maps.mean((2, 3)))

    layers: dict[str, Any] = {
        "stem": nn.Conv2d(2, 6, 3, stride=2), "box": nn.Linear(6, 4), "score": nn.Linear(6, 3),
        "boxes": nn.Conv2d(6, 4, 1), "scores": nn.Conv2d(6, 3, 1), "after": nn.Linear(7, 2),
    }  # fmt: skip
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=source))
            layer.bias.fill_(160.0 if name.startswith("box") else 0.1)
            layer.weight *= 60.0 if name.startswith("box") else 1.0
    model = integer_networks.Function(forward, **layers).eval()
    inputs = (torch.randn(40, 2, 8, 8, generator=source),)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    return quantize(network, choices, calibrate(network, data)), data


def _signature(model: LiteRtModel, x: np.ndarray, kernels: str) -> dict[str, np.ndarray]:
    """What the file gives for one sample, by name."""
    network = LiteRtNetwork(model.content, model.assigned.source, kernels)
    given: dict[str, np.ndarray] = network.runner(**{network.names[0]: x[None]})
    return given


@pytest.mark.parametrize("kind", ARRANGED)
def test_an_outputs_precision_does_not_depend_on_another_outputs_range(kind: str) -> None:
    quantized, data = _detector(kind)
    model, network = build(quantized, data), quantized.source
    for entry in check(model, data):
        assert entry.ok, entry
        for found in (*entry.network, *entry.meaning):
            assert found.assigned.rms_steps < 4, found
    expected = outputs(quantized, data)
    for kernels in KERNELS:
        flat = outputs(LiteRtNetwork(model.content, network, kernels), data).flatten(1)
        for name, values in split_outputs(network.outputs, expected).items():
            got = split_outputs(network.outputs, flat)[name]
            assert len(torch.unique(got)) > min(40, len(torch.unique(values)) // 3), name
        given = _signature(model, data.inputs[0][0].numpy(), kernels)
        wanted = {output.name: output.shape for output in network.outputs}
        if len(wanted) > 1:
            wanted = {"output": (flat.shape[1],), **wanted}
        assert {name: value.shape[1:] for name, value in given.items()} == wanted
        for output in network.outputs if len(wanted) > 1 else ():
            np.testing.assert_array_equal(
                given[output.name].reshape(-1), flat[0, output.start : output.stop]
            )
        if kind != "called output":
            np.testing.assert_array_equal(given["output"].reshape(-1), flat[0])


def test_every_output_is_dequantized_from_a_tensor_of_its_own() -> None:
    quantized, data = _detector("by name")
    schema = litert("schema_py_generated")
    model = build(quantized, data)
    (graph,) = schema.ModelT.InitFromPackedBuf(model.content).subgraphs
    codes = schema.BuiltinOperator.DEQUANTIZE
    read = schema.ModelT.InitFromPackedBuf(model.content)
    places = [
        operator.inputs[0]
        for operator in graph.operators
        if read.operatorCodes[operator.opcodeIndex].builtinCode == codes
    ]
    scales = sorted(float(graph.tensors[place].quantization.scale[0]) for place in places)
    ranges = [float(np.ptp(v.numpy())) for v in _split(quantized, data).values()]
    assert len(scales) == 2
    assert scales[1] / scales[0] > 10
    assert max(ranges) / min(ranges) > 10
    (signature,) = LiteRtNetwork(model.content, quantized.source).interpreter.get_signature_list()
    assert signature == SIGNATURE


def _split(quantized: QuantizedNetwork, data: Data) -> dict[str, torch.Tensor]:
    return split_outputs(quantized.source.outputs, outputs(quantized, data))


def test_two_outputs_cut_from_one_layer_are_refused() -> None:
    """Their one int8 tensor has one scale: the check sees it on the small one."""

    def forward(m: Any, x: torch.Tensor) -> Any:
        both = m.both(x)
        return {"box": both[:, :4], "score": both[:, 4:]}

    layer = nn.Linear(5, 7)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(7, 5, generator=source))
        layer.weight[:4] *= 100
    inputs = (torch.randn(40, 5, generator=source),)
    model = integer_networks.Function(forward, both=layer).eval()
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    quantized = quantize(network, {"both": Choice(8, 8)}, calibrate(network, data))
    for entry in check(build(quantized, data), data):
        assert [(output.name, output.ok) for output in entry.network] == [
            ("box", True), ("score", False),
        ]  # fmt: skip


def test_outputs_that_do_not_match_the_graph_are_refused() -> None:
    quantized, data = _detector("by name")
    model = build(quantized, data)
    writer = JoinedOutputs(None, model.graph, frozenset())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="its outputs do not match its graph"):
        writer.signature(lay_out(("a", "b"), ((3,), (4,))))
