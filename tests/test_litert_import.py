"""LiteRT files read as networks: against LiteRT's own interpreter, operator by operator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from litert_files import Graph, run

from mpsearch.importers.litert.loading import OPERATORS, load_litert

Build = Callable[[Graph, int], Any]
H, W, C = 6, 8, 3


def unary(name: str, options: str = "", **values: Any) -> Build:
    return lambda g, x: g.op(name, [x], options, **values)


def binary(
    name: str, options: str = "", *shape: int, kind: str = "FLOAT32", **values: Any
) -> Build:
    return lambda g, x: g.op(name, [x, g.random(*shape)], options, kind, **values)


def pruned(*shape: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(3)
    return np.asarray(rng.normal(size=shape) * (rng.random(shape) < 0.3), dtype=np.float32)


def stored_sparsely(g: Graph, x: int) -> Any:
    """A convolution and linear layers whose weights are rows, columns and blocks of numbers."""
    kernel = g.sparse(pruned(4, 3, 3, C), (0, 1, 2, 3), {})
    x = g.op("CONV_2D", [x, kernel, g.random(4)], "Conv2DOptions", strideH=1, strideW=1)
    weights = (
        g.sparse(pruned(5, 4), (1, 0), {}),
        g.sparse(pruned(6, 4), (0, 1), {0: 2}),
        g.sparse(pruned(6, 4), (1, 0), {0: 3, 1: 2}),
    )
    return [
        g.op("FULLY_CONNECTED", [x, w], "FullyConnectedOptions", version=5, keepNumDims=True)
        for w in weights
    ]


def positive(build: Build) -> Build:
    """On x² + 0.5: of what has no value below zero."""

    def made(g: Graph, x: int) -> Any:
        square = g.op("SQUARE", [x], "SquareOptions")
        return build(g, g.op("ADD", [square, g.const(np.float32(0.5))], "AddOptions"))

    return made


def indices(values: Any) -> Any:
    return np.asarray(values, dtype=np.int32)


def reduce(name: str, axes: Any, keep: bool) -> Build:
    return lambda g, x: g.op(name, [x, g.const(indices(axes))], "ReducerOptions", keepDims=keep)


def sliced(begin: Any, end: Any, step: Any, **masks: Any) -> Build:
    def made(g: Graph, x: int) -> Any:
        parts = [g.const(indices(part)) for part in (begin, end, step)]
        return g.op("STRIDED_SLICE", [x, *parts], "StridedSliceOptions", **masks)

    return made


def compared(name: str) -> Build:
    """The comparison chooses between x and -x, for outputs are floats."""

    def made(g: Graph, x: int) -> Any:
        chosen = g.op(name.split()[0], [x, g.random(C)], kind="BOOL")
        if "LOGICAL_NOT" in name:
            chosen = g.op("LOGICAL_NOT", [chosen], kind="BOOL")
        other = g.op("NEG", [x], "NegOptions")
        return g.op("SELECT_V2", [chosen, x, other], "SelectV2Options")

    return made


def both(name: str) -> Build:
    def made(g: Graph, x: int) -> Any:
        zero = g.const(np.float32(0))
        first = g.op("GREATER", [x, zero], kind="BOOL")
        second = g.op("LESS", [x, g.random(C)], kind="BOOL")
        return g.op("CAST", [g.op(name, [first, second], kind="BOOL")], "CastOptions")

    return made


def split(g: Graph, x: int) -> Any:
    parts = g.op("SPLIT", [g.const(np.int32(2)), x], "SplitOptions", outputs=2, numSplits=2)
    sizes, axis = g.const(indices([1, 2])), g.const(np.int32(3))
    return [*parts, *g.op("SPLIT_V", [x, sizes, axis], "SplitVOptions", outputs=2, numSplits=2)]


def packed(g: Graph, x: int) -> Any:
    rows = g.op("UNPACK", [x], "UnpackOptions", outputs=H, num=H, axis=1)
    return g.op("PACK", rows[::-1], "PackOptions", valuesCount=H, axis=2)


def reshaped(g: Graph, x: int) -> Any:
    """To [N, places, channels] and back; and all in one row for a linear layer."""
    flat = g.op("RESHAPE", [x, g.const(indices([1, H * W, C]))], "ReshapeOptions")
    back = g.op("RESHAPE", [flat, g.const(indices([-1, H, W, C]))], "ReshapeOptions")
    row = g.op("RESHAPE", [x, g.const(indices([1, H * W * C]))], "ReshapeOptions")
    weight = g.random(5, H * W * C, name="net/dense/MatMul")
    return [back, g.op("FULLY_CONNECTED", [row, weight], "FullyConnectedOptions")]


def by_computed_shape(g: Graph, x: int) -> Any:
    """Shape -> StridedSlice -> Pack -> Reshape, as converters write a reshape of any batch."""
    shape = g.op("SHAPE", [x], "ShapeOptions", kind="INT32", outType=2)
    batch = g.op(
        "STRIDED_SLICE", [shape, *(g.const(indices(p)) for p in ([0], [1], [1]))],
        "StridedSliceOptions", kind="INT32", shrinkAxisMask=1,
    )  # fmt: skip
    sizes = g.op(
        "PACK", [batch, g.const(np.int32(H * W)), g.const(np.int32(C))], "PackOptions",
        kind="INT32", valuesCount=3,
    )  # fmt: skip
    return g.op("RESHAPE", [x, sizes], "ReshapeOptions", shape=(1, H * W, C))


def convolutions(g: Graph, x: int) -> Any:
    y = g.conv(x, C, 4, strideH=2, strideW=2, fusedActivationFunction=3)
    y = g.conv(y, 4, 6, 2, padding=1, fusedActivationFunction=1)
    multiplied = g.random(1, 2, 2, 12, name="net/dw/depthwise")
    values: dict[str, Any] = {
        "strideH": 1,
        "strideW": 1,
        "depthMultiplier": 2,
        "dilationHFactor": 2,
    }
    y = g.op("DEPTHWISE_CONV_2D", [y, multiplied, g.random(12)], "DepthwiseConv2DOptions", **values)
    return g.conv(y, 6, 4, 1)  # two groups


def transposed(padding: int, size: int, wanted: tuple[int, int]) -> Build:
    def made(g: Graph, x: int) -> Any:
        weight = g.random(5, size, size, C, name="net/up/conv2d_transpose")
        shape = g.const(indices([1, *wanted, 5]))
        values: dict[str, Any] = {"strideH": 2, "strideW": 2, "padding": padding}
        return g.op("TRANSPOSE_CONV", [shape, weight, x], "TransposeConvOptions", **values)

    return made


def pooled(name: str) -> Build:
    def made(g: Graph, x: int) -> Any:
        values: dict[str, Any] = {"strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 3}
        same = g.op(name, [x], "Pool2DOptions", **values, padding=0)
        valid = g.op(name, [x], "Pool2DOptions", **values, padding=1)
        wide: dict[str, Any] = {**values, "strideH": 1, "strideW": 1, "filterWidth": 2}
        return [same, valid, g.op(name, [x], "Pool2DOptions", **wide, padding=0)]

    return made


def resized(name: str, **values: Any) -> Build:
    return lambda g, x: [
        g.op(name, [x, g.const(indices(size))], f"{OPTIONS[name]}Options", **values)
        for size in ([12, 16], [9, 5])
    ]


OPTIONS = {
    "RESIZE_BILINEAR": "ResizeBilinear", "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighbor",
}  # fmt: skip


def dilated(g: Graph, x: int) -> Any:
    """A dilated convolution, as older converters write it."""
    blocks, pads = g.const(indices([2, 2])), g.const(indices([[2, 2], [2, 2]]))
    y = g.op("SPACE_TO_BATCH_ND", [x, blocks, pads])
    y = g.conv(y, C, 4, padding=1)
    return g.op("BATCH_TO_SPACE_ND", [y, blocks, g.const(indices([[1, 0], [0, 1]]))])


def padded(g: Graph, x: int) -> Any:
    pads = g.const(indices([[0, 0], [1, 0], [2, 1], [0, 2]]))
    zeros = g.op("PAD", [x, pads], "PadOptions")
    value = g.op("PADV2", [x, pads, g.const(np.float32(2.5))], "PadV2Options")
    return [zeros, value, g.op("MIRROR_PAD", [x, pads], "MirrorPadOptions", mode=0)]


def linear(g: Graph, x: int) -> Any:
    weight, bias = g.random(5, C, name="net/dense/MatMul"), g.random(5)
    keeps = g.op(
        "FULLY_CONNECTED", [x, weight, bias], "FullyConnectedOptions", version=5, keepNumDims=True
    )
    pair = g.op("RESHAPE", [x, g.const(indices([1, H, W * C]))], "ReshapeOptions")
    left = g.op("BATCH_MATMUL", [pair, pair], "BatchMatMulOptions", adjY=True)
    right = g.op("BATCH_MATMUL", [pair, g.random(7, W * C)], "BatchMatMulOptions", adjY=True)
    # as older converters write a linear layer over a sequence
    rows = g.op("RESHAPE", [x, g.const(indices([H * W, C]))], "ReshapeOptions")
    rows = g.op(
        "FULLY_CONNECTED", [rows, weight], "FullyConnectedOptions", fusedActivationFunction=1
    )
    return [
        keeps,
        left,
        right,
        g.op("RESHAPE", [rows, g.const(indices([1, H, W, 5]))], "ReshapeOptions"),
    ]


def turned(g: Graph, x: int) -> Any:
    first = g.op("TRANSPOSE", [x, g.const(indices([0, 3, 1, 2]))], "TransposeOptions")
    last = g.op("TRANSPOSE", [first, g.const(indices([0, 2, 3, 1]))], "TransposeOptions")
    mixed = g.op("TRANSPOSE", [x, g.const(indices([0, 2, 1, 3]))], "TransposeOptions")
    return [first, g.conv(last, C, 2), mixed]


def ones(g: Graph, x: int) -> Any:
    """A line as an image of height 1: sizes of one come and go without a transpose."""
    mean = g.op("MEAN", [x, g.const(indices([1]))], "ReducerOptions", keepDims=True)
    line = g.op("SQUEEZE", [mean], "SqueezeOptions", squeezeDims=np.array([1], np.int32))
    image = g.op("EXPAND_DIMS", [line, g.const(np.int32(1))], "ExpandDimsOptions")
    return [line, g.conv(image, C, 2)]


def repeated(g: Graph, x: int) -> Any:
    tiled = g.op("TILE", [x, g.const(indices([1, 2, 1, 1]))], "TileOptions")
    mean = g.op("MEAN", [x, g.const(indices([1, 2]))], "ReducerOptions", keepDims=True)
    wide = g.op(
        "BROADCAST_TO", [mean, g.const(indices([1, H, W, C]))], "BroadcastToOptions", version=2
    )
    return [tiled, g.op("CONCATENATION", [x, wide], "ConcatenationOptions", axis=3)]


def joined(g: Graph, x: int) -> Any:
    constant = g.random(1, H, W, 2)
    return g.op("CONCATENATION", [x, constant, x], "ConcatenationOptions", axis=-1)


def looked_up(g: Graph, x: int) -> Any:
    row = g.op("ARG_MAX", [x, g.const(np.int32(2))], "ArgMaxOptions", kind="INT32", outputType=2)
    low = g.op("ARG_MIN", [x, g.const(np.int32(2))], "ArgMinOptions", kind="INT32", outputType=2)
    table = g.random(W, 4, name="net/words/embedding_lookup")
    best = g.op("TOPK_V2", [x, g.const(np.int32(2))], "TopKV2Options", outputs=2)
    g.file.tensors[best[1]].type = g.file.schema.TensorType.INT32
    hot = [g.const(np.int32(W)), g.const(np.float32(1)), g.const(np.float32(-1))]
    picked = g.op("GATHER", [x, g.const(indices([2, 0]))], "GatherOptions", axis=2)
    return [
        g.op("GATHER", [table, row], "GatherOptions"),
        g.op("ONE_HOT", [low, *hot], "OneHotOptions", axis=-1),
        best[0],
        picked,
    ]


def summed(g: Graph, x: int) -> Any:
    values: dict[str, Any] = {"exclusive": True, "reverse": True}
    total = g.op("CUMSUM", [x, g.const(np.int32(2))], "CumsumOptions", **values)
    return [total, g.op("ADD_N", [total, x, x]), g.op("REVERSE_V2", [x, g.const(indices([1]))])]


def made_here(g: Graph, x: int) -> Any:
    """What has no input: ranges and fills."""
    counted = g.op("RANGE", [g.const(np.float32(n)) for n in (0, C, 1)], "RangeOptions")
    filled = g.op("FILL", [g.const(indices([C])), g.const(np.float32(0.5))], "FillOptions")
    total = g.op("ADD", [counted, filled], "AddOptions")
    same = g.op("ADD", [x, total], "AddOptions")
    return g.op("ADD", [same, g.op("ZEROS_LIKE", [x], "ZerosLikeOptions")], "AddOptions")


def cut(g: Graph, x: int) -> Any:
    begin, size = g.const(indices([0, 2, 0, 1])), g.const(indices([1, -1, 3, 2]))
    return g.op("SLICE", [x, begin, size], "SliceOptions")


def lstm(g: Graph, x: int) -> Any:
    """[N, H, W·C] -> [N, H, 4]"""
    line = g.op("RESHAPE", [x, g.const(indices([1, H, W * C]))], "ReshapeOptions")
    weights = [g.random(4, W * C) for _ in range(4)] + [g.random(4, 4) for _ in range(4)]
    biases, states = [g.random(4) for _ in range(4)], []
    for name in ("hidden", "cell"):
        states.append(g.file.tensor(name, (1, 4), "FLOAT32"))
        g.file.tensors[-1].isVariable = True
    inputs = [line, *weights, -1, -1, -1, *biases, -1, -1, *states]
    return g.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, "UnidirectionalSequenceLSTMOptions",
        fusedActivationFunction=4,
    )  # fmt: skip


def embedded(g: Graph, x: int) -> Any:
    del x
    words = g.input("words", 5, kind="INT32")
    row = g.op("RESHAPE", [words, g.const(indices([5]))], "ReshapeOptions", kind="INT32")
    found = g.op("EMBEDDING_LOOKUP", [row, g.random(9, 4)])
    return g.op("RESHAPE", [found, g.const(indices([1, 5, 4]))], "ReshapeOptions")


def spectra(g: Graph, x: int) -> Any:
    """Padded and cut to the lengths of the transform; a cast keeps the real part."""

    def of(*sizes: int) -> int:
        given: int = g.op("RFFT2D", [x, g.const(indices(sizes))], "Rfft2dOptions", kind="COMPLEX64")
        return given

    return [
        g.op("COMPLEX_ABS", [of(1, 4)]),
        g.op("REAL", [of(W, 2)]),
        g.op("IMAG", [of(4, 8)]),
        g.op("CAST", [of(W, 4)], "CastOptions"),
    ]


CASES: dict[str, Build] = {
    **{
        name: unary(name)
        for name in (
            "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "ELU", "FLOOR",
            "CEIL", "ROUND", "SIN", "SIGN",
        )
    },
    **{name: unary(name, f"{name.capitalize()}Options") for name in ("EXP", "ABS", "NEG", "COS")},
    **{name: positive(unary(name)) for name in ("LOG", "SQRT", "RSQRT")},
    **{
        name: compared(name)
        for name in ("EQUAL LOGICAL_NOT", "LESS", "GREATER", "LESS_EQUAL", "GREATER_EQUAL")
    },
    "NOT_EQUAL SELECT_V2 NEG": compared("NOT_EQUAL"),
    "LOGICAL_AND CAST": both("LOGICAL_AND"),
    "LOGICAL_OR": both("LOGICAL_OR"),
    "HARD_SWISH": unary("HARD_SWISH", "HardSwishOptions"),
    "SQUARE": unary("SQUARE", "SquareOptions"),
    "LEAKY_RELU": unary("LEAKY_RELU", "LeakyReluOptions", alpha=0.1),
    "GELU": unary("GELU", "GeluOptions", approximate=True),
    "GELU exact": unary("GELU", "GeluOptions"),
    "SOFTMAX": unary("SOFTMAX", "SoftmaxOptions", beta=2.0),
    "LOG_SOFTMAX": unary("LOG_SOFTMAX", "LogSoftmaxOptions"),
    "L2_NORMALIZATION": unary("L2_NORMALIZATION", "L2NormOptions"),
    "LOCAL_RESPONSE_NORMALIZATION": unary(
        "LOCAL_RESPONSE_NORMALIZATION", "LocalResponseNormalizationOptions",
        radius=1, bias=1.0, alpha=0.3, beta=0.6,
    ),
    "ADD": binary("ADD", "AddOptions", W, C, fusedActivationFunction=1),
    "SUB": binary("SUB", "SubOptions", fusedActivationFunction=2),
    "MUL": binary("MUL", "MulOptions", 1, H, 1, C, fusedActivationFunction=3),
    "DIV": positive(lambda g, x: g.op("DIV", [g.random(C), x], "DivOptions")),
    "POW": positive(binary("POW", "PowOptions", C)),
    "MAXIMUM": binary("MAXIMUM", "MaximumMinimumOptions", C),
    "MINIMUM": binary("MINIMUM", "MaximumMinimumOptions", 1, 1, 1, C),
    "SQUARED_DIFFERENCE": binary("SQUARED_DIFFERENCE", "SquaredDifferenceOptions", C),
    "FLOOR_DIV": binary("FLOOR_DIV", "FloorDivOptions", C),
    "FLOOR_MOD": binary("FLOOR_MOD", "FloorModOptions", C),
    "PRELU": lambda g, x: g.op("PRELU", [x, g.random(1, 1, C)]),
    "MEAN": reduce("MEAN", [1, 2], False),
    "MEAN of a line": reduce("MEAN", [1], False),
    "MEAN of channels": reduce("MEAN", [-1], True),
    "SUM": reduce("SUM", [3], False),
    "REDUCE_MAX": reduce("REDUCE_MAX", [1, 2], True),
    "REDUCE_MIN": reduce("REDUCE_MIN", [2], False),
    "REDUCE_PROD": reduce("REDUCE_PROD", [3], False),
    "STRIDED_SLICE": sliced([0, 1, 0, -2], [1, 5, 0, 3], [1, 2, 1, 1], beginMask=1, endMask=4),
    "STRIDED_SLICE of one": sliced([0, -1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], beginMask=13,
                                   endMask=13, shrinkAxisMask=2),
    "STRIDED_SLICE backwards": sliced([0, 0, 0, 0], [0, 0, 0, 0], [1, -1, 1, 1], beginMask=15,
                                      endMask=15),
    "STRIDED_SLICE with dots": sliced([0, 0, 1], [0, 0, 3], [1, 1, 1], beginMask=1, endMask=1,
                                      ellipsisMask=2),
    "STRIDED_SLICE new axis": sliced([0, 0, 1], [0, 0, 3], [1, 1, 1], beginMask=1, endMask=1,
                                     newAxisMask=2),
    "RESIZE_BILINEAR": resized("RESIZE_BILINEAR"),
    "RESIZE_BILINEAR corners": resized("RESIZE_BILINEAR", alignCorners=True),
    "RESIZE_BILINEAR halves": resized("RESIZE_BILINEAR", halfPixelCenters=True),
    "RESIZE_NEAREST_NEIGHBOR": resized("RESIZE_NEAREST_NEIGHBOR"),
    "RESIZE_NEAREST_NEIGHBOR corners": resized("RESIZE_NEAREST_NEIGHBOR", alignCorners=True),
    "RESIZE_NEAREST_NEIGHBOR halves": resized("RESIZE_NEAREST_NEIGHBOR", halfPixelCenters=True),
    "SPACE_TO_DEPTH": unary("SPACE_TO_DEPTH", "SpaceToDepthOptions", blockSize=2),
    "DEPTH_TO_SPACE": lambda g, x: g.op(
        "DEPTH_TO_SPACE", [g.conv(x, C, 8)], "DepthToSpaceOptions", blockSize=2
    ),
    "SPLIT SPLIT_V": split, "PACK UNPACK": packed, "RESHAPE": reshaped,
    "SHAPE": by_computed_shape, "CONV_2D DEPTHWISE_CONV_2D": convolutions,
    "TRANSPOSE_CONV": transposed(0, 3, (2 * H, 2 * W)),
    "TRANSPOSE_CONV odd": transposed(0, 3, (2 * H - 1, 2 * W - 1)),
    "TRANSPOSE_CONV valid": transposed(1, 2, (2 * H, 2 * W)),
    "TRANSPOSE_CONV wide": transposed(1, 5, (2 * H + 3, 2 * W + 3)),
    "MAX_POOL_2D": pooled("MAX_POOL_2D"), "AVERAGE_POOL_2D": pooled("AVERAGE_POOL_2D"),
    "SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND": dilated, "PAD PADV2 MIRROR_PAD": padded,
    "FULLY_CONNECTED BATCH_MATMUL": linear, "TRANSPOSE": turned,
    "SQUEEZE EXPAND_DIMS": ones, "TILE BROADCAST_TO": repeated,
    "CONCATENATION": joined, "GATHER ARG_MAX ARG_MIN TOPK_V2 ONE_HOT": looked_up,
    "CUMSUM ADD_N REVERSE_V2": summed, "RANGE FILL ZEROS_LIKE": made_here,
    "SLICE": cut, "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm, "EMBEDDING_LOOKUP": embedded,
    "RFFT2D COMPLEX_ABS REAL IMAG": spectra, "DENSIFY": stored_sparsely,
}  # fmt: skip


def outputs_of(module: Any, inputs: list[torch.Tensor]) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad():
        found = module(*inputs)
    return [y.numpy() for y in (found.values() if isinstance(found, dict) else [found])]


def check_against_litert(path: Path, content: bytes, tolerance: float = 2e-5) -> Any:
    """Three samples at once, each as LiteRT computes it alone. The module."""
    path.write_bytes(content)
    module, examples = load_litert(str(path))
    rng = np.random.default_rng(1)
    inputs = [
        torch.from_numpy(rng.normal(size=(3, *x.shape[1:])).astype(np.float32))
        if x.is_floating_point()
        else torch.from_numpy(rng.integers(0, 5, (3, *x.shape[1:]))).to(x.dtype)
        for x in examples
    ]
    got = outputs_of(module, inputs)
    for row in range(3):
        wanted = run(content, [x[row : row + 1].numpy() for x in inputs])
        for ours, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(ours[row : row + 1], theirs, rtol=tolerance, atol=tolerance)
    return module


@pytest.mark.parametrize("behind", ["input", "convolution"])
@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_what_litert_does(case: str, behind: str, tmp_path: Path) -> None:
    """Behind a convolution tensors lie with channels first; the file knows nothing of it."""
    graph = Graph(seed=len(case))
    x = graph.input("x", H, W, C)
    if behind == "convolution":
        x = graph.conv(x, C, C)
    check_against_litert(tmp_path / "net.tflite", graph.content(CASES[case](graph, x)))


def test_every_operator_has_a_case() -> None:
    told = {word for case in CASES for word in case.split()}
    elsewhere = {"QUANTIZE", "DEQUANTIZE", "FAKE_QUANT", "SELECT", "SELECT_V2", "CAST", "RANK",
                 "LOGICAL_NOT", "GATHER_ND", "BROADCAST_ARGS"}  # fmt: skip
    assert set(OPERATORS) - told <= elsewhere
