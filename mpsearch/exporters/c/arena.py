"""One static memory for all tensors of a network: who lies where, and how small it could be.

A tensor lives from the step that writes it to the last step that reads it. Two tensors may share
bytes unless both live in some step. One that is written over another begins where that one does;
in the step that writes, both take the bytes of the larger one.

Tensors are placed by size, the largest first, each into the smallest gap that holds it between the
tensors that live at the same time (greedy by size with best fit: Pisarchyk and Lee, "Efficient
Memory Management for Deep Neural Net Inference", arXiv 2001.03288, algorithm 3). Where that is not
the lower bound, other orders are tried.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_TRIES = 32


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that are in use in the steps `first` to `last`, both included; `over`: the
    buffer, in use up to `first`, whose first byte is that of this one."""

    name: str
    size: int
    first: int
    last: int
    over: str | None = None

    def meets(self, other: "Buffer") -> bool:
        """True when there is a step in which both are in use."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Offsets by name, the bytes that they take, and the bytes that no placing can go below."""

    offsets: Mapping[str, int]
    peak_bytes: int
    lower_bound_bytes: int


Stack = tuple[Buffer, ...]  # buffers that begin at the same byte


def stacks(buffers: Iterable[Buffer]) -> list[Stack]:
    """The buffers that are written over each other, together."""
    found: dict[str, list[Buffer]] = {}
    for buffer in sorted(buffers, key=lambda b: b.first):
        stack = found[buffer.over] if buffer.over is not None else []
        stack.append(buffer)
        found[buffer.name] = stack
    return [tuple(stack) for name, stack in found.items() if stack[0].name == name]


def plan(buffers: Sequence[Buffer], alignment: int = 4) -> Arena:
    """Place every buffer at a multiple of `alignment`; those in use together do not overlap.

    `lower_bound_bytes` is the largest sum of sizes in use in one step, without alignment. While the
    peak is above it, the buffer that makes the peak is placed first in another try; the best try
    is the answer.
    """
    bound = lower_bound(buffers)
    placing = _Placing(stacks(buffers), alignment)
    order = placing.by_size()
    best: dict[int, int] = {}
    peak = -1
    for _ in range(_TRIES):
        offsets = placing.place(order)
        ends = {i: at + placing.sizes[i] for i, at in offsets.items()}
        reached = max(ends.values(), default=0)
        if peak < 0 or reached < peak:
            best, peak = offsets, reached
        if peak <= bound:
            break
        last = max(order, key=lambda i: ends[i])
        order = [last, *(i for i in order if i != last)]
    return Arena(
        {buffer.name: best[i] for i, stack in enumerate(placing.stacks) for buffer in stack},
        max(peak, 0),
        bound,
    )


class _Placing:
    """Stacks by number, and the pairs of them that cannot lie as they like."""

    def __init__(self, found: Sequence[Stack], alignment: int) -> None:
        self.stacks = found
        self.alignment = alignment
        self.sizes = [max(buffer.size for buffer in stack) for stack in found]
        self.pairs: list[list[tuple[int, int, int]]] = [[] for _ in found]
        for i, stack in enumerate(found):
            for k in range(i):
                for own in stack:
                    for other in found[k]:
                        if own.meets(other):
                            self.pairs[i].append((k, own.size, other.size))
                            self.pairs[k].append((i, other.size, own.size))

    def by_size(self) -> list[int]:
        """The largest first."""
        key = [(-self.sizes[i], s[0].first, s[0].name) for i, s in enumerate(self.stacks)]
        return sorted(range(len(key)), key=key.__getitem__)

    def place(self, order: Sequence[int]) -> dict[int, int]:
        """The first byte of every stack, placed one after the other."""
        offsets: dict[int, int] = {}
        for i in order:
            # starts with which a buffer of this stack would overlap one that is placed
            taken = sorted(
                (offsets[k] - own + 1, offsets[k] + size)
                for k, own, size in self.pairs[i]
                if k in offsets
            )
            offsets[i] = self._best_fit(taken)
        return offsets

    def _best_fit(self, taken: Sequence[tuple[int, int]]) -> int:
        """The start in the smallest gap between `taken` (start, end); else their end."""
        start, best, smallest = 0, None, None
        for begin, end in taken:
            if start < begin and (smallest is None or begin - start < smallest):
                best, smallest = start, begin - start
            start = max(start, -(-end // self.alignment) * self.alignment)
        return start if best is None else best


def lower_bound(buffers: Iterable[Buffer]) -> int:
    """The largest sum of sizes that are in use at once: [(10, 0-1), (5, 1-2), (7, 2-2)] -> 15."""
    known = stacks(buffers)
    # A sum can only grow where a buffer begins.
    return max(
        (
            sum(
                max((b.size for b in stack if b.first <= step <= b.last), default=0)
                for stack in known
            )
            for step in {b.first for stack in known for b in stack}
        ),
        default=0,
    )
