"""Every operator that an mpsearch file may hold leaves as ONNX and computes the same there.

The oracle is torch: a network with one output per operator, named after it, whose only layer has
float activations, so that nothing is rounded; onnxruntime runs what was written, with one sample
and with three.
"""

from functools import cache

import numpy as np
import pytest
import torch
from onnx_further_cases import COMPOSED, FURTHER
from onnx_operator_cases import Everything
from onnx_operator_cases import FAMILIES as PLAIN

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mpsearch.data import Data
from mpsearch.exporters.onnx.between_quantizers import SessionSetting, open_session
from mpsearch.exporters.onnx.model import onnx_model
from mpsearch.exporters.onnx.operators import WRITERS
from mpsearch.graph.allowed import ALLOWED  # noqa: E402
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import split_outputs
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

AS_WRITTEN = SessionSetting("no optimisation", level="ORT_DISABLE_ALL")
# What an mpsearch file may hold and never reaches the export, or has no form in ONNX.
NOT_WRITTEN = {
    "sym_size": "a size: written where it is read",
    **dict.fromkeys(
        "lstm gru gru_cell lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell".split(),
        "written out as products and gates when a network is loaded",
    ),
    "_weight_norm": "reads weights only: evaluated when a network is loaded",
}
# Dropped when a network is loaded, as they change nothing; torch writes softsign as a quotient.
DROPPED = set("alias contiguous detach dropout feature_dropout lift_fresh_copy softsign".split())


@cache
def _compared(family: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """(what differs, the operators of the family's network)."""
    x = torch.randn(3, 2, 6, 5, generator=torch.Generator().manual_seed(len(family)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network.from_module(Everything(FAMILIES[family]).eval(), (x,))
    choices = dict.fromkeys([layer.name for layer in network.layers], Choice(8, 32))
    quantized = quantize(network, choices, calibrate(network, Data("test", (x,), None)))
    session = open_session(onnx_model(quantized).SerializeToString(), AS_WRITTEN)
    names = [output.name for output in session.get_outputs()]
    wrong = []
    for count in (1, 3):
        given = {network.input_names[0]: x[:count].numpy()}
        got = dict(zip(names, session.run(None, given), strict=True))
        with torch.no_grad():
            expected = split_outputs(network.outputs, quantized(x[:count]))
        for name, value in expected.items():
            want, have = value.numpy(), got[name]
            largest = np.abs(want, where=np.isfinite(want), out=np.ones_like(want)).max()
            if want.shape != have.shape or not np.allclose(want, have, 0, 1e-4 * largest):
                wrong.append(f"{name} of {count} samples")
    return tuple(wrong), frozenset(packet(node) for node in network.graph.graph.nodes)


@pytest.mark.parametrize("family", FAMILIES)
def test_operators_compute_the_same_in_onnx(family: str) -> None:
    wrong, _ = _compared(family)
    assert not wrong


def test_what_a_file_may_hold_is_written_and_compared_here() -> None:
    """But for a short list; an operator that joins ALLOWED needs its place in one of them."""
    compared = frozenset().union(*(_compared(family)[1] for family in FAMILIES))
    assert sorted(ALLOWED - WRITERS.keys()) == sorted(NOT_WRITTEN)
    assert sorted(ALLOWED - compared - NOT_WRITTEN.keys()) == sorted(DROPPED)
