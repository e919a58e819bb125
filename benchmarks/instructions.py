"""How many aarch64 instructions does one steady inference of the C export take?

    python benchmarks/instructions.py --networks tinym2net-battlefield --steps

Every network is exported at every assignment, compiled for a Cortex-A72 and a Cortex-A76, run on
one sample in an emulated CPU, and its output compared with the reference. Counted is network_run()
alone. Also counted, where valgrind is there: x86 instructions, with AVX2 and in plain C (--x86).
ResNet-20 needs MPSEARCH_DATA; TinyM²Net has random weights, which does not change its speed.
"""

import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from aarch64_counter import CPU, CPUS, Counts, Machine, build, missing

from mpsearch.data import Data, bind, read_arrays
from mpsearch.exporters.c.folder import export_c, kernel_sources
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.integer.inference import quantize_input
from mpsearch.integer.lowering import lower
from mpsearch.models.registry import architecture
from mpsearch.models.registry import build as build_model
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

NETWORKS = ("tinym2net-battlefield", "tinym2net-covid", "resnet20")
ASSIGNMENTS = ("w8a8", "w4a8", "mixed")


@dataclass(frozen=True)
class Measured:
    """The counts of one exported network, with its multiplications."""

    counts: Counts
    macs: int
    steps: list[str]

    @property
    def per_mac(self) -> float:
        """Instructions per multiplication of a weight and a code."""
        return self.counts.total / self.macs


def network_and_data(name: str) -> tuple[Network, Data]:
    """Published weights and images for ResNet-20, seeded random ones for TinyM²Net."""
    if name == "resnet20":
        path = Path(os.environ["MPSEARCH_DATA"], "pretrained", "resnet20.safetensors")
        network = load_network(ModelSource(str(path), model=name)).network
        return network, bind(read_arrays("cifar10:train"), network).take(4, 0)
    torch.manual_seed(0)
    shapes = architecture(name).inputs.values()
    inputs = tuple(torch.randn(4, *shape) for shape in shapes)
    return Network.from_module(build_model(name), inputs), Data("random", inputs, None)


def choices_for(network: Network, assignment: str) -> dict[str, Choice]:
    """One choice everywhere, or W4/W8 with A4/A8 at random."""
    names = [layer.name for layer in network.layers]
    if assignment != "mixed":
        return dict.fromkeys(names, Choice.parse(assignment))
    source = random.Random(5)
    return {name: Choice(source.choice((4, 8)), source.choice((4, 8))) for name in names}


def export(
    name: str, assignment: str, folder: Path
) -> tuple[Mapping[str, Any], list[np.ndarray], np.ndarray]:
    """Write the folder; its document, the codes of one sample, and the integers that must come."""
    network, data = network_and_data(name)
    quantized = quantize(network, choices_for(network, assignment), calibrate(network, data))
    document = export_c(quantized, data, folder).document
    graph = lower(quantized, data)
    codes = [quantize_input(data.inputs[e.index][:1].numpy(), e.tensor) for e in graph.inputs]
    expected = np.loadtxt(folder / "check" / "output.txt", dtype=np.int64, ndmin=2)[0]
    return document, codes, expected


def measure(name: str, assignment: str, folder: Path, *flags: str, cpu: str = CPU) -> Measured:
    """Export, run on the emulated CPU, compare, count. Raises ValueError for a wrong output."""
    document, codes, expected = export(name, assignment, folder)
    sources = [folder / source for source in ("network.c", *kernel_sources())]
    program = build(sources, folder, "network_run", flags, cpu)
    machine = Machine(program)
    for entry, values in enumerate(codes):
        machine.cpu.mem_write(machine.call("network_entry", entry), values.tobytes())
    counts = machine.count("network_run")
    output = machine.call("network_output")
    width = {8: 1, 16: 2, 32: 4}[max(8, document["output"]["bits"])]
    kind = f"<{'i' if document['output']['signed'] else 'u'}{width}"
    got = np.frombuffer(machine.cpu.mem_read(output, width * len(expected)), dtype=kind)
    if not np.array_equal(got, expected):
        raise ValueError(f"{name} {assignment}: the emulated network gives other integers")
    text = (folder / "network.c").read_text()
    body = text[text.index("void network_run(void)") :]
    steps, note = [], ""
    for line in body.splitlines():
        if found := re.match(r" +/\* (.*) \*/", line):
            note = found[1]
        elif found := re.match(r" +(mps_\w+)\(", line):
            steps.append(f"{found[1]}: {note}")
    return Measured(counts, sum(layer["macs"] for layer in document["layers"]), steps)


