"""Do the integers compute what the fake-quantized network means?

    python benchmarks/integer_agreement.py --networks resnet20,resnet8

For every network and assignment: outputs of the integer graph against the fake-quantized network in
float64 (its meaning, nearly exactly) and in torch's float32, in steps of an 8-bit quantizer over
the logits' range. Needs MPSEARCH_DATA; TinyM²Net networks are trained for --epochs first.
"""

import os
import random
import time
from pathlib import Path

import click
import torch
from float64_reference import Float64Reference

from mpsearch.commands.train import dataset_for
from mpsearch.data import Data, bind, read_arrays
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.integer.inference import integer_network, outputs
from mpsearch.models.registry import build
from mpsearch.models.training import train
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.choice import Choice

DATASETS = {
    "resnet20": "cifar10",
    "resnet8": "cifar10-raw",
    "tinym2net-battlefield": "image-audio",
    "tinym2net-covid": "cough-speech",
}
WEIGHTS = {"resnet20": "resnet20.safetensors", "resnet8": "resnet8_from_h5.safetensors"}
ASSIGNMENTS = ("w8a8", "w4a8", "w4a4", "mixed", "w16a16")
MIXED = (2, 3, 4, 5, 6, 7, 8)
HEADER = (
    "| network | assignment | wide | samples | accuracy: float64, integer "
    "| largest difference, steps | within one step | same class | float32: largest "
    "| float32: same class | seconds |"
)


def load(name: str, epochs: int) -> Network:
    """The network with its published weights, or trained for a few epochs."""
    if name in WEIGHTS:
        path = Path(os.environ.get("MPSEARCH_DATA", ""), "pretrained", WEIGHTS[name])
        return load_network(ModelSource(str(path), model=name)).network
    data = dataset_for(name, DATASETS[name])
    model = train(build(name), data, epochs=epochs).model
    return Network.from_module(
        model, tuple(torch.from_numpy(x[:2]) for x in data.split("train").inputs)
    )


def choices_for(network: Network, assignment: str) -> dict[str, Choice]:
    """One choice everywhere, or random ones over 2 to 8 bits."""
    names = [layer.name for layer in network.layers]
    if assignment != "mixed":
        return dict.fromkeys(names, Choice.parse(assignment))
    source = random.Random(0)
    return {name: Choice(source.choice(MIXED), source.choice(MIXED)) for name in names}


def compare(
    name: str, assignment: str, quantized: QuantizedNetwork, wide: int, data: tuple[Data, Data]
) -> str:
    """One row of the table."""
    calibration, test = data
    integer = integer_network(quantized, calibration, wide_bits=wide)
    started = time.perf_counter()
    got = outputs(integer, test)
    seconds = time.perf_counter() - started
    meant = outputs(Float64Reference(quantized), test)
    single = outputs(quantized, test)
    assert test.labels is not None
    n, step = len(test), integer.graph.output_step
    steps, float_steps = ((x.double() - meant).abs() / step for x in (got, single))
    classes = [x.argmax(1) for x in (meant, got, single)]
    right, integer_right = (int((c == test.labels).sum()) for c in classes[:2])
    same, float_same = (int((c == classes[0]).sum()) for c in classes[1:])
    return (
        f"| {name} | {assignment} | {wide} | {n} | {right}, {integer_right} "
        f"| {float(steps.max()):.2g} | {100 * float((steps <= 1).double().mean()):.2f} % "
        f"| {same} | {float(float_steps.max()):.2g} | {float_same} | {seconds:.1f} |"
    )


@click.command()
@click.option("--networks", default=",".join(DATASETS), show_default=True)
@click.option("--assignments", default=",".join(ASSIGNMENTS), show_default=True)
@click.option("--wide", default="32", show_default=True, help="Bits of wide tensors: 32,16.")
@click.option("--samples", default=1000, show_default=True, help="Test samples at most.")
@click.option("--epochs", default=3, show_default=True)
def main(networks: str, assignments: str, wide: str, samples: int, epochs: int) -> None:
    """Print the table of docs/integer.md."""
    click.echo(HEADER)
    click.echo("|---" * HEADER.count(" | ") + "|---|")
    for name in networks.split(","):
        network = load(name, epochs)
        calibration, test = (
            bind(read_arrays(f"{DATASETS[name]}:{split}"), network).take(count, 0)
            for split, count in (("train", 256), ("test", samples))
        )
        histograms = calibrate(network, calibration)
        for assignment in assignments.split(","):
            quantized = quantize(network, choices_for(network, assignment), histograms)
            for bits in wide.split(","):
                row = compare(name, assignment, quantized, int(bits), (calibration, test))
                click.echo(row)


if __name__ == "__main__":
    main()
