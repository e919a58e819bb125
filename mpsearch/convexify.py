"""A tight convex form of a quadratic function over one-of-C choices.

With x one-hot in every layer, x_lᵀ B x_l = diag(B)ᵀ x_l for every block B, and x = u + P x for the
centre u of the simplices and the projection P onto differences of choices. So

    xᵀ Q x  =  uᵀQu + (2 P Q u + diag(B))ᵀ x + xᵀ S x      with  S = P Q P - B  for block-diagonal B

for every B, and where S is positive semidefinite its continuous minimum is a lower bound. The
larger B, the tighter: this is the QCR method (Billionnet, Elloumi and Plateau, Discrete Applied
Mathematics 2009), whose best B solves a semidefinite programme. Here a log-det barrier and block
coordinate ascent (closed form per layer) solve it well enough; every S that comes out is checked.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BARRIERS = (0.3, 0.03, 0.003)
SWEEPS = 3


@dataclass(frozen=True, eq=False)
class Convex:
    """xᵀQx = constant + linear @ x + xᵀ matrix x for one-hot x; linear [L*C], matrix [L*C, L*C].

    `matrix` is positive semidefinite, and zero in rows and columns of cells that are not allowed.
    `curvature` [L] is the largest eigenvalue of each layer's block of the matrix.
    """

    constant: float
    linear: Floats
    matrix: Floats
    curvature: Floats


def convexify(quadratic: Floats, allowed: NDArray[np.bool_]) -> Convex:
    """Q [L*C, L*C], symmetric, and allowed [L, C] -> the convex form; Q need not be definite."""
    layers, width = allowed.shape
    count = allowed.sum(axis=1)
    centre = (allowed / count[:, None]).reshape(-1)
    basis, blocks = _differences(allowed)
    reduced = basis.T @ quadratic @ basis
    shape = _shift(reduced, blocks, count.astype(np.float64))
    matrix = basis @ shape @ basis.T
    moved = basis @ (reduced - shape) @ basis.T
    linear = 2 * basis @ (basis.T @ (quadratic @ centre)) + np.diag(moved)
    own = matrix.reshape(layers, width, layers, width)[np.arange(layers), :, np.arange(layers)]
    return Convex(
        constant=float(centre @ quadratic @ centre),
        linear=linear,
        matrix=matrix,
        curvature=np.linalg.eigvalsh(own)[:, -1].astype(np.float64),
    )


def _differences(allowed: NDArray[np.bool_]) -> tuple[Floats, list[slice]]:
    """An orthonormal basis of what moves mass within layers, and each layer's columns of it."""
    layers, width = allowed.shape
    count = allowed.sum(axis=1)
    basis = np.zeros((layers * width, int(count.sum()) - layers))
    blocks, at = [], 0
    for layer in range(layers):
        cells = layer * width + np.flatnonzero(allowed[layer])
        n = len(cells)
        for k in range(1, n):  # Helmert's contrasts: the mean of k cells against the next one
            column = np.append(np.full(k, 1.0), -k) / np.sqrt(k * (k + 1))
            basis[cells[: k + 1], at + k - 1] = column
        blocks.append(slice(at, at + n - 1))
        at += n - 1
    return basis, blocks


def _shift(reduced: Floats, blocks: list[slice], count: Floats) -> Floats:
    """S, positive semidefinite, from `reduced` by changing its diagonal blocks alone.

    Maximises the trace of what is taken away, weighted 1 / count per layer (its gain at the
    centre), plus µ log det S: the optimum has (S⁻¹)_ll = I / (µ count_l), one layer at a time.
    """
    size = len(reduced)
    mean = float(np.trace(reduced)) / max(size, 1)
    if size == 0 or mean <= 0:
        lowest = float(np.linalg.eigvalsh(reduced)[0]) if size else 0.0
        return reduced + max(0.0, -lowest) * np.eye(size)
    scaled = reduced / mean
    lowest = float(np.linalg.eigvalsh(scaled)[0])
    shape = scaled + max(0.0, 1e-6 - lowest) * np.eye(size)
    for barrier in BARRIERS:
        for _ in range(SWEEPS):
            inverse = np.linalg.inv(shape)
            for block, number in zip(blocks, count, strict=True):
                n = block.stop - block.start
                if n == 0:
                    continue
                own = inverse[block, block]
                change = barrier * number / float(count.max()) * np.eye(n) - np.linalg.inv(own)
                change = (change + change.T) / 2
                shape[block, block] += change
                column = inverse[:, block]
                inner = np.linalg.solve(np.eye(n) + change @ own, change)
                inverse = inverse - column @ inner @ column.T
    lowest = float(np.linalg.eigvalsh(shape)[0])
    # The eigenvalue is known to some ulps of the norm: lift S so that it is surely semidefinite.
    lift = max(0.0, -lowest) + 1e-13 * float(np.abs(shape).sum(axis=1).max())
    result: Floats = (shape + lift * np.eye(size)) * mean
    return result
