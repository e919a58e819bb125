"""Every integer step from its definition, with Python's integers and fractions, element by element.

`round` of a Fraction rounds half to even. Nothing is shared with the kernels.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from mpsearch.integer.arithmetic import Affine, Multiply, Prelu
from mpsearch.integer.beside import Beside
from mpsearch.integer.comparing import Interval
from mpsearch.integer.fixed_point import Rescale
from mpsearch.integer.functions import Lookup
from mpsearch.integer.gathering import Fill, Gather
from mpsearch.integer.graph import (
    Add,
    ArgMax,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    Embedding,
    IntegerGraph,
    Linear,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Scaling,
    Slice,
    Softmax,
    Step,
    TransposedConvolution,
)
from mpsearch.integer.log_softmax import LogSoftmax
from mpsearch.integer.norms import Normalize
from mpsearch.integer.products import MatMul
from mpsearch.integer.resizing import Resize

Sample = Any  # one sample: an object array of Python integers


def replay(graph: IntegerGraph, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the graph by name, [N, …] in Python's integers."""
    values = {
        entry.tensor.name: [exactly(sample) for sample in x]
        for entry, x in zip(graph.inputs, inputs, strict=True)
    }
    for step in graph.steps:
        rows = zip(*(values[name] for name in step.sources), strict=True)
        lowest = graph.tensors[step.sources[0]].low
        values[step.output.name] = [compute(step, list(row), lowest) for row in rows]
    return {name: np.stack(samples) for name, samples in values.items()}


def exactly(array: np.ndarray) -> Sample:
    return np.array([int(v) for v in array.reshape(-1)], dtype=object).reshape(array.shape)


def compute(step: Step, sources: list[Sample], lowest: int) -> Sample:
    out = np.empty(step.output.shape, dtype=object)
    for place in np.ndindex(*step.output.shape):
        out[place] = element(step, sources, place, lowest)
    return out


def clip(value: int, low: int, high: int) -> int:
    return low if value < low else high if value > high else value


def scaled(value: int, by: Rescale, channel: int) -> int:
    channel = channel if len(by.multipliers) > 1 else 0
    short = round(Fraction(value, 2**by.pre_shift))
    return round(Fraction(short * int(by.multipliers[channel]), 2 ** int(by.shifts[channel])))


