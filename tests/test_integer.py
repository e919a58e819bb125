"""Integer inference computes what the fake-quantized network means, with integers only."""

import random
from functools import cache
from pathlib import Path
from typing import Any

import attention_networks
import integer_networks
import networks
import numpy as np
import pytest
import torch
from float64_reference import Float64Reference
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_oracle import replay
from torch import nn
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate
from mpsearch.graph.exporting import export_graph
from mpsearch.graph.network import Network
from mpsearch.integer.gathering import Fill, Gather
from mpsearch.integer.graph import (
    Clamp,
    ComputedStep,
    Convolution,
    Linear,
    Pad,
    Requantize,
    Softmax,
)
from mpsearch.integer.inference import (
    IntegerNetwork,
    integer_network,
    outputs,
    quantize_input,
    run,
    run_all,
)
from mpsearch.integer.lowering import lower
from mpsearch.integer.resizing import Resize
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

BITS = (2, 3, 4, 5, 6, 7, 8, 16)
SAMPLES = 5
EVERY = [*integer_networks.BUILDERS, "residual", "two-inputs", "shared", "weight-norm"]


def _assignment(network: Network, choice: str) -> dict[str, Choice]:
    """One choice everywhere, or random ones when `choice` is a number."""
    names = [layer.name for layer in network.layers]
    if choice.startswith("w"):
        return dict.fromkeys(names, Choice.parse(choice))
    source = random.Random(int(choice))
    return {name: Choice(source.choice(BITS), source.choice(BITS)) for name in names}


def _quantized(network: Network, data: Data, choice: str) -> QuantizedNetwork:
    return quantize(network, _assignment(network, choice), calibrate(network, data))


def _quantize(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], choice: str
) -> tuple[QuantizedNetwork, Data]:
    """Without the test for samples that mix, which `lower` refuses by its own means."""
    data = Data("test", inputs, None)
    network = Network.from_graph(export_graph(model, inputs), inputs)
    return _quantized(network, data, choice), data


@cache
def _exported(name: str) -> tuple[Network, Data]:
    """One of the networks with 60 samples; exporting takes longer than everything else here."""
    if name in networks.BUILDERS:
        model, inputs, _ = networks.build(name, 60)
        return Network.from_module(model, inputs), Data("test", inputs, None)
    source = attention_networks if name in attention_networks.NETWORKS else integer_networks
    network, inputs = source.exported(name)
    return network, Data("test", inputs, None)


def _prepare(name: str, choice: str, samples: int = SAMPLES) -> tuple[QuantizedNetwork, Data]:
    network, data = _exported(name)
    few = Data("test", tuple(x[:samples] for x in data.inputs), None)
    return _quantized(network, few, choice), few


