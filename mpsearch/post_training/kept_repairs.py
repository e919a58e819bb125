"""Keep of a repair what helps: the network's own outputs on the calibration data decide.

A repair improves something local, the range of a weight or the error of one layer's output, and
nearly always the network with it. Where it does not, it is undone, for the layers that it harms.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import torch

from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import split_outputs
from mpsearch.quantization.quantized import QuantizedNetwork


class Measured(Protocol):
    """A quantized network on the way, and its noise."""

    @property
    def noise(self) -> float: ...


Item = TypeVar("Item")
State = TypeVar("State", bound=Measured)
MOST_TRIALS = 32  # each a pass over the calibration data, and only where a repair does harm
_SHOWN = 5
PER_TENSOR = "--per-tensor"


@dataclass(frozen=True)
class Yardstick:
    """The float network's outputs on the calibration data, and how far others are from them."""

    network: Network
    data: Data
    batch_size: int = 64

    def _outputs(self, of: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad():
            return [of(*inputs) for inputs, _ in self.data.batches(self.batch_size)]

    @cached_property
    def exact(self) -> list[torch.Tensor]:
        """The float network's outputs."""
        return self._outputs(self.network)

    def noise(self, quantized: QuantizedNetwork) -> float:
        """Σ over outputs of E‖f̂ - f‖² / E‖f‖²: the inverse of the signal-to-noise ratio.

        Each output counts by its own size. Infinite where a value is no number.
        """
        noise: dict[str, float] = {}
        signal: dict[str, float] = {}
        for exact, rough in zip(self.exact, self._outputs(quantized), strict=True):
            for output, part in split_outputs(self.network.outputs, exact).items():
                signal[output] = signal.get(output, 0.0) + float(part.double().square().sum())
            for output, part in split_outputs(self.network.outputs, rough - exact).items():
                noise[output] = noise.get(output, 0.0) + float(part.double().square().sum())
        total = math.fsum(value / (signal[name] or 1.0) for name, value in noise.items())
        return math.inf if math.isnan(total) else total


def keep_what_helps(
    items: Sequence[Item], start: State, repaired: Callable[[list[Item]], State]
) -> tuple[State, list[Item]]:
    """(the state with the repair where it helps, the items that it is undone for).

    `start` is the state without the repair, `repaired(kept)` with it at some items. All are tried
    at once; a group that does harm is halved until what does harm is found. The noise never rises
    from one step to the next, so that it ends at most at that of `start`. After `MOST_TRIALS` a
    group is undone as a whole.
    """
    state, kept, undone = start, list[Item](), list[Item]()
    groups = [list(items)] if items else []
    for trial in range(len(items) * 2):
        if not groups:
            break
        group = groups.pop(0)
        if trial < MOST_TRIALS:
            tried = repaired([*kept, *group])
            if tried.noise <= state.noise:
                state, kept = tried, [*kept, *group]
                continue
        if len(group) == 1 or trial >= MOST_TRIALS:
            undone += group
        else:
            groups = [group[: len(group) // 2], group[len(group) // 2 :], *groups]
    return state, undone


def undone_sentence(undone: Mapping[str, Sequence[str]]) -> str:
    """`undone: --equalize for conv1 -> conv2, as …`; empty where every repair was kept."""
    parts = {}
    for repair, names in undone.items():
        rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts[repair] = f"{repair} for {', '.join(names[:_SHOWN])}{rest}"
    left_out = parts.pop(PER_TENSOR, "")
    sentences = [f"left out: {left_out}: their groups of weights keep scales of their own"]
    if parts:
        sentences.append(
            f"undone: {'; '.join(parts.values())}: on the calibration data the outputs are nearer "
            "to FP32's without it"
        )
    return "; ".join(sentences[not left_out :])
