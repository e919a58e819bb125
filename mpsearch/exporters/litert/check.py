"""Does the interpreter compute what the file means, and is that near the assigned network?"""

from dataclasses import dataclass
from typing import Any

from mpsearch.data import Data
from mpsearch.exporters.agreement_of_outputs import Agreement, Reference, judge
from mpsearch.exporters.litert.interpreter import KERNELS, LiteRtNetwork
from mpsearch.exporters.litert.meaning import meaning
from mpsearch.exporters.litert.model import LiteRtModel
from mpsearch.exporters.litert.raising import finer_activations
from mpsearch.exporters.reference_outputs import reference_of
from mpsearch.integer.network import outputs

SAMPLES = 256


@dataclass(frozen=True)
class Checked:
    """One set of kernels, output by output: against the assigned network, whose activations may be
    finer here, and against what the file means."""

    kernels: str
    network: tuple[Agreement, ...]
    meaning: tuple[Agreement, ...]

    @property
    def ok(self) -> bool:
        """Every output is within the tolerance of both."""
        return all(entry.ok for entry in (*self.network, *self.meaning))

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kernels": self.kernels,
            "network": [entry.figures() for entry in self.network],
            "meaning": [entry.figures() for entry in self.meaning],
            "ok": self.ok,
        }


def check(model: LiteRtModel, data: Data) -> tuple[Checked, ...]:
    """Run up to 256 samples with XNNPACK and with LiteRT's own kernels."""
    data = data if len(data) <= SAMPLES else data.take(SAMPLES, 0)
    assigned = reference_of(model.assigned, data)
    raised = any(entry.assigned.a_bits != entry.stored.a_bits for entry in model.raised)
    finer = outputs(finer_activations(model.assigned), data).numpy() if raised else None
    meant = outputs(meaning(model.network, model.graph, model.quantizers), data).numpy()
    found = []
    for kernels in KERNELS:
        network = LiteRtNetwork(model.content, model.network.source, kernels)
        got = outputs(network, data).numpy()
        found.append(
            Checked(
                kernels,
                judge(assigned, got, rounded=True, meant=finer),
                judge(Reference(meant, assigned.parts, assigned.ways), got, rounded=True),
            )
        )
    return tuple(found)
