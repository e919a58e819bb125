"""What a device stores between layers: which tensors, in how many bits, and who follows it."""

import json
import zipfile
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import integer_networks
import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.c.source import generate
from mpsearch.exporters.litert.model import build as build_litert
from mpsearch.finetuning.student import student
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network
from mpsearch.integer.arithmetic import Affine
from mpsearch.integer.graph import Add, IntegerTensor, Mean, Requantize
from mpsearch.integer.lowering import lower
from mpsearch.integer.stored import stored_tensors
from mpsearch.integer.sums import _scaling
from mpsearch.post_training.kept_repairs import Yardstick
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.post_training.stored_tensors import store_tensors
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize, without_stored
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

Found = dict[str, tuple[int, bool, tuple[str, ...]]]


@cache
def _network(name: str) -> tuple[Network, Data]:
    if name in networks.BUILDERS:
        model, inputs, _ = networks.build(name, 24)
        return Network.from_module(model, inputs), Data("test", inputs, None)
    network, inputs = integer_networks.exported(name)
    return network, Data("test", tuple(x[:24] for x in inputs), None)


def _quantized(name: str, choice: str = "w8a8") -> tuple[QuantizedNetwork, Data]:
    network, data = _network(name)
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice.parse(choice))
    return quantize(network, choices, calibrate(network, data)), data


def _of(forward: Any, shape: tuple[int, ...], a_bits: dict[str, int], **layers: nn.Module) -> Found:
    """Of a network that `forward` computes, by operator: bits, whether open, layers that share."""
    inputs = (torch.randn(2, *shape),)
    network = Network.from_module(integer_networks.Function(forward, **layers).eval(), inputs)
    bits = {layer.name: a_bits.get(layer.name, 8) for layer in network.layers}
    nodes = {node.name: node for node in network.graph.graph.nodes}
    return {
        packet(nodes[t.node]) or "input": (t.bits(), t.is_open, t.layers)
        for t in stored_tensors(network.graph, network.layers, bits)
    }


def _conv(channels: int = 2) -> nn.Module:
    return nn.Conv2d(channels, channels, 1)


def test_a_tensor_with_one_reader_is_written_for_it() -> None:
    def chain(m: Any, x: torch.Tensor) -> Any:
        pooled = torch.max_pool2d(torch.relu(m.a(x)), 2)
        return m.c(torch.relu(m.b(pooled)).transpose(2, 3))

    assert _of(chain, (2, 4, 4), {}, a=_conv(), b=_conv(), c=_conv()) == {}


def test_a_sum_is_taken_before_anything_is_written_and_its_other_operand_is_stored() -> None:
    def block(m: Any, x: torch.Tensor) -> Any:
        first = torch.relu(m.a(x))
        return m.c(torch.relu(first + m.b(first)))

    def later(m: Any, x: torch.Tensor) -> Any:
        one = m.a(x)
        return m.c(m.b(one.transpose(2, 3)).transpose(2, 3) + one)  # a move is in between

    names = {"a": _conv(), "b": _conv(), "c": _conv()}
    assert _of(block, (2, 4, 4), {}, **names) == {"relu": (8, True, ("b",))}
    assert _of(block, (2, 4, 4), {"b": 4}, **names) == {"relu": (8, True, ("b",))}
    assert _of(later, (2, 4, 4), {}, **names) == {
        "conv2d": (8, True, ("b",)), "transpose": (8, True, ()),
    }  # fmt: skip


def test_several_layers_share_codes_of_their_bits() -> None:
    def both(m: Any, x: torch.Tensor) -> Any:
        return m.c(torch.cat([m.a(x), m.b(torch.max_pool2d(x, 1))], 1))

    names = {"a": _conv(), "b": _conv(), "c": _conv(4)}
    assert _of(both, (2, 4, 4), {"a": 4, "b": 4}, **names) == {"input": (4, False, ("a", "b"))}
    assert _of(both, (2, 4, 4), {"a": 4, "b": 6}, **names) == {"input": (8, True, ("a", "b"))}
    assert _of(both, (2, 4, 4), {"a": 4, "b": 16}, **names) == {"input": (16, True, ("a", "b"))}


