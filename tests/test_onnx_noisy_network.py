"""A deep network of 4 bits that rounding moves is exported; a damaged model of it is refused."""

from dataclasses import replace
from functools import cache
from typing import Any

import integer_networks
import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mpsearch.data import Data  # noqa: E402
from mpsearch.exporters.agreement_of_outputs import Reference, judge  # noqa: E402
from mpsearch.exporters.onnx import exported as checking  # noqa: E402
from mpsearch.exporters.onnx.between_quantizers import wrong_parts  # noqa: E402
from mpsearch.exporters.onnx.exported import check  # noqa: E402
from mpsearch.exporters.onnx.model import onnx_model  # noqa: E402
from mpsearch.exporters.reference_outputs import reference_of  # noqa: E402
from mpsearch.graph.network import Network  # noqa: E402
from mpsearch.quantization.calibration import calibrate  # noqa: E402
from mpsearch.quantization.quantized import QuantizedNetwork, quantize  # noqa: E402
from mpsearch.tables.choice import Choice  # noqa: E402

BLOCKS, CHANNELS = 6, 8
# Added to a sum and taken away again: float32 loses 17 bits by it, as if there were thousands of
# layers. (Behind a layer alone it would be folded into the bias.)
OFFSET = 131072.0


def _forward(m: Any, x: torch.Tensor) -> Any:
    x = torch.relu(m.stem(x))
    for block in range(BLOCKS):
        inner = getattr(m, f"b{block}")(torch.relu(getattr(m, f"a{block}")(x)))
        x = torch.relu(((x + inner) + OFFSET) - OFFSET)
    return m.head(x.mean((2, 3)))


@cache
def _subject() -> tuple[QuantizedNetwork, Data, Reference]:
    """The network at w4a4, its data, and a reference computed in float64.

    That is as right as float32, and further from it on every machine than the fixed limits allow.
    """
    layers: dict[str, Any] = {"stem": nn.Conv2d(3, CHANNELS, 3, padding=1)}
    for block in range(BLOCKS):
        for name in "ab":
            layers[f"{name}{block}"] = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
    layers["head"] = nn.Linear(CHANNELS, 10)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in layers.values():
            spread = 0.5 * (2 / layer.weight[0].numel()) ** 0.5
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=source) * spread)
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=source) * 0.1)
    model = integer_networks.Function(_forward, **layers).eval()
    inputs = (torch.randn(64, 3, 8, 8, generator=source),)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    choices = {layer.name: Choice(4, 4) for layer in network.layers}
    quantized = quantize(network, choices, calibrate(network, data))
    reference = reference_of(quantized, data)
    ways = reference.ways()
    exact = replace(reference, expected=ways[2].astype(np.float32), ways=lambda: [*ways[:2]])
    return quantized, data, exact


def _damaged(model: Any, constant: str, change: Any) -> bytes:
    """The model with one constant changed in place."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = (tensor for tensor in copy.graph.initializer if tensor.name == constant)
    values = onnx.numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(values), tensor.name))
    content: bytes = copy.SerializeToString()
    return content


def _first_two_swapped(values: np.ndarray) -> np.ndarray:
    return values[[1, 0, *range(2, len(values))]]


def _first_larger(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[:1] * np.float32(1.1), values[1:]])


DAMAGE: dict[str, tuple[str, Any, str]] = {
    "a channel's scale": ("a0/weight/scales", _first_larger, "b0"),
    "an input's scale": ("conv2d_4/input/scale", lambda v: v * np.float32(1.1), "b1"),
    "two channels swapped": ("b2/weight/codes", _first_two_swapped, "a3"),
    "a bias": ("a4/bias/codes", lambda v: 0 * v, "b4"),
    "the last bias": ("head/bias/codes", lambda v: 0 * v, "after the last layers"),
}


def test_a_damaged_model_is_seen_between_its_quantizers() -> None:
    quantized, data, _ = _subject()
    model = onnx_model(quantized)
    for constant, change, where in DAMAGE.values():
        wrong = wrong_parts(_damaged(model, constant, change), quantized, data)
        assert any(where in phrase for phrase in wrong), (constant, wrong)


def test_what_rounding_does_to_the_network_is_allowed_to_its_export_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quantized, data, exact = _subject()
    monkeypatch.setattr(checking, "reference_of", lambda *_: exact)
    model = onnx_model(quantized)
    content = model.SerializeToString()
    assert wrong_parts(content, quantized, data) == ()
    checked = check(content, quantized, data)
    assert checked.recommended is not None
    (finding,) = (f for f in checked.findings if f.setting == checked.recommended)
    fixed = replace(exact, ways=tuple)
    got = checking.outputs_under(finding.setting, content, quantized, data)
    assert not judge(fixed, got)[0].ok  # what was refused before
    assert finding.outputs[0].spread is not None
    assert "computed in another order" in finding.outputs[0].line()
    for damage in ("a channel's scale", "two channels swapped"):
        assert check(_damaged(model, *DAMAGE[damage][:2]), quantized, data).recommended is None


def test_a_model_without_codes_of_a_layer_is_read_as_far_as_it_goes() -> None:
    """A layer with float weights has no DequantizeLinear of weights to be found by."""
    quantized, data, _ = _subject()
    layers = {**quantized.assignment, "a0": Choice(32, 4)}
    network = quantize(quantized.source, layers, calibrate(quantized.source, data))
    assert wrong_parts(onnx_model(network).SerializeToString(), network, data) == ()
