"""Pools, resizing, and what trades channels or samples for places."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.litert.node import Node
from mpsearch.importers.litert.translation import FIRST, LAST, to_first
from mpsearch.importers.litert.weighted import padding_of, strides_of


def _pool(operator: str) -> Callable[[Node], None]:
    """Padding counts for nothing, as in ONNX: not for the maximum, not in the average."""

    def handler(node: Node) -> None:
        kernel = [int(node.option(name)) for name in ("filterHeight", "filterWidth")]
        if min(kernel) < 1:
            raise InputError(f"got the window {kernel}; expected numbers from 1 on")
        node.write(
            operator,
            [node.first(0, 4)],
            FIRST,
            kernel_shape=kernel,
            strides=strides_of(node),
            auto_pad=padding_of(node),
        )

    return handler


def _resize(mode: str) -> Callable[[Node], None]:
    def handler(node: Node) -> None:
        sizes = node.integers(1, 2)
        corners, halves = (
            bool(node.option(n, False)) for n in ("alignCorners", "halfPixelCenters")
        )
        if corners and halves and mode == "nearest":
            raise InputError("got align_corners with half_pixel_centers; expected one of them")
        nearest: dict[str, Any] = {} if mode == "linear" else {"nearest_mode": "floor"}
        if corners:
            where = "align_corners"
            nearest = nearest and {"nearest_mode": "round_prefer_ceil"}
        elif halves:
            where = "half_pixel" if mode == "linear" else "tf_half_pixel_for_nn"
        else:
            where = "asymmetric"
        name = node.first(0, 4)
        shape = node.shape(0)
        target = node.sizes("size", (shape[0], shape[3], *sizes))
        empty = node.constant("no scales", np.zeros(0, np.float32))
        node.write(
            "Resize", [name, "", empty, target], FIRST, mode=mode,
            coordinate_transformation_mode=where, **nearest,
        )  # fmt: skip

    return handler


def _blocks(operator: str) -> Callable[[Node], None]:
    def handler(node: Node) -> None:
        block = int(node.option("blockSize"))
        if block < 1:
            raise InputError(f"got the block size {block}; expected a number from 1 on")
        node.write(operator, [node.first(0, 4)], FIRST, blocksize=block)

    return handler


def _space_to_batch(node: Node) -> None:
    """Blocks of places become samples: [N, H, W, C] -> [N·b·b, H/b, W/b, C].

    Of several samples LiteRT has the first of each together; here a sample's parts stay together,
    which is the same for whatever lies between this and BATCH_TO_SPACE_ND.
    """
    blocks = node.integers(1)
    count, shape = len(blocks), node.shape(0)
    pads = node.integers(2, 2 * count)
    _check_blocks(blocks, shape)
    amounts = [0, *pads[::2], *[0] * (len(shape) - 1 - count)]
    amounts += [0, *pads[1::2], *[0] * (len(shape) - 1 - count)]
    padded = [size + amounts[i] + amounts[i + len(shape)] for i, size in enumerate(shape)]
    name = node.plain(0)
    if any(pads):
        name = node.emit("Pad", name, node.sizes("pads", amounts))
    apart = [padded[0]]
    for size, block in zip(padded[1:], blocks, strict=False):
        if size % block:
            raise InputError(f"its blocks {blocks} do not divide {padded}")
        apart += [size // block, block]
    name = node.emit("Reshape", name, node.sizes("apart", (*apart, *padded[1 + count :])))
    rest = range(1 + 2 * count, 1 + 2 * count + len(padded) - 1 - count)
    order = [0, *range(2, 1 + 2 * count, 2), *range(1, 1 + 2 * count, 2), *rest]
    turned = node.emit("Transpose", name, perm=order)
    joined = [size // block for size, block in zip(padded[1:], blocks, strict=False)]
    samples = padded[0] * math.prod(blocks)
    node.reshape(turned, (samples, *joined, *padded[1 + count :]))


def _batch_to_space(node: Node) -> None:
    blocks = node.integers(1)
    count, shape = len(blocks), node.shape(0)
    crops = node.integers(2, 2 * count)
    _check_blocks(blocks, shape)
    samples = math.prod(blocks)
    if shape[0] % samples:
        raise InputError(f"its blocks {blocks} do not divide {shape[0]} samples")
    rest = shape[1 + count :]
    sizes = (shape[0] // samples, *blocks, *shape[1:])
    name = node.emit("Reshape", node.plain(0), node.sizes("apart", sizes))
    order = [0]
    for axis in range(count):
        order += [count + 1 + axis, 1 + axis]
    order += range(2 * count + 1, 2 * count + 1 + len(rest))
    name = node.emit("Transpose", name, perm=order)
    joined = [size * block for size, block in zip(shape[1:], blocks, strict=False)]
    whole = (shape[0] // samples, *joined, *rest)
    name = node.emit("Reshape", name, node.sizes("joined", whole))
    ends = [size - after for size, after in zip(joined, crops[1::2], strict=True)]
    starts, axes = node.sizes("starts", crops[::2]), node.sizes("axes", range(1, 1 + count))
    node.write("Slice", [name, starts, node.sizes("ends", ends), axes])


def _check_blocks(blocks: list[int], shape: tuple[int, ...]) -> None:
    if not blocks or min(blocks) < 1 or len(blocks) > len(shape) - 1:
        raise InputError(f"got the blocks {blocks[:8]} for the shape {list(shape)}")


def _pad(node: Node) -> None:
    """Zeros, or a value that the file gives, around the axes."""
    rank = len(node.shape(0))
    pads = node.integers(1, 2 * rank)
    first = node.lies_first(0)
    order = to_first(rank) if first else range(rank)
    amounts = [pads[2 * axis] for axis in order] + [pads[2 * axis + 1] for axis in order]
    names = [node.first(0) if first else node.plain(0), node.sizes("pads", amounts)]
    layout = FIRST if first else LAST
    if node.operator.name == "MIRROR_PAD":
        if node.option("mode") and max(pads, default=0) > 1:
            raise InputError("it mirrors with the edge itself (SYMMETRIC); expected REFLECT")
        node.write("Pad", names, layout, mode="edge" if node.option("mode") else "reflect")
        return
    if node.has(2):
        names.append(node.constant("value", node.array(2).reshape(-1)[:1]))
    node.write("Pad", names, layout)


IMAGING: dict[str, Callable[[Node], None]] = {
    "MAX_POOL_2D": _pool("MaxPool"),
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "RESIZE_BILINEAR": _resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "DEPTH_TO_SPACE": _blocks("DepthToSpace"),
    "SPACE_TO_DEPTH": _blocks("SpaceToDepth"),
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "BATCH_TO_SPACE_ND": _batch_to_space,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _pad,
}
