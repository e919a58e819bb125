"""Measuring a network on labelled data."""

import math
from collections.abc import Callable

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation import Z95, Evaluation, wilson_interval
from mpsearch.losses import CROSS_ENTROPY


def evaluate(
    name: str,
    network: Callable[..., torch.Tensor],
    data: Data,
    batch_size: int = 64,
    size_bytes: int | None = None,
    bops: int | None = None,
) -> Evaluation:
    """Run `network` over labelled `data`. Raises InputError when the data have no labels."""
    if data.labels is None:
        raise InputError(f"{data.name} has no labels (array y); accuracy needs them")
    correct: list[torch.Tensor] = []
    losses: list[torch.Tensor] = []
    with torch.no_grad():
        for inputs, labels in data.batches(batch_size):
            assert labels is not None
            logits = network(*inputs)
            correct.append(logits.argmax(dim=1) == labels)
            losses.append(CROSS_ENTROPY.per_sample(logits, labels).double())
    hits = tuple(bool(hit) for hit in torch.cat(correct))
    loss = torch.cat(losses)
    n = len(hits)
    mean = float(loss.mean())
    half = Z95 * float(loss.std()) / math.sqrt(n) if n > 1 else math.inf
    accuracy = sum(hits) / n
    return Evaluation(
        name, n, accuracy, wilson_interval(sum(hits), n), mean, (mean - half, mean + half), hits,
        size_bytes, bops,
    )  # fmt: skip