def test_means_and_pools_read_codes_and_functions_16_bits() -> None:
    def means(m: Any, x: torch.Tensor) -> Any:
        pooled = functional.avg_pool2d(torch.relu(m.a(x)), 2)  # b reads it alone
        return torch.sigmoid(m.b(pooled)).mean((2, 3)) + m.c(m.d(pooled).mean((2, 3)))

    found = _of(means, (2, 4, 4), {}, a=_conv(), b=_conv(), c=nn.Linear(2, 2), d=_conv())
    assert found == {
        "relu": (8, True, ()), "avg_pool2d": (8, False, ("b", "d")), "mean": (8, True, ()),
        "conv2d": (8, True, ()),
    }  # fmt: skip


def test_the_structure_is_that_of_the_steps() -> None:
    """No 32 bits, a sum in one step with a factor for each operand, no copy of a stored tensor."""
    quantized, data = _quantized("residual")
    graph = lower(integer_networks.storing(quantized, data), data)
    kinds = [type(step) for step in graph.steps]
    assert Add not in kinds
    assert Requantize not in kinds
    (affine,) = (step for step in graph.steps if isinstance(step, Affine))
    operands = [graph.tensors[name] for name in affine.sources]
    assert sorted((t.bits, t.signed) for t in operands) == [(8, False), (16, True)]
    assert max(t.bits for t in graph.tensors.values()) == 16
    assert graph.output.bits == 16
    (mean,) = (step for step in graph.steps if isinstance(step, Mean))
    assert mean.output.bits == 8
    wide = lower(quantized, data)  # without quantizers, as ever
    assert Add in [type(step) for step in wide.steps]
    assert wide.output.bits == 32
    peaks = [generate(g, quantized).storage.arena.peak_bytes for g in (graph, wide)]
    assert peaks[0] < peaks[1]


def test_layers_of_as_many_bits_take_over_one_quantizer() -> None:
    quantized, data = _quantized("residual", "w8a4")
    layers = dict(quantized.layers)
    down = layers["down"]
    other = replace(down.activation, scale=down.activation.scale * 0.75)  # as if it was measured
    layers["down"] = replace(down, activation=other)
    found = store_tensors(quantized.source, layers, data, "8", lambda _: 0.0)
    assert found.stored is not None
    assert found.layers["down"].activation == found.layers["conv1"].activation
    assert found.stored["image"] == found.layers["conv1"].activation
    assert not any(isinstance(step, Requantize) for step in lower(found, data).steps)


def _skewed(m: Any, x: torch.Tensor) -> Any:
    s = m.a(x) + m.b(x)
    return m.head(s + m.c(x))