def _codes(integer: IntegerNetwork, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    return [quantize_input(inputs[e.index].numpy(), e.tensor) for e in integer.graph.inputs]


def _check_against_oracle_and_reference(quantized: QuantizedNetwork, data: Data) -> None:
    integer = integer_network(quantized, data)
    codes = _codes(integer, data.inputs)
    fast, plain = (run_all(integer.graph, *codes, exact_blas=blas) for blas in (True, False))
    expected = replay(integer.graph, *codes)
    assert set(expected) == set(fast) == set(plain)
    if quantized.stored is not None:
        counts = {"argmax", *(n for n, t in integer.graph.tensors.items() if t.scale == 1.0)}
        assert {n for n, t in integer.graph.tensors.items() if t.bits > 16} <= counts
    for name, values in expected.items():
        np.testing.assert_array_equal(fast[name].astype(object), values, err_msg=name)
        np.testing.assert_array_equal(plain[name], fast[name], err_msg=name)
        assert fast[name].shape[1:] == integer.graph.tensors[name].shape
        tensor = integer.graph.tensors[name]
        assert fast[name].dtype == plain[name].dtype == tensor.dtype
        assert values.min() >= tensor.low
        assert values.max() <= tensor.high
    meant = Float64Reference(quantized)(*data.inputs)
    got = integer(*data.inputs)
    if integer.graph.gives_classes:
        assert torch.equal(got, meant)
        return
    step = integer.graph.output_step
    softmax = any(isinstance(s, Softmax) for s in integer.graph.steps)
    difference = (got.double() - meant).abs()
    exact = (Fill, Gather, Resize)
    if quantized.stored or any(
        isinstance(s, ComputedStep) and not isinstance(s, exact) for s in integer.graph.steps
    ):
        # 16 bits between layers turn some codes into their neighbours: fine ones may be compared
        if all(layer.choice.a_bits >= 8 for layer in quantized.layers.values()):
            assert float(difference.square().mean().sqrt()) < 0.3 * step
        return
    limit = 0.01 * step + 2e-5 * softmax  # probabilities have 15 bits
    assert float(difference.max()) < limit
    with torch.no_grad():
        assert float((got - quantized(*data.inputs)).abs().max()) <= step


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        *((name, "w8a8") for name in EVERY if name not in integer_networks.LARGE),
        *((name, "1") for name in ("residual", "moved", "upwards")),
        ("pools", "w16a16"),
        ("option-a", "w16a16"),
        *((name, "w8a8") for name in attention_networks.NETWORKS),
    ],
)
def test_every_operator_equals_the_oracle_and_the_fake_quantized_network(
    name: str, choice: str
) -> None:
    _check_against_oracle_and_reference(*_prepare(name, choice))


@pytest.mark.parametrize(
    ("name", "choice", "wide"),
    [
        *((name, "1", "8") for name in EVERY),
        *((name, "w8a8", "8") for name in ("residual", "shared", "line", "unet")),
        *((name, "w8a8", "16") for name in ("option-a", "pools", "removed-constants")),
    ],
)
def test_sums_of_stored_codes_equal_the_oracle_and_what_was_simulated(
    name: str, choice: str, wide: str
) -> None:
    quantized, data = _prepare(name, choice)
    _check_against_oracle_and_reference(integer_networks.storing(quantized, data, wide), data)


@settings(max_examples=8, derandomize=True, deadline=None)
@given(st.integers(0, 10**6))
def test_random_networks_with_random_assignments(seed: int) -> None:
    model, inputs = integer_networks.build_random(seed, samples=3)
    quantized, data = _quantize(model, inputs, str(seed))
    if seed % 3:
        quantized = integer_networks.storing(quantized, data, "16" if seed % 3 == 1 else "8")
    _check_against_oracle_and_reference(quantized, data)


class IntegerOnly(np.ndarray):
    """An array that refuses floating point in every operation that it meets."""

    seen: list[str] = []  # noqa: RUF012  (what was checked, for the test to count)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.get("out", ())):
            assert np.asarray(value).dtype.kind in "iub", f"{ufunc.__name__} reads {value!r}"
        plain = [np.asarray(v) if isinstance(v, IntegerOnly) else v for v in args]
        out = tuple(np.asarray(v) for v in kwargs.pop("out", ()))
        if out:
            kwargs["out"] = out
        result = getattr(ufunc, method)(*plain, **kwargs)
        assert np.asarray(result).dtype.kind in "iub", f"{ufunc.__name__} gives {result.dtype}"
        IntegerOnly.seen.append(ufunc.__name__)
        return np.asanyarray(result).view(IntegerOnly)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(func, types, args, kwargs)
        if not isinstance(result, np.ndarray):
            return result
        assert result.dtype.kind in "iub", f"{func.__name__} gives {result.dtype}"
        return result.view(IntegerOnly)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        assert np.dtype(dtype).kind in "iub", f"cast to {dtype}"
        return super().astype(dtype, *args, **kwargs)


