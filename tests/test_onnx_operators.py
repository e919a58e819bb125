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
from onnx_operator_cases import FAMILIES as PLAIN
from onnx_operator_cases import Everything

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mpsearch.data import Data
from mpsearch.exporters.onnx.between_quantizers import SessionSetting, open_session
from mpsearch.exporters.onnx.model import onnx_model
from mpsearch.graph.allowed import ALLOWED
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import split_outputs
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

AS_WRITTEN = SessionSetting("no optimisation", level="ORT_DISABLE_ALL")
_WRITTEN_OUT = (
    "lstm gru gru_cell lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell _weight_norm "
    "_native_batch_norm_legit_no_training"
)
_COMPLEX = (
    "_conj angle complex fft_fft fft_fft2 fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 "
    "fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft2 "
    "fft_rfftn imag istft polar view_as_complex"
)
_NO_OPERATOR = (
    "cummax cummin cumprod diagonal_scatter erfinv fake_quantize_per_channel_affine "
    "fake_quantize_per_tensor_affine float_power index_reduce ldexp lgamma logcumsumexp "
    "masked_scatter max_unpool2d max_unpool3d renorm take take_along_dim"
)
_WHOLE_TENSORS = (
    "addbmm addr block_diag chain_matmul diag dist dot flipud ger kron linalg_multi_dot numpy_T "
    "ravel row_stack trace vdot vstack"
)
# What an mpsearch file may hold and is not compared here.
NOT_COMPARED = {
    **dict.fromkeys(_WRITTEN_OUT.split(), "written out or evaluated when a network is loaded"),
    **dict.fromkeys("sym_size sym_numel".split(), "sizes: written where they are read"),
    **dict.fromkeys(_COMPLEX.split(), "complex numbers, which runtimes lack"),
    **dict.fromkeys(_NO_OPERATOR.split(), "refused, or reads one size of batch: no ONNX operator"),
    **dict.fromkeys(_WHOLE_TENSORS.split(), "mixes samples, or reads constants alone"),
}
# Gone when a network is loaded, as they change nothing, read nothing, or torch has none.
DROPPED = set(
    "alias alpha_dropout contiguous detach dropout feature_alpha_dropout feature_dropout "
    "lift_fresh_copy scalar_tensor softsign".split()
)
FAMILIES = {**PLAIN, "composed": COMPOSED, "further": FURTHER}


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


def test_what_a_file_may_hold_is_compared_here() -> None:
    """But for a short list; an operator that joins ALLOWED needs its place in one of them."""
    compared = frozenset().union(*(_compared(family)[1] for family in FAMILIES))
    assert sorted(ALLOWED - compared - NOT_COMPARED.keys() - DROPPED) == []