def element(step: Step, sources: list[Sample], place: tuple[int, ...], lowest: int) -> int:
    x = sources[0]
    match step:
        case TransposedConvolution():
            total = int(step.weights.bias[place[0]]) + sum(_landing(step, x, place))
            code = scaled(total, step.rescale, place[0]) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Convolution():
            total = int(step.weights.bias[place[0]]) + sum(_products(step, x, place))
            assert abs(total) < 2 ** (step.weights.accumulator_bits - 1)
            code = scaled(total, step.rescale, place[0]) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Embedding():
            number = clip(x[place[:-1]], 0, len(step.weights.codes) - 1)
            code = scaled(int(step.weights.codes[number, place[-1]]), step.rescale, number)
            return clip(code + step.output.zero_point, step.low, step.high)
        case Linear():
            row = step.weights.codes[place[-1]]
            total = int(step.weights.bias[place[-1]]) + sum(
                int(w) * (q - step.weights.zero_point)
                for w, q in zip(row, x[place[:-1]], strict=True)
            )
            assert abs(total) < 2 ** (step.weights.accumulator_bits - 1)
            code = scaled(total, step.rescale, place[-1]) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Requantize():
            code = scaled(x[place] - step.source_zero, step.rescale, 0) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Clamp():
            return clip(x[place], step.low, step.high)
        case Add():
            return clip(x[place] + sources[1][place], step.low, step.high)
        case MaxPool():
            return max([lowest, *_window(step, x, place)])
        case AveragePool():
            flat = len(place) == 2
            (a, b) = (0, 1) if flat else step.rows[place[1]]
            image = x[place[0]][None] if flat else x[place[0]]
            start, end = step.columns[place[-1]]
            values = [image[i][j] for i, j in product(range(a, b), range(start, end))]
            spot = (0 if flat else place[1], place[-1])
            if step.scaling is not None:
                return _rescaled_mean(step.scaling, values, spot, step.output.zero_point)
            return round(Fraction(sum(values), int(step.counts[spot])))
        case Mean():
            return _mean(step, x, place)
        case Concatenate():
            axis, index = step.axis, place[step.axis]
            for source in sources:
                if index < source.shape[axis]:
                    return int(source[(*place[:axis], index, *place[axis + 1 :])])
                index -= source.shape[axis]
            raise AssertionError
        case Reshape():
            return int(x.reshape(-1)[int(np.ravel_multi_index(place, step.output.shape))])
        case Permute():
            moved_to = dict(zip(step.axes, place, strict=True))
            return int(x[tuple(moved_to[axis] for axis in range(len(place)))])
        case Slice():
            index = step.start + place[step.axis] * step.step
            return int(x[(*place[: step.axis], index, *place[step.axis + 1 :])])
        case Fill():
            return int(np.broadcast_to(step.codes, step.output.shape)[place])
        case Resize():
            image, part = (x if x.ndim == 3 else x[:, None]), Fraction(0)
            row = step.rows[place[1] if x.ndim == 3 else 0]
            column = step.columns[place[-1]]
            for y, below in ((row[0], 2**15 - row[2]), (row[1], row[2])):
                for at, beside in ((column[0], 2**15 - column[2]), (column[1], column[2])):
                    part += Fraction(int(image[place[0], y, at]) * below * beside, 2**30)
            return round(part)
        case Gather():
            number = step.start + sum(t[i] for t, i in zip(step.offsets, place, strict=True))
            return int(x.reshape(-1)[number])
        case Pad():
            moved = tuple(i - before for i, (before, _) in zip(place, step.pads, strict=True))
            inside = all(0 <= i < n for i, n in zip(moved, x.shape, strict=True))
            return int(x[moved]) if inside else step.value
        case Softmax():
            return _softmax(step, x, place)
        case LogSoftmax():
            return _log_softmax(step, x, place)
        case ArgMax():
            rest = iter(place)
            if len(place) == x.ndim:
                rest = iter([index for axis, index in enumerate(place) if axis != step.axis])
            where = [slice(None) if a == step.axis else next(rest) for a in range(x.ndim)]
            values = list(x[tuple(where)])
            return values.index(max(values))
        case Interval():
            return step.inside if step.first <= x[place] <= step.last else step.outside
        case Lookup():
            knot, rest = divmod(x[place] + 2**15, 2**step.segment)
            left, right = int(step.table[knot]), int(step.table[knot + 1])
            exact = left + Fraction((right - left) * rest, 2**step.segment)
            code = round(exact / Fraction(2) ** step.fraction) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Affine():
            total = int(_repeated(step.offset, place)) * 2**step.raised
            for source, factors in zip(sources, step.multipliers, strict=True):
                total += int(_repeated(factors, place)) * int(_repeated(source, place))
            code = round(Fraction(total, 2**step.shift)) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Multiply():
            left, right = (int(_repeated(source, place)) for source in sources)
            code = scaled(left * right, step.rescale, 0) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Beside():
            index, remaining = place[step.axis], iter(sources)
            for constant in step.parts:
                piece = exactly(constant) if constant is not None else next(remaining)
                if index < piece.shape[step.axis]:
                    return int(piece[(*place[: step.axis], index, *place[step.axis + 1 :])])
                index -= piece.shape[step.axis]
            raise AssertionError
        case Normalize():
            return clip(_normalized(step, x, place), step.low, step.high)
        case MatMul():
            left, right = x[place[:-1]], sources[1][(*place[:-2], slice(None), place[-1])]
            total = sum(
                (a - step.zero_points[0]) * (b - step.zero_points[1])
                for a, b in zip(left, right, strict=True)
            )
            assert abs(total) < 2 ** (step.accumulator_bits - 1)
            code = scaled(int(total), step.rescale, 0) + step.output.zero_point
            return clip(code, step.low, step.high)
        case Prelu():
            slope = int(_repeated(step.negative, place)) if x[place] < 0 else step.positive
            code = round(Fraction(x[place] * slope, 2**step.shift)) + step.output.zero_point
            return clip(code, step.low, step.high)
        case _:
            raise AssertionError(step)


