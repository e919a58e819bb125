"""What a quantized file remembers of the float network: samples, and its outputs for them.

Float weights cannot be had back from codes. With a sample of the calibration data, exports have
their ranges and something to check with, and with FP32's outputs for it a file can be measured
beside FP32 without the float network. On other data FP32 is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.files.whole import digest
from mpsearch.graph.arrays import Arrays, bind_arrays
from mpsearch.graph.network import Network
from mpsearch.graph.tensors import as_float32
from mpsearch.losses.forms import Softmax
from mpsearch.losses.sum_loss import SumLoss

MOST_SAMPLES, MOST_BYTES = 256, 16 * 2**20
BATCH = 64  # as `mpsearch evaluate` has it: equal batches, equal sums
_OUTPUTS = "fp32"  # in the file, beside x0, x1, … and labels


@dataclass(frozen=True)
class KeptSample:
    """Arrays as a data file has them, `x0`, `x1`, … and labels, and FP32's outputs for them."""

    arrays: Mapping[str, torch.Tensor]
    outputs: torch.Tensor

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def size_bytes(self) -> int:
        """What it adds to the file, without the names."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes and values."""
        parts: list[bytes | str] = []
        for name, tensor in sorted(self.tensors().items()):
            values = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}", values]
        return digest(*parts)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, as the file has it."""
        return {**self.arrays, _OUTPUTS: self.outputs}

    def described(self) -> dict[str, int]:
        """For the JSON of commands."""
        return {"samples": len(self), "bytes": self.size_bytes}

    def named(self, path: str) -> Arrays:
        """To be bound to the network, as the sample in `path`."""
        return Arrays(f"the sample in {path}", self.arrays)


def kept_sample(network: Network, data: Data) -> KeptSample | None:
    """At most 256 samples of `data` and 16 MiB, drawn by seed 0, with the float network's outputs.

    None where one sample takes more.
    """
    arrays = {f"x{index}": x for index, x in enumerate(data.inputs)} | _labels(data)
    each = sum(x[:1].nbytes for x in arrays.values()) + 4 * torch.Size(network.output_shape).numel()
    count = min(MOST_SAMPLES, MOST_BYTES // max(1, each))
    if not count:
        return None
    drawn = data.take(count, 0)
    with torch.no_grad():
        outputs = torch.cat([network(*inputs).cpu() for inputs, _ in drawn.batches(BATCH)])
    arrays = {f"x{index}": x for index, x in enumerate(drawn.inputs)} | _labels(drawn)
    return KeptSample({name: as_float32(x) for name, x in arrays.items()}, as_float32(outputs))


def _labels(data: Data) -> dict[str, torch.Tensor]:
    """Labels as a data file has them: `y`, or `y_NAME` for those of several outputs."""
    if data.labels is None:
        return {}
    if not isinstance(data.loss, SumLoss):
        return {"y": data.labels}
    found = {}
    for share in data.loss.shares:
        if share.labels is not None:
            own = data.labels[:, share.labels.start : share.labels.stop]
            own = own.reshape(-1, *share.labels.shape)
            own = own.long() if isinstance(share.loss.form, Softmax) else own
            found[f"y_{share.output.name}"] = own
    return found


def read_sample(
    path: str, header: object, tensors: Mapping[str, torch.Tensor], network: Network
) -> KeptSample | None:
    """The sample of a quantized file; None in files without one. Raises InputError for damage."""
    if header is None:
        return None
    arrays = {name: tensor for name, tensor in tensors.items() if name != _OUTPUTS}
    outputs = tensors.get(_OUTPUTS)
    if outputs is None or not outputs.is_floating_point():
        raise InputError(f"{path}: damaged mpsearch file: its sample has no outputs")
    kept = KeptSample(arrays, outputs)
    inputs, _ = bind_arrays(kept.named(path), network)
    if tuple(outputs.shape) != (len(inputs[0]), *network.output_shape):
        raise InputError(
            f"{path}: damaged mpsearch file: its sample has outputs {tuple(outputs.shape)}; "
            f"expected {(len(inputs[0]), *network.output_shape)}"
        )
    if not isinstance(header, dict) or header.get("digest") != kept.digest:
        raise InputError(f"{path}: damaged mpsearch file: its sample is not the one of its digest")
    return kept
