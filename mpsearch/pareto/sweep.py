"""Dominance over layers for two coordinates: states stay sorted, layers are merged into them.

The states after some layers are sorted by weight, with falling costs. One more layer makes a
shifted copy of them per choice: sorted runs, which a merging sort joins in near-linear time
(Nemhauser and Ullmann, 1969, in arrays). What a coarse staircase under all copies already
dominates never reaches the sort.

Exact totals of many assignments at once: int64 sums, limbs where they do not fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.tables.exact import IntArray, to_float

STRIDE = 16  # one step of the coarse staircase for so many states
FEW = 1_000  # with fewer states the staircase costs more than it spares


@dataclass(frozen=True)
class Room:
    """How many states may be kept: what `memory` bytes hold, and no more than `most`."""

    memory: int
    most: int | None = None

    def states(self, stored: int, layers_left: int, shape: tuple[int, ...], rows: int) -> int:
        """At a layer with `stored` back-pointers before it, of states with so many coordinates.

        Of each state there will be one back-pointer per layer left and one answer per layer, and
        the arrays of one merge: so much fits even if the states stay as many to the end.
        """
        layers, choices = shape
        each = 4 * layers_left + layers + choices * (24 * rows + 16) + 128
        fitting = min((self.memory - 4 * stored) // each, (1 << 31) // (2 << choice_bits(choices)))
        return max(3 if self.most is None else 1, min(fitting, self.most or fitting))


Codes = list[NDArray[np.int32]]  # per layer of the sequence: state before << bits | choice


def sweep(
    allowed: NDArray[np.bool_],
    costs: NDArray[Any],
    weights: NDArray[Any],
    limit: int,
    room: Room,
    base: float = 0.0,
) -> tuple[NDArray[np.int8], float]:
    """Choices [L, P] of the non-dominated (weight, cost) sums by rising weight, and ε.

    allowed, costs, weights: [L, C], e.g. [54, 4], numbers >= 0; sums of weights above `limit` are
    left out; `base` is what costs are counted from. Layers whose states find no room are thinned;
    every assignment then has an answer that weighs no more and costs at most 1 + ε times as much.
    """
    # Wide steps first: they keep the sums sparse, so that few states are carried for long.
    sequence = np.argsort(-np.where(allowed, weights, 0).max(axis=1), kind="stable")
    bits = choice_bits(allowed.shape[1])
    weight, cost = np.zeros(1, dtype=weights.dtype), np.zeros(1, dtype=costs.dtype)
    codes: Codes = []
    factor = 1.0
    stored = 0
    for step, layer in enumerate(sequence):
        options = np.flatnonzero(allowed[layer]).astype(np.int32)
        steps, prices = weights[layer, options], costs[layer, options]
        kept = _useful(weight, cost, steps, prices)
        new_weight = np.concatenate(
            [_taken(weight, k) + s for k, s in zip(kept, steps, strict=True)]
        )
        new_cost = np.concatenate([_taken(cost, k) + p for k, p in zip(kept, prices, strict=True)])
        code = np.concatenate(
            [_numbers(len(weight), k) << bits | c for k, c in zip(kept, options, strict=True)]
        )
        order = np.argsort(new_weight, kind="stable")  # merges the sorted runs
        weight = new_weight[order]
        if weight[-1] > limit:
            order = order[: np.searchsorted(weight, limit, side="right")]
            weight = weight[: len(order)]
        cost = new_cost[order]
        front = records(weight, cost)
        cap = room.states(stored, len(sequence) - step, allowed.shape, 2)
        if len(front) > cap:
            kept_costs = cost[front].astype(np.float64) + base
            thinned = _thinned(kept_costs, cap)
            lengths = np.diff(thinned, append=len(front))
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.repeat(kept_costs[thinned], lengths) / kept_costs
            factor *= float(np.nanmax(ratio)) * (1 + 1e-12)
            front = front[thinned]
        weight, cost = weight[front], cost[front]
        codes.append(code[order[front]])
        stored += len(weight)
        if not len(weight):
            break
    return trace(codes, sequence, len(weight), bits), factor - 1


def records(weight: NDArray[Any], cost: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of the non-dominated ones among points sorted by weight; one of equal points."""
    keep = np.ones(len(weight), dtype=bool)
    np.less(cost[1:], np.minimum.accumulate(cost)[:-1], out=keep[1:])
    found = np.flatnonzero(keep)
    last = np.ones(len(found), dtype=bool)  # of equal weights the last record is the cheapest
    np.not_equal(weight[found[1:]], weight[found[:-1]], out=last[:-1])
    return found[last]


