"""Weights that a LiteRT file stores sparsely: which numbers are there, and the dense ones.

A tree with a level for each dimension, in an order of its own: a dense level has every index below
each node of the level above, a sparse one has those that `indices` lists, from segment to segment.
Blocks are further levels, whose indices count inside of a block. As `SparsityParameters` of the
schema says it (tensorflow/lite/schema/schema.fbs), after TACO (arXiv:1804.10112).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget

Array = np.ndarray[Any, Any]
_MOST_LEVELS = 16


@dataclass(frozen=True)
class Level:
    """`size` indices below each node; of a sparse level, which: `indices` between `segments`."""

    size: int
    segments: Array | None = None
    indices: Array | None = None


@dataclass(frozen=True)
class Sparsity:
    """The dimension of each level, blocks' behind the tensor's own, and whose parts they are."""

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[Level, ...]


def read_sparsity(schema: ModuleType, table: Any, name: str) -> Sparsity | None:
    """What the file says of a tensor; None: it is dense. Raises InputError."""
    if table is None:
        return None
    counts = (
        table.TraversalOrderLength(), table.BlockMapLength(), table.DimMetadataLength(),
    )  # fmt: skip
    if max(counts) > _MOST_LEVELS or counts[0] != counts[2]:
        raise _damaged(name)
    return Sparsity(
        tuple(table.TraversalOrder(i) for i in range(counts[0])),
        tuple(table.BlockMap(i) for i in range(counts[1])),
        tuple(_level(schema, table.DimMetadata(i), name) for i in range(counts[2])),
    )


def _level(schema: ModuleType, entry: Any, name: str) -> Level:
    if entry.Format() == schema.DimensionType.DENSE:
        return Level(entry.DenseSize())
    segments = _vector(schema, entry.ArraySegmentsType(), entry.ArraySegments(), name)
    indices = _vector(schema, entry.ArrayIndicesType(), entry.ArrayIndices(), name)
    return Level(entry.DenseSize(), segments, indices)


def _vector(schema: ModuleType, kind: int, table: Any, name: str) -> Array:
    kinds = {getattr(schema.SparseIndexVector, f"{word}Vector"): getattr(schema, f"{word}Vector")
             for word in ("Int32", "Uint16", "Uint8")}  # fmt: skip
    if table is None or kind not in kinds:
        raise _damaged(name)
    vector = kinds[kind]()
    vector.Init(table.Bytes, table.Pos)
    count = vector.ValuesLength()
    memory_budget.reserve(8 * count, f"{count:,} indices of {name}")
    return np.asarray(vector.ValuesAsNumpy() if count else [], dtype=np.int64)


def dense(stored: Array, sparsity: Sparsity, shape: Sequence[int], name: str) -> Array:
    """The tensor with zeros where nothing is stored. Raises InputError for what does not fit."""
    rank, order, blocks = len(shape), sparsity.order, sparsity.blocks
    fits = (
        rank > 0
        and sorted(order[:rank]) == [*range(rank)]
        and sorted(order[rank:]) == [*range(rank, rank + len(blocks))]
        and all(0 <= dim < rank for dim in blocks)
        and all(level.segments is None for level in sparsity.levels[rank:])
    )
    if not fits:
        raise _damaged(name)
    index = [np.zeros(1, dtype=np.int64) for _ in shape]
    for dim, level in zip(order, sparsity.levels, strict=True):
        parents, found = _children(level, len(index[0]), math.prod(shape), name)
        index = [axis[parents] for axis in index]
        owner = dim if dim < rank else blocks[dim - rank]
        index[owner] = found if dim < rank else index[owner] * level.size + found
    inside = all(
        bool(((axis >= 0) & (axis < size)).all()) for axis, size in zip(index, shape, strict=True)
    )
    if len(index[0]) != len(stored) or not inside:
        raise _damaged(name)
    full = np.zeros(tuple(shape), dtype=stored.dtype)
    full[tuple(index)] = stored
    return full


def _children(level: Level, nodes: int, most: int, name: str) -> tuple[Array, Array]:
    """(the node above, the index) of every node of a level below `nodes` of them."""
    if level.segments is None or level.indices is None:
        if not level.size > 0 or nodes * level.size > most:
            raise _damaged(name)
        memory_budget.reserve(16 * nodes * level.size, f"indices of {name}")
        return np.repeat(np.arange(nodes), level.size), np.tile(np.arange(level.size), nodes)
    segments, indices = level.segments, level.indices
    counts = np.diff(segments)
    fits = (
        len(segments) == nodes + 1 and segments[0] == 0 and segments[-1] == len(indices) <= most
        and (counts >= 0).all() and (indices >= 0).all()
    )  # fmt: skip
    if not fits:
        raise _damaged(name)
    return np.repeat(np.arange(nodes), counts), indices


def _damaged(name: str) -> InputError:
    return InputError(f"damaged LiteRT file: the sparse {name} does not say where its numbers lie")
