"""Rearrangements: what only moves the elements of a sample, as tables of places.

One table per axis of the output, and what is filled with a constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import ComputedStep

Digits = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Gather(ComputedStep):
    """Output [i, j, …] is the source's element number `start` + offsets[0][i] + offsets[1][j] + …
    in row-major order: one table, of numbers from 0 on, for every axis of the output."""

    start: int
    offsets: tuple[tuple[int, ...], ...]

    @property
    def indices(self) -> Integers:
        """The source's element number for every element of the output."""
        return joined(self.start, self.offsets)

    def compute(self, *sources: Integers) -> Integers:
        """Elements by their numbers, for all samples."""
        return sources[0].reshape(len(sources[0]), -1)[:, self.indices]


@dataclass(frozen=True)
class Fill(ComputedStep):
    """The same for every sample of the source: `codes`, of the output's shape or one for all."""

    codes: Integers

    def compute(self, *sources: Integers) -> Integers:
        """The source's values do not matter."""
        shape = (len(sources[0]), *self.output.shape)
        found: Integers = np.empty_like(sources[0], dtype=np.int64, shape=shape)
        found[...] = self.codes
        return found


def joined(start: int, offsets: Sequence[Sequence[int]]) -> Integers:
    """start + offsets[0][i] + offsets[1][j] + … for every element."""
    total: Integers = np.array(start, dtype=np.int64)
    for table in offsets:
        total = total[..., None] + np.asarray(table, dtype=np.int64)
    return total


def separated(indices: Integers) -> tuple[int, tuple[tuple[int, ...], ...]] | None:
    """(start, offsets) that `joined` makes `indices` of; None where there are none."""
    first = int(indices.reshape(-1)[0])
    start, offsets = first, []
    for axis in range(indices.ndim):
        line = np.moveaxis(indices, axis, -1).reshape(-1, indices.shape[axis])[0] - first
        start += int(line.min())
        offsets.append(tuple((line - line.min()).tolist()))
    tables = tuple(offsets)
    return (start, tables) if np.array_equal(joined(start, tables), indices) else None


def digits_of(table: Sequence[int]) -> Digits | None:
    """(length, stride) of nested loops that count the table, outermost first; None if there are
    none: 0 0 1 1 2 2 -> (3, 1), (2, 0)."""
    if len(table) == 1:
        return ()
    stride = table[1] - table[0]
    run = 2
    while run < len(table) and table[run] - table[run - 1] == stride:
        run += 1
    heads = table[::run]
    inner = [value - table[0] for value in table[:run]]
    if len(table) % run or any(
        value != heads[place // run] + inner[place % run] for place, value in enumerate(table)
    ):
        return None
    outer = digits_of(heads)
    return None if outer is None else (*outer, (run, stride))