@pytest.mark.parametrize("name", [*sorted(set(EVERY) - integer_networks.LARGE), "tokens", "unet"])
def test_every_intermediate_value_is_an_integer(name: str) -> None:
    quantized, data = _prepare(name, "w4a8", samples=2)
    integer = integer_network(quantized, data)
    codes = [x.view(IntegerOnly) for x in _codes(integer, data.inputs)]
    IntegerOnly.seen.clear()
    values = run_all(integer.graph, *codes, exact_blas=False)
    assert all(isinstance(value, IntegerOnly) for value in values.values())
    kinds = [type(step) for step in integer.graph.steps]
    layers = kinds.count(Convolution) + kinds.count(Linear)
    assert IntegerOnly.seen.count("right_shift") >= 2 * layers  # the check was really in the way
    with pytest.raises(AssertionError, match="cast to"):
        run(integer.graph, *codes, exact_blas=True)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_inputs_enter_with_the_codes_of_the_fake_quantizer(bits: int, offset: float) -> None:
    model, _ = integer_networks.build("classes", 2)
    inputs = (torch.rand(500, 6, generator=torch.Generator().manual_seed(bits)) * 3 - offset,)
    quantized, data = _quantize(model, inputs, f"w8a{bits}")
    (entry,) = integer_network(quantized, data).graph.inputs
    x = inputs[0] * 1.2  # some of it beyond the range
    codes = torch.from_numpy(quantize_input(x.numpy(), entry.tensor).astype(np.float32))
    scale = torch.tensor(entry.tensor.scale, dtype=torch.float32)
    expected = quantized.layers["first"].activation.fake_quantize(x)
    assert torch.equal((codes - entry.tensor.zero_point) * scale, expected)


@pytest.mark.parametrize("wide_bits", [16, 32])
def test_values_beyond_the_calibrated_range_saturate(wide_bits: int) -> None:
    quantized, data = _prepare("input-everywhere", "w8a8")
    graph = lower(quantized, data, wide_bits=wide_bits)
    codes = [quantize_input(1e6 * data.inputs[e.index].numpy(), e.tensor) for e in graph.inputs]
    assert any((x == e.tensor.high).any() for x, e in zip(codes, graph.inputs, strict=True))
    expected = replay(graph, *codes)
    for name, values in run_all(graph, *codes).items():
        np.testing.assert_array_equal(values.astype(object), expected[name])


@pytest.mark.parametrize("name", ["option-a", "removed-constants"])
def test_wide_tensors_of_16_bits_come_close(name: str) -> None:
    quantized, data = _prepare(name, "w8a8", samples=50)
    meant = Float64Reference(quantized)(*data.inputs)
    errors = []
    for bits in (16, 32):
        integer = integer_network(quantized, data, wide_bits=bits)
        difference = (integer(*data.inputs).double() - meant).abs()
        errors.append(float(difference.max()) / integer.graph.output_step)
    assert errors[1] < errors[0] < 1.5


