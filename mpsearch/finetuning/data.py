"""What fine-tuning trains on: a held-out part, shuffled batches, and the teacher's outputs.

What fine-tuning minimises, and what it measures after every epoch, for any loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate, logits_of
from mpsearch.graph.network import Network
from mpsearch.losses.forms import Softmax
from mpsearch.losses.heads import logits as as_logits
from mpsearch.losses.loss import DIVERGENCE, Loss, PlainLoss
from mpsearch.losses.sum_loss import to_fp32
from mpsearch.quantization.quantized import QuantizedNetwork

_TEACHER_BATCH = 64
_FOLDS = 10

LearningBatch = tuple[tuple[torch.Tensor, ...], torch.Tensor | None, torch.Tensor]


def split(train: Data, validation: Data | None, seed: int) -> tuple[Data, Data]:
    """(data to fit, data to validate): as given, or a tenth of `train` held out.

    With labels the tenth is taken evenly from the classes: 30, 20 and 10 samples give 3, 2 and 1.
    Raises InputError where there is too little to divide.
    """
    if len(train) < 2:
        raise InputError(f"{train.name} has one sample; expected at least 2 to train on")
    if validation is not None:
        return train, validation
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    if train.labels is not None and train.labels.dtype == torch.int64 and train.labels.dim() == 1:
        # classes one after the other, at random inside
        order = order[train.labels[order].sort(stable=True).indices]
    held_out = torch.zeros(len(train), dtype=torch.bool)
    held_out[order[_FOLDS // 2 :: _FOLDS] if len(train) > _FOLDS // 2 else order[:1]] = True
    return take(train, (~held_out).nonzero()[:, 0]), take(train, held_out.nonzero()[:, 0])


def take(data: Data, rows: torch.Tensor) -> Data:
    """The samples at `rows`, in that order."""
    labels = None if data.labels is None else data.labels[rows]
    return Data(data.name, tuple(x[rows] for x in data.inputs), labels, data.loss)


def check_augmentable(data: Data) -> None:
    """Raise InputError unless every input is an image or a spectrogram."""
    for index, x in enumerate(data.inputs):
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise InputError(
                f"cannot augment x{index} of shape {tuple(x.shape[1:])}; expected images "
                "(3, H, W) and spectrograms (1, time, coefficients): leave augmentation off"
            )


@dataclass(frozen=True)
class Teacher:
    """The float network, whose outputs are to be kept."""

    network: Network

    def logits(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Its outputs [N, C] on the CPU, without gradients, batch by batch."""
        count = len(inputs[0])
        with torch.no_grad():
            return torch.cat([
                self.network(*(x[start : start + _TEACHER_BATCH] for x in inputs)).cpu()
                for start in range(0, count, _TEACHER_BATCH)
            ])  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Training data with the teacher's outputs: computed once, or for every changed batch."""

    data: Data
    teacher: Teacher
    augment: bool

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def logits(self) -> torch.Tensor:
        """The teacher's outputs for the data as they are."""
        return self.teacher.logits(self.data.inputs)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[LearningBatch]:
        """Every sample once, in random order: (inputs, labels or None, the teacher's outputs)."""
        order = torch.randperm(len(self), generator=generator)
        for rows in order.split(size):
            batch = take(self.data, rows)
            inputs = batch.inputs
            if self.augment:
                from mpsearch.models.training import augmented

                inputs = augmented(inputs, generator)
            yield inputs, batch.labels, self._outputs(rows, inputs)

    def _outputs(self, rows: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return self.teacher.logits(inputs) if self.augment else self.logits[rows]


EVALUATION_BATCH = 64  # as `mpsearch evaluate` has it: equal batches, equal sums


def learning_loss(
    kind: Loss,
    outputs: torch.Tensor,
    labels: torch.Tensor | None,
    teacher: torch.Tensor,
    distillation: float,
) -> torch.Tensor:
    """(1 - d)·loss + d·divergence from the teacher, means over the batch.

    For classes these are cross-entropy and KL(teacher ‖ student), for mse both are squared errors.
    """
    teacher = teacher.to(outputs.device)
    labels = None if labels is None else labels.to(outputs.device)
    if not classifies(kind):
        outputs, teacher = as_logits(kind, outputs), as_logits(kind, teacher)
        away = _divergences(kind, outputs, teacher).mean()
        if labels is None or not kind.uses_labels:
            return away
        own = kind.per_sample(outputs, kind.target(teacher, labels)).mean()
        return (1 - distillation) * own + distillation * away
    divergence = DIVERGENCE.per_sample(outputs, functional.softmax(teacher, dim=1)).mean()
    if labels is None:
        return divergence
    entropy = functional.cross_entropy(outputs, labels)
    return (1 - distillation) * entropy + distillation * divergence


def float_targets(network: Network, data: Data) -> torch.Tensor | None:
    """FP32's outputs on unlabelled data, to measure against; None where there are labels."""
    if data.labels is not None:
        return None
    outputs = Teacher(network).logits(data.inputs)
    return functional.softmax(outputs, dim=1) if classifies(data.loss) else outputs


def measure(
    network: QuantizedNetwork, data: Data, targets: torch.Tensor | None
) -> tuple[float, float | None]:
    """(loss, accuracy) on labels, or (divergence, agreement) with the targets.

    None in place of an accuracy for networks that do not give one answer per sample.
    """
    if targets is None:
        measured = evaluate("quantized", network, data, EVALUATION_BATCH)
        return measured.loss, measured.accuracy if measured.classifies else None
    outputs = logits_of(network, data, EVALUATION_BATCH)
    if not classifies(data.loss):
        kind = known_loss(data)
        away = _divergences(kind, as_logits(kind, outputs), as_logits(kind, targets))
        return float(away.double().mean()), None
    loss = float(DIVERGENCE.per_sample(outputs, targets).double().mean())
    return loss, float((outputs.argmax(1) == targets.argmax(1)).double().mean())


def known_loss(data: Data) -> Loss:
    """The loss that the data were bound with."""
    assert data.loss is not None
    return data.loss


def classifies(loss: Loss | None) -> bool:
    """Whether it is that of one row of class logits, or of classes along dimension 1."""
    return isinstance(loss, PlainLoss) and isinstance(loss.form, Softmax) and not loss.head


def _divergences(kind: Loss, outputs: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """[N]: divergence of logits from the teacher's."""
    soft = to_fp32(kind)
    return soft.per_sample(outputs, soft.target(teacher, None))


def check_loss(data: Data) -> None:
    """Raise InputError for a loss without a divergence from the teacher."""
    loss = known_loss(data)
    if not loss.has_exact_hessian:
        raise InputError(
            f"fine-tuning learns from the float network, and the loss {loss.name} has no "
            "divergence from it; expected --loss cross-entropy, bce or mse"
        )
