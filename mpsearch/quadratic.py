"""Minimise xᵀGx, one choice per layer, under the limits of an instance: branch and bound.

Every node fixes the first layers of an order. Its bound is a tangent of the convex form
(mpsearch.convexify) plus Lagrangian prices p >= 0 on the limits w x <= b: for every point z

    f(x) >= constant - zᵀSz - p.b + sum over layers of min over choices of (linear + 2Sz + p w)

which holds whatever z and p are, so that neither has to be exact. G is in floating point: "proven"
means up to a relative 1e-9 of the objective.
"""

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch import local_search
from mpsearch.convexify import Convex, convexify
from mpsearch.instance import Instance
from mpsearch.problem import Problem, scale

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ACCURACY = 1e-9  # relative: what "proven" means
ROUNDING = 1e-12  # relative to the terms of a bound: more than their sums can be off
BATCH = 512
ENUMERATED = 256  # completions of a node that are tried one and all
MOST_OPEN = 1_000_000  # nodes; with more, the deepest go first
ROOT_SWEEPS, SWEEPS = 150, 6


@dataclass(frozen=True, eq=False)
class QuadraticAnswer:
    """chosen [L]: the best assignment found; objective: its xᵀGx; bound: none has less.

    `proven` says that bound and objective agree to a relative 1e-9; nodes: how many were bounded.
    """

    chosen: Ints
    objective: float
    bound: float
    proven: bool
    nodes: int

    @property
    def gap(self) -> float:
        """(objective - bound) / objective, 0 for an objective of 0."""
        return (self.objective - self.bound) / self.objective if self.objective > 0 else 0.0


def minimise(
    instance: Instance, gram: Floats, start: NDArray[Any], deadline: float | None = None
) -> QuadraticAnswer:
    """Minimise over one choice per decision; `gram` [L, C, L, C] is positive semidefinite.

    start: a feasible assignment, such as the additive optimum; the answer is never worse.
    deadline: a time.monotonic(); None searches until there is a proof. Entries of `gram` where a
    choice is not allowed are not read.
    """
    layers, width = instance.allowed.shape
    problem, _ = scale(instance, None, drop_dominated=False)
    usable = np.repeat(problem.allowed.reshape(-1), 1)
    quadratic = gram.reshape(layers * width, layers * width)
    quadratic = np.where(usable[:, None] & usable[None, :], (quadratic + quadratic.T) / 2, 0.0)
    chosen = local_search.search(problem, quadratic, start, deadline)
    if not instance.is_feasible(chosen):  # weights of over 60 bits are rounded in the problem
        chosen = start.astype(np.int64)
    return _Tree(instance, problem, quadratic, chosen, deadline).run()