def _skew(factor: float) -> tuple[Network, Data]:
    """What the head reads is small beside a channel that it does not look at."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = {name: nn.Linear(6, 6) for name in "abc"} | {"head": nn.Linear(6, 3)}
        inputs = (torch.randn(64, 6),)
    with torch.no_grad():
        for name in "ab":
            layers[name].weight[0] *= factor
        layers["head"].weight[:, 0] = 0
    model = integer_networks.Function(_skewed, **layers).eval()
    return Network.from_module(model, inputs), Data("test", inputs, None)


def test_sixteen_bits_where_eight_lose() -> None:
    """And only there: the tensor that layers alone read keeps their bits."""
    for factor, bits in ((1.0, 8), (200.0, 16)):
        network, data = _skew(factor)
        choices = {name: Choice(8, 8) for name in "abc"} | {"head": Choice(8, 16)}
        yardstick = Yardstick(network, data)
        noise = {}
        for wide in ("auto", "8", "16", "32"):
            settings = PostTraining("mse", rounding="nearest", correct_bias=False, wide=wide)
            found = quantize_after_training(network, choices, data, settings)
            noise[wide] = yardstick.noise(found)
            stored = {name: q.bits for name, q in (found.stored or {}).items()}
            assert found.post_training is not None
            assert found.post_training["wide"] == wide
            if wide == "32":
                assert found.stored is None
            else:
                open_ones = bits if wide == "auto" else int(wide)
                assert sorted(stored.values()) == [8, open_ones, open_ones]
        assert noise["auto"] == noise[str(bits)]
        assert noise["auto"] <= 1.5 * noise["16"] + 1e-3
    assert noise["8"] > 10 * noise["16"]


def test_layers_in_float_and_unknown_widths_store_nothing() -> None:
    for choice in ("w32a8", "w8a32"):
        quantized, data = _quantized("residual", choice)
        assert integer_networks.storing(quantized, data).stored is None
    assert PLAIN.wide == "32"
    with pytest.raises(InputError, match="got '4' for the bits of stored tensors; expected auto"):
        PostTraining(wide="4")  # type: ignore[arg-type]


def test_files_keep_it_and_files_without_it_are_as_before(tmp_path: Path) -> None:
    quantized, data = _quantized("residual")
    found = integer_networks.storing(quantized, data)
    assert found.digest != quantized.digest == without_stored(found).digest
    assert replace(quantized, stored={}).digest == quantized.digest
    save_quantized(found, tmp_path / "q.pt")
    again = load_quantized(tmp_path / "q.pt")
    assert again.stored == found.stored
    assert torch.equal(again(*data.inputs), found(*data.inputs))
    assert not torch.equal(found(*data.inputs), quantized(*data.inputs))
    assert torch.equal(without_stored(found)(*data.inputs), quantized(*data.inputs))
    save_quantized(quantized, tmp_path / "before.pt")
    assert load_quantized(tmp_path / "before.pt").stored is None
    for change, said in (
        ({"nowhere": {"bits": 8, "scale": 1.0, "zero_point": 0}}, "stores 'nowhere', which its"),
        ({"image": {"bits": 8, "scale": 1.0, "zero_point": 256}}, "range of 'image'"),
        ({"image": {"bits": 9, "scale": 1.0, "zero_point": 0}}, "got 9 bits"),
        ({"image": {"bits": 8, "scale": 1.0}}, "zero_point"),
    ):
        with pytest.raises(InputError, match=said):
            load_quantized(_with_stored(tmp_path / "q.pt", tmp_path / "damaged.pt", change))


def _with_stored(file: Path, target: Path, stored: dict[str, Any]) -> Path:
    with zipfile.ZipFile(file) as given, zipfile.ZipFile(target, "w") as changed:
        for name in given.namelist():
            content = given.read(name)
            if name == "mpsearch.json":
                content = json.dumps(json.loads(content) | {"stored": stored}).encode()
            changed.writestr(name, content)
    return target


def test_training_begins_and_ends_with_the_same_quantizers() -> None:
    """Layers that read stored codes train one step with them."""
    for choice in ("w4a8", "w4a4"):
        quantized, data = _quantized("residual", choice)
        start = integer_networks.storing(quantized, data)
        copy = student(quantized.source, start)
        torch.testing.assert_close(copy(*data.inputs), start(*data.inputs), rtol=0, atol=1e-5)
        assert copy.quantized().digest == start.digest
        (copy(*data.inputs) ** 2).sum().backward()
        name = "image_stored_scale"
        assert copy.parameters[name].grad is not None
        with torch.no_grad():
            copy.parameters[name].add_(0.1)
        after = copy.quantized()
        assert after.stored is not None
        assert start.stored is not None
        assert after.stored["image"] == after.layers["down"].activation
        assert after.stored["image"].scale > start.stored["image"].scale


def test_a_litert_file_keeps_the_quantizers_that_were_assigned() -> None:
    quantized, data = _quantized("option-a")
    found = integer_networks.storing(quantized, data)
    assert found.stored
    model = build_litert(found, data)
    for name, quantizer in found.stored.items():
        assert model.quantizers[name] == quantizer


def test_a_mean_of_more_than_32_bits_is_brought_to_32_first() -> None:
    source = IntegerTensor("x", (1, 200, 200), 16, False, 1e-3, 10)
    output = IntegerTensor("y", (1,), 8, False, 0.5, 100)
    by = _scaling(source, output, np.array(1 / 40_000), 40_000)
    assert by.rescale.pre_shift > 0
    codes = np.random.default_rng(0).integers(0, 2**16, (1, 200, 200))
    step = Mean(("x",), output, (1, 2), by)
    got = step.scaling.means(codes.sum(axis=(1, 2)), 40_000, 100)  # type: ignore[union-attr]
    exact = Fraction(int(codes.sum()) - 10 * 40_000, 40_000) / 500 + 100
    assert abs(int(got[0]) - exact) <= Fraction(1, 2) + Fraction(1, 100)