def test_the_accumulator_bound_is_reached_and_decides_on_64_bits() -> None:
    model = nn.Linear(512, 2, bias=False)
    with torch.no_grad():
        model.weight[0], model.weight[1] = 1.0, -1.0
    inputs = (torch.cat([torch.zeros(1, 512), torch.ones(1, 512)]),)
    for choice, bits in (("w8a8", 32), ("w16a16", 64)):
        quantized, data = _quantize(nn.Sequential(model), inputs, choice)
        integer = integer_network(quantized, data)
        (step,) = integer.graph.steps
        assert isinstance(step, Linear)
        largest = 512 * (2 ** (8 * bits // 32 - 1) - 1) * (2 ** (8 * bits // 32) - 1)
        assert step.weights.bound == largest
        assert step.weights.accumulator_bits == bits
        torch.testing.assert_close(
            integer(*inputs), torch.tensor([[0.0, 0.0], [512.0, -512.0]]), rtol=1e-5, atol=1e-4
        )


def test_layers_write_the_codes_that_the_next_layer_reads() -> None:
    """ReLU, pooling and concatenation are done on codes: no step only converts."""
    quantized, data = _prepare("two-inputs", "w4a4")
    steps = integer_network(quantized, data).graph.steps
    assert not any(isinstance(step, Requantize | Clamp) for step in steps)
    assert [step.output.bits for step in steps] == [4] * 7 + [32]


def test_a_residual_sum_has_one_scale_and_no_multiplication() -> None:
    quantized, data = _prepare("option-a", "w4a4")
    graph = integer_network(quantized, data).graph
    (add,) = (step for step in graph.steps if type(step).__name__ == "Add")
    scales = {graph.tensors[name].scale for name in (*add.sources, add.output.name)}
    assert len(scales) == 1


def test_a_stored_network_has_the_same_integers(tmp_path: Path) -> None:
    quantized, data = _prepare("residual", "3")
    save_quantized(quantized, tmp_path / "q.pt")
    loaded = load_quantized(tmp_path / "q.pt")
    before, after = (outputs(integer_network(q, data), data, 2) for q in (quantized, loaded))
    assert torch.equal(before, after)


def test_it_is_measured_like_any_network() -> None:
    quantized, data = _prepare("two-inputs", "w8a8", samples=60)
    labels = Float64Reference(quantized)(*data.inputs).argmax(1)
    measured = evaluate(
        "integer", integer_network(quantized, data), Data("d", data.inputs, labels), 7
    )
    assert (measured.n, measured.accuracy) == (60, 1.0)


def test_padding_that_never_wins_leaves_the_logits_exact() -> None:
    """In front of softmax and arg-max, also where all logits are negative."""
    linear = nn.Linear(4, 3)
    nn.init.constant_(linear.bias, -9.0)
    inputs = (torch.randn(40, 4, generator=torch.Generator().manual_seed(0)),)
    for value in (-3e9, -torch.inf):
        for read in (torch.softmax, torch.argmax):

            def masked(m: Any, x: torch.Tensor, v: float = value, f: Any = read) -> Any:
                return f(functional.pad(m.a(x), (1, 2), value=v), 1)

            model = integer_networks.Function(masked, a=linear).eval()
            quantized, data = _quantize(model, inputs, "w8a8")
            meant = Float64Reference(quantized)(*inputs)
            got = integer_network(quantized, data, wide_bits=16)(*inputs)
            assert float((got.double() - meant).abs().max()) < 1e-3


def test_infinite_values_that_matter_are_refused() -> None:
    def padded(m: Any, x: torch.Tensor) -> Any:
        return functional.pad(m.a(x), (0, 1), value=-torch.inf)

    make, linear = integer_networks.Function, nn.Linear(4, 4)
    _expect("node 'pad' gives infinite values", make(padded, a=linear), 4)
    with pytest.raises(InputError, match=r"layer 'b' reads infinite values.*front of the layer$"):
        _quantize(make(lambda m, x: m.b(padded(m, x)), a=linear, b=nn.Linear(5, 2)).eval(),
                  (torch.randn(4, 4),), "w8a8")  # fmt: skip


def _expect(message: str, model: nn.Module, *shape: int, choice: str = "w8a8") -> None:
    quantized, data = _quantize(model.eval(), (torch.randn(4, *shape),), choice)
    with pytest.raises(InputError, match=message):
        lower(quantized, data)


def test_what_has_no_integer_form_is_named_with_its_node() -> None:
    make = integer_networks.Function
    linear = nn.Linear(4, 4)
    _expect(r"conv3d \(node 'conv3d'\)", nn.Conv3d(1, 1, 2), 1, 3, 3, 3)
    _expect(r"atan2 \(node 'atan2'\) has no integer form; integer inference knows .*functions of",
            make(lambda m, x: torch.atan2(m.a(x), x), a=linear), 4)  # fmt: skip
    _expect("divides by a tensor", make(lambda m, x: m.a(x) / m.b(x), a=linear, b=linear), 4)
    _expect(
        "not defined, or too steep", make(lambda m, x: (m.a(x).relu() + 1e-6).log(), a=linear), 4
    )
    _expect("not defined, or too steep", make(lambda m, x: (m.a(x) > 0) * 1.0, a=linear), 4)
    _expect("reads several tensors", make(lambda m, x: (m.a(x) > x) * m.a(x), a=linear), 4)
    _expect(
        "reads constants alone",
        make(lambda m, x: m.a(x)[:, None] @ m.a.weight.abs().expand(len(x), 4, 4), a=linear),
        4,
    )
    _expect("aligns the batch", make(lambda m, x: m.a(x).unsqueeze(1) + x, a=linear), 4)
    _expect("averages over the batch", make(lambda m, x: m.a(x) + m.a(x).mean(), a=linear), 4)
    _expect("along the batch", make(lambda m, x: m.a(x).softmax(0), a=linear), 4)
    _expect("not the network's output", make(lambda m, x: m.a(x).argmax(1).view(-1), a=linear), 4)


def test_float_layers_and_odd_widths_are_refused() -> None:
    for choice in ("w32a8", "w8a32"):
        quantized, data = _prepare("classes", choice)
        with pytest.raises(InputError, match=f"layer 'first' is left in float .{choice}."):
            lower(quantized, data)
    with pytest.raises(InputError, match="got 24 bits"):
        lower(*_prepare("classes", "w8a8"), wide_bits=24)


def test_networks_that_mix_samples_are_refused() -> None:
    """Which needs values: shapes alone look like samples in another dimension."""
    moved = integer_networks.Function(
        lambda m, x: m.a(x.permute(1, 0, 2)).permute(1, 0, 2).flatten(1), a=nn.Linear(4, 4)
    )
    inputs = (torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)),)
    lower(*_quantize(moved, inputs, "w8a8"))
    mixed = integer_networks.Function(
        lambda m, x: m.a(x.permute(1, 0, 2)).flip(1).permute(1, 0, 2).flatten(1), a=nn.Linear(4, 4)
    )
    with pytest.raises(InputError, match=r"mixes samples|moves the batch"):
        lower(*_quantize(mixed, inputs, "w8a8"))


