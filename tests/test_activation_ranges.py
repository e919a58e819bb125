"""Activation ranges by each method, and the one that is chosen by its measured error."""

from collections.abc import Callable, Mapping
from typing import Any

import networks
import numpy as np
import pytest
import quantizer_oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.post_training.activation_ranges import (
    METHODS,
    OutputErrors,
    check_method,
    choose_quantizers,
    quantizer_of,
)
from mpsearch.quantization.calibration import Histogram, calibrate
from mpsearch.quantization.quantizer import ActivationQuantizer
from mpsearch.tables.choice import Choice

RULES = ("mse", "minmax", "percentile", "percentile:99.9", "entropy")
BITS = (2, 3, 4, 5, 6, 7, 8, 16)


def _histogram(values: np.ndarray) -> Histogram:
    counts, edges = np.histogram(values, bins=2048)
    return Histogram(counts, float(edges[0]), float(edges[-1]))


def _top(quantizer: ActivationQuantizer) -> float:
    return quantizer.scale * ((1 << quantizer.bits) - 1 - quantizer.zero_point)


def _bottom(quantizer: ActivationQuantizer) -> float:
    return -quantizer.scale * quantizer.zero_point


@given(st.integers(0, 10**6), st.sampled_from(BITS), st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_zero_is_exact_and_one_sided_data_get_a_one_sided_range(
    seed: int, bits: int, method: str
) -> None:
    random = np.random.default_rng(seed)
    values = random.standard_t(3, 2000) * random.uniform(0.1, 10) + random.uniform(-1, 1)
    sign = seed % 3
    if sign:
        values = np.maximum(values, 0) if sign == 1 else np.minimum(values, 0)
    quantizer = quantizer_of(_histogram(values), bits, method)
    assert float(quantizer.fake_quantize(torch.zeros(1))) == 0.0
    assert 0 <= quantizer.zero_point <= 2**bits - 1
    if sign == 1:
        assert quantizer.zero_point == 0
    if sign == 2:
        assert quantizer.zero_point == 2**bits - 1
    assert _top(quantizer) - _bottom(quantizer) > 0


def test_minmax_spans_the_data() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    quantizer = quantizer_of(_histogram(values), 8, "minmax")
    span = values.max() - values.min()
    assert _top(quantizer) == pytest.approx(values.max(), abs=span / 255)
    assert _bottom(quantizer) == pytest.approx(values.min(), abs=span / 255)


@pytest.mark.parametrize(("method", "percent"), [("percentile", 99.99), ("percentile:99.9", 99.9)])
def test_percentiles_are_those_of_the_values(method: str, percent: float) -> None:
    values = np.random.default_rng(1).standard_t(4, 200_000)
    width = (values.max() - values.min()) / 2048  # what the histogram cannot resolve
    quantizer = quantizer_of(_histogram(values), 16, method)
    rest = (100 - percent) / 2
    assert _top(quantizer) == pytest.approx(np.percentile(values, 100 - rest), abs=2 * width)
    assert _bottom(quantizer) == pytest.approx(np.percentile(values, rest), abs=2 * width)
    positive = np.abs(values)
    one_sided = quantizer_of(_histogram(positive), 16, method)
    assert _top(one_sided) == pytest.approx(np.percentile(positive, percent), abs=2 * width)


def test_percentile_keeps_a_range_where_nearly_all_values_are_zero() -> None:
    values = np.zeros(100_000)
    values[0] = 3.0
    assert _top(quantizer_of(_histogram(values), 8, "percentile")) == pytest.approx(3.0)


def _divergence(values: np.ndarray, top: float, levels: int) -> float:
    """KL of the quantized histogram from the clipped one, with dictionaries instead of arrays."""
    counts, edges = np.histogram(values, bins=2048)
    centres = (edges[:-1] + edges[1:]) / 2
    counts = counts.astype(float)
    counts[0] = counts[1]
    step = np.float32(top / levels)
    kept = [i for i in range(2048) if counts[i] and round(centres[i] / step) <= levels]
    p = {i: counts[i] for i in kept}
    p[kept[-1]] += counts[kept[-1] + 1 :].sum()
    by_code: dict[int, list[int]] = {}
    for i in kept:
        by_code.setdefault(round(centres[i] / step), []).append(i)
    q = {i: sum(counts[j] for j in b) / len(b) for b in by_code.values() for i in b}
    total_p, total_q = sum(p.values()), sum(q.values())
    return float(sum(p[i] / total_p * np.log(p[i] / total_p / (q[i] / total_q)) for i in kept))


def _error(values: np.ndarray, top: float, levels: int) -> float:
    return float(
        np.square(np.clip(np.rint(values * levels / top), 0, levels) * top / levels - values).sum()
    )


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_entropy_finds_the_least_divergence(bits: int) -> None:
    values = np.abs(np.random.default_rng(bits).standard_t(2.5, 20_000))
    found = _top(quantizer_of(_histogram(values), bits, "entropy"))
    edges = np.histogram(values, bins=2048)[1]
    levels = 2**bits - 1
    most = 4.001 * _error(values, edges[-1], levels)
    tops = [edges[-1] * f for f in np.linspace(1, 0.1, 91)]
    tried = [
        _divergence(values, top, levels) for top in tops if _error(values, top, levels) <= most
    ]
    assert _divergence(values, found, levels) == pytest.approx(min(tried), rel=1e-3)


DISTRIBUTIONS: Mapping[str, Callable[[np.random.Generator], np.ndarray]] = {
    "one sample": lambda r: r.normal(size=1) * 3,
    "two values": lambda r: r.choice([0.3, 5.5], 500, p=[0.97, 0.03]),
    "few values": lambda r: r.choice([0.0, 1.0, 3.0, 4.5, 5.5], 512),
    "few values beside many": lambda r: np.concatenate(
        [np.repeat([1.0, 3.0, 4.5, 5.5], 64) + 1e-3 * r.normal(size=256), r.uniform(0.3, 0.7, 256)]
    ),
    "constants on both sides": lambda r: r.choice([-4.0, -1.0, 0.25, 6.0], 300),
    "far from zero": lambda r: 50 + r.choice([0.0, 0.5, 4.0], 400, p=[0.9, 0.05, 0.05]),
    "negative": lambda r: -np.abs(r.normal(size=3000)) - 0.1,
    "one outlier": lambda r: np.append(np.abs(r.normal(size=5000)), 100.0),
    "bell": lambda r: r.normal(size=4000),
    "after relu": lambda r: np.maximum(r.normal(size=4000), 0),
    "all zero": lambda r: np.zeros(100),
    "one constant": lambda r: np.full(100, -2.5),
}  # fmt: skip


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("method", RULES)
def test_no_rule_costs_more_than_it_says_against_the_whole_range(
    distribution: str, method: str
) -> None:
    """In squared error on the values themselves: a rule that measures errors wins, entropy loses a
    bit (6 dB) at most, and a percentile cuts off the share that it names and no more. The values
    are known to a bin of 2,048, which an error of one code does not see at 8 bits and below."""
    for seed in range(3):
        values = DISTRIBUTIONS[distribution](np.random.default_rng(seed))
        histogram = Histogram(*_counts_of(values))
        for bits in (2, 3, 4, 6, 8):
            whole, found = (quantizer_of(histogram, bits, rule) for rule in ("minmax", method))
            bin_width = (histogram.high - histogram.low) / 2048
            floor = len(values) * (whole.scale / 8 + bin_width) ** 2 / 12
            if method.startswith("percentile"):
                share = 1e-4 if method == "percentile" else 1e-3
                near = (
                    0.51 * found.scale + bin_width
                )  # zero is a code: both ends move by half a step
                top, bottom = _top(found) + near, _bottom(found) - near
                outside = np.count_nonzero((values > top) | (values < bottom))
                assert outside <= share * len(values) + 1e-9
            else:
                allowed = 4 if method == "entropy" else 1
                assert _squared(values, found) <= 1.1 * allowed * _squared(values, whole) + floor


def _counts_of(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """As calibration has it: a tensor without spread has one value."""
    if values.min() == values.max():
        return np.append(len(values), np.zeros(2047, int)), float(values[0]), float(values[0])
    counts, edges = np.histogram(values, bins=2048)
    return counts, float(edges[0]), float(edges[-1])


def _squared(values: np.ndarray, quantizer: ActivationQuantizer) -> float:
    codes = np.rint(values / quantizer.scale) + quantizer.zero_point
    codes = np.clip(codes, 0, 2**quantizer.bits - 1)
    return float(np.square((codes - quantizer.zero_point) * quantizer.scale - values).sum())


def _prepare(name: str) -> tuple[Network, Data]:
    model, inputs, labels = networks.build(name, samples=40)
    return Network.from_module(model, inputs), Data("test", inputs, labels)


def _with_rounded_inputs(
    network: Network, data: Data, layer: Layer, quantizer: ActivationQuantizer
) -> float:
    """Σ over outputs of noise over signal with one layer's inputs quantized by numpy."""

    class Rounding(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            if n.name not in layer.nodes:
                return super().run_node(n)
            (x, *rest), kwargs = self.fetch_args_kwargs_from_env(n)
            scale, zero = quantizer.scale, quantizer.zero_point
            rough = quantizer_oracle.fake_quantize(x.numpy(), scale, zero, quantizer.bits)
            return n.target(torch.from_numpy(rough), *rest, **kwargs)  # type: ignore[operator]

    with torch.no_grad():
        exact = network(*data.inputs).double().flatten(1)
        rough = Rounding(network.graph).run(*data.inputs).double().flatten(1)
    parts = [slice(output.start, output.stop) for output in network.outputs]
    return sum(
        float((rough - exact)[:, part].square().sum() / exact[:, part].square().sum())
        for part in parts
    )


@pytest.mark.parametrize("name", ["two-inputs", "shared", "transposed"])
def test_measured_errors_are_those_of_the_networks_outputs(name: str) -> None:
    network, data = _prepare(name)
    errors = OutputErrors(network, data, batch_size=16)
    for layer, histogram in calibrate(network, data).items():
        layer_ = next(each for each in network.layers if each.name == layer)
        for method in ("mse", "minmax"):
            quantizer = quantizer_of(histogram, 3, method)
            expected = _with_rounded_inputs(network, data, layer_, quantizer)
            assert errors(layer_, quantizer) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("bits", [3, 8])
def test_measured_is_no_worse_for_the_outputs_than_any_method(bits: int) -> None:
    network, data = _prepare("two-inputs")
    histograms = calibrate(network, data)
    choices = dict.fromkeys((layer.name for layer in network.layers), Choice(4, bits))
    measured = choose_quantizers(network, choices, histograms, "measured", data)
    errors = OutputErrors(network, data)
    for rule in RULES:
        for name, other in choose_quantizers(network, choices, histograms, rule, data).items():
            layer = next(each for each in network.layers if each.name == name)
            assert errors(layer, measured[name]) <= errors(layer, other)


def test_auto_cuts_off_a_large_input_that_the_outputs_do_not_depend_on() -> None:
    """A feature ten times the others with a weight of nearly nothing: squared error keeps it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = nn.Linear(8, 4), torch.randn(200, 8)
    with torch.no_grad():
        model.weight[:, 0] *= 1e-4
    x[:, 0] = 20 * x[:, 0].abs()
    network, data = Network.from_module(model, (x,)), Data("test", (x,), None)
    (layer,) = network.layers
    histograms, choices = calibrate(network, data), {layer.name: Choice(8, 4)}
    found = {
        rule: choose_quantizers(network, choices, histograms, rule, data)[layer.name]
        for rule in ("mse", "auto")
    }
    assert found["auto"].scale < 0.6 * found["mse"].scale
    errors = OutputErrors(network, data)
    assert errors(layer, found["auto"]) < 0.3 * errors(layer, found["mse"])


def test_unknown_methods_are_refused() -> None:
    for method in METHODS:
        assert check_method(method) == method
    for wrong in ("best", "mse:3", "percentile:x", "percentile:20", "percentile:101"):
        with pytest.raises(InputError, match="expected"):
            check_method(wrong)
    with pytest.raises(InputError, match="auto measures on data"):
        quantizer_of(_histogram(np.arange(9.0)), 8, "auto")
