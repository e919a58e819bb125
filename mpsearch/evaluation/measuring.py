"""Measuring a network on labelled data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import MOST_CLASSES, Evaluation, Metric
from mpsearch.evaluation.metric_choice import chosen, is_own, statistics_of
from mpsearch.evaluation.metrics import DRAWS, OWN_DRAWS, measured
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import Shape
from mpsearch.losses.forms import Bernoulli, Softmax
from mpsearch.losses.heads import logits as as_logits
from mpsearch.losses.loss import CROSS_ENTROPY, Loss, PlainLoss
from mpsearch.losses.sum_loss import SumLoss
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.statistics import Z95, wilson_interval
from mpsearch.tables.provenance import Origin

Callee = Callable[..., torch.Tensor]


def evaluate(
    name: str,
    network: Callee,
    data: Data,
    batch_size: int = 64,
    size_bytes: int | None = None,
    bops: int | None = None,
    metrics: Sequence[str] = (),
    reference: torch.Tensor | None = None,
) -> Evaluation:
    """Run `network` over labelled `data`. Raises InputError when the data have no labels.

    The row says what it is of (`Origin`) where `network` is a Network or a QuantizedNetwork.
    metrics: names as `--metric` has them; empty: what fits the data's loss. reference: the outputs
    of FP32 on the same data, which metrics are compared with.

    >>> row = mpsearch.evaluate("FP32", network, data)
    >>> row.n, row.accuracy_interval[0] <= row.accuracy <= row.accuracy_interval[1]
    (96, True)
    """
    labels_of(data)
    outputs = logits_of(network, data, batch_size)
    row = from_logits(name, outputs, data, size_bytes, bops, metrics, reference)
    return replace(row, origin=origin_of(network, data))


def origin_of(network: Callee, data: Data) -> Origin:
    """What a measurement of `network` on `data` is of; its weights where they are known."""
    if isinstance(network, Network):
        return Origin(network.digest, None, data.digest)
    if isinstance(network, QuantizedNetwork):
        return Origin(
            network.model_digest, network.assignment, data.digest,
            post_training=network.post_training,
        )  # fmt: skip
    return Origin(data=data.digest)


def labels_of(data: Data) -> torch.Tensor:
    """The labels [N, …]. Raises InputError when the data have none."""
    if data.labels is None:
        raise InputError(f"{data.name} has no labels (array y); accuracy needs them")
    return data.labels


def logits_of(network: Callee, data: Data, batch_size: int = 64) -> torch.Tensor:
    """The outputs [N, …] over `data`, batch by batch; on the CPU, as the data are."""
    with torch.no_grad():
        return torch.cat([network(*inputs).cpu() for inputs, _ in data.batches(batch_size)])


def from_logits(
    name: str,
    logits: torch.Tensor,
    data: Data,
    size_bytes: int | None = None,
    bops: int | None = None,
    metrics: Sequence[str] = (),
    reference: torch.Tensor | None = None,
) -> Evaluation:
    """Accuracy, loss and metrics of outputs [N, …] on the labels of `data`."""
    labels = labels_of(data)
    loss = data.loss or CROSS_ENTROPY
    found = _metrics(metrics, loss, logits, labels, reference)
    logits = as_logits(loss, logits)
    losses = _on_labels(loss, logits, labels).double()
    n = len(logits)
    mean = float(losses.mean())
    half = Z95 * float(losses.std()) / math.sqrt(n) if n > 1 else math.inf
    interval = (mean - half, mean + half)
    if not one_answer(loss, tuple(logits.shape[1:])):
        nothing = (math.nan, math.nan)
        return Evaluation(
            name, n, math.nan, nothing, mean, interval, (), size_bytes, bops, None, found
        )
    predicted, true, classes = _answers(loss, logits, labels)
    hits = tuple((predicted == true).tolist())
    return Evaluation(
        name, n, sum(hits) / n, wilson_interval(sum(hits), n), mean, interval, hits,
        size_bytes, bops, confusion(predicted, true, classes), found,
    )  # fmt: skip


def one_answer(loss: Loss, shape: Shape) -> bool:
    """Whether outputs of this shape (of one sample) say one thing that is right or wrong."""
    if not isinstance(loss, PlainLoss):
        return False
    if isinstance(loss.form, Softmax):
        return len(shape) == 1
    return isinstance(loss.form, Bernoulli) and math.prod(shape) == 1


def _answers(
    loss: Loss, logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(predicted class [N], true class [N], classes) where there is one answer per sample."""
    if isinstance(loss, PlainLoss) and isinstance(loss.form, Softmax):
        return logits.argmax(dim=1), labels, logits.shape[1]
    return (logits > 0).flatten().long(), (labels > 0.5).flatten().long(), 2


def _on_labels(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[N]: the loss on labels, also where sensitivity is measured without them."""
    if isinstance(loss, PlainLoss):
        return loss.form.per_sample(logits, labels)
    assert isinstance(loss, SumLoss)
    parts = [
        share.weight * share.loss.form.per_sample(part, own)
        for share, part, own in loss.split(logits, labels)
        if own is not None
    ]
    return torch.stack(parts).sum(dim=0)


def _metrics(
    wanted: Sequence[str],
    loss: Loss,
    outputs: torch.Tensor,
    labels: torch.Tensor,
    reference: torch.Tensor | None,
) -> dict[str, Metric]:
    if not wanted and one_answer(loss, tuple(outputs.shape[1:])):
        return {}  # accuracy and loss are there anyway
    names = chosen(loss, wanted)
    here = statistics_of(names, loss, outputs, labels)
    there = None if reference is None else statistics_of(names, loss, reference, labels)
    return {
        name: measured(
            one, None if there is None else there[name], OWN_DRAWS if is_own(name) else DRAWS
        )
        for name, one in here.items()
    }


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
