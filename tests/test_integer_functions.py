"""Tables of functions: how far off they are, how many knots they take, and which are one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.exporters.c.source import generate
from mpsearch.graph.network import Network
from mpsearch.integer.functions import FINE, LARGEST_ERROR, lookup
from mpsearch.integer.graph import IntegerTensor
from mpsearch.integer.lowering import lower
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

Function = Callable[[torch.Tensor], torch.Tensor]


def _source(reach: float) -> IntegerTensor:
    return IntegerTensor("x", (1,), 16, True, reach / 2**15, 0)


def _codes(low: float, high: float, bits: int = 8) -> IntegerTensor:
    scale = (high - low) / (2**bits - 1)
    return IntegerTensor("y", (1,), bits, False, scale, round(-low / scale))


def _on(function: Function) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: function(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize(
    ("function", "reach", "ends", "parts"),
    [
        (torch.sigmoid, 16, (0.0, 1.0), 256),
        (torch.tanh, 4, (-1.0, 1.0), 256),
        (functional.silu, 8, (-0.3, 8.0), 256),
        (functional.gelu, 8, (-0.2, 8.0), 256),
        # the ends of straight parts, at -3 and 3, are knots where the range is 3 times 2^n
        (functional.hardswish, 12, (-0.4, 12.0), 256),
        (functional.hardsigmoid, 6, (0.0, 1.0), 256),
        (functional.hardsigmoid, 7, (0.0, 1.0), 2048),
        (torch.abs, 8, (0.0, 8.0), 256),
        (torch.square, 8, (0.0, 64.0), 256),
        (torch.exp, 8, (0.0, 2981.0), 512),
    ],
)  # fmt: skip
def test_a_table_gives_the_function_to_a_fraction_of_a_code(
    function: Function, reach: float, ends: tuple[float, float], parts: int
) -> None:
    """Every input of 16 bits against the function in float64: half a code and what is reported."""
    for bits in (4, 8):
        source, output = _source(reach), _codes(*ends, bits)
        step, error = lookup("f", _on(function), source, output, (-reach, reach))
        assert error <= FINE
        codes = np.arange(source.low, source.high + 1)
        real = _on(function)(codes * source.scale)
        wanted = np.clip(real / output.scale + output.zero_point, 0, output.high)
        off = np.abs(step.compute(codes.astype(np.int16)) - wanted)
        assert float(off.max()) <= 0.5 + error + 0.01
        assert len(step.table) - 1 == parts or bits < 8


def test_a_result_beyond_the_output_saturates_where_it_crosses_the_end() -> None:
    """Knots beyond the output's range keep their values beside one within: no bend before."""
    source, output = _source(8), _codes(0.0, 1.03)
    step, error = lookup("f", _on(torch.abs), source, output, (-8, 8))
    assert (len(step.table) - 1, error <= FINE) == (256, True)
    codes = np.arange(source.low, source.high + 1)
    wanted = np.minimum(np.abs(codes) * source.scale / output.scale, 255)
    assert float(np.abs(step.compute(codes.astype(np.int16)) - wanted).max()) <= 0.5 + FINE


def test_what_jumps_or_grows_too_fast_is_seen() -> None:
    for function, ends in ((torch.sign, (-1.0, 1.0)), (torch.sqrt, (0.0, 3.0))):
        _, error = lookup("f", _on(function), _source(8), _codes(*ends), (0.0, 8.0))
        assert error > LARGEST_ERROR
    _, fine = lookup("f", _on(torch.log), _source(8), _codes(-1.0, 2.1), (0.5, 8.0))
    assert fine <= FINE
    _, undefined = lookup("f", _on(torch.log), _source(8), _codes(-1.0, 2.1), (-0.5, 8.0))
    assert undefined == np.inf


class _Gates(nn.Module):
    """A function spelled out, and four gates on values of like size."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        for gate in self.gates:
            assert isinstance(gate, nn.Linear)
            nn.init.normal_(gate.weight, std=1.0)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d = (gate(x) for gate in self.gates)
        y = torch.sigmoid(a) * torch.tanh(b) + torch.sigmoid(c) * torch.tanh(d)
        result: torch.Tensor = self.head(y * (1 / (1 + torch.exp(-y))))
        return result


def test_equal_functions_of_tensors_of_like_range_are_one_table_in_c() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = _Gates().eval(), torch.randn(200, 6)
    data = Data("test", (x,), None)
    network = Network.from_module(model, (x,))
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    quantized = quantize(network, choices, calibrate(network, data))
    graph = lower(quantized, data)
    names = [step.function for step in graph.steps if hasattr(step, "function")]
    assert sorted(names) == ["sigmoid", "sigmoid", "silu", "tanh", "tanh"]
    text = generate(graph, quantized).files["network.c"]
    assert text.count("static const int16_t table_") == 3
