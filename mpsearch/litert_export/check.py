"""Does the interpreter compute what the file means, and is that near the fake-quantized network?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mpsearch.data import Data
from mpsearch.litert_export.interpreter import KERNELS, LiteRtNetwork
from mpsearch.litert_export.meaning import meaning
from mpsearch.litert_export.model import LiteRtModel

# In steps of the 8-bit output, root of the mean square. LiteRT's kernels round a sum or a rescaled
# value to the neighbouring code now and then, which later layers carry on; ResNet-20 has 1.0 and
# 1.3. A wrong scale, padding or layout gives tens.
MEANING_STEPS = 2.0
NETWORK_STEPS = 4.0
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
    classes_only: bool

    @property
    def ok(self) -> bool:
        """Within the tolerance."""
        if self.classes_only:
            return min(self.meaning.same_class, self.network.same_class) >= SAME_CLASS
        return self.meaning.rms_steps <= MEANING_STEPS and self.network.rms_steps <= NETWORK_STEPS

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ok": self.ok}


def check(model: LiteRtModel, data: Data) -> tuple[Agreement, ...]:
    """Run up to 256 samples with XNNPACK and with LiteRT's own kernels."""
    data = data if len(data) <= SAMPLES else data.take(SAMPLES, 0)
    meant = _outputs(meaning(model.network, model.graph, model.quantizers), data)
    faked = _outputs(model.network, data)
    step, found = model.output_step, []
    for kernels in KERNELS:
        network = LiteRtNetwork(model.content, model.network.source.input_names, kernels)
        got = _outputs(network, data)
        found.append(
            Agreement(
                kernels, len(data), _difference(got, meant, step), _difference(got, faked, step),
                not step,
            )
        )  # fmt: skip
    return tuple(found)


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
