"""Measuring a network on labelled data, or beside the float network where there are no labels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import MOST_CLASSES, Evaluation, Metric
from mpsearch.evaluation.fidelity import fidelity_of, is_fidelity
from mpsearch.evaluation.metric_choice import chosen, is_own, statistics_of
from mpsearch.evaluation.metrics import DRAWS, OWN_DRAWS, measured
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import Shape
from mpsearch.losses.forms import Bernoulli, Softmax
from mpsearch.losses.heads import logits as as_logits
from mpsearch.losses.loss import CROSS_ENTROPY, DIVERGENCE, SQUARED, Loss, PlainLoss
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
    """Run `network` over `data`. Raises InputError for data without labels and no `reference`.

    The row says what it is of (`Origin`) where `network` is a Network or a QuantizedNetwork.
    metrics: names as `--metric` has them; empty: what fits the data's loss. reference: the outputs
    of FP32 on the same data, which metrics are compared with. Without labels the row has no
    accuracy, its loss is the divergence from FP32's outputs, and its metrics are `agreement`, `kl`
    and `sqnr`.
    """
    check_comparable(data, reference)
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
        raise InputError(
            f"{data.name} has no labels (array y); accuracy needs them",
            "without labels: --min-agreement 98% compares with FP32, and so does --refine",
        )
    return data.labels


def check_comparable(data: Data, reference: torch.Tensor | None) -> None:
    """Raise InputError for data without labels where FP32's outputs are not known either."""
    if data.labels is None and reference is None:
        raise InputError(
            f"{data.name} has no labels (array y), and there is no FP32 network to compare with; "
            "give labelled data, or the float model (--fp32)"
        )


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
    """Accuracy, loss and metrics of outputs [N, …] on the labels of `data`.

    reference: FP32's outputs; where they are the same tensor, the row is FP32's own, which is not
    compared with itself. Without labels the loss is the divergence from them.
    """
    check_comparable(data, reference)
    labels = data.labels
    loss = data.loss or _usual_loss(labels, logits)
    found = _metrics(metrics, loss, logits, labels, reference)
    apart = reference is not logits
    logits = as_logits(loss, logits)
    if labels is None:
        assert reference is not None
        losses = loss.divergence(as_logits(loss, reference), logits).clamp_min(0)
        losses = losses if apart else torch.zeros_like(losses)  # rounding may leave 1e-18
    else:
        losses = _on_labels(loss, logits, labels).double()
    n = len(logits)
    mean = float(losses.mean())
    half = Z95 * float(losses.std()) / math.sqrt(n) if n > 1 else math.inf
    interval = (mean - half, mean + half)
    if labels is None or not one_answer(loss, tuple(logits.shape[1:])):
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


def _usual_loss(labels: torch.Tensor | None, logits: torch.Tensor) -> PlainLoss:
    """Of data that were put together by hand."""
    if labels is not None:
        return CROSS_ENTROPY
    classes = logits.dim() == 2 and logits.shape[1] > 1
    return DIVERGENCE if classes else PlainLoss("mse-to-fp32", False, SQUARED)


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
    labels: torch.Tensor | None,
    reference: torch.Tensor | None,
) -> dict[str, Metric]:
    if not wanted and labels is not None and one_answer(loss, tuple(outputs.shape[1:])):
        return {}  # accuracy and loss are there anyway
    names = chosen(loss, wanted, labels is not None)
    beside = [name for name in names if is_fidelity(name)]
    if wanted and beside and reference is None:
        raise InputError(
            f"the metric {beside[0]} compares with the float network; name it with --fp32 MODEL"
        )
    if reference is None or reference is outputs:
        reference, beside = None, []
    found = {name: measured(one, None) for name, one in (
        {} if reference is None else fidelity_of(beside, loss, outputs, reference)
    ).items()}  # fmt: skip
    others = [name for name in names if not is_fidelity(name)]
    if others and labels is not None:
        here = statistics_of(others, loss, outputs, labels)
        there = None if reference is None else statistics_of(others, loss, reference, labels)
        for name, one in here.items():
            draws = OWN_DRAWS if is_own(name) else DRAWS
            found[name] = measured(one, None if there is None else there[name], draws)
    return {name: found[name] for name in names if name in found}


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
