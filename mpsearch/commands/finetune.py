"""`mpsearch finetune`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpsearch.commands.console import echo, json_option, print_json, progress
from mpsearch.commands.loading import load_model_and_data, sample_sentence
from mpsearch.commands.options import (
    ModelOptions,
    device_option,
    loss_option,
    model_options,
    sample_option,
)
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.finetuning.training import Epoch, FineTuned
    from mpsearch.graph.network import Network


@click.command()
@click.argument("path", metavar="MODEL")
@click.argument("assignment", required=False)
@click.option("--data", metavar="D", help="Training data [default: the model file's sample].")
@click.option("--validation", metavar="D", help="Chooses the epoch [default: a tenth of --data].")
@click.option("--start", metavar="FILE", help="Begin from this file of `mpsearch apply`.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Relative change per step.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--distillation", type=float, default=0.5, show_default=True,
    help="Share of the divergence from FP32 in the loss; the rest is that on labels.",
)  # fmt: skip
@loss_option
@device_option
@click.option("--augment", is_flag=True, help="Change images and spectrograms at random.")
@click.option(
    "--freezing/--no-freezing", default=True, show_default=True,
    help="Keep the code of a weight of 2 to 4 bits that oscillates between two.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", default="quantized.pt", show_default=True)
@sample_option
@model_options
@json_option
def finetune(
    path: str,
    assignment: str | None,
    data: str | None,
    validation: str | None,
    start: str | None,
    epochs: int,
    lr: float,
    batch_size: int,
    distillation: float,
    loss: tuple[str, ...],
    device: str,
    augment: bool,
    freezing: bool,
    seed: int,
    output: str,
    keep_sample: bool,
    as_json: bool,
    model: ModelOptions,
) -> None:
    """Train MODEL as quantized by ASSIGNMENT (assignment.json), taught by its float outputs.

    Writes the integers of the epoch that is best on validation data; the quantized network before
    training is a candidate too. Data without labels will do. A killed run goes on where it was
    when the same command is given again.

    \b
    Example:
      mpsearch finetune model.pt --data train.npz
      mpsearch finetune model.pt --data train.npz --augment -o tuned.pt
    """
    from mpsearch.finetuning.training import FineTuning
    from mpsearch.finetuning.training import finetune as run_finetuning
    from mpsearch.quantization.quantized import check_assignment
    from mpsearch.quantization.quantized_file import load_quantized, save_quantized
    from mpsearch.running.workers import find_device
    from mpsearch.tables.assignment import Assignment, weights_notes

    if not Path(output).absolute().parent.is_dir():
        raise InputError(f"cannot write {output}: its folder does not exist")
    source, place = model.source(path), find_device(device)
    begun = None if start is None else load_quantized(start, source.max_memory)
    if begun is not None and assignment is None:
        chosen = Assignment(begun.assignment)
    else:
        chosen = Assignment.load(assignment or "assignment.json")
    choices = dict(chosen.layers)
    loaded, train = load_model_and_data(source, data, "fine-tuning", loss)
    check_assignment(loaded.network, chosen)
    given_for = assignment or "assignment.json"
    for note in weights_notes(chosen, given_for, source.path, loaded.network.digest):
        echo(f"note: {note}", err=True)
    held_out = None if validation is None else _validation(validation, loaded.network, loss)
    settings = FineTuning(epochs, lr, batch_size, distillation, augment, seed, freezing=freezing)
    with progress("fine-tuning", epochs) as step:

        def on_epoch(epoch: "Epoch") -> None:
            if epoch.number:
                step()
            if not as_json:
                echo(_line(epoch, labelled))

        labelled = (train if held_out is None else held_out).labels is not None
        result = run_finetuning(
            loaded.network.to(place), choices, train, held_out, settings, begun, on_epoch, output,
            keep_sample,
        )  # fmt: skip
    save_quantized(result.network, output)
    if result.checkpoint is not None:
        result.checkpoint.unlink(missing_ok=True)
    if as_json:
        print_json(_document(result, output, loaded.network))
    else:
        _print_summary(result, output, loaded.network, train)
        given = [("--data", validation or data), *(("--loss", one) for one in loss)]
        words = [word for option, value in given if value is not None for word in (option, value)]
        own = result.network.sample is not None and validation is None and data is None
        beside = [] if own else ["--fp32", path, *model.words]
        command = ["mpsearch", "evaluate", output, *beside, *words]
        echo(f"next: {shlex.join(command)}")


def _validation(source: str, network: "Network", losses: tuple[str, ...]) -> "Data":
    from mpsearch.data import bind, check_repeatable, read_arrays

    arrays = read_arrays(source)
    check_repeatable(source, arrays)
    return bind(arrays, network, losses)


def _line(epoch: "Epoch", labelled: bool) -> str:
    name = "accuracy" if labelled else "agreement with FP32"
    score = "" if epoch.accuracy is None else f"{name} {100 * epoch.accuracy:.2f} %, "
    measured = f"validation {score}loss {epoch.loss:.4f}"
    if epoch.train_loss is None:
        return f"before training: {measured}"
    return f"epoch {epoch.number}: training loss {epoch.train_loss:.4f}, {measured}"


def _print_summary(result: "FineTuned", output: str, network: "Network", train: "Data") -> None:
    from mpsearch.quantization.packing import size_bytes
    from mpsearch.tables.units import format_size

    if train.labels is None:
        echo(f"{train.name} has no labels: the float network's outputs were the only target")
    if result.resumed:
        echo(f"epochs 1 to {result.resumed} were done by an earlier run")
    if result.best.number == 0:
        echo("no epoch was better on validation data than the network before training")
    else:
        echo(f"epoch {result.best.number} is the best on validation data")
    if result.best.frozen:
        share = f"{100 * result.best.frozen:.2g} %"
        echo(f"{share} of the weights with 2 to 4 bits oscillated and were frozen")
    size = format_size(size_bytes(network, result.network.assignment))
    echo(f"wrote {output}: {size}", sample_sentence(result.network))


def _document(result: "FineTuned", output: str, network: "Network") -> dict[str, Any]:
    from dataclasses import asdict

    from mpsearch.quantization.packing import size_bytes

    return {
        "output": output,
        "size_bytes": size_bytes(network, result.network.assignment),
        "validated_on": "labels" if result.labelled else "FP32's decisions",
        "best_epoch": result.best.number,
        "resumed_epochs": result.resumed,
        "sample": result.network.sample and result.network.sample.described(),
        "history": [asdict(epoch) for epoch in result.history],
    }
