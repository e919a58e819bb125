"""How likely an assignment holds, from its Ω and from those that were measured.

A logistic curve P(holds | Ω) = 1 / (1 + exp((ln Ω - θ) / σ)) with unknown place θ and width σ, both
on a grid with equal weights before the first measurement, and weighed by Bayes' rule after. The
width lets an assignment of less Ω fail where one of more Ω holds. It decides the order in which
assignments are measured and never what is said of one.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PLACES = 101
WIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3)  # of the range of ln Ω


def chances(omega: NDArray[np.float64], held: Mapping[int, bool]) -> NDArray[np.float64]:
    """P(holds) of every assignment [M]; `held`: what was measured, by position in `omega` [M]."""
    x = _logarithms(omega)
    span = max(float(x.max() - x.min()), 1e-9)
    places = np.linspace(float(x.min()) - span / 5, float(x.max()) + span / 5, PLACES)
    place, width = (grid.ravel() for grid in np.meshgrid(places, span * np.array(WIDTHS)))
    above = np.clip((x[:, None] - place) / width, -40, 40)  # [M, grid]
    curves = 1 / (1 + np.exp(above))
    weight = np.zeros(len(place))
    for position, holds in held.items():
        weight -= np.logaddexp(0, above[position] if holds else -above[position])
    weight = np.exp(weight - weight.max())
    found: NDArray[np.float64] = curves @ (weight / weight.sum())
    return found


def _logarithms(omega: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln Ω, and for Ω = 0 a tenth of the least that is positive."""
    positive = omega[omega > 0]
    least = float(positive.min()) / 10 if len(positive) else 1.0
    found: NDArray[np.float64] = np.log(np.maximum(omega, least))
    return found
