"""MACs and BOPS of every layer against the cost counter of QONNX (pip install qonnx)."""

import random
import warnings
from typing import Any

import networks
import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("qonnx", reason="the package qonnx is not installed")

import onnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.general import GiveUniqueNodeNames
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.inference_cost import inference_cost

from mpsearch.data import Data
from mpsearch.exporters.onnx.model import onnx_model
from mpsearch.graph.network import Network
from mpsearch.models.registry import architecture, build
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import bops
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.choice import Choice

LAYER_OPERATORS = ("Conv", "Gemm", "MatMul")


def _as_qonnx(quantized: QuantizedNetwork) -> Any:
    """The exported model with a Quant node, which knows any number of bits, for every QDQ pair."""
    model = onnx_model(quantized)
    graph = model.graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    choices = {
        node: quantized.assignment[layer.name]
        for layer in quantized.source.layers
        for node in layer.nodes
    }
    for entry in (*graph.input, *graph.output):
        entry.type.tensor_type.shape.dim[0].dim_value = 1
    kept = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            continue
        if node.op_type != "DequantizeLinear":
            kept.append(node)
            continue
        name = node.output[0]
        owner, _, kind = name.rpartition("/")
        if kind == "input":
            source, w = producers[node.input[0]].input[0], False
        else:
            w = kind == "weight"
            source = f"{name}/real" if w else name  # a bias is no part of the counter
            codes, scales = constants[node.input[0]], constants[node.input[1]]
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = [-1 if place == axis else 1 for place in range(codes.ndim)]
            real = codes.astype(np.float32) * scales.reshape(shape)
            graph.initializer.append(onnx.numpy_helper.from_array(real, source))
            if not w:
                continue
        chosen = choices.get(owner, Choice(8, 8))  # a pair before a concatenation has no layer
        bits = chosen.w_bits if w else chosen.a_bits
        operands = {"quant_scale": 0.5, "quant_zero": 0.0, "quant_bits": float(bits)}
        for key, value in operands.items():
            array = np.array(value, dtype=np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}/{key}"))
        kept.append(onnx.helper.make_node(
            "Quant", [source, *(f"{name}/{key}" for key in operands)], [name],
            domain="qonnx.custom_op.general", signed=int(w), narrow=0, rounding_mode="ROUND",
        ))  # fmt: skip
    del graph.node[:]
    graph.node.extend(kept)
    model.opset_import.append(onnx.helper.make_opsetid("qonnx.custom_op.general", 1))
    return model


def _check(network: Network, data: Data, seed: int) -> None:
    source = random.Random(seed)
    bits = (2, 3, 4, 5, 6, 7, 8, 16)
    choices = {x.name: Choice(source.choice(bits), source.choice(bits)) for x in network.layers}
    quantized = quantize(network, choices, calibrate(network, data))
    model = _as_qonnx(quantized)
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
