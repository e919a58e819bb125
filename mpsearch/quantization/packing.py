"""Integer codes <-> bytes: b bits per code, no padding between codes, and the size of a layer.

Size and BOPS of a whole assignment, from the network itself.
"""

from collections.abc import Mapping

import numpy as np

from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.quantization.quantizer import FLOAT_BITS
from mpsearch.quantization.scale_layout import layout_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import packed_bytes as packed_bytes

SCALE_BYTES = 4  # one float32, or one 24-bit multiplier with an 8-bit shift
BIAS_BYTES = 4


def layer_bytes(layer: Layer, choice: Choice) -> int:
    """What the export stores for a layer: packed weights, 32-bit biases, scales."""
    bias = BIAS_BYTES * layer.channels if layer.bias_name else 0
    stored = 0 if choice.w_bits == FLOAT_BITS else layout_of(layer, choice).stored(layer)
    return packed_bytes(layer.weights, choice.w_bits) + bias + SCALE_BYTES * stored


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (two's complement, first code in the lowest bits) as bytes: [3, -1] at 4 bits ->
    [0xF3]."""
    unsigned = codes.reshape(-1).astype(np.int64) & (2**bits - 1)
    planes = (unsigned[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little")


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The `count` codes that `pack` stored, as int16. Raises ValueError when bytes are missing."""
    if len(packed) != packed_bytes(count, bits):
        raise ValueError(
            f"got {len(packed)} bytes; expected {packed_bytes(count, bits)} for {count} codes"
        )
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    unsigned = planes.astype(np.int64) @ (1 << np.arange(bits))
    return np.where(unsigned >= 2 ** (bits - 1), unsigned - 2**bits, unsigned).astype(np.int16)


def size_bytes(network: Network, choices: Mapping[str, Choice]) -> int:
    """Bytes that the export stores for all layers."""
    return sum(layer_bytes(layer, choices[layer.name]) for layer in network.layers)


def bops(network: Network, choices: Mapping[str, Choice]) -> int:
    """Bit operations of one sample: Σ MACs · w_bits · a_bits."""
    return sum(
        layer.macs * choices[layer.name].w_bits * choices[layer.name].a_bits
        for layer in network.layers
    )


def float_bytes_outside(network: Network) -> int:
    """Bytes of the floating-point numbers that belong to no layer, 4 each: they stay in float."""
    in_layers = sum(
        4 * layer.weights + (4 * layer.channels if layer.bias_name else 0)
        for layer in network.layers
    )
    return network.fp32_bytes - in_layers
