"""MACs and BOPS of every layer against the cost counter of QONNX (pip install qonnx)."""

import random
import warnings

import networks
import pytest
import torch

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("qonnx", reason="the package qonnx is not installed")

from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.general import GiveUniqueNodeNames
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.inference_cost import inference_cost

from mpsearch.data import Data
from mpsearch.exporters.onnx.model import onnx_model
from mpsearch.exporters.onnx.quant_nodes import QuantWriter
from mpsearch.graph.network import Network
from mpsearch.models.registry import architecture, build
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import bops
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

LAYER_OPERATORS = ("Conv", "Gemm", "MatMul")


def _check(network: Network, data: Data, seed: int) -> None:
    source = random.Random(seed)
    bits = (2, 3, 4, 5, 6, 7, 8, 16)
    choices = {x.name: Choice(source.choice(bits), source.choice(bits)) for x in network.layers}
    quantized = quantize(network, choices, calibrate(network, data))
    model = onnx_model(quantized, QuantWriter)
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_value = 1
    for constant in model.graph.initializer:
        if constant.name.endswith("/zero_point"):  # the counter knows bits of those at 0 alone
            constant.raw_data = bytes(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        typed = ModelWrapper(model).transform(InferShapes())
        typed = typed.transform(InferDataTypes(allow_scaledint_dtypes=True))
        # its preprocessing would also fold constants, with models too new for this onnxruntime
        costs = inference_cost(
            typed, preprocess=False, discount_sparsity=False, cost_breakdown=True
        )
    named = typed.transform(GiveUniqueNodeNames()).graph.node  # as inference_cost names them
    layers = {node.output[0]: node.name for node in named if node.op_type in LAYER_OPERATORS}
    last = network.layers[-1].nodes[-1]  # its result is called as the network's output is
    by_node = {
        last if output == "output" else output: costs["node_cost"][name]
        for output, name in layers.items()
    }
    assert set(by_node) == {node for layer in network.layers for node in layer.nodes}
    for layer in network.layers:
        choice = choices[layer.name]
        assert sum(by_node[node]["total_macs"] for node in layer.nodes) == layer.macs
        expected = layer.macs * choice.w_bits * choice.a_bits
        assert sum(by_node[node]["total_bops"] for node in layer.nodes) == expected
    assert costs["total_cost"]["total_bops"] == bops(network, choices)


@pytest.mark.parametrize("name", ["residual", "two-inputs", "shared"])
def test_small_networks(name: str) -> None:
    model, inputs, _ = networks.build(name, 6)
    _check(Network.from_module(model, inputs), Data("test", inputs, None), len(name))


def test_tinym2net() -> None:
    name = "tinym2net-battlefield"
    shapes = architecture(name).inputs.values()
    inputs = tuple(torch.randn(2, *shape) for shape in shapes)
    _check(Network.from_module(build(name), inputs), Data("random", inputs, None), 1)
