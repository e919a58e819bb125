"""One run of the TinyM²Net experiment: train, profile, solve, round, fine-tune, measure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from mpsearch.data import Data, bind
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate
from mpsearch.files.whole import digest
from mpsearch.finetuning.training import FineTuning, finetune
from mpsearch.graph import network_file
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import NetworkFile
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.models import training
from mpsearch.models.registry import build
from mpsearch.models.samples import Dataset
from mpsearch.post_training.quantizing import Quantizing
from mpsearch.post_training.repairing import PostTraining
from mpsearch.profiling.profile import ProfileSettings, Progress, profile
from mpsearch.quantization.packing import size_bytes
from mpsearch.quantization.quantized_file import save_quantized
from mpsearch.reproduction.published import FLOAT, MIXED, W4, W8, Case
from mpsearch.reproduction.run_store import Measured, RunStore
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

SAMPLE = 256  # training samples for calibration and sensitivity
TUNED = ", fine-tuned"
SMALLER, SMALLER_BUDGET = "W4/8A4/8 at 52 %", 0.52


@dataclass(frozen=True)
class Recipe:
    """What all runs share. `models`: FP32 files to load instead of training, one per run."""

    epochs: int
    finetune_epochs: int
    models: tuple[str, ...] = ()
    post_training: PostTraining = field(default_factory=PostTraining)


@dataclass(frozen=True)
class Experiment:
    """Run `number` of `case`: `dataset` is its fold where the case has folds, all of it elsewhere.

    Rows that `store` holds are not measured again, so a killed run goes on where it was.
    """

    case: Case
    dataset: Dataset
    number: int
    recipe: Recipe
    store: RunStore
    progress: Progress

    @property
    def seed(self) -> int:
        """Folds differ in their data, other runs in their seed."""
        return 0 if self.case.folds else self.number


def identity(case: Case, dataset: Dataset, recipe: Recipe, number: int) -> str:
    """What a stored run must agree with to be continued."""
    return digest(case.network, str(case.budget), dataset.digest, repr(recipe), str(number))


def run(experiment: Experiment) -> None:
    """Measure every row of one run into its store: `FP32`, one input alone, every assignment twice.

    Raises InputError where the model to load or the data do not fit.
    """
    store = experiment.store
    loaded = _float_network(experiment)
    network = loaded.network
    test = _data(experiment.dataset, "test", network)
    store.measure(FLOAT, lambda: Measured(evaluate(FLOAT, network, test)))
    names = experiment.dataset.input_names
    for name in names if len(names) > 1 else ():
        store.measure(f"{name} alone", lambda name=name: _single_input(experiment, name))  # type: ignore[misc]
    sample = bind(Arrays("the model's sample", loaded.sample), network)
    table = _profiled(experiment, network, sample)
    quantizing = Quantizing(network, sample, post_training=experiment.recipe.post_training)
    for name, choices in _assignments(experiment, table).items():
        _measure_assignment(experiment, quantizing, name, choices)


def _measure_assignment(
    experiment: Experiment, quantizing: Quantizing, name: str, choices: Mapping[str, Choice]
) -> None:
    """Rounded after training, and fine-tuned from there."""
    dataset, store = experiment.dataset, experiment.store
    if name in store.rows and name + TUNED in store.rows:
        return
    network = quantizing.network
    test = _data(dataset, "test", network)
    size = size_bytes(network, choices)
    rounded = quantizing(choices)

    path = store.folder / f"{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')}.pt"

    def tuned() -> Measured:
        epochs = experiment.recipe.finetune_epochs
        settings = FineTuning(epochs=epochs, seed=experiment.seed, augment=experiment.case.augment)
        validation = _data(dataset, "val", network) if "val" in dataset.splits else None
        with experiment.progress(f"run {experiment.number}: fine-tuning {name}", epochs) as step:
            result = finetune(
                network, choices, _data(dataset, "train", network), validation, settings,
                start=rounded, on_epoch=lambda _: step(), checkpoint=path,
            )  # fmt: skip
        save_quantized(result.network, path)
        if result.checkpoint is not None:
            result.checkpoint.unlink(missing_ok=True)
        measured = evaluate(name + TUNED, result.network, test, size_bytes=size)
        return Measured(measured, file_bytes=path.stat().st_size)

    store.measure(name, lambda: Measured(evaluate(name, rounded, test, size_bytes=size)))
    store.measure(name + TUNED, tuned)


def _float_network(experiment: Experiment) -> NetworkFile:
    """The FP32 network with its calibration sample: loaded, or trained once and stored."""
    models, number = experiment.recipe.models, experiment.number
    if models:
        loaded = load_network(ModelSource(models[number]))
        if not loaded.sample:
            raise InputError(
                f"{models[number]} carries no sample to calibrate on; save it with one "
                "(mpsearch.save(..., sample=...) or mpsearch train)"
            )
        return loaded
    path = experiment.store.folder / "model.pt"
    if not path.exists():
        _train(experiment, experiment.case.network, experiment.dataset, path)
    return load_network(ModelSource(str(path)))


def _single_input(experiment: Experiment, name: str) -> Measured:
    """The same network with one of its inputs, trained in the same way."""
    path = experiment.store.folder / f"model-{name}.pt"
    dataset = experiment.dataset.only(name)
    if not path.exists():
        _train(experiment, f"{experiment.case.network}:{name}", dataset, path)
    network = load_network(ModelSource(str(path))).network
    return Measured(evaluate(f"{name} alone", network, _data(dataset, "test", network)))


def _train(experiment: Experiment, reference: str, dataset: Dataset, path: Path) -> None:
    epochs, seed = experiment.recipe.epochs, experiment.seed
    # Without the test split, which is read once, at the end.
    known = {name: split for name, split in dataset.splits.items() if name != "test"}
    with experiment.progress(f"run {experiment.number}: training {path.stem}", epochs) as step:
        result = training.train(
            build(reference, seed=seed, classes=len(dataset.classes), shapes=dataset.shapes),
            replace(dataset, splits=known),
            epochs=epochs,
            seed=seed,
            augment=experiment.case.augment,
            on_epoch=lambda _: step(),
        )
    sample = dataset.split("train").balanced(SAMPLE, len(dataset.classes), seed)
    network_file.save(
        result.model,
        path,
        example_inputs=tuple(torch.from_numpy(x[:2]) for x in sample.inputs),
        sample=sample.arrays(),
    )


def _profiled(experiment: Experiment, network: Network, sample: Data) -> LayerTable:
    path = experiment.store.folder / "profile.csv"
    if not path.exists():
        with experiment.store.clock("profile"):
            settings = ProfileSettings(choices=(Choice(4, 4), Choice(8, 8)))  # as the paper
            profile(network, sample, path, settings, experiment.progress)
    return LayerTable.read_csv(path)


def _assignments(experiment: Experiment, table: LayerTable) -> dict[str, dict[str, Choice]]:
    """Uniform 8 bits, the two mixed budgets (both optimal), uniform 4 bits.

    Where scales and biases weigh much, no assignment is as small as 52 %: that row is left out.
    """
    layers = [layer.name for layer in table.layers]
    found = {W8: dict.fromkeys(layers, Choice(8, 8))}
    with experiment.store.clock("search"):
        for name, part in ((MIXED, experiment.case.budget), (SMALLER, SMALLER_BUDGET)):
            solution = solve(table, Budget.parse(table, size=f"{100 * part:g}%"), explain=False)
            if solution.choices:
                found[name] = dict(solution.choices)
                experiment.store.note_assignment(name, solution.choices)
    return found | {W4: dict.fromkeys(layers, Choice(4, 4))}


def _data(dataset: Dataset, split: str, network: Network) -> Data:
    arrays = dataset.split(split).arrays()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return bind(Arrays(f"{dataset.name}:{split}", tensors), network)
