"""Boxes with strides move what numpy moves."""

import random
from math import prod

import numpy as np
import pytest

from mpsearch.c_export.strides import (
    Box,
    concatenated,
    join,
    mean_axes,
    padded,
    permuted,
    row_major,
    sliced,
)
from mpsearch.errors import InputError
from mpsearch.integer.graph import Concatenate, IntegerTensor, Mean, Pad, Permute, Slice


def _tensor(shape: tuple[int, ...]) -> IntegerTensor:
    return IntegerTensor("t", shape, 8, False, 1.0, 0)


def _copy(box: Box, source: np.ndarray, target: np.ndarray) -> None:
    """What mps_move does with the joined box, element by element."""
    shape, (read, written) = join(box.shape, [box.from_strides, box.to_strides])
    given, taken = source.reshape(-1), target.reshape(-1)
    for place in np.ndindex(*shape):
        start = box.start + sum(i * s for i, s in zip(place, read, strict=True))
        stop = box.to_start + sum(i * s for i, s in zip(place, written, strict=True))
        assert start >= 0
        assert stop >= 0
        taken[stop] = given[start]


@pytest.mark.parametrize("seed", range(20))
def test_moves_equal_numpy(seed: int) -> None:
    source = random.Random(seed)
    shape = tuple(source.randint(1, 5) for _ in range(source.randint(1, 4)))
    x = np.arange(prod(shape)).reshape(shape)
    axes = source.sample(range(len(shape)), len(shape))
    expected = x.transpose(axes)
    got = np.full(expected.shape, -1)
    _copy(permuted(Permute(("x",), _tensor(got.shape), tuple(axes)), shape), x, got)
    np.testing.assert_array_equal(got, expected)

    axis, step = source.randrange(len(shape)), source.randint(1, 3)
    start = source.randrange(shape[axis])
    expected = x[(*[slice(None)] * axis, slice(start, shape[axis], step))]
    got = np.full(expected.shape, -1)
    part = Slice(("x",), _tensor(got.shape), axis, start, shape[axis], step)
    _copy(sliced(part, shape), x, got)
    np.testing.assert_array_equal(got, expected)

    pads = tuple((source.randint(0 if n < 3 else -1, 2), source.randint(0, 2)) for n in shape)
    cropped = x[tuple(slice(max(0, -b), n) for n, (b, _) in zip(shape, pads, strict=True))]
    expected = np.pad(cropped, [(max(0, b), a) for b, a in pads], constant_values=-7)
    got = np.full(expected.shape, -7)
    _copy(padded(Pad(("x",), _tensor(got.shape), pads, -7), shape), x, got)
    np.testing.assert_array_equal(got, expected)

    parts = [x, x + 1000, x[(*[slice(None)] * axis, slice(1))]]
    expected = np.concatenate(parts, axis)
    got = np.full(expected.shape, -1)
    boxes = concatenated(
        Concatenate(("a", "b", "c"), _tensor(got.shape), axis), [p.shape for p in parts]
    )
    for box, piece in zip(boxes, parts, strict=True):
        _copy(box, np.ascontiguousarray(piece), got)
    np.testing.assert_array_equal(got, expected)

    chosen = tuple(sorted(source.sample(range(len(shape)), source.randint(1, len(shape)))))
    (kept, kept_strides), (mean, mean_strides) = mean_axes(Mean(("x",), _tensor(()), chosen), shape)
    sums = [
        sum(
            x.reshape(-1)[
                sum(a * b for a, b in zip((*at, *k), (*kept_strides, *mean_strides), strict=True))
            ]
            for k in np.ndindex(*mean)
        )
        for at in np.ndindex(*kept)
    ]
    np.testing.assert_array_equal(sums, x.sum(axis=chosen).reshape(-1))


def test_neighbours_join_and_too_many_axes_are_refused() -> None:
    assert join((2, 3, 4), [row_major((2, 3, 4))] * 2) == ((24,), [(1,), (1,)])
    assert join((2, 1, 4), [(8, 4, 1), (4, 4, 1)]) == ((2, 4), [(8, 1), (4, 1)])
    assert join((1, 1), [(1, 1)]) == ((1,), [(1,)])
    shape = (2,) * 7
    backwards = tuple(reversed(row_major(shape)))
    with pytest.raises(InputError, match=r"shape 2x2x2x2x2x2x2 is moved along 7 axes"):
        join(shape, [backwards, row_major(shape)])
