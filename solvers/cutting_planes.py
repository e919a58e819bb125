"""The master problem of the cutting-plane method, solved by a simplex with R + 1 rows.

Of the Lagrangian dual function q only planes above it are known: q(p) <= cost_j + p . excess_j for
every minimiser j met so far. The highest point under them with 0 <= p <= BOX is a linear program;
here its dual is solved: a convex mix of the minimisers that keeps the limits at least cost
(Dantzig and Wolfe, 1960), whose basis has one row per limit and one for the mix.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BOX = 1e6  # no price is larger, in units where limits and costs are 1
PIVOTS = 60  # per solve; stopping early only makes the next price worse


class Master:
    """Planes [J], added one by one; between solves the basis is kept."""

    def __init__(self, excess: Floats, cost: float) -> None:
        n = len(excess)
        # Columns: a slack per limit, what breaks it at the price BOX, then the minimisers.
        self.columns = np.zeros((n + 1, 64))
        self.costs = np.zeros(64)
        self.columns[:n, :n] = np.eye(n)
        self.columns[:n, n : 2 * n] = -np.eye(n)
        self.costs[n : 2 * n] = BOX
        self.count = 2 * n
        self.basis = np.append(np.where(excess > 0, n, 0) + np.arange(n), 2 * n)
        self.add(excess, cost)

    def add(self, excess: Floats, cost: float) -> None:
        """One more plane: by how much its minimiser exceeds the limits, and its cost."""
        if self.count == len(self.costs):
            self.columns = np.concatenate([self.columns, np.zeros_like(self.columns)], axis=1)
            self.costs = np.concatenate([self.costs, np.zeros_like(self.costs)])
        self.columns[:-1, self.count] = excess
        self.columns[-1, self.count] = 1.0
        self.costs[self.count] = cost
        self.count += 1

    def solve(self) -> tuple[float, Floats]:
        """The highest value under all planes and the prices [R] where it is."""
        columns, costs = self.columns[:, : self.count], self.costs[: self.count]
        tolerance = 1e-12 * max(1.0, float(np.abs(costs[2 * len(columns) - 2 :]).max()))
        dual = np.zeros(len(columns))
        for _ in range(PIVOTS):
            try:
                inverse = np.linalg.inv(columns[:, self.basis])
            except np.linalg.LinAlgError:
                break
            dual = costs[self.basis] @ inverse
            reduced = costs - dual @ columns
            enter = int(reduced.argmin())
            if reduced[enter] >= -tolerance:
                break
            share = inverse[:, -1]  # the right-hand side is 0 for the limits, 1 for the mix
            direction = inverse @ columns[:, enter]
            up = direction > 1e-12
            if not up.any():
                break
            ratio = np.full(len(share), np.inf)
            ratio[up] = share[up] / direction[up]
            self.basis[int(ratio.argmin())] = enter
        return float(dual[-1]), np.clip(-dual[:-1], 0.0, BOX)
