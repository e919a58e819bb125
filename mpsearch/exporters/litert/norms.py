"""Norms and products of two activations in LiteRT.

LiteRT has no norm, and in 8 bits the square of a distance keeps four of them. So a norm is a float
island, between DEQUANTIZE and QUANTIZE; products of two activations are BATCH_MATMUL in int8.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mpsearch.exporters.litert.layouts import FIRST, Tensors, scales_of, stored_shape
from mpsearch.integer.beside import Beside
from mpsearch.integer.graph import Step
from mpsearch.integer.norms import Normalize
from mpsearch.integer.products import MatMul


def _normalize(tensors: Tensors, step: Normalize) -> None:
    """(x - mean) * rsqrt(mean((x - mean)^2) + eps) * weight + bias on floats, rows one by one."""
    (name,) = step.sources
    out, file, stored = step.output.name, tensors.file, stored_shape(step.output.shape, FIRST)
    rows = (1, int(np.prod(stored)) // step.length, step.length)

    def made(operator: str, version: int, inputs: list[int], what: str, shape: tuple[int, ...],
             options: str = "", **given: object) -> int:  # fmt: skip
        target = file.tensor(f"{out} {what}", shape, "FLOAT32")
        file.operator(operator, version, inputs, [target], options, **given)
        return target

    def mean(x: int, what: str) -> int:
        axis = tensors.indices((2,))
        return made("MEAN", 1, [x, axis], what, (*rows[:2], 1), "ReducerOptions", keepDims=True)

    def constant(what: str, values: np.ndarray) -> int:
        return file.tensor(f"{out} {what}", values.shape, "FLOAT32", values=values)

    source = tensors.read(name, FIRST)
    x = made("DEQUANTIZE", 2, [source], "real", stored, "DequantizeOptions")
    flat = file.tensor(f"{out} rows", rows, "FLOAT32")
    tensors.reshape(x, flat, rows)
    if step.centred:
        flat = made("SUB", 1, [flat, mean(flat, "mean")], "distance", rows, "SubOptions")
    squared = made("MUL", 1, [flat, flat], "square", rows, "MulOptions")
    eps = constant("eps", np.array([max(step.eps, 1e-30)]))
    kept = (*rows[:2], 1)
    added = made("ADD", 1, [mean(squared, "variance"), eps], "with eps", kept, "AddOptions")
    root = made("RSQRT", 1, [added], "root", kept)
    flat = made("MUL", 1, [flat, root], "normal", rows, "MulOptions")
    channel = np.arange(rows[1] * rows[2]) // step.inner % len(step.multipliers)
    weight, bias = (values[channel].reshape(rows) for values in step.factors())
    if step.inner == 1 and len(step.multipliers) in (1, step.length):
        weight, bias = weight[:, :1], bias[:, :1]
    flat = made("MUL", 1, [flat, constant("weight", weight)], "weighted", rows, "MulOptions")
    if bias.any():
        flat = made("ADD", 1, [flat, constant("bias", bias)], "biased", rows, "AddOptions")
    result = file.tensor(f"{out} in place", stored, "FLOAT32")
    tensors.reshape(flat, result, stored)
    target = tensors.new(out, step.output.shape, tensors.quantizers[out])
    file.operator("QUANTIZE", 1, [result], [target], "QuantizeOptions")


def _matrix_product(tensors: Tensors, step: MatMul) -> None:
    """BATCH_MATMUL."""
    sources = [tensors.read(name, FIRST) for name in step.sources]
    out = step.output.name
    target = tensors.new(out, step.output.shape, tensors.quantizers[out])
    tensors.file.operator(
        "BATCH_MATMUL", 2, sources, [target], "BatchMatMulOptions", adjX=False, adjY=False
    )


def _beside(tensors: Tensors, step: Beside) -> None:
    """CONCATENATION with constants of the same quantizer."""
    names, out = iter(step.sources), step.output
    quantizer = tensors.quantizers[step.sources[0]]
    read = []
    for place, part in enumerate(step.parts):
        if part is None:
            read.append(tensors.read(next(names), FIRST))
            continue
        real = (part.astype(np.float64) - out.zero_point) * out.scale
        codes = np.clip(np.rint(real / quantizer.scale) + quantizer.zero_point, 0, 255) - 128
        read.append(
            tensors.file.tensor(
                f"{out.name} part {place}", (1, *part.shape), "INT8", scales_of(quantizer), codes
            )
        )
    target = tensors.new(out.name, out.shape, quantizer)
    tensors.file.operator(
        "CONCATENATION", 2, read, [target], "ConcatenationOptions", axis=step.axis + 1
    )


NORM_WRITERS: dict[type[Step], Callable[[Tensors, Any], None]] = {
    Normalize: _normalize,
    MatMul: _matrix_product,
    Beside: _beside,
}
