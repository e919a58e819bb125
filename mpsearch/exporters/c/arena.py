"""One static memory for all tensors of a network: who lies where, and how small it could be.

A tensor lives from the step that writes it to the last step that reads it. Two tensors may share
bytes unless both live in some step; one that may be written over another may also begin where that
one does, or some bytes before it.

Tensors are placed by size, the largest first, each over the one that it may be written over, or
else into the smallest gap that holds it between the tensors that live at the same time (greedy by
size with best fit: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
arXiv 2001.03288, algorithm 3). Where that is above the lower bound, other orders are tried.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

_TRIES = 32  # from each order


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that are in use in the steps `first` to `last`, both included; `over`: a buffer,
    in use up to `first`, that this one may lie over, beginning `before` bytes before it."""

    name: str
    size: int
    first: int
    last: int
    over: str | None = None
    before: int = 0

    def shared(self, size: int) -> int:
        """The bytes that it has together with the one of that size that it lies over."""
        return max(0, min(self.size - self.before, size))

    def meets(self, other: "Buffer") -> bool:
        """True when there is a step in which both are in use."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Offsets by name, the bytes that they take, and the bytes that no placing can go below."""

    offsets: Mapping[str, int]
    peak_bytes: int
    lower_bound_bytes: int


def plan(buffers: Sequence[Buffer], alignment: int = 4) -> Arena:
    """Place every buffer at a multiple of `alignment`; those in use together do not overlap, but
    for one that lies over another as it may.

    `lower_bound_bytes` is the largest sum of sizes in use in one step, without alignment. While the
    peak is above it, the buffer that makes the peak is placed first in another try; then the same
    with what may begin before the first one, and beginning with those that live longest. The best
    try is the answer.
    """
    bound = lower_bound(buffers)
    placing = _Placing(buffers, alignment)
    best: list[int] = []
    peak = -1
    for key, down in product((_size, _span), (False, True)):
        keys = [key(buffer) for buffer in buffers]
        order = sorted(range(len(buffers)), key=keys.__getitem__)
        for _ in range(_TRIES):
            if 0 <= peak <= bound:
                break
            offsets = placing.place(order, down)
            ends = [at + buffer.size for at, buffer in zip(offsets, buffers, strict=True)]
            reached = max(ends, default=0)
            if peak < 0 or reached < peak:
                best, peak = offsets, reached
            last = max(order, key=ends.__getitem__, default=-1)
            order = [last, *(i for i in order if i != last)] if order else []
    names = [buffer.name for buffer in buffers]
    return Arena(dict(zip(names, best, strict=True)), peak, bound)


def _size(buffer: Buffer) -> tuple[int, int, str]:
    return -buffer.size, buffer.first, buffer.name


def _span(buffer: Buffer) -> tuple[int, int, str]:
    return buffer.first - buffer.last, -buffer.size, buffer.name


class _Placing:
    """Which buffers are in the way of each, and which each may begin with."""

    def __init__(self, buffers: Sequence[Buffer], alignment: int) -> None:
        self.sizes = [buffer.size for buffer in buffers]
        self.alignment = alignment
        number = {buffer.name: i for i, buffer in enumerate(buffers)}
        self.meeting: list[list[int]] = [
            [k for k, other in enumerate(buffers) if k != i and buffer.meets(other)]
            for i, buffer in enumerate(buffers)
        ]
        self.together: list[list[tuple[int, int]]] = [[] for _ in buffers]  # and bytes behind
        for i, buffer in enumerate(buffers):
            if buffer.over is not None:
                self.together[i].append((number[buffer.over], -buffer.before))
                self.together[number[buffer.over]].append((i, buffer.before))

    def place(self, order: Sequence[int], down: bool) -> list[int]:
        """The first byte of every buffer, placed one after the other; `down`: also before the first
        one, where a buffer lies over that."""
        offsets: dict[int, int] = {}
        for i in order:
            near = [(k, offsets[k]) for k in self.meeting[i] if k in offsets]
            over = [(k, offsets[k] + by) for k, by in self.together[i] if k in offsets]
            taken = sorted((at, at + self.sizes[k]) for k, at in near)
            offsets[i] = self._best_fit(self.sizes[i], taken)
            for _, begin in over:
                others = [(k, at) for k, at in near if (k, begin) not in over]
                end = begin + self.sizes[i]
                free = all(end <= at or at + self.sizes[k] <= begin for k, at in others)
                if free and (down or begin >= 0):
                    offsets[i] = begin
        lowest = min(offsets.values(), default=0)
        return [offsets[i] - lowest for i in range(len(self.sizes))]

    def _best_fit(self, size: int, taken: Sequence[tuple[int, int]]) -> int:
        """The start of the smallest gap between `taken` (sorted) that holds `size`; else their
        end."""
        end, best, smallest = 0, None, None
        for start, stop in taken:
            if start - end >= size and (smallest is None or start - end < smallest):
                best, smallest = end, start - end
            end = max(end, -(-stop // self.alignment) * self.alignment)
        return end if best is None else best


def lower_bound(buffers: Iterable[Buffer]) -> int:
    """The largest sum of sizes that are in use at once, where one that may be written over another
    counts only by what it is larger: [(10, 0-1), (5, 1-2), (7, 2-2)] -> 15."""
    known = {buffer.name: buffer for buffer in buffers}
    saved: dict[int, int] = {}
    for buffer in known.values():
        if buffer.over is not None:
            shared = buffer.shared(known[buffer.over].size)
            saved[buffer.first] = saved.get(buffer.first, 0) + shared
    # A sum can only grow where a buffer begins, or behind where one was written over another.
    steps = {b.first for b in known.values()} | {step + 1 for step in saved}
    return max(
        (
            sum(b.size for b in known.values() if b.first <= step <= b.last) - saved.get(step, 0)
            for step in steps
        ),
        default=0,
    )
