"""Comparing two staircases: the area that a front dominates, and where one passes another."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isclose

Corner = tuple[float, float]


@dataclass(frozen=True)
class Lead:
    """From this total on `ahead` has the lower Ω: 0 the first front, 1 the second."""

    start: float
    ahead: int


def hypervolume(
    totals: Sequence[float], omega: Sequence[float], ideal: Corner, reference: Corner
) -> float:
    """The part of the box from `ideal` to `reference` that the front dominates, from 0 to 1.

    A place (x, y) is dominated where some point has no larger total than x and no larger Ω than y
    (Zitzler and Thiele, 1998; both are minimised). Points by rising total and falling Ω; those
    beyond the reference add nothing. A box without area: 0.
    """
    whole = (reference[0] - ideal[0]) * (reference[1] - ideal[1])
    if whole <= 0:
        return 0.0
    area = 0.0
    for place, (x, y) in enumerate(zip(totals, omega, strict=True)):
        end = totals[place + 1] if place + 1 < len(totals) else inf
        left, right = max(x, ideal[0]), min(end, reference[0])
        low = max(y, ideal[1])
        if right > left and reference[1] > low:
            area += (right - left) * (reference[1] - low)
    return area / whole


def leads(
    first: tuple[Sequence[float], Sequence[float]],
    second: tuple[Sequence[float], Sequence[float]],
) -> tuple[Lead, ...]:
    """Who has the lower Ω within which total, as the limit grows; each entry is a change of lead.

    Fronts as (totals, Ω). Ω that agree to 12 digits are a tie, which changes no lead; before a
    front begins it has none.
    """
    corners = sorted({*first[0], *second[0]})
    found: list[Lead] = []
    at = [-1, -1]
    fronts = (first, second)
    for total in corners:
        best = []
        for which, (totals, omega) in enumerate(fronts):
            while at[which] + 1 < len(totals) and totals[at[which] + 1] <= total:
                at[which] += 1
            best.append(omega[at[which]] if at[which] >= 0 else inf)
        if best[0] == best[1] or isclose(best[0], best[1], rel_tol=1e-12):
            continue
        ahead = 0 if best[0] < best[1] else 1
        if not found or found[-1].ahead != ahead:
            found.append(Lead(total, ahead))
    return tuple(found)
