"""The networks that the benchmarks of sensitivity run on, and how they take time and memory."""

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from resnet50 import ResNet50
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.losses.loss import loss_for
from mpsearch.models.registry import ARCHITECTURES, build
from mpsearch.sensitivity.hutchinson import _Weights, estimate
from mpsearch.sensitivity.study import Study
from mpsearch.sensitivity.traces import sampled_traces, trace_sums

Traces = Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """A network with one batch, and the layers that per-layer methods are run on."""

    name: str
    study: Study
    reference: Traces  # Σ_n Tr, of every layer
    reference_note: str
    measured: tuple[Layer, ...]

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        return self.study.data.inputs

    @property
    def labels(self) -> torch.Tensor:
        assert self.study.data.labels is not None
        return self.study.data.labels


def plain(case: Case) -> Traces:
    """Forward and backward with all weight gradients."""
    network = case.study.network
    tape = _Weights(network, network.layers)
    loss = functional.cross_entropy(tape.run(*case.inputs), case.labels)
    torch.autograd.grad(loss, list(tape.weights.values()))
    return {}


def timed(method: Callable[[Case], Traces], case: Case, repeats: int) -> tuple[Traces, float]:
    """(traces, median CPU time), after one warm-up where there is more than one repeat."""
    if repeats > 1:
        method(case)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        found = method(case)
        times.append(time.process_time() - start)
    return found, statistics.median(times)


def peak_megabytes(function: Callable[[], object]) -> float:
    """Peak resident memory of a forked process that calls the function, above its start."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # What earlier runs freed but kept would hide what this one needs.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        function()
        os.write(writer, str(_status("VmHWM") - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        kilobytes = int(pipe.read())
    os.waitpid(child, 0)
    return kilobytes / 1024


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def _bundled(name: str) -> Case:
    model = build(name).eval()
    weights = Path(os.environ.get("MPSEARCH_DATA", "")) / "pretrained" / f"{name}.safetensors"
    note = "random weights"
    if weights.exists():
        from safetensors.torch import load_file

        model.load_state_dict(load_file(weights))
        note = "trained weights"
    found = ARCHITECTURES[name]
    random = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(32, *shape, generator=random) for shape in found.inputs.values())
    study = _study(model, inputs, found.classes)
    double = Network.from_module(model.double(), tuple(x.double() for x in inputs))
    reference = trace_sums(double, tuple(x.double() for x in inputs))
    note = f"{note}, batch 32, errors against exact float64"
    return Case(name, study, reference, note, study.network.layers)


def _resnet50() -> Case:
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet50().eval()
    inputs = (torch.randn(2, 3, 224, 224, generator=random),)
    study = _study(model, inputs, 1000)
    network = study.network
    keys = [f"reference {probe}" for probe in range(16)]
    moments = sampled_traces(network, inputs, network.layers, keys)
    estimates = {name: estimate([[found]]) for name, found in moments.items()}
    worst = max(error / value for value, error in estimates.values())
    measured = network.layers[:: len(network.layers) // 3]
    note = (
        f"random weights, batch 2, errors against 16 directions (their own error: up to "
        f"{worst:.1%}); PyHessian on {len(measured)} of {len(network.layers)} layers, its cost "
        "scaled to all"
    )
    reference = {name: value for name, (value, _) in estimates.items()}
    return Case("resnet50", study, reference, note, measured)


def _study(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], classes: int) -> Study:
    network = Network.from_module(model, inputs)
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (len(inputs[0]),), generator=random)
    data = Data("random", inputs, labels)
    loss = loss_for(network, labels)
    return Study(network, data, loss, (), len(labels), 0, rtol=0.05, max_probes=256)


CASES: dict[str, Callable[[], Case]] = {
    "tinym2net-battlefield": lambda: _bundled("tinym2net-battlefield"),
    "resnet20": lambda: _bundled("resnet20"),
    "resnet50": _resnet50,
}