class _Tree:
    """Open nodes by depth, the least bound first; layers in branching order throughout."""

    def __init__(
        self,
        instance: Instance,
        problem: Problem,
        quadratic: Floats,
        chosen: Ints,
        deadline: float | None,
    ) -> None:
        self.instance, self.deadline = instance, deadline
        layers, width = problem.allowed.shape
        self.layers, self.width = layers, width
        self.order = _branching_order(quadratic, problem.allowed)
        cells = (self.order[:, None] * width + np.arange(width)).reshape(-1)
        self.quadratic = quadratic[np.ix_(cells, cells)]
        self.allowed = problem.allowed[self.order]
        self.weights = problem.weights[:, self.order]  # [R, L, C]
        self.limits = problem.limits
        self.unit = self.weights / self.limits[:, None, None]
        least = np.where(self.allowed, self.weights, np.iinfo(np.int64).max).min(axis=2)
        self.remaining = np.zeros((len(self.limits), layers + 1), dtype=np.int64)
        self.remaining[:, :-1] = np.cumsum(least[:, ::-1], axis=1)[:, ::-1]
        self.best: float = local_search.value(quadratic, width, chosen)
        self.chosen = chosen
        self.convex: dict[int, Convex] = {}
        self.prices = np.zeros(len(self.limits))
        self.unsure = float("inf")  # the least that may be feasible
        self.nodes = 0
        self.leaf = layers
        while self.leaf > 0 and self.allowed[self.leaf - 1 :].sum(axis=1).prod() <= ENUMERATED:
            self.leaf -= 1

    def run(self) -> QuadraticAnswer:
        prefixes: list[NDArray[np.int8]] = [
            np.zeros((0, depth), dtype=np.int8) for depth in range(self.layers + 1)
        ]
        bounds: list[Floats] = [np.zeros(0) for _ in prefixes]
        prefixes[0], bounds[0] = np.zeros((1, 0), dtype=np.int8), np.array([self._first()])
        while any(len(bound) for bound in bounds) and not self._late():
            depth = _next_depth(bounds)
            order = np.argsort(bounds[depth], kind="stable")
            now, later = order[:BATCH], order[BATCH:]
            batch, above = prefixes[depth][now], bounds[depth][now]
            prefixes[depth], bounds[depth] = prefixes[depth][later], bounds[depth][later]
            open_ = above < self._target()
            batch, above = batch[open_], above[open_]
            if not len(batch):
                prefixes[depth], bounds[depth] = prefixes[depth][:0], bounds[depth][:0]
            elif depth >= self.leaf:
                self._enumerate(batch)
            else:
                children, bound = self._branch(batch, above)
                prefixes[depth + 1] = np.concatenate([prefixes[depth + 1], children])
                bounds[depth + 1] = np.concatenate([bounds[depth + 1], bound])
        lowest: float = min((float(b.min()) for b in bounds if len(b)), default=float("inf"))
        known: float = min(lowest, self.unsure, self._target())
        proven = known >= self._target()
        return QuadraticAnswer(self.chosen, self.best, known, proven, self.nodes)

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _target(self) -> float:
        """Nodes from here on cannot improve the best by more than the accuracy."""
        return self.best - ACCURACY * abs(self.best)

    def _first(self) -> float:
        """A bound for no time: each layer with the others at their least, or 0."""
        layers, width = self.layers, self.width
        cross = self.quadratic.reshape(layers * width, layers, width)
        least = np.where(self.allowed, cross, np.inf).min(axis=2)  # [L*C, L]
        own = np.repeat(np.arange(layers), width)
        rest = least.sum(axis=1) - least[np.arange(len(own)), own]
        total = (np.diag(self.quadratic) + rest).reshape(layers, width)
        bound = float(np.where(self.allowed, total, np.inf).min(axis=1).sum())
        lowest: float = bound - ROUNDING * layers * float(np.abs(self.quadratic).sum())
        return max(0.0, lowest)

    def _fixed(self, batch: NDArray[np.int8]) -> tuple[Floats, Floats, Ints]:
        """Of every node: cost so far [S], twice the pull on open cells [S, n], room [S, R]."""
        size, depth = batch.shape
        cut = depth * self.width
        one = (batch[:, :, None] == np.arange(self.width)).reshape(size, cut).astype(np.float64)
        pull = one @ self.quadratic[:cut]
        rows = np.arange(depth)
        used = self.weights[:, rows, batch].sum(axis=2)  # [R, S]
        return (pull[:, :cut] * one).sum(axis=1), 2 * pull[:, cut:], (self.limits[:, None] - used).T

    def _branch(self, batch: NDArray[np.int8], known: Floats) -> tuple[NDArray[np.int8], Floats]:
        """Bound every node, and give the children that may still hold something better."""
        size, depth = batch.shape
        self.nodes += size
        cost, pull, room = self._fixed(batch)
        bound, reduced = self._bound(depth, cost, pull, room)
        bound = np.maximum(known[:, None], bound[:, None] + reduced)
        need = self.weights[:, depth] + self.remaining[:, depth + 1, None]  # [R, C]
        fits = (need[None] <= room[:, :, None]).all(axis=1)
        node, choice = np.nonzero(self.allowed[depth] & fits & (bound < self._target()))
        children = np.concatenate([batch[node], choice[:, None].astype(np.int8)], axis=1)
        return children, bound[node, choice]

    def _bound(self, depth: int, cost: Floats, pull: Floats, room: Ints) -> tuple[Floats, Floats]:
        """Bounds [S], and what each choice of the next layer adds to them [S, C]."""
        cut, width = depth * self.width, self.width
        if depth not in self.convex:
            self.convex[depth] = convexify(self.quadratic[cut:, cut:], self.allowed[depth:])
        convex = self.convex[depth]
        open_ = self.allowed[depth:].reshape(-1)
        base = np.where(open_, pull + convex.linear, np.inf)
        unit = self.unit[:, depth:].reshape(len(self.limits), len(open_))
        share = room / self.limits
        point = np.repeat(
            (self.allowed[depth:] / self.allowed[depth:].sum(axis=1)[:, None]).reshape(1, -1),
            len(cost), axis=0,
        )  # fmt: skip
        slope = np.zeros_like(point)  # 2 S z, and S is zero at the centre
        prices = np.repeat(self.prices[None], len(cost), axis=0)
        best = np.full(len(cost), -np.inf)
        reduced = np.zeros((len(cost), width))
        sweeps = ROOT_SWEEPS if depth == 0 else SWEEPS
        for sweep in range(sweeps + 1):
            total = base + slope + prices @ unit
            least = total.reshape(len(cost), -1, width).min(axis=2)
            curved = (slope * point).sum(axis=1) / 2
            given = (prices * share).sum(axis=1)
            value = cost + convex.constant - curved - given + least.sum(axis=1)
            value -= ROUNDING * (np.abs(cost) + abs(convex.constant) + curved + given)
            value -= ROUNDING * np.abs(least).sum(axis=1)
            better = value > best
            best = np.where(better, value, best)
            reduced[better] = (total[:, :width] - least[:, :1])[better]
            if depth == 0 and better[0]:
                self.prices = prices[0].copy()
            if sweep == sweeps or (depth == 0 and self._late()):
                break
            self._sweep(convex, base + prices @ unit, point, slope)
            step = 1.0 / (1 + sweep / (8 if depth == 0 else 2))
            excess = point @ unit.T - share
            prices = np.maximum(0.0, prices + step * abs(self.best) * excess)
        return best, reduced

    def _sweep(self, convex: Convex, base: Floats, point: Floats, slope: Floats) -> None:
        """One projected step per layer towards the minimum of base @ z + zᵀSz; changes in place."""
        width = self.width
        floor = 1e-9 * float(convex.curvature.max(initial=0.0)) + 1e-300
        for layer, curvature in enumerate(convex.curvature):
            cells = slice(layer * width, (layer + 1) * width)
            slant = base[:, cells] + slope[:, cells]
            slant = slant - slant.min(axis=1, keepdims=True)  # the projection does not see it
            moved = _project(point[:, cells] - slant / (2 * max(curvature, floor)))
            slope += 2 * (moved - point[:, cells]) @ convex.matrix[cells]
            point[:, cells] = moved

    def _enumerate(self, batch: NDArray[np.int8]) -> None:
        """Try every completion of every node."""
        size, depth = batch.shape
        self.nodes += size
        options = [np.flatnonzero(row) for row in self.allowed[depth:]]
        endings = list(itertools.product(*options))
        rest = np.array(endings, dtype=np.int64).reshape(len(endings), self.layers - depth)
        cost, pull, room = self._fixed(batch)
        cut = depth * self.width
        one = (rest[:, :, None] == np.arange(self.width)).reshape(len(rest), -1).astype(np.float64)
        own = ((one @ self.quadratic[cut:, cut:]) * one).sum(axis=1)
        total = cost[:, None] + pull @ one.T + own[None]
        layers = np.arange(depth, self.layers)
        need = self.weights[:, layers, rest].sum(axis=2)  # [R, E]
        for row in range(len(self.limits)):
            total = np.where(need[row][None] <= room[:, row][:, None], total, np.inf)
        node, ending = divmod(int(total.argmin()), len(rest))
        if total[node, ending] >= self._target():
            return
        chosen = np.empty(self.layers, dtype=np.int64)
        chosen[self.order] = np.append(batch[node].astype(np.int64), rest[ending])
        if self.instance.is_feasible(chosen):
            self.best, self.chosen = float(total[node, ending]), chosen
        else:
            self.unsure = min(self.unsure, float(total[node, ending]))


