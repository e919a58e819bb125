"""How other tools allocate bits within a size, each from its published rule.

A layer (or a group that decides together) is a ladder: its options from the smallest to the
largest, each with more bytes and a smaller Ω than the one before. Options off this frontier are
gone before any rule sees them, a favour to those that do not look for it. A rule gets the ladders
and a budget in bytes and gives one step of each ladder, or None where it has no answer; nothing
makes it keep the budget but itself.

Sources, read in November 2026:

    greedy, greedy and swaps   exllamav3, sc_optimize.py and doc/optimize.md; greedy alone also
                               TI's C2000 Edge AI guide 8.4 and oxicuda-quant 0.1.1
    greedy downwards           the mirror image of greedy
    threshold                  mlx-lm 0.32.2, mlx_lm/quant/dynamic_quant.py
    sorted                     NNCF, weight_compression/mixed_precision.py
    Lagrange                   llama.cpp, pull request 15550, as its description says it
    Lagrange and repairs       AutoRound, auto_scheme/solver.py
    uniform                    what everybody can do by hand
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One choice of a layer; `choice` numbers the choices that the whole table has."""

    choice: int
    size: int
    omega: int


Ladder = Sequence[Option]
Steps = list[int]
Rule = Callable[[Sequence[Ladder], int], Steps | None]


