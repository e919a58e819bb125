"""`mpsearch train`: a bundled network on a named or own dataset -> an mpsearch file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpsearch.commands.console import echo, json_option, print_json
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.models.samples import Dataset
    from mpsearch.models.training import Accuracy, Training

SAMPLE = 256  # training samples that go into the file, for calibration and sensitivity


@click.command()
@click.argument("network")
@click.option(
    "--data", help="A named dataset or a folder of `mpsearch data build` [default: the network's]."
)
@click.option("--fold", type=int, help="Cross-validation fold, 0 to 4 (cough-speech).")
@click.option("--modality", multiple=True, help="Train on this input alone (repeatable).")
@click.option("--epochs", type=click.IntRange(min=1), default=12, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Adam's learning rate.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--augment", is_flag=True, help="Change the training samples at random.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), default="model.pt", show_default=True
)
@json_option
def train(
    network: str,
    data: str | None,
    fold: int | None,
    modality: tuple[str, ...],
    epochs: int,
    seed: int,
    lr: float,
    batch_size: int,
    augment: bool,
    output: str,
    as_json: bool,
) -> None:
    """Train a bundled network on a named or own dataset and write it as an mpsearch file.

    NETWORK is a name from `mpsearch models`; NAME:INPUT is its variant with that input alone. It
    gets the dataset's input shapes (the network's own where none is named), and as many outputs as
    it has classes. The validation split chooses the epoch, the test split is read once. Random
    samples of the training data, 256 evenly from the classes, go into the file.

    \b
    Examples:
      mpsearch train tinym2net-battlefield --data image-audio -o model.pt
      mpsearch train tinym2net-covid --data cough-speech --fold 0 -o covid.pt
      mpsearch train tinym2net-battlefield --data mydata -o model.pt
    """
    if not Path(output).absolute().parent.is_dir():
        raise InputError(f"cannot write {output}: its folder does not exist")
    if modality:
        network = f"{network}:{','.join(modality)}"
    import torch

    from mpsearch.commands.console import progress
    from mpsearch.graph.network_file import save
    from mpsearch.models import training
    from mpsearch.models.registry import architecture, build

    dataset = dataset_for(network, data or architecture(network).dataset, fold)
    with progress(f"training {network}", epochs) as step:
        result = training.train(
            build(network, seed=seed, classes=len(dataset.classes), shapes=dataset.shapes),
            dataset,
            epochs=epochs,
            seed=seed,
            lr=lr,
            batch_size=batch_size,
            augment=augment,
            on_epoch=lambda _: step(),
        )
    sample = dataset.split("train").balanced(SAMPLE, len(dataset.classes), seed)
    save(
        result.model,
        output,
        example_inputs=tuple(torch.from_numpy(x[:2]) for x in sample.inputs),
        sample=sample.arrays(),
    )
    if as_json:
        print_json(_document(network, dataset, result, output))
        return
    kind = "GENERATED data" if dataset.generated else "data"
    echo(f"{network} on {dataset.name} ({kind}: {dataset.source})")
    echo(f"epoch {result.best.number} of {epochs} is the best on validation data")
    echo(f"validation accuracy {result.validation}")
    if result.test is not None:
        echo(f"test accuracy       {result.test}")
    echo(f"wrote {output}")


def dataset_for(network: str, reference: str, fold: int | None = None) -> "Dataset":
    """The dataset with just the network's inputs; InputError where it cannot train the network.

    Classes and shapes may differ from the paper's: `mpsearch.build(network, classes=…, shapes=…)`.
    """
    import numpy as np

    from mpsearch.models.datasets import load_dataset
    from mpsearch.models.registry import architecture

    if ":" in reference:
        raise InputError(f"got --data {reference}; training needs all splits: give the name alone")
    wanted = architecture(network)
    dataset = load_dataset(reference, fold=fold).only(*wanted.inputs)
    train = dataset.split("train")
    if dataset.input_names != tuple(wanted.inputs):
        raise InputError(
            f"{network} takes the inputs {', '.join(wanted.inputs)} in this order; {reference} has "
            f"{', '.join(dataset.input_names)}"
        )
    for name, shape in dataset.shapes.items():
        if len(shape) != 3:
            raise InputError(
                f"{network} takes samples of (channels, height, width); {name} of {reference} has "
                f"the shape {shape}"
            )
    counts = np.bincount(train.labels, minlength=len(dataset.classes))
    for label, count in zip(dataset.classes, counts, strict=True):
        if count == 0:
            raise InputError(
                f"{reference} has no training samples of the class {label!r}; a network cannot "
                "learn it, nor a calibration sample hold it"
            )
    if len(dataset.classes) < 2 or len(train) < 2:
        raise InputError(
            f"{reference} has {len(train)} training sample(s) of {len(dataset.classes)} class(es); "
            "expected at least two of each"
        )
    return dataset


def _document(
    network: str, dataset: "Dataset", result: "Training", output: str
) -> dict[str, object]:
    return {
        "network": network,
        "data": dataset.name,
        "generated": dataset.generated,
        "data_digest": dataset.digest,
        "output": output,
        "best_epoch": result.best.number,
        "validation": _accuracy(result.validation),
        "test": _accuracy(result.test) if result.test is not None else None,
        "history": [vars(epoch) for epoch in result.history],
    }


def _accuracy(accuracy: "Accuracy") -> dict[str, object]:
    low, high = accuracy.interval
    return {
        "accuracy": accuracy.value,
        "correct": accuracy.correct,
        "n": accuracy.n,
        "low": low,
        "high": high,
    }
