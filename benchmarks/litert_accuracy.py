"""What LiteRT makes of an assignment: bits raised, bytes, accuracy.

    python benchmarks/litert_accuracy.py

ResNet-20 with its published weights on CIFAR-10's test images (needs MPSEARCH_DATA): the
fake-quantized network as assigned, at the raised bits, and the LiteRT file in the interpreter.
"""

import os
import random
from pathlib import Path

import click
import torch

from mpsearch.data import Data, bind, read_arrays
from mpsearch.exporters.litert.check import LiteRtNetwork
from mpsearch.exporters.litert.model import build
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.integer.inference import outputs
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import size_bytes
from mpsearch.quantization.quantized import quantize
from mpsearch.tables.choice import Choice

HEADER = (
    "| assigned | layers raised | assigned, bytes | stored, bytes | file, bytes "
    "| correct: assigned | raised | LiteRT | RMS, steps | same class |\n" + "|---" * 10 + "|"
)
MIXED = (2, 3, 4, 5, 6, 7, 8)


def row(network: Network, assigned: str, data: tuple[Data, Data]) -> str:
    """One assignment: the same choice everywhere, or `mixed`, drawn once."""
    calibration, test = data
    source = random.Random(0)
    choices = {
        layer.name: Choice(source.choice(MIXED), source.choice(MIXED))
        if assigned == "mixed"
        else Choice.parse(assigned)
        for layer in network.layers
    }
    quantized = quantize(network, choices, calibrate(network, calibration))
    model = build(quantized, calibration)
    given, raised = outputs(quantized, test), outputs(model.network, test)
    got = outputs(LiteRtNetwork(model.content, network), test)
    assert test.labels is not None
    correct = [int((x.argmax(1) == test.labels).sum()) for x in (given, raised, got)]
    rms = float(
        ((got - raised) / model.quantizers[model.graph.output.name].scale).square().mean().sqrt()
    )
    same = int((got.argmax(1) == raised.argmax(1)).sum())
    return (
        f"| {assigned} | {len(model.raised)} of {len(network.layers)} "
        f"| {size_bytes(network, choices):,} "
        f"| {sum(layer.size_bytes for layer in model.layers):,} | {len(model.content):,} "
        f"| {' | '.join(map(str, correct))} | {rms:.2f} | {same} |"
    )


@click.command()
@click.option("--assignments", default="w8a8,w4a8,w4a4,mixed", show_default=True)
@click.option("--samples", default=1000, show_default=True)
def main(assignments: str, samples: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    path = Path(os.environ["MPSEARCH_DATA"], "pretrained", "resnet20.safetensors")
    network = load_network(ModelSource(str(path), model="resnet20")).network
    calibration = bind(read_arrays("cifar10:train"), network).take(256, 0)
    test = bind(read_arrays("cifar10:test"), network).take(samples, 1)
    click.echo(HEADER)
    for assigned in assignments.split(","):
        click.echo(row(network, assigned, (calibration, test)))


if __name__ == "__main__":
    main()
