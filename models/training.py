"""Training of the bundled networks: Adam and cross-entropy, the epoch chosen on validation data.

Augmentation of a training batch, so that few recordings are not learned by heart.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mpsearch.errors import InputError
from mpsearch.models.samples import Dataset, Split
from mpsearch.statistics import wilson_interval

SHIFT = 3  # pixels an image moves at most
CHANNEL = 0.5  # standard deviation of what is added to a cepstral coefficient, in its own units
WHOLE_INPUT = 0.3  # probability that one of several inputs is blanked
MIXUP = 0.4  # of the Beta distribution; Zhang et al. use 0.1 to 0.4


def augmented(
    inputs: Sequence[torch.Tensor], generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """The batch, changed at random: what has three channels as an image, one as a spectrogram.

    Images are mirrored and shifted; spectrograms `[N, 1, time, coefficient]` are shifted in time,
    get a constant per coefficient (cepstra of another microphone and room differ by one) and lose
    a band of time and of coefficients (SpecAugment, Park et al., Interspeech 2019). Of several
    inputs, sometimes one is blanked, so that each learns to decide alone. Zero is each feature's
    training mean.
    """
    changed = [
        _image(x, generator) if x.shape[1] == 3 else _spectrogram(x, generator) for x in inputs
    ]
    if len(changed) > 1:
        count = len(changed[0])
        blanked = torch.rand(count, generator=generator) < WHOLE_INPUT
        which = torch.randint(len(changed), (count,), generator=generator)
        for index, x in enumerate(changed):
            keep = ~(blanked & (which == index))
            changed[index] = x * keep.view(-1, 1, 1, 1)
    return tuple(changed)


def mixed(
    inputs: Sequence[torch.Tensor], labels: torch.Tensor, generator: torch.Generator
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, float]:
    """(every sample blended with another of the batch, the others' labels, the own share λ).

    x' = λx + (1 - λ)x_π with one λ ~ Beta(0.4, 0.4) for the batch; the loss is blended likewise
    (Zhang et al., mixup, ICLR 2018).
    """
    # Beta from two Gammas, because these take torch's own generator.
    first, second = torch._standard_gamma(torch.full((2,), MIXUP), generator=generator).tolist()
    share = first / (first + second) if first + second > 0 else 1.0
    other = torch.randperm(len(labels), generator=generator)
    blended = tuple(share * x + (1 - share) * x[other] for x in inputs)
    return blended, labels[other], share


def _image(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mirror = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    x = torch.where(mirror, x.flip(3), x)
    height, width = x.shape[2:]
    x = F.pad(x, (SHIFT, SHIFT, SHIFT, SHIFT), mode="reflect")
    move = torch.randint(2 * SHIFT + 1, (2, len(x), 1), generator=generator)
    rows = move[0] + torch.arange(height)
    columns = move[1] + torch.arange(width)
    sample = torch.arange(len(x)).view(-1, 1, 1)
    # Indexing around the channel axis puts it last.
    return x[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _spectrogram(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count, _, frames, coefficients = x.shape
    move = torch.randint(frames, (count, 1), generator=generator)
    order = (torch.arange(frames) + move) % frames
    x = x.gather(2, order.view(count, 1, frames, 1).expand_as(x))
    x = x + CHANNEL * torch.randn(count, 1, 1, coefficients, generator=generator)
    x = x * _without_band(count, frames, frames // 5, generator).view(count, 1, frames, 1)
    return x * _without_band(count, coefficients, 3, generator).view(count, 1, 1, coefficients)


def _without_band(count: int, length: int, widest: int, generator: torch.Generator) -> torch.Tensor:
    """Ones `[count, length]` with a random band of at most `widest` zeros."""
    width = torch.randint(widest + 1, (count, 1), generator=generator)
    start = (torch.rand(count, 1, generator=generator) * (length - width + 1)).long()
    place = torch.arange(length)
    return ((place < start) | (place >= start + width)).float()


Schedule = Literal["cosine", "constant"]
EVALUATION_BATCH = 250
SMOOTHING = 0.05  # label smoothing, with augmentation
AVERAGING = 0.99  # decay per step of the averaged weights, with augmentation


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` samples, with the 95 % Wilson score interval."""

    correct: int
    n: int

    @property
    def value(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.correct, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({self.correct}/{self.n}, 95 % interval {low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training data gave."""

    number: int
    train_loss: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Training:
    """A trained network, and how it got there."""

    model: nn.Module
    """In evaluation mode, as it was at its best epoch."""
    history: tuple[Epoch, ...]
    """Every epoch, from the first."""
    best: Epoch
    """The epoch that was taken."""
    validation: Accuracy
    """The accuracy on the data that chose the epoch."""
    test: Accuracy | None
    """The accuracy on the split `test`; None where the dataset has none."""


def train(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int = 12,
    seed: int = 0,
    lr: float = 1e-3,
    batch_size: int = 32,
    schedule: Schedule = "cosine",
    augment: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Training:
    """Train a copy of `model` on the split `train`; the best accuracy on `val` chooses the epoch.

    A tenth of `train` is held out where the dataset has no `val`. `test` is read once, at the end.
    With `augment`, batches are changed at random (`augmentation.py`) and mixed, labels smoothed,
    the weights averaged over the steps, and the least loss on `val` chooses the epoch: the network
    is then unsure where it should be, and its loss says more than a few hundred right or wrong.
    The same seed and number of threads give the same network on a CPU; `model` and torch's random
    state stay as they were. Raises InputError for settings or data that do not fit.

    >>> split = mpsearch.Split((x.numpy(),), y.numpy())
    >>> own = mpsearch.Dataset("own", ("x",), ("a", "b", "c"), {"train": split}, False, "mine", "1")
    >>> trained = mpsearch.train(model, own, epochs=1)
    >>> trained.best.number, trained.validation.n > 0
    (1, True)
    """
    if epochs < 1 or batch_size < 1 or not 0 < lr < math.inf:
        raise InputError(
            f"got epochs={epochs}, batch_size={batch_size}, lr={lr}; expected positive numbers"
        )
    fitting, validation = _fitting_and_validation(dataset, seed)
    # Depthwise convolutions on a CPU take less than half the time in this layout (measured).
    network = _in_layout(copy.deepcopy(model), torch.channels_last)
    history: list[Epoch] = []
    best: Epoch | None = None
    averaged = None
    rank = _loss_decides if augment else _accuracy_decides
    with _seeded(seed):
        if augment:
            decay = get_ema_multi_avg_fn(AVERAGING)
            averaged = AveragedModel(network, multi_avg_fn=decay, use_buffers=True)
        optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        for number in range(1, epochs + 1):
            if schedule == "cosine":
                optimizer.param_groups[0]["lr"] = lr * _cosine((number - 1) / epochs)
            train_loss = _pass_over(
                network, fitting, optimizer, batch_size, averaged, seed + number
            )
            judged = network if averaged is None else averaged.module
            val_loss, accuracy = measure(judged, validation)
            if not math.isfinite(train_loss + val_loss):
                raise InputError(
                    f"the loss became {train_loss} in epoch {number}; try a smaller lr"
                )
            history.append(Epoch(number, train_loss, val_loss, accuracy.value))
            if best is None or rank(history[-1]) > rank(best):
                best, state = history[-1], copy.deepcopy(judged.state_dict())
            if on_epoch is not None:
                on_epoch(history[-1])
    assert best is not None
    network.load_state_dict(state)
    network = _in_layout(network, torch.contiguous_format)
    test = measure(network, dataset.splits["test"])[1] if "test" in dataset.splits else None
    return Training(network.eval(), tuple(history), best, measure(network, validation)[1], test)


def measure(model: nn.Module, split: Split) -> tuple[float, Accuracy]:
    """Mean cross-entropy and accuracy on a split, in evaluation mode; the mode is put back."""
    training = model.training
    model.eval()
    loss, correct = 0.0, 0
    with torch.no_grad():
        for inputs, labels in _batches(split, np.arange(len(split)), EVALUATION_BATCH):
            logits = model(*inputs)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(1) == labels).sum())
    model.train(training)
    return loss / len(split), Accuracy(correct, len(split))


def _fitting_and_validation(dataset: Dataset, seed: int) -> tuple[Split, Split]:
    whole = dataset.split("train")
    if "val" in dataset.splits:
        return whole, dataset.splits["val"]
    order = np.random.default_rng(seed).permutation(len(whole))
    held_out = max(1, len(whole) // 10)
    return whole.take(order[held_out:]), whole.take(order[:held_out])


def _pass_over(
    network: nn.Module,
    split: Split,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    averaged: AveragedModel | None,
    seed: int,
) -> float:
    """Train on every sample once, in random order; the mean loss.

    With `averaged`, the samples are augmented and its weights follow the network's.
    """
    network.train()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(split), generator=generator).numpy()
    total = 0.0
    for inputs, labels in _batches(split, order, batch_size):
        if averaged is None:
            loss = F.cross_entropy(network(*inputs), labels)
        else:
            loss = _mixed_loss(network, augmented(inputs, generator), labels, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if averaged is not None:
            averaged.update_parameters(network)
        total += loss.item() * len(labels)
    return total / len(split)


def _mixed_loss(
    network: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    labels: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    inputs, others, share = mixed(inputs, labels, generator)
    logits = network(*inputs)
    own = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    return share * own + (1 - share) * F.cross_entropy(logits, others, label_smoothing=SMOOTHING)


def _batches(
    split: Split, order: np.ndarray, size: int
) -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    for start in range(0, len(order), size):
        batch = split.take(order[start : start + size])
        yield tuple(_tensor(x) for x in batch.inputs), torch.from_numpy(batch.labels)


def _tensor(array: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.contiguous(memory_format=torch.channels_last) if array.ndim == 4 else tensor


def _in_layout(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Every convolution's weights in `layout`; other tensors have no channels to move."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


def _cosine(progress: float) -> float:
    """1 at the start, towards 0 at the end (Loshchilov and Hutter, SGDR, ICLR 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def _accuracy_decides(epoch: Epoch) -> tuple[float, float]:
    """Where it is equal, the smaller loss."""
    return epoch.val_accuracy, -epoch.val_loss


def _loss_decides(epoch: Epoch) -> tuple[float, float]:
    """Where it is equal, the better accuracy."""
    return -epoch.val_loss, epoch.val_accuracy


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Dropout draws from torch's global state: seed it here, put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