def _normalized(step: Normalize, x: Sample, place: tuple[int, ...]) -> int:
    """A norm from its definition: fractions, and `isqrt` of Python."""
    flat, n = x.reshape(-1), step.length
    at = int(np.ravel_multi_index(place, x.shape))
    row = [int(q) for q in flat[at // n * n : at // n * n + n]]
    whole, rest = divmod(sum(row), n) if step.centred else (0, 0)
    squares = sum((q - whole) ** 2 for q in row) if step.centred else sum(q * q for q in row)
    part = Fraction(rest * 2**16 // n)
    variance = round(Fraction(squares * 2**8, n)) - round(part * part / 2**24)
    variance = max(variance + step.added, 1)
    exponent = (variance.bit_length() - 31) // 2
    mantissa = math.floor(Fraction(variance) / Fraction(4) ** exponent)
    assert 2**30 <= mantissa < 2**32
    inverse = min(2**61 // math.isqrt(mantissa * 2**30), 2**31 - 1)
    apart = (int(flat[at]) - whole) * 2**12 - round(Fraction(rest * 2**12, n))
    assert abs(apart * inverse) < 2**62
    normal = round(Fraction(apart * inverse) / Fraction(2) ** (36 + exponent))
    channel = at // step.inner % len(step.multipliers)
    total = normal * int(step.multipliers[channel]) + int(step.offsets[channel]) * 2**step.raised
    assert abs(total) < 2**62
    return round(Fraction(total, 2**step.shift)) + step.output.zero_point


def _repeated(array: Any, place: tuple[int, ...]) -> Any:
    """The element at a place, along axes of length 1 the only one."""
    if array.ndim == 0:
        return array[()]
    return array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))]


def _products(step: Convolution, x: Sample, place: tuple[int, ...]) -> Iterator[int]:
    codes = step.weights.codes
    image = x if x.ndim == 3 else x[:, None]
    channel, row, column = place if len(place) == 3 else (place[0], 0, place[1])
    inputs = codes.shape[1]
    first = channel // (codes.shape[0] // step.groups) * inputs
    for c, i, j in product(range(inputs), range(codes.shape[2]), range(codes.shape[3])):
        at = row * step.stride[0] + i * step.dilation[0] - step.padding[0]
        beside = column * step.stride[1] + j * step.dilation[1] - step.padding[1]
        if 0 <= at < image.shape[1] and 0 <= beside < image.shape[2]:
            yield int(codes[channel, c, i, j]) * (
                image[first + c, at, beside] - step.weights.zero_point
            )


def _landing(step: TransposedConvolution, x: Sample, place: tuple[int, ...]) -> Iterator[int]:
    """From the inputs' side: every input that adds to this place, by its definition."""
    codes = step.weights.codes
    image = x if x.ndim == 3 else x[:, None]
    channel, row, column = place if len(place) == 3 else (place[0], 0, place[1])
    first = channel // (codes.shape[0] // step.groups) * codes.shape[1]
    for y, at in product(range(image.shape[1]), range(image.shape[2])):
        for i, j in product(range(codes.shape[2]), range(codes.shape[3])):
            lands = (
                y * step.stride[0] - step.padding[0] + i * step.dilation[0],
                at * step.stride[1] - step.padding[1] + j * step.dilation[1],
            )
            if lands == (row, column):
                for c in range(codes.shape[1]):
                    yield int(codes[channel, c, i, j]) * (
                        image[first + c, y, at] - step.weights.zero_point
                    )


def _window(step: MaxPool, x: Sample, place: tuple[int, ...]) -> Iterator[int]:
    image = x if x.ndim == 3 else x[:, None]
    channel, row, column = place if len(place) == 3 else (place[0], 0, place[1])
    for i, j in product(range(step.kernel[0]), range(step.kernel[1])):
        at = row * step.stride[0] + i * step.dilation[0] - step.padding[0]
        beside = column * step.stride[1] + j * step.dilation[1] - step.padding[1]
        if 0 <= at < image.shape[1] and 0 <= beside < image.shape[2]:
            yield image[channel, at, beside]


def _mean(step: Mean, x: Sample, place: tuple[int, ...]) -> int:
    kept = iter(place)
    if len(place) == x.ndim:  # the averaged axes are kept with length 1
        kept = iter([index for axis, index in enumerate(place) if axis not in step.axes])
    ranges = [range(x.shape[a]) if a in step.axes else [next(kept)] for a in range(x.ndim)]
    values = [x[where] for where in product(*ranges)]
    if step.scaling is not None:
        return _rescaled_mean(step.scaling, values, (0, 0), step.output.zero_point)
    return round(Fraction(sum(values), len(values)))


def _rescaled_mean(by: Scaling, values: list[int], at: tuple[int, int], zero: int) -> int:
    multipliers, shifts = by.rescale.multipliers, by.rescale.shifts
    if multipliers.size > 1:
        multipliers, shifts = multipliers[at].reshape(1), shifts[at].reshape(1)
    one = Rescale(multipliers, shifts, by.rescale.pre_shift)
    return clip(scaled(sum(q - by.source_zero for q in values), one, 0) + zero, by.low, by.high)


def _softmax(step: Softmax, x: Sample, place: tuple[int, ...]) -> int:
    powers = _powers(step.axis, step.rescale, x, place)
    return round(Fraction(powers[place][1] * 2**15, sum(power for _, power in powers.values())))


def _log_softmax(step: LogSoftmax, x: Sample, place: tuple[int, ...]) -> int:
    powers = _powers(step.axis, step.to_log2, x, place)
    total = sum(power for _, power in powers.values())
    whole = total.bit_length() - 31
    entry, rest = divmod((total >> whole) - 2**30, 2**22)
    left, right = (round(2**20 * math.log2(1 + (entry + i) / 256)) for i in (0, 1))
    logarithm = whole * 2**20 + left + round(Fraction((right - left) * rest, 2**22))
    exact = min(powers[place][0] + logarithm, 2**31 - 1)
    return clip(step.output.zero_point - scaled(exact, step.from_log2, 0), step.low, step.high)


def _powers(
    axis: int, to_log2: Rescale, x: Sample, place: tuple[int, ...]
) -> dict[tuple[int, ...], tuple[int, int]]:
    """Along the axis: t in units of 2^-20, and 2^30 · 2^-t."""
    powers = {}
    line = [(*place[:axis], k, *place[axis + 1 :]) for k in range(x.shape[axis])]
    largest = max(x[where] for where in line)
    for where in line:
        t = scaled(min(largest - x[where], 2**31 - 1), to_log2, 0)
        whole, fraction = divmod(min(t, 31 * 2**20), 2**20)
        k, rest = divmod(fraction, 2**12)
        left, right = (round(2**30 * 2 ** (-(k + i) / 256)) for i in (0, 1))
        power = (left - round(Fraction((left - right) * rest, 2**12))) // 2**whole
        powers[where] = (t, power)
    return powers
