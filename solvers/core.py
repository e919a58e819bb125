"""The core of a multiple-choice knapsack: what the bound leaves open, swept layer by layer.

Layers are taken one after another; a state is a partial assignment's cost and weights. A state is
dropped when another one is no worse in everything (Nemhauser and Ullmann, 1969), or when its bound
at one of several Lagrangian prices shows that it cannot end below the best cost known. Choices that
the bound fixes beforehand never enter, and layers with one choice left are folded into the start
(reduced-cost fixing; Pisinger 1995). Costs and weights are integers: no tolerance decides anything.

Which points are not dominated: vectorised, exact, for two or three coordinates, else partial.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.knapsack.problem import Problem
from mpsearch.solvers.dual import Dual, bounds, maximise

PAIRWISE = 256


def nondominated(points: NDArray[Any]) -> NDArray[np.int64]:
    """Indices of the non-dominated columns of points [D, n], sorted by the last coordinate.

    A point is dominated if another one is no larger in every coordinate; of equal points one is
    kept. Exact for D <= 3. For D >= 4 and more than 256 points, dominated points may remain:
    neighbours in sorted order are compared in blocks, which keeps the cost near-linear.
    """
    coordinates = len(points)
    if points.shape[1] == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort(points)  # by the last coordinate, ties by the one before, …
    if coordinates == 1:
        return order[:1]
    if coordinates == 2:
        return order[_is_record(points[0][order])]
    if coordinates == 3:
        return order[_staircase(points[0][order], points[1][order])]
    return order[_pairwise(points[:, order])]


def _is_record(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value is below all values before it."""
    record = np.ones(len(values), dtype=bool)
    record[1:] = values[1:] < np.minimum.accumulate(values)[:-1]
    return record


