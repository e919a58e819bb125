"""Fine-tuning: quantization-aware training of an assignment, taught by the float network.

The state of a fine-tuning run between two epochs, kept on disk: safetensors, nothing pickled.

As with the journal of a profile, the file's name holds a digest of everything that the result
depends on: a changed model, data set or setting gets a file of its own.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import mpsearch
from mpsearch.data import Data, with_loss
from mpsearch.errors import InputError
from mpsearch.files.whole import digest, hidden_path, open_own, write_atomic
from mpsearch.finetuning.data import (
    EVALUATION_BATCH,
    Samples,
    Teacher,
    check_augmentable,
    check_loss,
    classifies,
    float_targets,
    known_loss,
    learning_loss,
    measure,
    split,
)
from mpsearch.finetuning.oscillations import Freezing, Oscillations
from mpsearch.finetuning.student import Student, student
from mpsearch.finetuning.trainable import check_same_network
from mpsearch.graph.network import Network
from mpsearch.post_training.repairing import PostTraining, quantize_after_training
from mpsearch.quantization.kept_sample import kept_sample
from mpsearch.quantization.quantized import QuantizedNetwork, check_layers
from mpsearch.tables.choice import Choice

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # Adam's, per parameter
_OSCILLATIONS = tuple(field.name for field in fields(Oscillations))  # per layer


@dataclass(frozen=True)
class State:
    """Parameters, Adam's moments and the best parameters, each by name, oscillations, the history.

    `best_parameters` is empty while the start is the best. `oscillations` are by layer name, empty
    where none are followed. A history row has the fields of `Epoch`.
    """

    parameters: Mapping[str, torch.Tensor]
    moments: Mapping[str, Mapping[str, torch.Tensor]]
    best_parameters: Mapping[str, torch.Tensor]
    oscillations: Mapping[str, Oscillations]
    history: Sequence[Sequence[Any]]


def checkpoint_path(output: str | os.PathLike[str], run_digest: str) -> Path:
    """`quantized.pt` -> `.quantized.pt.0123456789abcdef.checkpoint` beside it."""
    return hidden_path(output, run_digest, "checkpoint")


def save_state(state: State, path: Path) -> None:
    """Write the state in one step; the one before stays until it is on the disk."""
    tensors = {f"parameter {name}": value for name, value in state.parameters.items()}
    tensors |= {f"best {name}": value for name, value in state.best_parameters.items()}
    for name, moments in state.moments.items():
        tensors |= {f"{moment} {name}": moments[moment] for moment in _MOMENTS}
    for name, layer in state.oscillations.items():
        tensors |= {f"{part} {name}": getattr(layer, part) for part in _OSCILLATIONS}
    whole = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    history = json.dumps(state.history)
    if os.path.lexists(path):
        open_own(path).close()
    write_atomic(path, save(whole, {"history": history, "digest": _digest(whole, history)}))


def _digest(tensors: Mapping[str, torch.Tensor], history: str) -> str:
    parts: list[str | bytes] = [history]
    for name in sorted(tensors):
        parts += [f"{name} {tuple(tensors[name].shape)}", tensors[name].numpy().tobytes()]
    return digest(*parts)


def load_state(path: Path) -> State | None:
    """What `save_state` wrote; None when there is no file. Raises InputError for any other."""
    if not os.path.lexists(path):
        return None
    open_own(path).close()
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = file.metadata() or {}
        if told["digest"] != _digest(tensors, told["history"]):
            raise ValueError("it is not as mpsearch wrote it")
        history = json.loads(told["history"])
        names = [n.partition(" ")[2] for n in tensors if n.startswith("parameter ")]
        followed = [n.partition(" ")[2] for n in tensors if n.startswith("frozen ")]
        parameters = {name: tensors[f"parameter {name}"] for name in names}
        return State(
            parameters,
            {name: {m: tensors[f"{m} {name}"] for m in _MOMENTS} for name in names},
            {n.partition(" ")[2]: t for n, t in tensors.items() if n.startswith("best ")},
            {n: Oscillations(*(tensors[f"{p} {n}"] for p in _OSCILLATIONS)) for n in followed},
            [tuple(row) for row in history],
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); delete it to begin anew") from None


# Zero points do not train, and at few bits training does not find back from nearest rounding.
START = PostTraining()  # scales train anyway


@dataclass(frozen=True)
class FineTuning:
    """How to train; docs/finetune.md says how the defaults were found."""

    epochs: int = 10
    """Passes over the training data."""
    lr: float = 1e-3
    """The relative change per step: 1e-3 moves a tensor by a thousandth of its own size."""
    batch_size: int = 32
    """Samples in one step."""
    distillation: float = 0.5
    """The share, 0 to 1, of the divergence from the float network in the loss; the rest is the
    data's loss on labels, such as cross-entropy. Without labels it counts as 1."""
    augment: bool = False
    """Whether batches are changed at random."""
    seed: int = 0
    """Of every random draw."""
    calibration_samples: int = 256
    """How many training samples set the ranges at the start."""
    freezing: bool = True
    """Whether oscillations of weights with 2 to 4 bits are ended (`finetuning.oscillations`)."""


