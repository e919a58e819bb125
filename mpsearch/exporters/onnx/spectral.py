"""Spectra of real signals. A complex number is two reals in a last dimension of the ONNX tensor, so
what reads one has to be one of these operators, too."""

import torch

from mpsearch.exporters.onnx.call import Call, Writer
from mpsearch.graph.tensors import get_tensor


def _stft(call: Call) -> str:
    """ONNX has frames ahead of bins, and a window as long as the transform."""
    source = call.tensor("self")
    if source.form.rank != 2 or source.dtype.is_complex:
        raise call.refuse("is a transform of other signals than [samples, length]")
    if call.flag("center") or call.flag("normalized"):
        raise call.refuse("is centred or normalized by the operator itself")
    length = call.whole("n_fft")
    step, width = call.whole("hop_length", length // 4), call.whole("win_length", length)
    node, window = call.given("window"), torch.ones(width)
    if node is not None and node.op != "get_attr":
        raise call.refuse("has a window that is computed")
    if node is not None:
        window = get_tensor(call.graph, str(node.target)).detach().cpu()
    ahead = (length - width) // 2
    window = torch.nn.functional.pad(window, (ahead, length - width - ahead))
    onesided = call.given("onesided") is None or call.flag("onesided")
    inputs = [
        call.add("Unsqueeze", [source, call.whole_list([2])]),
        call.scalar(step, torch.int64),
        call.constant(window.numpy()),
        call.scalar(length, torch.int64),
    ]
    return call.transpose(call.add("STFT", inputs, onesided=int(onesided)), [0, 2, 1, 3])


def _rfft(call: Call) -> str:
    source = call.tensor("self")
    if call.given("norm") not in (None, "backward"):
        raise call.refuse("is normalized by the operator itself")
    rank, axis = source.form.rank, call.axis("dim")
    inputs = [
        call.add("Unsqueeze", [source, call.whole_list([rank])]),
        call.scalar(call.whole("n"), torch.int64) if call.has("n") else "",
        call.scalar(axis, torch.int64),
    ]
    return call.add("DFT", inputs, onesided=1)


def _pairs(call: Call) -> str:
    return call.tensor("self").name


OF_COMPLEX: dict[str, Writer] = {"view_as_real": _pairs}
WRITERS: dict[str, Writer] = {"stft": _stft, "fft_rfft": _rfft, **OF_COMPLEX}