def _staircase(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """Points in order of their third coordinate: keep those that no earlier one dominates.

    Divide and conquer over positions, bottom up and without recursion: at each level the left half
    of every block hands the right half its least `second` among points with `first` no larger.
    """
    n = len(first)
    small = n < 1 << 16  # numpy sorts 16-bit integers by radix
    by_first: NDArray[Any] = np.lexsort((second, first)).astype(np.uint16 if small else np.int64)
    _, rank = np.unique(second, return_inverse=True)
    rank = rank.astype(np.int64)
    keep = np.ones(n, dtype=bool)
    for level in range(max(n - 1, 1).bit_length()):
        blocks = by_first >> (level + 1)
        by_block = np.argsort(blocks, kind="stable")
        order, blocks = by_first[by_block], blocks[by_block].astype(np.int64)
        left = (order >> level) & 1 == 0
        offset = (int(blocks[-1]) - blocks) * (n + 1)  # later blocks lie lower: no minimum leaks
        own = rank[order] + offset
        least = np.minimum.accumulate(np.where(left, own, n + offset))
        keep[order[~left & (least <= own)]] = False
    return keep


def _pairwise(points: NDArray[Any]) -> NDArray[np.bool_]:
    """Compare all pairs within blocks of sorted points; the earlier of two may dominate."""
    n = points.shape[1]
    keep = np.ones(n, dtype=bool)
    for start in range(0, n, PAIRWISE):
        block = points[:, start : start + PAIRWISE]
        size = block.shape[1]
        dominated = np.tri(size, k=-1, dtype=bool).T  # row i may dominate column j > i
        for values in block:
            dominated &= values[:, None] <= values[None, :]
        keep[start : start + size] = ~dominated.any(axis=0)
    return keep


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LATE_BEAM = 64  # states kept per layer once the time is over
FAR = 1 << 61  # sums stop here: above every limit and cost of interest, and two still fit int64


@dataclass(frozen=True, eq=False)
class Search:
    """chosen: the best assignment found or given, or None; bound: no assignment costs less.

    `complete` says that nothing was dropped for want of time or memory; then the cost of `chosen`
    is the optimum, and None means that there is no feasible assignment.
    """

    chosen: Ints | None
    bound: int
    complete: bool
    states: int


def open_core(
    problem: Problem, incumbent: Ints | None, deadline: float | None, dual: Dual | None
) -> "Search | Core":
    """The core below the best assignment known, or the answer where a layer has no choice."""
    best, chosen = problem.cost_limit + 1, None
    if incumbent is not None and problem.is_feasible(incumbent):
        best, chosen = problem.cost(incumbent), incumbent
    if not problem.allowed.any(axis=1).all():
        return Search(chosen, best, True, 0)
    dual = dual or maximise(problem)
    for found in dual.incumbents:
        if problem.cost(found) < best:
            best, chosen = problem.cost(found), found
    return Core(problem, dual.prices, best, chosen, deadline)


class Core:
    """The best assignment so far, and the choices that could still be part of a better one."""

    def __init__(
        self,
        problem: Problem,
        prices: Floats,
        best: int,
        chosen: Ints | None,
        deadline: float | None,
    ) -> None:
        self.problem, self.best, self.chosen = problem, best, chosen
        self.prices, self.deadline = prices, deadline
        self.reduced = bounds(problem, prices)  # [K, L, C]
        self.minimiser = self.reduced.argmin(axis=2)  # [K, L]
        self.least = self.reduced.min(axis=2)  # [K, L]
        self.given = prices @ problem.limits.astype(np.float64)  # [K]
        total = self.least.sum(axis=1)
        # Doubles may be off by this much; only states beyond it are dropped. Every term of a bound
        # that is not above the best cost is at most cost_limit + given, for none is negative.
        ulps = 8 * (problem.allowed.shape[0] + len(problem.limits) + 4) * 2.0**-53
        self.margin = ulps * (total + self.given + problem.cost_limit)
        self.rest = total - self.given - self.margin  # [K]: the bound of the whole problem
        self.keep = problem.allowed
        self.lower = float(self.rest.max())  # proven whatever was dropped
        self.proven = 0  # the same by other means, in whole units
        self.dropped = np.inf  # the least bound among states dropped without proof
        self.states = 0

    def result(self) -> Search:
        """What is proven now, after any number of sweeps."""
        bound = max(int(max(np.floor(self.lower), 0)), self.proven)
        complete = self.dropped >= self.best or bound >= self.best
        if complete:
            bound = self.best
        return Search(self.chosen, min(bound, self.best), complete, self.states)

    def sweep(self, max_states: int) -> None:
        """One pass over the open layers; with more states the worst by bound are dropped."""
        self.dropped = np.inf
        if self.lower <= self.best - 1:
            self._fix()
            self._sweep(max_states, self.keep)
        self.lower = max(self.lower, min(self.dropped, float(self.best)))

    def improve(self, layers: int, max_states: int, narrow: bool) -> None:
        """Look for a better assignment that differs from the best price's minimisers in few layers.

        These are the layers where a change costs least at that price: as it is, which reaches the
        small layers that fill up a limit, or (`narrow`) for the priced weight that it moves.
        """
        if self.lower > self.best - 1:
            return
        self._fix()
        keep = self.keep.copy()
        rows = np.arange(len(keep))
        others = keep.copy()
        others[rows, self.minimiser[0]] = False
        worth = np.where(others, self.reduced[0] - self.least[0][:, None], np.inf)
        if narrow:
            taken = self.problem.weights[:, rows, self.minimiser[0]]
            moved = np.abs(self.problem.weights - taken[:, :, None]).astype(np.float64)
            priced = np.tensordot(self.prices[0], moved, axes=1)
            ratio = np.full(keep.shape, np.inf)
            np.divide(worth, priced, out=ratio, where=others & (priced > 0))
            worth = ratio
        fixed = np.argsort(worth.min(axis=1), kind="stable")[layers:]
        fixed = fixed[keep[fixed, self.minimiser[0][fixed]]]
        keep[fixed] = False
        keep[fixed, self.minimiser[0][fixed]] = True
        self._sweep(max_states, keep)

    def learn(self, bound: int, chosen: Ints | None) -> None:
        """Take over a bound that is proven elsewhere, and a feasible assignment."""
        self.proven = max(self.proven, bound)
        if chosen is not None and self.problem.cost(chosen) < self.best:
            self.best, self.chosen = self.problem.cost(chosen), chosen

    @property
    def open_layers(self) -> int:
        """How many layers have more than one choice left."""
        return int((self.keep.sum(axis=1) > 1).sum())

    def _fix(self) -> None:
        """Keep the choices that some assignment below the best cost may still contain."""
        keep = self.keep.copy()
        for k, rest in enumerate(self.rest):
            keep &= self.reduced[k] <= (self.best - 1 - rest) + self.least[k][:, None]
        self.keep = keep

    def _sweep(self, max_states: int, keep: NDArray[np.bool_]) -> None:
        problem = self.problem
        count = keep.sum(axis=1)
        if not count.all():
            return
        # Layers whose choices differ most first: they are decided while states are few.
        layers = np.flatnonzero(count > 1)
        regret = np.where(keep[layers], self.reduced[0][layers], np.inf)
        regret.sort(axis=1)
        order = layers[np.argsort(regret[:, 0] - regret[:, 1], kind="stable")]
        fixed = np.flatnonzero(count == 1)
        only = keep[fixed].argmax(axis=1)
        base = keep.argmax(axis=1)

        tables = np.concatenate([problem.weights, problem.costs[None]])  # weights…, cost
        start = _suffix(tables[:, fixed, only])[:, 0]
        if (start >= FAR).any():
            return
        # suffix[k, i]: what the layers from i on add to the bound; completion: their minimisers
        minimiser = np.where(
            keep[np.arange(len(keep))[None, :], self.minimiser], self.minimiser, base
        )
        suffix = _suffix(self.least[:, order]) - (self.given + self.margin)[:, None]
        rest = _suffix(tables[:, order[None, :], minimiser[:, order]])
        heavy = np.where(keep[order], problem.weights[:, order], np.iinfo(np.int64).max)
        room = problem.limits[:, None] - _suffix(heavy.min(axis=2))  # [R, i]

        points = start[:, None]
        codes: list[NDArray[np.int32]] = []
        width = keep.shape[1]
        trace = _Trace(order, codes, width, minimiser)
        self._complete(points, rest[:, :, 0], trace)
        last = 1
        for step, layer in enumerate(order):
            options = np.flatnonzero(keep[layer])
            n = points.shape[1]
            add = tables[:, layer, options]
            points = (points[:, None, :] + add[:, :, None]).reshape(len(tables), -1)
            code = np.arange(n, dtype=np.int32) * np.int32(width) + options[:, None].astype(
                np.int32
            )
            bound = self._bound(points, suffix[:, step + 1])
            fit = bound <= self.best - 1
            for row, most in zip(points[:-1], room[:, step + 1], strict=True):
                fit &= row <= most
            where = np.flatnonzero(fit)
            points, code, bound = points[:, where], code.ravel()[where], bound[where]
            if points.shape[1] > min(1.25 * last, max_states):
                front = nondominated(points)
                points, code, bound = points[:, front], code[front], bound[front]
                last = points.shape[1]
            late = self.deadline is not None and time.monotonic() > self.deadline
            cap = min(max_states, LATE_BEAM) if late else max_states
            if points.shape[1] > cap:
                by_bound = np.argpartition(bound, cap)
                self.dropped = min(self.dropped, float(bound[by_bound[cap]]))
                points, code = points[:, by_bound[:cap]], code[by_bound[:cap]]
            if not points.shape[1]:
                return
            self.states += points.shape[1]
            codes.append(code)
            self._complete(points, rest[:, :, step + 1], trace)

    def _bound(self, points: Ints, constant: Floats) -> Floats:
        """The best of the K Lagrangian bounds of every state, below the truth by the margin."""
        values = self.prices @ points[:-1].astype(np.float64)
        values += constant[:, None]
        best: Floats = values.max(axis=0) + points[-1]
        return best

    def _complete(self, points: Ints, rest: Ints, trace: "_Trace") -> None:
        """Finish every state by each price's minimisers: a cheaper feasible one is the new best."""
        cheapest = int(points[-1].min())
        for k in np.flatnonzero(cheapest + rest[-1] < self.best).tolist():
            good = points[-1] < self.best - rest[-1, k]
            for row, add, limit in zip(points[:-1], rest[:-1, k], self.problem.limits, strict=True):
                good &= row <= limit - add
            where = np.flatnonzero(good)
            if len(where):
                state = int(where[points[-1][where].argmin()])
                self.best = int(points[-1][state] + rest[-1, k])
                self.chosen = trace.back(state, k)


@dataclass(frozen=True, eq=False)
class _Trace:
    """Back-pointers of every step so far; layers that are not yet taken get the minimisers."""

    order: Ints
    codes: list[NDArray[np.int32]]
    width: int
    minimiser: Ints  # [K, L]

    def back(self, state: int, k: int) -> Ints:
        chosen: Ints = self.minimiser[k].astype(np.int64)
        for position in range(len(self.codes) - 1, -1, -1):
            state, choice = divmod(int(self.codes[position][state]), self.width)
            chosen[self.order[position]] = choice
        return chosen


def _suffix(values: NDArray[Any]) -> NDArray[Any]:
    """[…, L] -> […, L + 1]: sums of the entries >= 0 from each position on, integers up to FAR."""
    sums: NDArray[Any] = np.zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=values.dtype)
    sums[..., :-1] = np.cumsum(values[..., ::-1], axis=-1)[..., ::-1]
    if values.dtype == np.int64 and values.sum(axis=-1, dtype=np.float64).max(initial=0) > FAR:
        sums = np.where(_suffix(values.astype(np.float64)) > FAR, FAR, sums)
    return sums