def x86_count(folder: Path, *flags: str) -> int:
    """x86 instructions of one inference: the difference of 11 runs and 1 under callgrind, by 10."""
    program = folder / "counted-x86"
    sources = [path for path in sorted(folder.glob("*.c")) if path.name != "memory.c"]
    command = ["gcc", "-std=c99", "-O2", *flags, "-o", str(program), *map(str, sources), "-lm"]
    subprocess.run(command, check=True)
    sample = folder / "one.f32"
    raw = (folder / "check" / "input.f32").read_bytes()
    sample.write_bytes(raw[: len(raw) // 4])
    totals = []
    for repeat in ("1", "11"):
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program,
             "--input", sample, "--repeat", repeat], capture_output=True, text=True, check=True,
        )  # fmt: skip
        (found,) = re.findall(r"Collected : (\d+)", done.stderr)
        totals.append(int(found))
    return (totals[1] - totals[0]) // 10


@click.command()
@click.option("--networks", default=",".join(NETWORKS), show_default=True)
@click.option("--assignments", default=",".join(ASSIGNMENTS), show_default=True)
@click.option("--cpus", default=",".join(CPUS), show_default=True)
@click.option("--steps", is_flag=True, help="Also every step and every function.")
@click.option("--x86", is_flag=True, help="Also x86, with valgrind (slow).")
@click.option("--portable", is_flag=True, help="Also plain C (-DMPS_PORTABLE) on aarch64.")
def main(
    networks: str, assignments: str, cpus: str, steps: bool, x86: bool, portable: bool
) -> None:
    """Print a table of instructions per multiplication."""
    if reason := missing():
        raise click.ClickException(reason)
    models = cpus.split(",")
    if unknown := sorted(set(models) - set(CPUS)):
        raise click.ClickException(f"got {unknown[0]!r}; expected some of {', '.join(CPUS)}")
    head = ["network", "bits", "MACs", *(f"{cpu} per MAC" for cpu in models), "others per MAC"]
    click.echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in networks.split(","):
        for assignment in assignments.split(","):
            with tempfile.TemporaryDirectory() as folder:
                found = {
                    cpu: measure(name, assignment, Path(folder, cpu), cpu=cpu) for cpu in models
                }
                macs, others = found[models[0]].macs, []
                if portable:
                    plain = measure(name, assignment, Path(folder, "plain"), "-DMPS_PORTABLE")
                    others.append(f"plain C {plain.per_mac:.3f}")
                if x86 and shutil.which("valgrind"):
                    for label, flag in (("AVX2", "-mavx2"), ("x86 plain C", "-DMPS_PORTABLE")):
                        count = x86_count(Path(folder, models[0]), flag)
                        others.append(f"{label} {count / macs:.3f}")
            counts = " | ".join(f"{one.per_mac:.3f}" for one in found.values())
            click.echo(f"| {name} | {assignment} | {macs:,} | {counts} | {', '.join(others)} |")
            for cpu, one in found.items() if steps else ():
                click.echo(f"  {cpu}: {one.counts.total:,} instructions")
                _details(one)


def _details(found: Measured) -> None:
    for step, count in zip(found.steps, found.counts.calls, strict=False):
        click.echo(f"  {count:9,} {count / found.macs:.4f} {step}")
    for function, count in sorted(found.counts.functions.items(), key=lambda item: -item[1]):
        click.echo(f"  {count:9,} {count / found.macs:.4f} in {function}")


if __name__ == "__main__":
    main()
