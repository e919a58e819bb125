"""What the Hessian trace of every layer costs, and how wrong it is.

Run `python benchmarks/sensitivity.py`; `--quick` leaves ResNet-50 out.

Cost is in units of one plain forward and backward pass with all weight gradients over the same
batch, in CPU time of one thread (median of the repeats, after a warm-up), so that other load on the
machine matters little. Memory is the peak resident memory above what the process had before, each
method in a forked process of its own (VmHWM after writing 5 to /proc/self/clear_refs: Linux only).
Errors are relative to the exact trace, over the layers.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from cases import CASES, Case, Traces, peak_megabytes, plain, timed
from torch.nn import functional

from mpsearch.running.seeds import generator, signs
from mpsearch.sensitivity.hutchinson import _Weights, estimate
from mpsearch.sensitivity.pyhessian_backend import samples
from mpsearch.sensitivity.traces import sampled_traces, trace_sums

PROBES = 10  # of the methods that sample the Hessian
DIRECTIONS = 8  # of our estimator: one round


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
