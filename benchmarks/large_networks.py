"""Large networks on one machine: time and peak memory of `profile`, metric by metric.

    python benchmarks/large_networks.py                       # all, each in a process of its own
    python benchmarks/large_networks.py vit-s sqnr -n 8       # one

Random weights and random images: neither changes what the arithmetic costs. Processor time is
counted beside the clock, because other programs may share the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from resnet50 import ResNet50
from torch import nn
from vit import ViTSmall

from mpsearch.commands.profile import peak_bytes
from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.tables.choice import Choice

NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet-50": ResNet50, "vit-s": ViTSmall}
METRICS = ("weight-mse", "fisher", "sqnr", "perturbation", "hessian")
FEW, MANY = 2, 6  # samples: what a sample costs is the difference
GIB = 2**30


def measure(name: str, metric: str, samples: int, memory: int, probes: int) -> dict[str, float]:
    """Seconds and peak bytes of one run; loading and export are counted apart."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    images = torch.randn(samples, 3, 224, 224)
    model = NETWORKS[name]().eval()
    began = time.perf_counter()
    network = Network.from_module(model, (images[:1],))
    exported = time.perf_counter() - began
    del model
    data = Data("random", (images,), torch.arange(samples))
    settings = ProfileSettings(
        choices=(Choice(4, 4), Choice(8, 8)),
        metric=metric,
        batch_size=8,
        memory_limit=memory,
        max_probes=probes,
        samples=samples,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        profile(network, data, Path(folder) / "profile.csv", settings)
    return {
        "export_s": exported,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_gib": peak_bytes() / GIB,
        "layers": len(network.layers),
    }


def table(samples: tuple[int, int], memory: int, probes: int) -> None:
    """One row per network and metric, from two runs that differ in the samples."""
    print("| network | metric | fixed, CPU s | a sample, CPU s | 256 samples, CPU min | peak GiB |")
    print("|---|---|---|---|---|---|")
    for name in NETWORKS:
        for metric in METRICS:
            few, many = (_apart(name, metric, n, memory, probes) for n in samples)
            each = (many["cpu_s"] - few["cpu_s"]) / (samples[1] - samples[0])
            fixed = few["cpu_s"] - samples[0] * each
            print(
                f"| {name} | {metric} | {fixed:.0f} | {each:.1f} | {(fixed + 256 * each) / 60:.0f} "
                f"| {max(few['peak_gib'], many['peak_gib']):.1f} |",
                flush=True,
            )


def _apart(name: str, metric: str, samples: int, memory: int, probes: int) -> dict[str, float]:
    """A process of its own, because peak memory is that of the whole process."""
    words = [sys.executable, __file__, name, metric, "-n", str(samples)]
    words += ["--memory", str(memory), "--probes", str(probes)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", choices=NETWORKS)
    parser.add_argument("metric", nargs="?", choices=METRICS)
    parser.add_argument("-n", "--samples", type=int, default=MANY)
    parser.add_argument("--memory", type=int, default=2**29)
    parser.add_argument("--probes", type=int, default=8)
    asked = parser.parse_args()
    if asked.network and asked.metric:
        found = measure(asked.network, asked.metric, asked.samples, asked.memory, asked.probes)
        print(json.dumps(found))
    else:
        table((FEW, MANY), asked.memory, asked.probes)


if __name__ == "__main__":
    main()
