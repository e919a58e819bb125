"""Is a model right between one quantizer and the next? There no border between codes is crossed.

Many layers of few bits carry on what one rounding decides, so that two right computations may end
far apart. Here every part starts again from the codes that the model itself has: what the network
makes of them must be the model's next codes, but for values on a border.

Session options of onnxruntime that an exported model is tried with, and sessions under them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.exporters.agreement_of_outputs import Reference, judge
from mpsearch.exporters.reference_outputs import output_parts
from mpsearch.graph.layers import packet
from mpsearch.graph.tensors import get_tensor
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.running.plugins import onnx_package, onnxruntime_package


@dataclass(frozen=True)
class SessionSetting:
    """`config`: entries for add_session_config_entry; `level`: a GraphOptimizationLevel."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    level: str = "ORT_ENABLE_ALL"

    def describe(self) -> dict[str, Any]:
        """As it is stored with the model."""
        return {"session_config": dict(self.config), "graph_optimization_level": self.level}


DEFAULT = SessionSetting("default options")
# Integer products of 8 bits on x86 without VNNI saturate in 16 bits unless this asks for others.
PRECISE = SessionSetting("session.x64quantprecision=1", {"session.x64quantprecision": "1"})
# No fusion to integer kernels: weights become float when the model is loaded.
WITHOUT_FUSION = SessionSetting("session.disable_quant_qdq=1", {"session.disable_quant_qdq": "1"})
BASIC = SessionSetting("ORT_ENABLE_BASIC", level="ORT_ENABLE_BASIC")
# Removes QDQ pairs that are needed; never recommended.
CLEANUP = SessionSetting(
    "session.enable_quant_qdq_cleanup=1", {"session.enable_quant_qdq_cleanup": "1"}
)
TRIED = (DEFAULT, PRECISE, WITHOUT_FUSION, BASIC, CLEANUP)


def preferred(only_8_bits: bool) -> tuple[SessionSetting, ...]:
    """What to recommend, the best first.

    onnxruntime has integer kernels for 8 bits; anything else it unpacks again in every run unless
    fusion is off. PRECISE changes nothing where products do not saturate: it is right everywhere.
    """
    if only_8_bits:
        return (PRECISE, DEFAULT, WITHOUT_FUSION, BASIC)
    return (WITHOUT_FUSION, BASIC, PRECISE, DEFAULT)


def open_session(model: bytes, setting: SessionSetting) -> Any:
    """An InferenceSession on one core of the CPU; onnxruntime's own log is silent."""
    runtime = onnxruntime_package()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, setting.level)
    for key, value in setting.config.items():
        options.add_session_config_entry(key, value)
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


_SAMPLES, _BATCH = 64, 16
# How many of a layer's codes may differ: a share, a few, and more than between float32 and float64.
_SHARE, _FEW, _MORE = 0.002, 3, 3
_AS_WRITTEN = SessionSetting("no optimisation", level="ORT_DISABLE_ALL")


@dataclass
class _Differing:
    """Codes of one layer's input: how many, and how many of them differ from the model's and
    between the network in float32 and in float64."""

    count: int = 0
    model: int = 0
    own: int = 0

    @property
    def allowed(self) -> int:
        """How many may differ from the model's."""
        return round(_SHARE * self.count) + _FEW + _MORE * self.own


def wrong_parts(model: bytes, network: QuantizedNetwork, data: Data) -> tuple[str, ...]:
    """What is not the network's in a model of `onnx_model`, one phrase each; empty: it is right.

    Runs 64 samples without optimisation. Raises onnxruntime's errors.
    """
    read = _inputs_of_layers(model, network)
    session = open_session(_showing(model, set(read.values())), _AS_WRITTEN)
    names = [output.name for output in session.get_outputs()]
    count = len(network.source.outputs)
    differing = {node: _Differing() for node in read}
    got, wanted = [], []
    for inputs, _ in data.take(min(_SAMPLES, len(data)), 0).batches(_BATCH):
        given = zip(network.source.input_names, inputs, strict=True)
        values = session.run(None, {name: x.numpy() for name, x in given})
        shown = dict(zip(names, values, strict=True))
        got.append(_side_by_side(values[:count]))
        codes = {node: torch.from_numpy(shown[name]) for node, name in read.items()}
        runs = [_Restarted(network.graph, codes, kind) for kind in (torch.float32, torch.float64)]
        with torch.no_grad():
            results = [run.run(*inputs) for run in runs]
        wanted.append(results[0].reshape(len(inputs[0]), -1).numpy())
        for node, found in differing.items():
            found.count += codes[node].numel()
            found.model += _unequal(runs[0].seen[node], codes[node])
            found.own += _unequal(runs[0].seen[node], runs[1].seen[node])
    layer_of = {node: layer.name for layer in network.source.layers for node in layer.nodes}
    readers = {_quantizer(node).name: node.name for node in _quantized_nodes(network)}
    wrong = [
        f"{found.model} of {found.count} codes that layer {layer_of[readers[node]]!r} reads "
        f"differ (expected at most {found.allowed})"
        for node, found in differing.items()
        if found.model > found.allowed
    ]
    reference = Reference(np.concatenate(wanted), output_parts(network.source))
    ends = judge(reference, np.concatenate(got))
    return (*wrong, *(f"after the last layers: {end.line()}" for end in ends if not end.ok))


def _side_by_side(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=1)


def _unequal(first: torch.Tensor, second: torch.Tensor) -> int:
    """Codes are far apart, floats of the same code are not."""
    apart = (first.double() - second.double()).abs()
    return int((apart > 1e-4 * second.double().abs().max()).sum())


def _quantized_nodes(network: QuantizedNetwork) -> list[fx.Node]:
    """Uses of layers whose input is fake-quantized."""
    layers = {node for layer in network.source.layers for node in layer.nodes}
    return [
        node
        for node in network.graph.graph.nodes
        if node.name in layers and "fake_quantize" in packet(node.args[0])
    ]


def _quantizer(node: fx.Node) -> fx.Node:
    quantizer = node.args[0]
    assert isinstance(quantizer, fx.Node)
    return quantizer


def _inputs_of_layers(model: bytes, network: QuantizedNetwork) -> dict[str, str]:
    """Fake-quantizer node of the network -> the tensor of the model with its values."""
    graph = onnx_package().load_from_string(model).graph
    readers = {name: node.input[0] for node in graph.node for name in node.input[1:]}
    return {
        _quantizer(node).name: readers[f"{node.name}/weight"]
        for node in _quantized_nodes(network)
        if f"{node.name}/weight" in readers
    }


def _showing(model: bytes, names: set[str]) -> bytes:
    """The model with further outputs."""
    onnx = onnx_package()
    shown: Any = onnx.load_from_string(model)
    for name in sorted(names):
        shown.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    content: bytes = shown.SerializeToString()
    return content


class _Restarted(fx.Interpreter):
    """Runs a graph with given values behind its fake-quantizers; `seen` has its own."""

    def __init__(
        self, graph: fx.GraphModule, given: dict[str, torch.Tensor], kind: torch.dtype
    ) -> None:
        super().__init__(graph)
        self.given, self.kind = given, kind
        self.seen: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "get_attr":
            value: Any = get_tensor(self.module, str(n.target))
        else:
            value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.to(self.kind)
        if n.name in self.given:
            self.seen[n.name] = value
            return self.given[n.name].to(self.kind)
        return value