@dataclass(frozen=True)
class Epoch:
    """What the network scored after some passes over the training data."""

    number: int
    """How many passes; 0 is the start."""
    train_loss: float | None
    """The mean of the training loss; None at the start."""
    loss: float
    """Of the integers on the validation data; the divergence from the float network where these
    have no labels."""
    accuracy: float | None
    """Of the integers on the validation data, 0 to 1; without labels the share of samples that they
    decide as the float network does. None without one answer per sample (a regression)."""
    frozen: float = 0.0
    """The share of the weights with 2 to 4 bits that had oscillated and keep their codes from then
    on."""

    def __repr__(self) -> str:
        right = "" if self.accuracy is None else f"accuracy {100 * self.accuracy:.2f} %, "
        return f"Epoch({self.number}: {right}loss {self.loss:.4g})"


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned network, and how it got there."""

    network: QuantizedNetwork
    """The quantized network of the best epoch."""
    history: tuple[Epoch, ...]
    """Every epoch; the first is the start, epoch 0."""
    best: Epoch
    """The epoch that was taken: the best accuracy on the validation data, then the least loss."""
    labelled: bool
    """Whether accuracies are against labels, else against the float network's decisions."""
    resumed: int = 0
    """How many epochs an earlier, killed run had finished."""
    checkpoint: Path | None = None
    """The file to go on from after a kill: delete it when the network is saved. None: none was
    asked for."""

    def __repr__(self) -> str:
        start = f" after {self.history[0]!r}" if self.best.number else ""
        epochs = len(self.history) - 1
        return f"FineTuned({self.best!r}{start}, best of {epochs} epochs; {self.network!r})"


def finetune(
    network: Network,
    choices: Mapping[str, Choice],
    train: Data,
    validation: Data | None = None,
    settings: FineTuning | None = None,
    start: QuantizedNetwork | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    keep_sample: bool = True,
) -> FineTuned:
    """Train `network` with its layers quantized as `choices` says; the best epoch is returned.

    Weights, biases, norms and all step sizes train (LSQ, Adam, cosine schedule); the float network
    is the teacher. The start is `start`, or `network` with the repairs of `START` on `train`. It is
    itself a candidate: the result is never worse than it on `validation`, where accuracy decides
    and then the loss. Without `validation` a tenth of `train` is held out, evenly from its classes.
    It trains where `network` is; the data may be elsewhere, and the result is where `network` is.
    The same seed and number of threads give the same bits on a CPU. With `checkpoint`, the path
    of the output, a killed run goes on after its last epoch; a run with other settings, data or
    weights has a checkpoint of its own. keep_sample: as in `apply`, the start's or of `train`.
    Raises InputError for settings and data that do not fit, and when the loss is no number.
    """
    settings = settings or FineTuning()
    _check_settings(settings)
    check_layers(network, choices)
    train = with_loss(train, network)
    validation = None if validation is None else with_loss(validation, network)
    for data in (train, validation or train):
        check_loss(data)
    if start is not None:
        check_same_network(network, start)
        if start.assignment != dict(choices):
            raise InputError("the starting network has other bits than the assignment")
        start = start.to(network.device)
    if settings.augment:
        if not classifies(train.loss):
            raise InputError("augmentation keeps classes, not targets: leave it off for this loss")
        check_augmentable(train)
    fitting, validation = split(train, validation, settings.seed)
    if start is None:
        sample = fitting.take(settings.calibration_samples, settings.seed)
        start = quantize_after_training(network, choices, sample, START, EVALUATION_BATCH)
    path = None if checkpoint is None else checkpoint_path(
        checkpoint, _run_digest(network, start, fitting, validation, settings)
    )  # fmt: skip
    trainer = _Trainer(network, start, fitting, validation, settings)
    state = None if path is None else load_state(path)
    resumed = 0
    if state is not None:
        trainer.restore(state)
        resumed = len(trainer.history) - 1
    elif on_epoch is not None:
        on_epoch(trainer.history[0])
    for number in range(len(trainer.history), settings.epochs + 1):
        trainer.run_epoch(number)
        if path is not None:
            save_state(trainer.state(), path)
        if on_epoch is not None:
            on_epoch(trainer.history[-1])
    labelled = validation.labels is not None
    best, quantized = trainer.best()
    kept = start.sample if start.model_digest == network.digest else None
    if keep_sample and kept is None:
        kept = kept_sample(network, fitting.take(settings.calibration_samples, settings.seed))
    quantized = replace(quantized.made_from(network), sample=kept if keep_sample else None)
    return FineTuned(quantized, tuple(trainer.history), best, labelled, resumed, path)


