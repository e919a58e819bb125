"""A plain training loop on the module of `to_module`, with torch's optimizers, against `finetune`.

    python benchmarks/own_loop.py ds-cnn --case w2a8 --epochs 8 -o own-loop.json

Cross-entropy on the training data, batches of 32, no teacher, no schedule, no augmentation; the
last epoch is what is measured, on the test split.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import torch
from finetuning import choices_of, subject_of
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.evaluation.measuring import evaluate
from mpsearch.files.whole import write_atomic
from mpsearch.finetuning.module import from_module, to_module
from mpsearch.finetuning.training import FineTuning, finetune
from mpsearch.models.features import cache_folder
from mpsearch.post_training.repairing import quantize_after_training
from mpsearch.quantization.quantized import QuantizedNetwork

OPTIMIZERS: dict[str, Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD, lr 1e-4, momentum 0.9": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9),
    "Adam, lr 1e-3": lambda p: torch.optim.Adam(p, lr=1e-3),
    "Adam, lr 1e-4": lambda p: torch.optim.Adam(p, lr=1e-4),
}


def trained(start: QuantizedNetwork, data: Data, name: str, epochs: int) -> QuantizedNetwork:
    """The loop that docs/finetune.md shows."""
    module = to_module(start)
    optimizer = OPTIMIZERS[name](module.parameters())
    generator = torch.Generator().manual_seed(0)
    assert data.labels is not None
    for _ in range(epochs):
        for rows in torch.randperm(len(data), generator=generator).split(32):
            outputs = module(*(x[rows] for x in data.inputs))
            loss = functional.cross_entropy(outputs, data.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return from_module(module)


@click.command()
@click.argument("network")
@click.option("--case", default="w2a8", show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(network: str, case: str, epochs: int, output: Path) -> None:
    """Train NETWORK quantized as CASE says; write accuracies as JSON and print them."""
    subject, train, validation = subject_of(network, None, 0, cache_folder())
    choices = choices_of(case, subject, cache_folder())
    start = quantize_after_training(subject.network, choices, subject.profiling)
    rows = {}

    def measure(name: str, quantized: QuantizedNetwork, seconds: float) -> None:
        accuracy = evaluate(name, quantized, subject.unseen).accuracy
        rows[name] = {"accuracy": accuracy, "seconds": seconds}
        click.echo(f"{name:28} {accuracy:.1%} {seconds:.0f} s")

    measure("after training", start, 0.0)
    for name in OPTIMIZERS:
        begun = time.process_time()
        measure(name, trained(start, train, name, epochs), time.process_time() - begun)
    begun = time.process_time()
    settings = FineTuning(epochs=epochs)
    tuned = finetune(subject.network, choices, train, validation, settings, start)
    measure("mpsearch finetune", tuned.network, time.process_time() - begun)
    document = {"network": network, "case": case, "epochs": epochs, "rows": rows}
    write_atomic(output, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
