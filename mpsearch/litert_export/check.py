"""Does the interpreter compute what the file means, and is that near the fake-quantized network?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mpsearch.data import Data
from mpsearch.litert_export.interpreter import KERNELS, LiteRtNetwork
from mpsearch.litert_export.meaning import meaning
from mpsearch.litert_export.model import LiteRtModel

# Root of the mean square, in steps of the 8-bit output, or as a share of the outputs' own standard
# deviation where that is more. LiteRT's kernels round a sum or a product to the neighbouring code
# now and then, which later layers carry on: ResNet-20 has 0.8 steps, random networks whose outputs
# hardly differ up to 4. A wrong scale, padding or layout gives about the deviation itself.
STEPS, SHARE = 4.0, 0.2
SAME_CLASS = 0.95  # for networks that give class numbers: ties of 8-bit logits
SAMPLES = 256


@dataclass(frozen=True)
class Difference:
    """LiteRT's outputs against other ones: in output steps, and the share of equal classes."""

    rms_steps: float
    largest_steps: float
    same_class: float


@dataclass(frozen=True)
class Agreement:
    """One set of kernels: against what the file means, and against the fake-quantized network."""

    kernels: str
    samples: int
    meaning: Difference
    network: Difference
    tolerance_steps: float
    classes_only: bool

    @property
    def ok(self) -> bool:
        """Within the tolerance."""
        if self.classes_only:
            return min(self.meaning.same_class, self.network.same_class) >= SAME_CLASS
        return max(self.meaning.rms_steps, self.network.rms_steps) <= self.tolerance_steps

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ok": self.ok}


def check(model: LiteRtModel, data: Data) -> tuple[Agreement, ...]:
    """Run up to 256 samples with XNNPACK and with LiteRT's own kernels."""
    data = data if len(data) <= SAMPLES else data.take(SAMPLES, 0)
    meant = _outputs(meaning(model.network, model.graph, model.quantizers), data)
    faked = _outputs(model.network, data)
    step, found = model.output_step, []
    tolerance = max(STEPS, SHARE * _deviation(faked) / step) if step else 0.0
    for kernels in KERNELS:
        network = LiteRtNetwork(model.content, model.network.source.input_names, kernels)
        got = _outputs(network, data)
        against = [_difference(got, other, step) for other in (meant, faked)]
        found.append(Agreement(kernels, len(data), against[0], against[1], tolerance, not step))
    return tuple(found)


def _deviation(outputs: torch.Tensor) -> float:
    """How far the samples' outputs are from their mean, root of the mean square."""
    return float((outputs.double() - outputs.double().mean(0)).square().mean().sqrt())


def _outputs(network: Callable[..., torch.Tensor], data: Data) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([network(*inputs) for inputs, _ in data.batches(64)])


def _difference(got: torch.Tensor, other: torch.Tensor, step: float) -> Difference:
    if not step:  # class numbers: how far apart they are means nothing
        return Difference(0.0, 0.0, float((got == other).float().mean()))
    steps = (got.double() - other.double()).abs() / step
    rows = [x.flatten(1).argmax(1) for x in (got, other)]
    return Difference(
        float(steps.square().mean().sqrt()),
        float(steps.max()),
        float((rows[0] == rows[1]).float().mean()),
    )