class _Trainer:
    """What changes from epoch to epoch: parameters, moments, oscillations, the best so far."""

    def __init__(
        self,
        network: Network,
        start: QuantizedNetwork,
        fitting: Data,
        validation: Data,
        settings: FineTuning,
    ) -> None:
        self.settings, self.start, self.validation = settings, start, validation
        self.student: Student = student(network, start)
        self.samples = Samples(fitting, Teacher(network), settings.augment)
        self.optimizer = torch.optim.Adam(self.student.parameters.values(), lr=settings.lr)
        self.freezing = Freezing(self.student, settings.freezing)
        self.loss = known_loss(fitting)
        self.targets = float_targets(network, validation)
        self.best_parameters: dict[str, torch.Tensor] = {}
        loss, accuracy = measure(start, validation, self.targets)
        self.history = [Epoch(0, None, loss, accuracy)]

    def run_epoch(self, number: int) -> None:
        """Train on every sample once, then measure the integers."""
        progress = (number - 1) / self.settings.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
        train_loss = self._pass_over(number)
        loss, accuracy = measure(self.student.quantized(), self.validation, self.targets)
        epoch = Epoch(number, train_loss, loss, accuracy, self.freezing.share())
        if _rank(epoch) > max(map(_rank, self.history)):
            self.best_parameters = {
                name: value.detach().clone() for name, value in self.student.parameters.items()
            }
        self.history.append(epoch)

    def _pass_over(self, number: int) -> float:
        generator = torch.Generator().manual_seed(self.settings.seed + number)
        total, seen = 0.0, 0
        for inputs, labels, logits in self.samples.batches(self.settings.batch_size, generator):
            outputs = self.student(*inputs)
            loss = learning_loss(self.loss, outputs, labels, logits, self.settings.distillation)
            value = loss.item()
            if not math.isfinite(value):
                raise InputError(
                    f"the loss became {value} in epoch {number} at lr {self.settings.lr:g}; "
                    "try a smaller lr"
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total, seen = total + value * len(logits), seen + len(logits)
            passes = number - 1 + seen / len(self.samples)
            self.freezing.after_step(passes / self.settings.epochs)
        return total / len(self.samples)

    def best(self) -> tuple[Epoch, QuantizedNetwork]:
        """The first epoch with the highest accuracy, then the smallest loss, and its integers."""
        best = max(self.history, key=_rank)
        if best.number == 0:
            return best, self.start
        self._set_parameters(self.best_parameters)
        return best, self.student.quantized()

    def _set_parameters(self, values: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.student.parameters.items():
                parameter.copy_(values[name])

    def state(self) -> State:
        """Everything that the next epoch depends on."""
        moments = self.optimizer.state_dict()["state"]
        return State(
            parameters={n: p.detach() for n, p in self.student.parameters.items()},
            moments={name: moments[i] for i, name in enumerate(self.student.parameters)},
            best_parameters=self.best_parameters,
            oscillations=self.freezing.layers,
            history=[astuple(epoch) for epoch in self.history],
        )

    def restore(self, state: State) -> None:
        """Go on from `state`."""
        self._set_parameters(state.parameters)
        document = self.optimizer.state_dict()
        document["state"] = {i: state.moments[n] for i, n in enumerate(self.student.parameters)}
        self.optimizer.load_state_dict(document)
        self.best_parameters = dict(state.best_parameters)
        self.freezing.restore(state.oscillations)
        self.history = [Epoch(*values) for values in state.history]


def _rank(epoch: Epoch) -> tuple[float, float]:
    """Accuracy decides; where it is equal, or there is none, the smaller loss."""
    return epoch.accuracy or 0.0, -epoch.loss if math.isfinite(epoch.loss) else -math.inf


def _run_digest(
    network: Network,
    start: QuantizedNetwork,
    fitting: Data,
    validation: Data,
    settings: FineTuning,
) -> str:
    begun = replace(start.source, graph=start.graph).digest
    losses = (known_loss(fitting).name, known_loss(validation).name)
    parts = (network.digest, begun, fitting.digest, validation.digest, *losses)
    return digest(mpsearch.__version__, *parts, network.device.type, repr(settings))


def _check_settings(settings: FineTuning) -> None:
    if settings.epochs < 1 or settings.batch_size < 1 or not 0 < settings.lr < math.inf:
        raise InputError(
            f"got epochs={settings.epochs}, batch_size={settings.batch_size}, lr={settings.lr:g}; "
            "expected positive numbers"
        )
    if not 0 <= settings.distillation <= 1:
        raise InputError(f"got distillation={settings.distillation:g}; expected 0 to 1")