def _thinned(costs: NDArray[np.float64], cap: int) -> NDArray[np.int64]:
    """At most `cap` positions of falling costs: the first of each equal step of ratios, the last.

    What is left out has one of them before it, lighter, and dearer by less than a step.
    """
    positive = costs[costs > 0]
    if cap < 3 or not len(positive):
        return np.zeros(1, dtype=np.int64)
    logs = np.log(np.maximum(costs, positive[-1]))
    step = max((logs[0] - logs[-1]) / (cap - 2), 1e-300)
    number = np.floor((logs[0] - logs) / step)
    first = np.flatnonzero(np.diff(number, prepend=-1) > 0)
    return np.union1d(first, len(costs) - 1)


def choice_bits(choices: int) -> int:
    """How many bits of a code hold the choice."""
    return max(1, (choices - 1).bit_length())


def trace(codes: Codes, sequence: NDArray[np.int64], count: int, bits: int) -> NDArray[np.int8]:
    """Follow the back-pointers of all `count` last states at once: choices [L, P]."""
    chosen = np.zeros((len(sequence), count), dtype=np.int8)
    if not count:
        return chosen
    mask = (1 << bits) - 1
    for start in range(0, count, 1 << 15):  # blocks that stay in the cache
        state = np.arange(start, min(start + (1 << 15), count))
        block = slice(start, start + len(state))
        for code, layer in zip(reversed(codes), sequence[::-1], strict=True):
            found = code[state]
            chosen[layer, block] = found & mask
            state = found >> bits
    return chosen


def _useful(
    weight: NDArray[Any], cost: NDArray[Any], steps: NDArray[Any], prices: NDArray[Any]
) -> Sequence[NDArray[np.int64] | None]:
    """Per choice, the states whose sums no coarse staircase dominates; None: all of them."""
    count = len(weight)
    if count < FEW or len(steps) == 1:
        return [None] * len(steps)
    sample = weight[::STRIDE]
    above = sample + steps.max()
    edges = np.concatenate([sample + steps.min(), above[above > weight[-1] + steps.min()]])
    within = [np.searchsorted(weight, edges - step, side="right") for step in steps]
    least = np.full(len(edges), _highest(cost.dtype), dtype=cost.dtype)
    for number, price in zip(within, prices, strict=True):
        some = number > 0
        least[some] = np.minimum(least[some], cost[number[some] - 1] + price)
    # A sum above an edge, in weight, must cost less than the best sum up to that edge.
    ceiling = np.concatenate([np.full(1, _highest(cost.dtype), dtype=cost.dtype), least])
    kept = []
    for number, price in zip(within, prices, strict=True):
        lengths = np.diff(number, prepend=0, append=count)
        kept.append(np.flatnonzero(cost + price < np.repeat(ceiling, lengths)))
    return kept


def _highest(dtype: np.dtype[Any]) -> Any:
    return np.inf if dtype == np.float64 else np.iinfo(dtype).max


def _taken(values: NDArray[Any], kept: NDArray[np.int64] | None) -> NDArray[Any]:
    return values if kept is None else values[kept]


def _numbers(count: int, kept: NDArray[np.int64] | None) -> NDArray[np.int32]:
    return np.arange(count, dtype=np.int32) if kept is None else kept.astype(np.int32)


LIMB = 40
ENTRIES = 4096  # layers are looked up together while their joint table has at most so many


def totals(
    matrices: list[IntArray], digits: list[int], chosen: NDArray[np.int8]
) -> list[NDArray[Any]]:
    """Matrices [L, C] of integers in units of 10**-digits, chosen [L, P] -> their totals [P].

    int64 without decimals, else the doubles nearest to the exact sums.
    """
    limbs = [_limbs(matrix) for matrix in matrices]
    sums = iter(_sums([limb for parts in limbs for limb in parts], chosen))
    answers: list[NDArray[Any]] = []
    for parts, places in zip(limbs, digits, strict=True):
        found = [next(sums) for _ in parts]
        if places:
            answers.append(nearest_doubles(found, places))
        else:
            answers.append(found[0] if len(found) == 1 else _whole(found))
    return answers


