"""What tools store of a layer, as arrays that are made and measured: the oracle of `costs`.

Networks are in bfloat16 where activations have 16 bits, and in float32 else.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

Array = NDArray[np.generic]
BITS16 = np.uint16  # as wide as bfloat16, which numpy lacks


def _packed(shape: tuple[int, ...], bits: int, word: type[np.generic]) -> Array:
    """Codes in words, each row in words of its own, as bits that are counted one by one."""
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    width = 8 * np.dtype(word).itemsize
    counted = np.packbits(np.ones((rows, columns * bits), np.uint8), axis=1).shape[1] * 8
    return np.zeros((rows, -(-counted // width)), word)


def _floats(shape: tuple[int, ...], choice: Choice) -> list[Array]:
    return [np.zeros(shape, np.uint16 if choice.w_bits == 16 else np.uint32)]


def _grouped(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Of the scales: one for each group of inputs, at each position of a kernel."""
    return (shape[0], shape[1] // (size or shape[1]), *shape[2:])


def _torchao(layer: TableLayer, choice: Choice) -> list[Array]:
    shape, size = layer.shape, choice.group_size
    if choice.w_bits >= 16:
        return _floats(shape, choice)
    scales = _grouped(shape, size)
    plain = len(shape) == 2 and layer.kind != "embedding"
    if plain and choice.name in ("w4g32a16", "w4g64a16", "w4g128a16", "w4g256a16"):
        return [_packed(shape, 4, np.uint8), np.zeros(scales, BITS16), np.zeros(scales, BITS16)]
    short = choice.a_bits == 16 and not (plain and choice.w_bits == 8)
    wide = np.zeros(scales, BITS16 if short else np.float32)
    return [np.zeros(shape, np.int8), wide, np.zeros(scales, np.int8)]


def _compressed_tensors(layer: TableLayer, choice: Choice) -> list[Array]:
    shape, size = layer.shape, choice.group_size
    if choice.label:
        if choice.label == "fp8":
            return [np.zeros(shape, np.uint8), np.zeros((shape[0], 1), np.float32)]
        scales = np.zeros((shape[0], shape[1] // (16 if "nv" in choice.label else 32)), np.uint8)
        tensors = {"nvfp4": 2, "nvfp4a16": 1}.get(choice.label, 0)  # scales of whole tensors
        return [_packed(shape, 4, np.uint8), scales, np.zeros(tensors, np.float32)]
    if choice.w_bits >= 16:
        return _floats(shape, choice)
    kind = BITS16 if choice.a_bits == 16 else np.float32
    scale = np.zeros(_grouped(shape, size), kind)
    if (choice.w_bits, choice.a_bits) == (8, 8):
        return [np.zeros(shape, np.int8), scale]
    return [_packed(shape, choice.w_bits, np.int32), scale, np.array(shape, np.int64)]


def _modelopt(layer: TableLayer, choice: Choice) -> list[Array]:
    shape, name = layer.shape, choice.label or choice.name
    one = np.zeros((), np.float32)
    if choice.label in ("nvfp4", "w4a16_nvfp4", "mxfp4", "mxfp8"):
        block = 16 if "nvfp4" in name else 32
        codes = _packed(shape, 8 if name == "mxfp8" else 4, np.uint8)
        extra = {"nvfp4": [one, one], "w4a16_nvfp4": [one]}.get(name, [])
        return [codes, np.zeros((shape[0], shape[1] // block), np.uint8), *extra]
    if name == "fp8":
        return [np.zeros(shape, np.uint8), one, one]
    if choice.w_bits >= 16:
        return _floats(shape, choice)
    if choice.w_bits == 8 or name == "int8":
        inputs = [one] if name in ("w8a8", "int8") else []
        return [np.zeros(shape, np.int8), np.zeros(shape[0], np.float32), *inputs]
    return [_packed(shape, 4, np.uint8), np.zeros(_grouped(shape, choice.group_size), np.float32)]


_GGML = {  # the parts of a block: weights, then bytes of scales, of codes and of their high bits
    "Q4_0": (32, 2, 16), "Q5_0": (32, 2, 16, 4), "Q8_0": (32, 2, 32), "Q2_K": (256, 4, 64, 16),
    "Q4_K": (256, 4, 128, 12), "Q5_K": (256, 4, 128, 12, 32), "Q6_K": (256, 2, 128, 64, 16),
    "IQ4_XS": (256, 2, 128, 2, 4), "F16": (1, 2), "w4g32a16": (32, 2, 16), "w8g32a32": (32, 2, 32),
    "w32a32": (1, 4),
}  # fmt: skip


def _llama_cpp(layer: TableLayer, choice: Choice) -> list[Array]:
    block, *parts = _GGML[choice.name]
    blocks = int(np.prod(layer.shape[:-1])) * (layer.shape[-1] // block)
    tensor = [np.zeros((blocks, part), np.uint8) for part in parts]
    size = sum(part.nbytes for part in tensor)
    return [*tensor, np.zeros(next(n for n in range(32) if (size + n) % 32 == 0), np.uint8)]


def _packed_whole(layer: TableLayer, choice: Choice) -> list[Array]:
    """Codes in a row, and of each channel a bias, and a scale unless in float."""
    if choice.w_bits == 32:
        return [np.zeros(layer.shape, np.float32), np.zeros(layer.shape[0], np.float32)]
    codes = _packed((1, int(np.prod(layer.shape))), int(choice.w_bits), np.uint8)
    return [codes, np.zeros(layer.shape[0], np.float32), np.zeros(layer.shape[0], np.int32)]


def _onnxruntime(layer: TableLayer, choice: Choice) -> list[Array]:
    if choice.w_bits == 32:
        return _packed_whole(layer, choice)
    channels, bits = layer.shape[0], int(choice.w_bits)
    of_weights = [*_packed_whole(layer, choice), _packed((1, channels), bits, np.uint8)]
    of_bias = [np.zeros(channels, np.float32), np.zeros(channels, np.int32)]
    zero = np.zeros((), np.uint8 if choice.a_bits == 8 else np.uint16)
    return [*of_weights, *of_bias, np.zeros((), np.float32), zero]


def _esp_ppq(layer: TableLayer, choice: Choice) -> list[Array]:
    bias = np.zeros(layer.shape[0], np.int32 if choice.a_bits == 8 else np.int64)
    weight = np.zeros(layer.shape, np.int8 if choice.w_bits == 8 else np.int16)
    exponents = np.zeros(layer.shape[0], np.int64)
    tensors = (weight, bias, exponents, exponents)
    return [np.zeros((-(-one.nbytes // 16), 16), np.uint8) for one in tensors]


def kernel_words(
    outputs: int, channels: int, pixels: int, bits: int, flat: bool
) -> tuple[int, int]:
    """(processors of a MAX7800x, words on each), as izer/kernels.py fills them byte by byte.

    pixels: of a convolution's kernel; flat: of what a linear layer flattens.
    """
    reads, writes = -(-channels // 64), -(-outputs // 64)
    processors, columns = (
        -(-of // passes) if of <= 64 else -(-of // passes // 4) * 4
        for of, passes in ((channels, reads), (outputs, writes))
    )
    together, filled, left = 8 // bits, 0, outputs
    for _ in range(writes):
        for column in range(columns):
            if flat:  # one kernel behind another, of as many channels as a byte has room for
                taken = min(together, left)
                filled += -(-taken * reads * pixels // together) if taken else together == 1
                left -= taken
            elif column % together == 0:  # a byte has one place of so many channels' kernels
                filled += reads * pixels
    kernel = 1 if flat else pixels
    count = outputs * reads * pixels if flat else columns * writes * reads
    reserved = 0
    while 72 * reserved < count * kernel * bits + count % together * kernel * (together - 1):
        reserved += 1
    return processors, max(reserved, -(-filled // 9))


def _ai8x(layer: TableLayer, choice: Choice) -> list[Array]:
    """Of all that a matrix may flatten what takes most."""
    outputs, inputs, *kernel = layer.shape
    bits = int(choice.w_bits)
    if kernel:
        ways = [kernel_words(outputs, inputs, int(np.prod(kernel)), bits, False)]
    else:
        flat = [n for n in range(1, 17) if inputs % n == 0]
        ways = [kernel_words(outputs, inputs // n, n, bits, True) for n in flat]
        ways.append(kernel_words(outputs, inputs, 1, bits, False))
    each = (np.zeros((processors, -(-words // 4) * 4, 9), np.uint8) for processors, words in ways)
    return [max(each, key=lambda array: array.nbytes)]


OF_A_MODEL = {"esp-ppq", "onnxruntime", "qonnx"}  # cannot be written without --model
# Tool -> (its choices in tests, what it stores of a layer)
STORED: dict[str, tuple[Iterable[str], Callable[[TableLayer, Choice], list[Array]]]] = {
    "torchao": (
        "w1a16 w2g32a8 w4a8 w4a16 w4g32a16 w4g64a16 w4g32a32 w8a8 w8a16 w8g32a32 w16a16 "
        "w32a32".split(),
        _torchao,
    ),
    "compressed-tensors": (
        "w4a16 w4g32a16 w4g64a32 w4a8 w8a16 w8a8 fp8 nvfp4 nvfp4a16 mxfp4 w16a16".split(),
        _compressed_tensors,
    ),
    "modelopt": (
        "w8a8 w8a16 w4g32a16 w4g16a32 int8 fp8 nvfp4 w4a16_nvfp4 mxfp4 mxfp8 w16a16".split(),
        _modelopt,
    ),
    "llama.cpp": (tuple(_GGML), _llama_cpp),
    "ai8x": ("w1a8 w2a8 w4a8 w8a8".split(), _ai8x),
    "ai8x-max78002": ("w1a8 w2a8 w4a8 w8a8".split(), _ai8x),
    "brevitas": ("w2a8 w3a4 w5a32 w8a8 w16a16 w32a32".split(), _packed_whole),
    "esp-ppq": ("w8a8 w8a16 w16a16".split(), _esp_ppq),
    "onnxruntime": ("w4a8 w4a16 w8a8 w16a8 w32a32".split(), _onnxruntime),
    "qonnx": ("w2a8 w3a4 w5a32 w8a8 w16a16 w32a8".split(), _packed_whole),
}


def stored_bytes(tool: str, layer: TableLayer, choice: Choice) -> int:
    """What the tool's arrays take."""
    return sum(array.nbytes for array in STORED[tool][1](layer, choice))
