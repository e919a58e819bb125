"""Measuring a network on labelled data."""

import math
from collections.abc import Callable

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation import MOST_CLASSES, Z95, Evaluation, wilson_interval
from mpsearch.losses import CROSS_ENTROPY

Callee = Callable[..., torch.Tensor]


def evaluate(
    name: str,
    network: Callee,
    data: Data,
    batch_size: int = 64,
    size_bytes: int | None = None,
    bops: int | None = None,
) -> Evaluation:
    """Run `network` over labelled `data`. Raises InputError when the data have no labels."""
    labels_of(data)
    return from_logits(name, logits_of(network, data, batch_size), data, size_bytes, bops)


def labels_of(data: Data) -> torch.Tensor:
    """The labels [N]. Raises InputError when the data have none."""
    if data.labels is None:
        raise InputError(f"{data.name} has no labels (array y); accuracy needs them")
    return data.labels


def logits_of(network: Callee, data: Data, batch_size: int = 64) -> torch.Tensor:
    """The outputs [N, classes] over `data`, batch by batch."""
    with torch.no_grad():
        return torch.cat([network(*inputs) for inputs, _ in data.batches(batch_size)])


def from_logits(
    name: str,
    logits: torch.Tensor,
    data: Data,
    size_bytes: int | None = None,
    bops: int | None = None,
) -> Evaluation:
    """Accuracy and loss of outputs [N, classes] on the labels of `data`."""
    labels = labels_of(data)
    hits = tuple((logits.argmax(dim=1) == labels).tolist())
    loss = CROSS_ENTROPY.per_sample(logits, labels).double()
    n = len(hits)
    mean = float(loss.mean())
    half = Z95 * float(loss.std()) / math.sqrt(n) if n > 1 else math.inf
    accuracy = sum(hits) / n
    return Evaluation(
        name, n, accuracy, wilson_interval(sum(hits), n), mean, (mean - half, mean + half), hits,
        size_bytes, bops, confusion(logits.argmax(dim=1), labels, logits.shape[1]),
    )  # fmt: skip


def confusion(
    predicted: torch.Tensor, labels: torch.Tensor, classes: int
) -> tuple[tuple[int, ...], ...] | None:
    """Counts [true class][predicted class]: predicted [0, 1], labels [0, 0] -> ((1, 1), (0, 0)).

    None for more than 100 classes.
    """
    if classes > MOST_CLASSES:
        return None
    counts = torch.bincount(labels.long() * classes + predicted, minlength=classes * classes)
    return tuple(map(tuple, counts.reshape(classes, classes).tolist()))