def nearest_doubles(limbs: list[NDArray[np.int64]], digits: int) -> NDArray[np.float64]:
    """The double nearest to (limbs[0] + limbs[1] * 2**40 + …) / 10**digits, of each [P].

    In pairs of doubles (Dekker, 1971) the quotient is known to about 100 bits. Where that does not
    decide the rounding, and where doubles end, the exact fraction does.
    """
    carried = [limb.copy() for limb in limbs]
    for lower, upper in pairwise(carried):
        upper += lower >> LIMB
        lower &= (1 << LIMB) - 1
    divisor = 10**digits
    if digits > 250 or len(limbs) > 5:
        return _by_fractions(carried, digits)
    high, low = np.zeros(len(limbs[0])), np.zeros(len(limbs[0]))
    for position in range(len(carried) - 1, -1, -1):
        for part in (carried[position] >> 32 << 32, carried[position] & (1 << 32) - 1):
            high, error = _two_sum(high, np.ldexp(part.astype(np.float64), LIMB * position))
            low += error
    high, low = _two_sum(high, low)
    by_high = float(divisor)
    by_low = float(divisor - int(by_high))
    quotient = high / by_high
    product, error = _two_product(quotient, by_high)
    rest = ((high - product) - error) + (low - quotient * by_low)
    answer: NDArray[np.float64]
    answer, tail = _two_sum(quotient, rest / by_high)
    ulp = np.spacing(answer)
    tie = np.abs(np.abs(tail) / ulp - 0.5) < 2.0**-30
    unsure = tie | (np.frexp(answer)[0] == 0.5) | (answer < 1e-280) | (answer > 1e280)
    unsure &= high != 0
    if unsure.any():
        answer[unsure] = _by_fractions([part[unsure] for part in carried], digits)
    return answer


def _by_fractions(limbs: list[NDArray[np.int64]], digits: int) -> NDArray[np.float64]:
    values = [to_float(total, digits) for total in _whole(limbs).tolist()]
    return np.array(values, dtype=np.float64)


def _two_sum(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[Any, Any]:
    """The rounded sum and its exact error (Knuth)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _two_product(a: NDArray[np.float64], b: float) -> tuple[Any, Any]:
    """The rounded product and its exact error (Veltkamp and Dekker); no overflow below 1e290."""
    product = a * b
    a_high, b_high = _upper_half(a), _upper_half(np.float64(b))
    a_low, b_low = a - a_high, b - b_high
    return product, a_low * b_low - (
        ((product - a_high * b_high) - a_low * b_high) - a_high * b_low
    )


def _upper_half(value: Any) -> Any:
    scaled = value * 134217729.0  # 2**27 + 1
    return scaled - (scaled - value)


def _limbs(matrix: IntArray) -> list[NDArray[np.int64]]:
    """Non-negative integers as 40-bit parts, lowest first, whose sums fit int64."""
    if matrix.dtype != object:
        return [matrix]
    highest = max(int(value).bit_length() for value in matrix.ravel())
    mask = (1 << LIMB) - 1
    return [((matrix >> shift) & mask).astype(np.int64) for shift in range(0, highest, LIMB)]


def _whole(limbs: list[NDArray[np.int64]]) -> NDArray[Any]:
    """The limbs as one array: int64 where all fit, else Python integers."""
    total = sum(limb.astype(object) << (LIMB * k) for k, limb in enumerate(limbs))
    values: NDArray[Any] = np.asarray(total, dtype=object)
    fits = all(int(value) < 1 << 63 for value in values.tolist())
    return values.astype(np.int64) if fits else values


def _sums(matrices: list[NDArray[np.int64]], chosen: NDArray[np.int8]) -> list[NDArray[np.int64]]:
    """Sums [P] of every matrix [L, C]; several layers are looked up in one joint table."""
    layers, count = chosen.shape
    choices = matrices[0].shape[1]
    together = 1
    while together < layers and choices ** (together + 1) <= min(ENTRIES, 16 + count):
        together += 1
    sums = [np.zeros(count, dtype=np.int64) for _ in matrices]
    for start in range(0, layers, together):
        rows = chosen[start : start + together]
        position = rows[0].astype(np.intp)
        for row in rows[1:]:
            position *= choices
            position += row
        for matrix, total in zip(matrices, sums, strict=True):
            joint = np.zeros(1, dtype=np.int64)
            for row in matrix[start : start + together]:
                joint = (joint[:, None] + row[None, :]).ravel()
            total += joint.take(position)
    return sums
