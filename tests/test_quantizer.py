"""Quantizers against plain integer arithmetic, and codes against their bytes."""

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import quantizer_oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mpsearch
from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer
from mpsearch.quantization.packing import layer_bytes, pack, packed_bytes, unpack
from mpsearch.quantization.quantizer import (
    ActivationQuantizer,
    QuantizedWeight,
    activation_quantizer,
    affine,
    check_bits,
    quantize_weight,
    weight_at,
    weight_codes_range,
)
from mpsearch.quantization.scale_layout import PER_TENSOR, ScaleLayout, in_steps, layout_of, scaled
from mpsearch.tables.choice import Choice

BITS = (2, 3, 4, 5, 6, 7, 8, 16)


def _random_rows(seed: int, channels: int = 5, n: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-4, 2, channels)[:, None]
    return torch.randn(channels, n, generator=generator) * scales


def _error(rows: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    codes = np.clip(np.rint(rows.numpy() / scale.numpy()[:, None]), low, high)
    return torch.from_numpy((codes * scale.numpy()[:, None] - rows.numpy()) ** 2).sum(1)


@pytest.mark.parametrize("bits", BITS)
def test_weight_codes_stay_in_range_and_round_to_the_nearest(bits: int) -> None:
    rows = _random_rows(bits)
    quantized = quantize_weight(rows, bits)
    low, high = weight_codes_range(bits)
    codes = quantized.codes.numpy()
    assert codes.dtype == np.int16
    assert codes.min() >= low
    assert codes.max() <= high
    for row, code, scale in zip(rows.tolist(), codes, quantized.scales.tolist(), strict=True):
        for value, found in zip(row, code.tolist(), strict=True):
            if low < found < high:  # inside: no other code is nearer, in exact arithmetic
                distance = abs(Fraction(value) - found * Fraction(scale))
                assert distance <= Fraction(scale) * Fraction(500001, 1000000)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weight_error_is_at_most_that_of_min_max_and_near_a_fine_search(bits: int) -> None:
    rows = _random_rows(bits, channels=6, n=200)
    quantized = quantize_weight(rows, bits)
    low, high = weight_codes_range(bits)
    ours = (quantized.dequantize() - rows).square().sum(1)
    largest = rows.abs().amax(1)
    assert bool((ours <= _error(rows, largest / high, low, high) * 1.000001).all())
    fine = torch.stack(
        [_error(rows, largest * c / high, low, high) for c in np.linspace(0.1, 1.1, 2001)]
    ).amin(0)
    assert bool((ours <= fine * 1.1).all())


def test_a_channel_of_zeros_and_a_constant_channel_are_exact() -> None:
    rows = torch.stack([torch.zeros(4), torch.full((4,), -0.7), torch.full((4,), 0.3)])
    for bits in BITS:
        torch.testing.assert_close(
            quantize_weight(rows, bits).dequantize(), rows, rtol=1e-6, atol=0
        )


@pytest.mark.parametrize("bits", BITS)
def test_fake_quantized_activations_are_what_integers_give(bits: int) -> None:
    x = torch.linspace(-1.3, 2.9, 1001)
    quantizer = affine(bits, -1.0, 2.5)
    codes = np.rint(x.numpy() * np.float32(1 / np.float32(quantizer.scale)) + quantizer.zero_point)
    codes = np.clip(codes, 0, 2**bits - 1).astype(np.int64)
    expected = (codes - quantizer.zero_point) * np.float32(quantizer.scale)
    np.testing.assert_allclose(quantizer.fake_quantize(x).numpy(), expected, rtol=1e-6)
    assert float(quantizer.fake_quantize(torch.zeros(1))) == 0.0


@given(st.integers(0, 10**6), st.sampled_from(BITS[:7]))
@settings(max_examples=40, deadline=None)
def test_activation_range_is_no_worse_than_min_max_and_keeps_zero(seed: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    values = random.standard_t(3, 4000) * random.uniform(0.1, 10) + random.uniform(-1, 1)
    if seed % 2:
        values = np.maximum(values, 0)
    counts, edges = np.histogram(values, bins=2048)
    quantizer = activation_quantizer(bits, counts, float(edges[0]), float(edges[-1]))
    plain = affine(bits, min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0))
    centres = torch.from_numpy((edges[:-1] + edges[1:]) / 2).float()

    def error(q: ActivationQuantizer) -> float:
        difference = (q.fake_quantize(centres) - centres).double().square()
        return float((difference * torch.from_numpy(counts)).sum())

    assert error(quantizer) <= error(plain) * 1.001
    assert 0 <= quantizer.zero_point < 2**bits
    if seed % 2:
        assert quantizer.zero_point == 0


def test_degenerate_activations_do_not_break() -> None:
    counts = np.zeros(8, dtype=np.int64)
    counts[0] = 5
    for value in (0.0, 3.0, -3.0):
        quantizer = activation_quantizer(4, counts, value, value)
        assert float(quantizer.fake_quantize(torch.tensor([value]))) == pytest.approx(value)


@pytest.mark.parametrize("bits", [0, 1, 9, 17, 33, -4])
def test_unsupported_bits_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match="expected 2 to 8"):
        check_bits(bits)


