"""The numbers of a constant tensor: floats of any width, codes times their scales, whole numbers.

value = scale·(code − zero_point), the scale of the tensor or of the code's channel:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

import math
from dataclasses import replace

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.importers.litert.reading import Array, Quantization, Tensor
from mpsearch.importers.litert.sparsity import Sparsity, dense

FLOATS = {"FLOAT32": "<f4", "FLOAT16": "<f2", "FLOAT64": "<f8", "BFLOAT16": "<u2"}
INTEGERS = {
    "INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "UINT16": "<u2", "INT32": "<i4",
    "UINT32": "<u4", "INT64": "<i8", "BOOL": "?",
}  # fmt: skip
_PACKED = {"INT4": 4, "INT2": 2, "UINT4": 4}  # the first in the lowest bits
_NARROW = ("INT8", "UINT8", "INT16", "UINT16", *_PACKED)


def is_quantized(tensor: Tensor) -> bool:
    """Whether its whole numbers are codes of real ones."""
    return tensor.quantization is not None and tensor.kind not in FLOATS


_DTYPES = {
    "INT32": torch.int32, "INT64": torch.int64, "INT16": torch.int16, "INT8": torch.int8,
    "UINT8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def dtype_of(tensor: Tensor) -> torch.dtype:
    """What a tensor's numbers are in the network: float32 also for codes. Raises InputError."""
    if is_quantized(tensor) or tensor.kind in FLOATS:
        return torch.float32
    if tensor.kind not in _DTYPES:
        raise InputError(f"tensor {tensor.name!r:.80} is {tensor.kind}; expected numbers")
    return _DTYPES[tensor.kind]


def values_of(tensor: Tensor) -> Array:
    """The numbers: float32, or int64 and bool where they are no codes. Raises InputError."""
    name = f"tensor {tensor.name!r:.80}"
    count = math.prod(tensor.shape)
    memory_budget.reserve(8 * count, f"{name} of shape {list(tensor.shape)}")
    codes = _stored(tensor, count, name)
    if is_quantized(tensor):
        assert tensor.quantization is not None
        return _real(codes, tensor.quantization, tensor.kind in _NARROW, name)
    if tensor.kind in FLOATS:
        return np.ascontiguousarray(codes, dtype=np.float32)
    return codes if tensor.kind == "BOOL" else codes.astype(np.int64)


def _stored(tensor: Tensor, count: int, name: str) -> Array:
    data = tensor.data if tensor.data is not None else np.zeros(0, np.uint8)
    bits = _PACKED.get(tensor.kind, 0)
    if not bits and tensor.kind not in FLOATS | INTEGERS:
        raise InputError(f"{name} has the type {tensor.kind}; expected floats, integers or bools")
    if tensor.sparsity is not None:
        return _spread(tensor, tensor.sparsity, data, bits, name)
    form = np.dtype((FLOATS | INTEGERS).get(tensor.kind, "u1"))
    wanted = -(-count * bits // 8) if bits else count * form.itemsize
    if data.nbytes != wanted:
        raise InputError(
            f"damaged LiteRT file: {name} has {data.nbytes:,} bytes; expected {wanted:,} for "
            f"{tensor.kind} of shape {list(tensor.shape)}"
        )
    if bits:
        return _unpacked(data, bits, count, tensor.kind.startswith("INT")).reshape(tensor.shape)
    array = data.view(form).reshape(tensor.shape)
    if tensor.kind == "BFLOAT16":  # the upper half of a float32
        return np.asarray(np.left_shift(array.astype(np.uint32), 16).view(np.float32))
    return array


def _spread(tensor: Tensor, sparsity: Sparsity, data: Array, bits: int, name: str) -> Array:
    """The dense numbers of a tensor that is stored sparsely: what is not there is 0."""
    size = np.dtype((FLOATS | INTEGERS).get(tensor.kind, "u1")).itemsize
    if bits or data.nbytes % size:
        raise InputError(f"{name} is sparse and {tensor.kind}; expected whole bytes")
    inner = replace(tensor, shape=(data.nbytes // size,), sparsity=None)
    return dense(_stored(inner, data.nbytes // size, name), sparsity, tensor.shape, name)


def _unpacked(data: Array, bits: int, count: int, signed: bool) -> Array:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = ((data[:, None] >> shifts) & (2**bits - 1)).reshape(-1)[:count].astype(np.int8)
    wrapped = np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes)
    return np.asarray(wrapped) if signed else codes


def _real(codes: Array, quantization: Quantization, narrow: bool, name: str) -> Array:
    scales, zeros, axis = quantization.scales, quantization.zero_points, quantization.axis
    shape = [1] * codes.ndim
    if max(len(scales), len(zeros)) > 1:
        if not 0 <= axis < codes.ndim or len(scales) != codes.shape[axis]:
            raise InputError(
                f"damaged LiteRT file: {name} of shape {list(codes.shape)} has {len(scales)} "
                f"scales for axis {axis}; expected one, or one per index of an axis"
            )
        shape[axis] = -1
    if narrow and not zeros.any():  # what nearly every weight is
        return codes.astype(np.float32) * scales.reshape(shape if len(scales) > 1 else ())
    exact = codes.astype(np.float64) - zeros.reshape(shape if len(zeros) > 1 else ())
    return (exact * scales.reshape(shape if len(scales) > 1 else ())).astype(np.float32)
