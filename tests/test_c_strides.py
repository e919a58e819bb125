"""Boxes with strides move what numpy moves, from and to tensors in both orders."""

import random
from math import prod

import numpy as np
import pytest

from mpsearch.errors import InputError
from mpsearch.exporters.c.layouts import (
    Box,
    arranged_box,
    concatenated,
    image_order,
    join,
    last_strides,
    mean_axes,
    padded,
    permuted,
    row_major,
    sliced,
)
from mpsearch.integer.graph import Concatenate, IntegerTensor, Mean, Pad, Permute, Shape, Slice


def _tensor(shape: tuple[int, ...]) -> IntegerTensor:
    return IntegerTensor("t", shape, 8, False, 1.0, 0)


def _strides(shape: Shape, last: bool) -> Shape:
    return last_strides(shape) if last else row_major(shape)


def _stored(x: np.ndarray, last: bool) -> np.ndarray:
    """The elements as they lie in memory."""
    return (np.moveaxis(x, 0, -1) if last else x).reshape(-1)


def _copy(box: Box, given: np.ndarray, taken: np.ndarray) -> None:
    """What mps_move does with the joined box, element by element."""
    shape, (read, written) = join(box.shape, [box.from_strides, box.to_strides])
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
    last, to_last = source.random() < 0.5, source.random() < 0.5
    x = np.arange(prod(shape)).reshape(shape)
    given, strides = _stored(x, last), _strides(shape, last)

    def check(expected: np.ndarray, *moves: tuple[Box, np.ndarray], fill: int = -1) -> None:
        got = np.full(expected.size, fill)
        for box, stored in moves:
            _copy(box, stored, got)
        np.testing.assert_array_equal(got, _stored(expected, to_last))

    axes = source.sample(range(len(shape)), len(shape))
    expected = x.transpose(axes)
    to = _strides(expected.shape, to_last)
    check(expected, (permuted(Permute(("x",), _tensor(expected.shape), tuple(axes)), strides, to),
                     given))  # fmt: skip

    axis, step = source.randrange(len(shape)), source.randint(1, 3)
    start = source.randrange(shape[axis])
    expected = x[(*[slice(None)] * axis, slice(start, shape[axis], step))]
    part = Slice(("x",), _tensor(expected.shape), axis, start, shape[axis], step)
    check(expected, (sliced(part, strides, _strides(expected.shape, to_last)), given))

    pads = tuple((source.randint(0 if n < 3 else -1, 2), source.randint(0, 2)) for n in shape)
    cropped = x[tuple(slice(max(0, -b), n) for n, (b, _) in zip(shape, pads, strict=True))]
    expected = np.pad(cropped, [(max(0, b), a) for b, a in pads], constant_values=-7)
    pad = Pad(("x",), _tensor(expected.shape), pads, -7)
    to = _strides(expected.shape, to_last)
    check(expected, (padded(pad, shape, strides, to), given), fill=-7)

    to = _strides(shape, to_last)
    check(x, (arranged_box(shape, strides, to), given))

    parts = [x, x + 1000, x[(*[slice(None)] * axis, slice(1))]]
    orders = [last, not last, last]
    expected = np.concatenate(parts, axis)
    boxes = concatenated(
        Concatenate(("a", "b", "c"), _tensor(expected.shape), axis),
        [p.shape for p in parts],
        [_strides(p.shape, order) for p, order in zip(parts, orders, strict=True)],
        _strides(expected.shape, to_last),
    )
    stored = [_stored(p, order) for p, order in zip(parts, orders, strict=True)]
    check(expected, *zip(boxes, stored, strict=True))

    chosen = tuple(sorted(source.sample(range(len(shape)), source.randint(1, len(shape)))))
    (kept, kept_strides), (mean, mean_strides) = mean_axes(
        Mean(("x",), _tensor(()), chosen), shape, strides
    )
    sums = [
        sum(
            given[
                sum(a * b for a, b in zip((*at, *k), (*kept_strides, *mean_strides), strict=True))
            ]
            for k in np.ndindex(*mean)
        )
        for at in np.ndindex(*kept)
    ]
    np.testing.assert_array_equal(sums, x.sum(axis=chosen).reshape(-1))


def test_the_order_of_an_image_is_that_of_its_bytes() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(image_order((2, 3, 4)), x.transpose(1, 2, 0).reshape(-1))
    np.testing.assert_array_equal(image_order((2, 5)), [0, 5, 1, 6, 2, 7, 3, 8, 4, 9])


def test_neighbours_join_and_too_many_axes_are_refused() -> None:
    assert join((2, 3, 4), [row_major((2, 3, 4))] * 2) == ((24,), [(1,), (1,)])
    assert join((2, 1, 4), [(8, 4, 1), (4, 4, 1)]) == ((2, 4), [(8, 1), (4, 1)])
    assert join((1, 1), [(1, 1)]) == ((1,), [(1,)])
    shape = (2,) * 7
    backwards = tuple(reversed(row_major(shape)))
    with pytest.raises(InputError, match=r"shape 2x2x2x2x2x2x2 is moved along 7 axes"):
        join(shape, [backwards, row_major(shape)])