@given(st.data())
def test_packing_round_trips_and_takes_the_bytes_that_it_says(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from(BITS))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = np.array(data.draw(st.lists(st.integers(low, high), max_size=50)), dtype=np.int16)
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(len(codes), bits) == -(-len(codes) * bits // 8)
    np.testing.assert_array_equal(unpack(packed, bits, len(codes)), codes)
    as_one_number = sum((int(code) & (2**bits - 1)) << (bits * i) for i, code in enumerate(codes))
    assert int.from_bytes(packed.tobytes(), "little") == as_one_number


def test_unpacking_too_few_bytes_is_an_error() -> None:
    with pytest.raises(ValueError, match="got 1 bytes; expected 2"):
        unpack(np.zeros(1, dtype=np.uint8), 4, 3)


def test_layer_bytes_by_hand() -> None:
    layer = Layer("l", "linear", "l.weight", "l.bias", 15, 3, 15, ("linear",))
    assert layer_bytes(layer, Choice(4, 8)) == 8 + 4 * 3 + 4 * 3
    assert layer_bytes(layer, Choice(32, 32)) == 4 * 15 + 4 * 3


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per_tensor", [False, True])
def test_weight_codes_are_bit_exact_in_numpy(bits: int, per_tensor: bool) -> None:
    rows = _random_rows(bits + 50, channels=7, n=300)
    quantized = quantize_weight(rows, bits, ScaleLayout(per_tensor))
    expected = quantizer_oracle.weight_codes(rows.numpy(), quantized.scales.numpy(), bits)
    np.testing.assert_array_equal(quantized.codes.numpy(), expected)


@pytest.mark.parametrize("bits", BITS)
def test_weights_halfway_between_codes_are_bit_exact_in_numpy(bits: int) -> None:
    scales = torch.tensor([0.25, 2.0**-9, 0.1])  # with the last, w/s is rounded before it is a tie
    ends = min(2 ** (bits - 1) + 3, 5000)
    ties = (torch.arange(-ends, ends) + 0.5)[None] * scales[:, None]
    codes = weight_at(ties, scales, bits).codes.numpy()
    np.testing.assert_array_equal(
        codes, quantizer_oracle.weight_codes(ties.numpy(), scales.numpy(), bits)
    )
    low, high = weight_codes_range(bits)
    inside = codes[0][(codes[0] > low) & (codes[0] < high)]
    assert bool((inside % 2 == 0).all())  # half to even


@given(st.integers(0, 10**6), st.sampled_from(BITS), st.sampled_from([1.0, 0.25, 0.3, 1e-3]))
@settings(max_examples=60, deadline=None)
def test_activation_codes_and_fake_quantize_are_bit_exact_in_numpy(
    seed: int, bits: int, step: float
) -> None:
    random = np.random.default_rng(seed)
    levels = 2**bits - 1
    zero = int(random.integers(0, levels + 1))
    scale = float(np.float32(step))
    inside = random.uniform(-zero - 2, levels - zero + 2, 300)
    ties = np.floor(random.uniform(-zero - 2, levels - zero + 2, 300)) + 0.5
    x = (np.concatenate([inside, ties]) * scale).astype(np.float32)
    found = ActivationQuantizer(bits, scale, zero).fake_quantize(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(found, quantizer_oracle.fake_quantize(x, scale, zero, bits))
    codes = np.rint(found / np.float32(scale)).astype(np.int64) + zero
    np.testing.assert_array_equal(codes, quantizer_oracle.activation_codes(x, scale, zero, bits))


def test_per_tensor_is_one_scale_and_no_better_than_per_channel() -> None:
    rows = _random_rows(3, channels=6, n=100)
    whole, each = quantize_weight(rows, 4, PER_TENSOR), quantize_weight(rows, 4)
    assert len(whole.scales) == 6
    assert len(set(whole.scales.tolist())) == 1
    errors = [float((q.dequantize() - rows).square().sum()) for q in (each, whole)]
    assert errors[0] <= errors[1]


def test_every_scale_meets_its_own_weights() -> None:
    """One scale for each channel, and for runs of 4 weights: whoever goes by `by_scale` can do
    both."""
    rng = np.random.default_rng(7)
    rows = torch.from_numpy(rng.normal(size=(3, 12)))
    for shape, run in (((3,), 12), ((3, 3), 4)):
        scales = torch.from_numpy(rng.uniform(0.1, 0.3, shape))
        found = weight_at(rows, scales, 3)
        assert found.scales is scales
        expected = np.empty((3, 12))
        for channel in range(3):
            for column in range(12):
                scale = scales.reshape(3, -1)[channel, column // run].item()
                steps = np.float32(rows[channel, column].item()) / np.float64(scale)
                expected[channel, column] = scale * min(max(round(float(steps)), -4), 3)
        np.testing.assert_allclose(found.dequantize(torch.float64).numpy(), expected, rtol=1e-12)
        assert torch.equal(scaled(in_steps(rows, scales), scales).round(decimals=9),
                           rows.round(decimals=9))  # fmt: skip


def test_a_weight_answers_for_its_scales() -> None:
    codes = torch.tensor([[1, -2], [3, 0], [0, 4]], dtype=torch.int16)
    weight = QuantizedWeight(codes, torch.tensor([0.5, 0.25, 2.0]))
    assert weight.dequantize().tolist() == [[0.5, -1.0], [0.75, 0.0], [0.0, 8.0]]
    assert weight.dequantize().dtype == torch.float32
    step = float(np.float32(0.1))
    assert weight.bias_steps(step).tolist() == [0.5 * step, 0.25 * step, 2 * step]
    assert not weight.has_one_scale
    assert weight.with_channel_scales(torch.ones(3)).has_one_scale
    assert not QuantizedWeight(codes[:1], torch.ones(1)).has_one_scale
    table = Layer("t", "embedding", "w", "", 6, 3, 0, ())
    layout = layout_of(table, Choice(4, 8))  # rows of two numbers: a scale each would be 16 bits
    assert weight.stored_scales(layout, table).tolist() == [0.5]
    linear = replace(table, kind="linear")
    layout = layout_of(linear, Choice(4, 8))
    assert weight.stored_scales(layout, linear).tolist() == [0.5, 0.25, 2.0]
    assert layout_of(linear, Choice(4, 8), per_tensor=True) == PER_TENSOR
    again = QuantizedWeight.from_stored(codes.flatten(), torch.tensor([0.5]), 3, Choice(4, 8))
    assert torch.equal(again.codes, codes)
    assert again.scales.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("scales", "words"),
    [
        (torch.ones(2), r"have shape \(2,\)"),
        (torch.ones(3, 1), "have shape"),
        (torch.tensor([1.0, float("nan"), 1.0]), "are no finite numbers"),
        (torch.ones(3, dtype=torch.int32), "are no finite numbers"),
    ],
)
def test_stored_scales_that_cannot_be(scales: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QuantizedWeight.from_stored(torch.ones(6, dtype=torch.int16), scales, 3, Choice(4, 8))


def test_no_other_file_knows_which_weight_has_which_scale() -> None:
    """Scales that are indexed or repeated are known to be one for each channel: a second layout
    would have to change every such line."""
    pattern = re.compile(r"(?:\b|_)(scales|steps|tried)(?:\(\))?(?:\[|\.repeat\()[^\]]*None")
    root = Path(mpsearch.__file__).parent
    found = {p.name for p in root.rglob("*.py") if pattern.search(p.read_text(encoding="utf-8"))}
    assert found <= {"interactions.py", "scale_layout.py"}
