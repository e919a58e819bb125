"""What fine-tuning trains on: a held-out part, shuffled batches, and the teacher's outputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network

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
                from mpsearch.models.augmentation import augmented

                inputs = augmented(inputs, generator)
            yield inputs, batch.labels, self._outputs(rows, inputs)

    def _outputs(self, rows: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return self.teacher.logits(inputs) if self.augment else self.logits[rows]
