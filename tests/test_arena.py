"""The static memory: nothing that lives together overlaps, and the peak is near its bound."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tight_graphs import build_tight

from mpsearch.exporters.c.arena import Buffer, lower_bound, plan
from mpsearch.exporters.c.families import PORTABLE
from mpsearch.exporters.c.storage import store

BUFFERS = st.lists(
    st.builds(
        lambda size, first, length: (size, first, first + length),
        st.integers(1, 40), st.integers(0, 6), st.integers(0, 4),
    ),
    max_size=7,
)  # fmt: skip


def _named(rows: list[tuple[int, int, int]]) -> list[Buffer]:
    return [Buffer(f"t{i}", *row) for i, row in enumerate(rows)]


def _written_over(buffers: list[Buffer]) -> list[Buffer]:
    """The same, each over the first one that ends where it begins and that no other is over."""
    found: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: b.first):
        covered = {other.over for other in found}
        before = [b.name for b in found if b.first < buffer.first == b.last]
        free = [name for name in before if name not in covered]
        found.append(replace(buffer, over=free[0] if free else None))
    return found


def _owners(buffers: list[Buffer], offsets: dict[str, int]) -> int:
    """Claim every byte in every step one by one; the number of bytes that were ever claimed. What
    is written over another, from the same byte on, may take what that one holds in its last step.
    """
    claimed: dict[tuple[int, int], Buffer] = {}
    for buffer in sorted(buffers, key=lambda b: b.first):
        at = offsets[buffer.name]
        lies = buffer.over and offsets[buffer.over] - buffer.before == at
        over = buffer.over if lies else None
        for step in range(buffer.first, buffer.last + 1):
            for byte in range(at, at + buffer.size):
                other = claimed.get((step, byte))
                assert other is None or (step == buffer.first and other.name == over)
                claimed[step, byte] = buffer
    return max((byte + 1 for _, byte in claimed), default=0)


def _smallest(buffers: list[Buffer]) -> int:
    """The best peak over all orders of placing each buffer as low as it fits (optimal)."""
    peaks = []
    for order in permutations(buffers):
        placed: list[tuple[int, Buffer]] = []
        for buffer in order:
            at = 0
            while any(
                buffer.first <= other.last
                and other.first <= buffer.last
                and at < start + other.size
                and start < at + buffer.size
                for start, other in placed
            ):
                at += 1
            placed.append((at, buffer))
        peaks.append(max((at + buffer.size for at, buffer in placed), default=0))
    return min(peaks, default=0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(BUFFERS, st.sampled_from([1, 4]))
def test_no_two_living_tensors_share_a_byte(
    rows: list[tuple[int, int, int]], alignment: int
) -> None:
    buffers = _named(rows)
    for living in (buffers, _written_over(buffers)):
        arena = plan(living, alignment)
        assert _owners(living, dict(arena.offsets)) == arena.peak_bytes
        assert all(at % alignment == 0 for at in arena.offsets.values())
        assert arena.peak_bytes >= arena.lower_bound_bytes
    by_step = [
        sum(b.size for b in buffers if step in range(b.first, b.last + 1)) for step in range(12)
    ]
    assert plan(buffers).lower_bound_bytes == lower_bound(buffers) == max(by_step)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(3, 5)), max_size=5))
def test_few_tensors_are_placed_optimally_or_nearly(rows: list[tuple[int, int, int]]) -> None:
    buffers = _named(rows)
    assert plan(buffers, 1).peak_bytes <= 1.1 * _smallest(buffers)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    buffers = [Buffer(str(i), size, i, i + 1) for i, size in enumerate((8, 100, 40, 60, 12))]
    arena = plan(buffers)
    assert arena.peak_bytes == arena.lower_bound_bytes == 140


def test_what_is_written_over_another_takes_no_bytes_of_its_own() -> None:
    """A sum of 60 bytes over its addend, then codes of 20 over the sum, beside a layer's input."""
    rows = [Buffer("x", 40, 0, 2), Buffer("addend", 60, 1, 2), Buffer("sum", 60, 2, 3, "addend")]
    arena = plan([*rows, Buffer("codes", 20, 3, 4, "sum"), Buffer("next", 80, 4, 5)])
    assert arena.offsets["addend"] == arena.offsets["sum"]
    assert arena.peak_bytes == arena.lower_bound_bytes == 100


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_come_near_the_bound(seed: int) -> None:
    """Two percent, and what aligning each of the buffers that live at once may take."""
    graph, _ = build_tight(seed)
    arranged = PORTABLE.arrange(graph)
    arena = store(graph, arranged, PORTABLE.kernels(arranged), PORTABLE).arena
    assert arena.peak_bytes <= 1.02 * arena.lower_bound_bytes + 4 * len(graph.inputs)


def test_no_tensors_take_no_memory() -> None:
    assert plan([]).peak_bytes == plan([]).lower_bound_bytes == 0
