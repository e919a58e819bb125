"""What the Hessian trace of every layer costs, and how wrong it is.

Run `python benchmarks/sensitivity.py`; `--quick` leaves ResNet-50 out.

Cost is in units of one plain forward and backward pass with all weight gradients over the same
batch, in CPU time of one thread (median of the repeats, after a warm-up), so that other load on the
machine matters little. Memory is the peak resident memory above what the process had before, each
method in a forked process of its own (VmHWM after writing 5 to /proc/self/clear_refs: Linux only).
Errors are relative to the exact trace, over the layers.
"""

import argparse
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
from mpsearch.layers import Layer
from mpsearch.losses import loss_for
from mpsearch.models.registry import ARCHITECTURES, build
from mpsearch.network import Network
from mpsearch.profiler import Study
from mpsearch.sensitivity.gauss_newton import sampled_traces, trace_sums
from mpsearch.sensitivity.hutchinson import _Weights
from mpsearch.sensitivity.probing import estimate, generator, signs
from mpsearch.sensitivity.pyhessian_backend import samples

Traces = Mapping[str, float]
PROBES = 10  # of the methods that sample the Hessian
DIRECTIONS = 8  # of our estimator: one round


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


def exact(case: Case) -> Traces:
    return trace_sums(case.study.network, case.inputs)


def sampled(case: Case) -> Traces:
    network = case.study.network
    keys = [f"benchmark {probe}" for probe in range(DIRECTIONS)]
    found = sampled_traces(network, case.inputs, network.layers, keys)
    return {name: estimate([[moments]])[0] for name, moments in found.items()}


def shared_product(case: Case) -> Traces:
    """All layers from one Hessian-vector product per probe: unbiased, and known to be bad."""
    network = case.study.network
    tape = _Weights(network, network.layers)
    loss = functional.cross_entropy(tape.run(*case.inputs), case.labels, reduction="sum")
    weights = list(tape.weights.values())
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    sums = dict.fromkeys(tape.weights, 0.0)
    for probe in range(PROBES):
        random = generator(f"shared {probe}")
        vectors = [signs(weight, random) for weight in weights]
        products = torch.autograd.grad(gradients, weights, vectors, retain_graph=True)
        for name, product, vector in zip(sums, products, vectors, strict=True):
            sums[name] += float((product * vector).sum()) / PROBES
    return sums


def pyhessian(case: Case) -> Traces:
    batch = (case.inputs, case.labels)
    found = {
        layer.name: samples(case.study, layer, batch, "benchmark", PROBES)
        for layer in case.measured
    }
    return {name: statistics.fmean(values) for name, values in found.items()}


# A further method is one row here: (what it is, function of the case, repeats).
METHODS: list[tuple[str, Callable[[Case], Traces], int]] = [
    ("exact traces", exact, 3),
    (f"our estimator, {DIRECTIONS} directions", sampled, 3),
    (f"one product for all layers, {PROBES} probes", shared_product, 1),
    (f"PyHessian per layer, {PROBES} probes", pyhessian, 1),
]


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


def show(case: Case) -> None:
    _, unit = timed(plain, case, 5)
    base = peak_megabytes(lambda: plain(case))
    print(f"\n{case.name}: {case.reference_note}")
    print(f"one unit: {unit:.3f} s, {base:.0f} MB above the network itself\n")
    print("| method | units | median error | largest error | peak memory / plain |")
    print("|---|---|---|---|---|", flush=True)
    target = 0.0
    for title, method, repeats in METHODS:
        if method is exact and case.study.network.output_shape[0] > 32:
            continue
        found, seconds = timed(method, case, repeats)
        errors = [abs(value / case.reference[name] - 1) for name, value in found.items()]
        middle = statistics.median(errors)
        units = seconds / unit
        if method is pyhessian:
            units *= len(case.study.network.layers) / len(case.measured)
        memory = peak_megabytes(lambda m=method: m(case)) / base  # type: ignore[misc]
        print(
            f"| {title} | {units:.1f} | {middle:.2g} | {max(errors):.2g} | {memory:.2f} |",
            flush=True,
        )
        if method is sampled:
            target = middle
        if method is pyhessian:
            # Its error falls as 1/sqrt(probes): extrapolated, not run.
            more = units * (middle / target) ** 2
            print(f"| PyHessian at our estimator's error, extrapolated | {more:.0f} "
                  f"| {target:.2g} | | |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave ResNet-50 out")
    parser.add_argument("--only", choices=CASES, help="one network instead of all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread")
    for name, make in CASES.items():
        wanted = (
            name == options.only if options.only else not (options.quick and name == "resnet50")
        )
        if wanted:
            show(make())


if __name__ == "__main__":
    main()
