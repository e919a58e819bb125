"""Ω with traces from the PyHessian package (Yao et al., IEEE Big Data 2020), layer by layer.

For comparison and as a cross-check of `hessian`. PyHessian samples the trace of all parameters that
require a gradient, so each layer gets a call of its own. What this adapter works around:

- its constructor runs `loss.backward` and leaves `.grad`: it gets a copy with one parameter that
  requires a gradient, and the cycle through `.grad` is cut afterwards (its issue 28: memory grows);
- it takes one input tensor and calls `model.eval()`: a wrapper holds the inputs, of which there may
  be several; an exported graph has no `eval`;
- it stops on two similar running means in a row, or at once on a negative one: a tolerance of -inf
  lets all probes run;
- autograd refuses a second derivative of a loss that is linear in the layer or does not reach it:
  the wrapper adds 0 · Σ W², which has every derivative and changes none;
- it draws from torch's global stream: seeded per layer and batch, and put back.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mpsearch.data import Batch
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.losses.loss import check_curvature, target_of
from mpsearch.running.journal import Journal
from mpsearch.running.seeds import seed_of
from mpsearch.sensitivity.hessian import mean_squared_errors, omegas
from mpsearch.sensitivity.hutchinson import Moments, estimate
from mpsearch.sensitivity.study import Scores, Study


@dataclass(frozen=True)
class PyHessian:
    """The `pyhessian` metric. `probes` per layer and batch, fewer if `max_probes` is lower."""

    probes: int = 10
    name: str = "pyhessian"
    description: str = "HAWQ's Ω with traces sampled by the PyHessian package, for comparison"
    labels: str = "used if there"
    cost: str = "10 double backward passes per layer"

    def steps(self, study: Study) -> int:
        return len(study.network.layers)

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        check_curvature(study.loss, self.name)
        found = {}
        for layer in study.network.layers:
            pieces = []
            for index, batch in enumerate(study.data.batches(study.batch_size)):
                key = f"{layer.name} batch {index}"
                values = journal.get(key)
                if values is None:
                    values = samples(
                        study, layer, batch, f"{study.seed} {index}", self._count(study)
                    )
                    journal.put(key, values)
                pieces.append(Moments.of(torch.tensor(values, dtype=torch.float64)[:, None]))
            n = len(study.data)
            total, stderr = estimate([pieces])
            found[layer.name] = (total / n, stderr / n)
            step()
        return omegas(study, found, mean_squared_errors(study))

    def notes(self, study: Study) -> Mapping[str, object]:
        return {"probes_per_layer": self._count(study), "stops_at_rtol": False}

    def _count(self, study: Study) -> int:
        return min(self.probes, study.max_probes)


def samples(study: Study, layer: Layer, batch: Batch, key: str, probes: int) -> list[float]:
    """Σ_n vᵀ ∇²ℓ_n v over the samples of a batch, for `probes` random v in one layer's weights."""
    from pyhessian import hessian

    inputs, labels = batch
    model = _OneLayer(study.network, layer, inputs)
    with torch.no_grad():
        target = target_of(study.loss, study.network(*inputs), labels)

    def criterion(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return study.loss.per_sample(logits, target).sum() + 0 * model.weight.square().sum()

    placeholder = torch.empty(0, device=target.device)
    devices = [target.device] if target.is_cuda else []
    with (
        torch.random.fork_rng(devices),
        warnings.catch_warnings(),
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),  # the fused kernels of attention have no second derivative
    ):
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph")
        torch.manual_seed(seed_of(f"{key} {layer.name}"))
        sampler = hessian(model, criterion, (placeholder, target), cuda=target.is_cuda)
        values = sampler.trace(maxIter=probes, tol=-math.inf)
    model.weight.grad = None
    return [float(value) for value in values]


class _OneLayer(nn.Module):
    """The network as a function of one layer's weight; its forward takes what it is given as the
    inputs that it holds."""

    def __init__(self, network: Network, layer: Layer, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(network.weight(layer).detach().clone())
        self._call: Callable[[], torch.Tensor] = lambda: torch.func.functional_call(
            network.graph, {layer.weight_name: self.weight}, inputs
        )

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self._call()


PROFILER = PyHessian()
