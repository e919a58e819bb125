"""Adaptive rounding that will take minutes says so while it begins, and how to do without it."""

import time
from collections.abc import Callable, Sequence

from mpsearch.graph.layers import Layer
from mpsearch.running.streams import say

MINUTE = 60.0
_SEEN = 3.0  # seconds after which a share of the work tells how long the whole takes
# A layer of c rows of k weights: a matrix [k, k] from some 16,000 positions, its factors, and c
# rows at 31 scales against it; what every layer takes besides, in the same multiplications.
_POSITIONS, _SCALES, _BLOCK, _EACH = 16_384, 31, 1024, 10**9


def work_of(layer: Layer) -> float:
    """Multiplications of rounding one layer, roughly: which share of all layers' it is, counts."""
    k = layer.weights / layer.channels
    block = min(k, _BLOCK)  # wide layers have few positions, and are factorised in blocks
    return k * block * (_SCALES * layer.channels + _POSITIONS + 2 * block) + _EACH


def with_notice(
    layers: Sequence[Layer],
    step: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[], None]:
    """`step`, to be called as each layer begins, which prints one line on standard error once the
    first layers show that all of them take more than a minute; once, for any number of networks."""
    works, starts, told = [work_of(layer) for layer in layers], list[float](), False

    def begins() -> None:
        nonlocal told
        step()
        if told or len(starts) == len(works):  # of the first network alone
            return
        starts.append(clock())
        seconds, done = starts[-1] - starts[0], sum(works[: len(starts) - 1])
        told = seconds >= _SEEN and seconds * sum(works) > MINUTE * done
        if told:
            say(
                "note: adaptive rounding takes about "
                f"{max(2, round(seconds * sum(works) / done / MINUTE))} minutes for this network; "
                "--rounding nearest does without, and may lose accuracy"
            )

    return begins
