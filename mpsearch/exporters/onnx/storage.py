"""Which ONNX integer type holds codes of given bits, and the bytes that it takes."""

import numpy as np

from mpsearch.quantization.packing import pack
from mpsearch.tables.targets import ONNX_BITS


def stored_bits(bits: int) -> int:
    """The bits of the type that holds codes of `bits` bits: 3 -> 4, 5 -> 8, 16 -> 16."""
    return next(stored for stored in ONNX_BITS if bits <= stored)


def type_name(bits: int, signed: bool) -> str:
    """The name in onnx.TensorProto: (3, True) -> INT4, (8, False) -> UINT8."""
    return f"{'' if signed else 'U'}INT{stored_bits(bits)}"


def raw_bytes(codes: np.ndarray, bits: int) -> bytes:
    """Codes as the raw data of an initializer: little-endian, two 4-bit codes in a byte, the first
    in the low half: [3, -1] at 4 bits -> F3."""
    return pack(codes, stored_bits(bits)).tobytes()