def _branching_order(quadratic: Floats, allowed: NDArray[np.bool_]) -> Ints:
    """Layers by how much their choices differ, the most first."""
    layers, width = allowed.shape
    own = quadratic.reshape(layers, width, layers, width)[np.arange(layers), :, np.arange(layers)]
    diagonal = own[:, np.arange(width), np.arange(width)]
    high = np.where(allowed, diagonal, -np.inf).max(axis=1)
    low = np.where(allowed, diagonal, np.inf).min(axis=1)
    return np.argsort(low - high, kind="stable")


def _next_depth(bounds: list[Floats]) -> int:
    """Where the least bound is; the deepest open nodes when there are too many."""
    depths = [depth for depth, bound in enumerate(bounds) if len(bound)]
    if sum(len(bounds[depth]) for depth in depths) > MOST_OPEN:
        return depths[-1]
    return min(depths, key=lambda depth: float(bounds[depth].min()))


def _project(points: Floats) -> Floats:
    """Rows onto the simplex (Held, Wolfe and Crowder 1974); -inf entries become 0."""
    falling = -np.sort(-points, axis=1)
    level = (np.cumsum(falling, axis=1) - 1) / np.arange(1, points.shape[1] + 1)
    last = (falling > level).sum(axis=1) - 1
    result: Floats = np.maximum(points - level[np.arange(len(points)), last][:, None], 0.0)
    return result