def test_a_network_that_is_all_zero_stays_zero() -> None:
    linear = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(linear.weight)
    quantized, data = _quantize(nn.Sequential(linear), (torch.zeros(2, 3),), "w8a8")
    assert torch.equal(integer_network(quantized, data)(*data.inputs), torch.zeros(2, 2))


def test_zeros_around_an_image_are_the_padding_of_the_convolutions_that_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 4, 3)
            self.wide = nn.Conv2d(4, 4, (2, 3), stride=2, padding=1)
            self.deep = nn.Conv2d(4, 4, 3, groups=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            one = functional.pad(x, (0, 1), value=0.5)  # no zeros: a step of its own
            wide: torch.Tensor = self.wide(functional.pad(x, (1, 0, 2, 3)))
            deep: torch.Tensor = self.deep(one)
            return wide.mean((2, 3)) + deep.mean((2, 3))

    torch.manual_seed(0)
    x = torch.randn(8, 2, 7, 9)
    network, data = Network.from_module(Padded().eval(), (x,)), Data("sample", (x,), None)
    choices = dict.fromkeys(("first", "wide", "deep"), Choice(8, 8))
    quantized = quantize(network, choices, calibrate(network, data))
    folded = lower(quantized, data)
    monkeypatch.setattr("mpsearch.integer.lowering.fold_pads", lambda _, steps, __: steps)
    plain = lower(quantized, data)
    assert [sum(isinstance(s, Pad) for s in graph.steps) for graph in (folded, plain)] == [1, 2]
    (entry,) = folded.inputs
    codes = quantize_input(x.numpy(), entry.tensor)
    np.testing.assert_array_equal(run(folded, codes), run(plain, codes))