def frontier(options: Sequence[Option]) -> tuple[Option, ...]:
    """The options that no other one of the layer beats or equals in bytes and Ω, by size."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda one: (one.size, one.omega)):
        if not kept or option.omega < kept[-1].omega:
            kept.append(option)
    return tuple(kept)


def size_of(ladders: Sequence[Ladder], steps: Steps) -> int:
    """Bytes of all layers."""
    return sum(ladder[step].size for ladder, step in zip(ladders, steps, strict=True))


def omega_of(ladders: Sequence[Ladder], steps: Steps) -> int:
    """Ω of all layers."""
    return sum(ladder[step].omega for ladder, step in zip(ladders, steps, strict=True))


def _gain(ladder: Ladder, step: int) -> float:
    """What Ω falls by per byte from one step to the next."""
    low, high = ladder[step], ladder[step + 1]
    return (low.omega - high.omega) / (high.size - low.size)


def greedy(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """From the smallest, always the next step that takes most Ω per byte away; a layer whose next
    step does not fit any more stays where it is."""
    steps = [0] * len(ladders)
    left = budget - size_of(ladders, steps)
    if left < 0:
        return None
    heap = [(-_gain(one, 0), index) for index, one in enumerate(ladders) if len(one) > 1]
    heapq.heapify(heap)
    while heap:
        _, index = heapq.heappop(heap)
        ladder, step = ladders[index], steps[index]
        needed = ladder[step + 1].size - ladder[step].size
        if needed > left:
            continue
        left -= needed
        steps[index] += 1
        if step + 2 < len(ladder):
            heapq.heappush(heap, (-_gain(ladder, step + 1), index))
    return steps


def greedy_and_swaps(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """Greedy, then up to 100 exchanges: one layer a step up, paid by steps down of others that lose
    least Ω per byte."""
    steps = greedy(ladders, budget)
    for _ in range(100 if steps else 0):
        assert steps is not None
        left = budget - size_of(ladders, steps)
        down = sorted(
            (_gain(ladders[index], step - 1), index) for index, step in enumerate(steps) if step
        )
        best: tuple[int, int, list[int]] | None = None
        for index, step in enumerate(steps):
            ladder = ladders[index]
            if step + 1 == len(ladder):
                continue
            better = ladder[step].omega - ladder[step + 1].omega
            needed = ladder[step + 1].size - ladder[step].size - left
            paid: list[int] = []
            for _, other in down:
                if needed <= 0:
                    break
                if other != index:
                    lower, upper = ladders[other][steps[other] - 1], ladders[other][steps[other]]
                    paid.append(other)
                    better -= lower.omega - upper.omega
                    needed -= upper.size - lower.size
            if needed <= 0 and better > (best[0] if best else 0):
                best = better, index, paid
        if best is None:
            break
        steps[best[1]] += 1
        for other in best[2]:
            steps[other] -= 1
    return steps


def greedy_downwards(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """From the largest, always the step down that adds least Ω per byte, until the rest fits."""
    steps = [len(ladder) - 1 for ladder in ladders]
    size = size_of(ladders, steps)
    heap = [(_gain(ladders[i], step - 1), i) for i, step in enumerate(steps) if step]
    heapq.heapify(heap)
    while size > budget:
        if not heap:
            return None
        _, index = heapq.heappop(heap)
        ladder, step = ladders[index], steps[index]
        size -= ladder[step].size - ladder[step - 1].size
        steps[index] = step = step - 1
        if step:
            heapq.heappush(heap, (_gain(ladder, step - 1), index))
    return steps


def _at(ladders: Sequence[Ladder], choice: int) -> Steps:
    """Everywhere the largest option up to a choice, or the smallest one."""
    return [
        max((n for n, option in enumerate(ladder) if option.choice <= choice), default=0)
        for ladder in ladders
    ]


def _choices(ladders: Sequence[Ladder]) -> list[int]:
    return sorted({option.choice for ladder in ladders for option in ladder})


def uniform(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """The largest choice that all layers can have at once."""
    fitting = [
        steps
        for choice in _choices(ladders)
        if size_of(ladders, steps := _at(ladders, choice)) <= budget
    ]
    return max(fitting, key=lambda steps: size_of(ladders, steps), default=None)


def _two_levels(ladders: Sequence[Ladder], budget: int) -> tuple[Steps, Steps] | None:
    """The uniform choices around the budget, which is what a person would name."""
    low = uniform(ladders, budget)
    if low is None:
        return None
    levels = [_at(ladders, choice) for choice in _choices(ladders)]
    larger = [steps for steps in levels if size_of(ladders, steps) > size_of(ladders, low)]
    return low, min(larger, key=lambda steps: size_of(ladders, steps), default=low)


def _difference(ladder: Ladder, low: int, high: int) -> int:
    return ladder[low].omega - ladder[high].omega


def threshold(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """Of two choices the larger one where the sensitivity per byte is above a threshold, which is
    bisected to a thousandth of its range; the last midpoint is taken, whatever it takes."""
    levels = _two_levels(ladders, budget)
    if levels is None:
        return None
    score = [
        _difference(ladder, low, high) / ladder[low].size
        for ladder, low, high in zip(ladders, *levels, strict=True)
    ]

    def above(cut: float) -> Steps:
        return [high if one > cut else low for one, low, high in zip(score, *levels, strict=True)]

    least, most = min(score), max(score)
    tolerance = 1e-3 * (most - least)
    while most - least > tolerance:
        middle = (most + least) / 2
        if size_of(ladders, above(middle)) > budget:
            least = middle
        else:
            most = middle
    return above((most + least) / 2)


def by_sensitivity(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """Of two choices the smaller one for the least sensitive layers, as many as it takes: the tool
    is told a share of the weights instead of bytes, here the share that fits."""
    levels = _two_levels(ladders, budget)
    if levels is None:
        return None
    low, high = levels
    steps = list(high)
    score = [_difference(*one) for one in zip(ladders, low, high, strict=True)]
    for index in sorted(range(len(ladders)), key=score.__getitem__):
        if size_of(ladders, steps) <= budget:
            break
        steps[index] = low[index]
    return steps


def lagrange(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """One price of a byte for all layers, bisected until what each picks by itself just fits."""

    def picked(price: float) -> Steps:
        return [
            min(range(len(one)), key=lambda step: one[step].omega + price * one[step].size)
            for one in ladders
        ]

    best = [0] * len(ladders)
    if size_of(ladders, best) > budget:
        return None
    free = picked(0.0)
    if size_of(ladders, free) <= budget:
        return free
    low, high = 0.0, 1e-9
    while size_of(ladders, picked(high)) > budget:
        low, high = high, 4 * high
    best = picked(high)
    for _ in range(80):
        middle = (low + high) / 2
        found = picked(middle)
        if size_of(ladders, found) <= budget:
            best, high = found, middle
        else:
            low = middle
    return best


def lagrange_and_repairs(ladders: Sequence[Ladder], budget: int) -> Steps | None:
    """The same, then upgrades that fit by Ω per byte, then up to 200 pairs of one layer up and one
    down."""
    steps = lagrange(ladders, budget)
    if steps is None:
        return None
    while True:
        left = budget - size_of(ladders, steps)
        upgrades = [
            ((ladder[now].omega - ladder[step].omega) / needed, index, step)
            for index, (ladder, now) in enumerate(zip(ladders, steps, strict=True))
            for step in range(now + 1, len(ladder))
            if (needed := ladder[step].size - ladder[now].size) <= left
        ]
        if not upgrades:
            break
        _, index, step = max(upgrades, key=lambda one: one[0])
        steps[index] = step
    for _ in range(200):
        left = budget - size_of(ladders, steps)
        moves = [
            (
                index,
                step,
                ladder[now].omega - ladder[step].omega,
                ladder[step].size - ladder[now].size,
            )
            for index, (ladder, now) in enumerate(zip(ladders, steps, strict=True))
            for step in range(len(ladder))
            if step != now
        ]
        ups = [move for move in moves if move[3] > max(left, 0)]
        downs = [move for move in moves if move[3] < 0]
        pairs = [
            (up[2] + down[2], up, down)
            for up in ups
            for down in downs
            if up[0] != down[0] and up[3] + down[3] <= left and up[2] + down[2] > 0
        ]
        if not pairs:
            break
        _, up, down = max(pairs, key=lambda one: one[0])
        steps[up[0]], steps[down[0]] = up[1], down[1]
    return steps


RULES: Mapping[str, Rule] = {
    "uniform": uniform,
    "threshold": threshold,
    "sorted": by_sensitivity,
    "greedy": greedy,
    "greedy downwards": greedy_downwards,
    "greedy and swaps": greedy_and_swaps,
    "Lagrange": lagrange,
    "Lagrange and repairs": lagrange_and_repairs,
}
