"""The static memory: nothing that lives together overlaps, and the peak is near its bound."""

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from mpsearch.exporters.c.storage import Buffer, lower_bound, plan

BUFFERS = st.lists(
    st.builds(
        lambda size, first, length: (size, first, first + length),
        st.integers(1, 40), st.integers(0, 6), st.integers(0, 4),
    ),
    max_size=7,
)  # fmt: skip


def _named(rows: list[tuple[int, int, int]]) -> list[Buffer]:
    return [Buffer(f"t{i}", *row) for i, row in enumerate(rows)]


def _owners(buffers: list[Buffer], offsets: dict[str, int]) -> int:
    """Claim every byte in every step one by one; the number of bytes that were ever claimed."""
    claimed: dict[tuple[int, int], str] = {}
    for buffer in buffers:
        for step in range(buffer.first, buffer.last + 1):
            for byte in range(offsets[buffer.name], offsets[buffer.name] + buffer.size):
                assert (step, byte) not in claimed
                claimed[step, byte] = buffer.name
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
    arena = plan(buffers, alignment)
    assert _owners(buffers, dict(arena.offsets)) == arena.peak_bytes
    assert all(at % alignment == 0 for at in arena.offsets.values())
    by_step = [
        sum(b.size for b in buffers if step in range(b.first, b.last + 1)) for step in range(12)
    ]
    assert arena.lower_bound_bytes == lower_bound(buffers) == max(by_step)
    assert arena.peak_bytes >= arena.lower_bound_bytes


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(3, 5)), max_size=5))
def test_few_tensors_are_placed_optimally_or_nearly(rows: list[tuple[int, int, int]]) -> None:
    buffers = _named(rows)
    assert plan(buffers, 1).peak_bytes <= 1.1 * _smallest(buffers)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    buffers = [Buffer(str(i), size, i, i + 1) for i, size in enumerate((8, 100, 40, 60, 12))]
    arena = plan(buffers)
    assert arena.peak_bytes == arena.lower_bound_bytes == 140


def test_no_tensors_take_no_memory() -> None:
    assert plan([]).peak_bytes == plan([]).lower_bound_bytes == 0
