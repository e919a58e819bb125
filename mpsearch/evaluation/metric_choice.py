"""Which metrics a network is measured by: by name, by the user's function, or by its loss."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError, did_you_mean
from mpsearch.evaluation.fidelity import FIDELITY, fitting, is_fidelity
from mpsearch.evaluation.metrics import (
    Statistic,
    auc,
    balanced_accuracy,
    f1,
    hits,
    mean_of,
    mean_of_statistics,
    own,
    r2,
    top_hits,
)
from mpsearch.losses.forms import Bernoulli, Form, Softmax, Squared
from mpsearch.losses.heads import logits
from mpsearch.losses.labels import Own
from mpsearch.losses.loss import Loss, PlainLoss
from mpsearch.losses.sum_loss import SumLoss
from mpsearch.running.plugins import import_object

METRICS = {  # name -> (of what, what it is)
    "accuracy": ("classes, answers", "share that is right"),
    "balanced-accuracy": ("classes, answers", "mean over classes of the share that is right"),
    "top5": ("classes", "share where the label is among the 5 highest; also top1, top2, …"),
    "f1": ("classes, answers", "of class 1; of more than two the mean over classes"),
    "auc": ("classes, answers", "area under the ROC curve; more classes: one against the rest"),
    "mae": ("numbers", "mean absolute error"),
    "mse": ("numbers", "mean squared error"),
    "rmse": ("numbers", "root of the mean squared error"),
    "r2": ("numbers", "share of the variance that is explained"),
    "agreement": (
        "anything",
        "share that is FP32's; of numbers: within 1/255 of the range",
    ),
    "kl": ("classes, answers", "KL divergence from FP32's predictions, in nats"),
    "sqnr": ("anything", "signal over noise of the outputs, FP32's are the signal, in dB"),
}
NAMES = tuple(METRICS)


@dataclass(frozen=True)
class _Part:
    """One output: its name ('' for an only one), the form of its loss, outputs and labels."""

    name: str
    form: Form
    outputs: torch.Tensor
    labels: torch.Tensor


def is_own(name: str) -> bool:
    """Whether a metric is a function of the user's."""
    return ":" in name


def chosen(loss: Loss, wanted: Sequence[str], labelled: bool = True) -> tuple[str, ...]:
    """The metrics' names as the file has them: `f1`, or `box.mae` for one of several outputs.

    wanted: `f1`, `top3`, `module:function`, `box=mae`; empty: what fits the loss, and of outputs
    without labels what compares them with FP32's. Raises InputError for an unknown metric or
    output, and for one that needs labels where there are none.
    """
    outputs = [share.output.name for share in loss.shares] if isinstance(loss, SumLoss) else []
    if not wanted:
        if not labelled:
            return fitting(loss)
        if isinstance(loss, SumLoss):
            usual = tuple(
                f"{share.output.name}.{name}" for share in loss.shares
                if share.labels is not None for name in _usual(share.loss.form)
            )  # fmt: skip
            return (*usual, *fitting(loss, unlabelled=True))
        return _usual(loss.form) if isinstance(loss, PlainLoss) else ()
    names = tuple(dict.fromkeys(_name(text, outputs) for text in wanted))
    needing = [] if labelled else [name for name in names if not is_fidelity(name)]
    if needing:
        raise InputError(
            f"the metric {needing[0]} needs labels, and the data have none; expected labelled data "
            f"or {', '.join(FIDELITY)}, which compare with FP32"
        )
    return names


def _usual(form: Form) -> tuple[str, ...]:
    if isinstance(form, Own):
        return ()
    return ("mse", "mae") if isinstance(form, Squared) else ("accuracy",)


def _name(text: str, outputs: Sequence[str]) -> str:
    output, _, name = text.strip().rpartition("=")
    if not output and not is_own(name):  # as the file has it: box.mae
        known = next((one for one in outputs if name.startswith(f"{one}.")), "")
        output, name = (known, name[len(known) + 1 :]) if known else ("", name)
    if name not in NAMES and not re.fullmatch(r"top[1-9]\d*", name) and not is_own(name):
        raise InputError(
            f"got the metric {name!r}{did_you_mean(name, NAMES)}; "
            f"expected {', '.join(NAMES)} (top1, top2, …) or "
            "package.module:function"
        )
    if output and output not in outputs:
        there = ", ".join(outputs) or "none with a name: leave it out"
        close = did_you_mean(output, outputs)
        raise InputError(f"got the metric {text!r}{close}; the network's outputs are {there}")
    if outputs and not output and not is_own(name) and name not in FIDELITY:
        raise InputError(
            f"got the metric {name} for a network with {len(outputs)} outputs; name the output, "
            f"as in {outputs[0]}={name}"
        )
    return f"{output}.{name}" if output else name


def statistics_of(
    names: Sequence[str], loss: Loss, outputs: torch.Tensor, labels: torch.Tensor
) -> dict[str, Statistic]:
    """Each metric of a network's outputs [N, …]. Raises InputError for one that does not fit."""
    values = logits(loss, outputs.detach().double())
    parts = _parts(loss, values, labels)
    found = {}
    for name in names:
        output, _, metric = name.rpartition(".") if not is_own(name) else ("", "", name)
        if is_own(name):
            output = next((one for one in parts if one and name.startswith(f"{one}.")), "")
            metric = name[len(output) + 1 :] if output else name
        if is_own(metric):
            found[name] = _own(metric, loss, outputs, labels, parts, output)
            continue
        found[name] = _statistic(metric, parts[output])
        if not np.isfinite(found[name].value):
            raise InputError(
                f"the metric {name} has no value on these labels: it needs samples of more than "
                "one kind, and outputs that are finite"
            )
    return found


def _parts(loss: Loss, values: torch.Tensor, labels: torch.Tensor) -> Mapping[str, _Part]:
    if isinstance(loss, PlainLoss):
        return {"": _Part("", loss.form, values, labels)}
    assert isinstance(loss, SumLoss)
    parts = {}
    for share, part, own_labels in loss.split(values, labels):
        if own_labels is not None:
            name = share.output.name
            parts[name] = _Part(name, share.loss.form, part, own_labels)
    return parts


def _statistic(metric: str, part: _Part) -> Statistic:
    form = part.form
    if isinstance(form, Softmax):
        found = _of_classes(metric, part.outputs, part.labels.long())
    elif isinstance(form, Bernoulli):
        found = _of_answers(metric, part.outputs, part.labels.reshape(part.outputs.shape) > 0.5)
    elif part.labels.numel() == part.outputs.numel():
        found = _of_numbers(metric, part.outputs, part.labels.reshape(part.outputs.shape))
    else:
        found = None
    if found is None:
        where = f" of the output {part.name}" if part.name else ""
        raise InputError(
            f"the metric {metric} does not fit the loss {form.name}{where}; cross-entropy has "
            "accuracy, balanced-accuracy, top5, f1, auc; bce all of these but top5; mse and mae "
            "have mae, mse, rmse, r2"
        )
    return found


def _of_classes(metric: str, scores: torch.Tensor, labels: torch.Tensor) -> Statistic | None:
    """Logits [N, C] or [N, C, …] with class numbers [N] or [N, …]."""
    count = scores.shape[1]
    predicted, true = scores.argmax(dim=1).numpy(), labels.numpy()
    if metric == "accuracy":
        return mean_of(hits(predicted, true))
    if metric == "balanced-accuracy":
        return balanced_accuracy(predicted, true)
    if metric == "f1":
        return f1(predicted, true, count)
    if scores.dim() != 2:
        return None
    if metric.startswith("top"):
        return mean_of(top_hits(scores.numpy(), true, int(metric[3:])))
    if metric == "auc":
        if count == 2:
            return auc((scores[:, 1] - scores[:, 0]).numpy(), true == 1)
        p = torch.softmax(scores, dim=1).numpy()
        return mean_of_statistics([auc(p[:, c], true == c) for c in range(count)])
    return None


def _of_answers(metric: str, scores: torch.Tensor, labels: torch.Tensor) -> Statistic | None:
    """Logits of yes-or-no answers [N, …] with labels of the same shape."""
    predicted, true = (_rows(scores) > 0).numpy(), _rows(labels).numpy()
    if metric == "accuracy":
        return mean_of(hits(predicted, true))
    columns = range(true.shape[1])
    guess, label = predicted.astype(np.int64), true.astype(np.int64)
    if metric == "balanced-accuracy":
        each = [balanced_accuracy(guess[:, k], label[:, k]) for k in columns]
    elif metric == "f1":
        each = [f1(guess[:, k], label[:, k], 2) for k in columns]
    elif metric == "auc":
        flat = _rows(scores).numpy()
        each = [auc(flat[:, k], true[:, k]) for k in columns]
    else:
        return None
    return mean_of_statistics(each)


def _of_numbers(metric: str, outputs: torch.Tensor, targets: torch.Tensor) -> Statistic | None:
    error = _rows(outputs - targets.double()).numpy()
    if metric == "mae":
        return mean_of(np.abs(error).mean(axis=1))
    if metric == "mse":
        return mean_of((error**2).mean(axis=1))
    if metric == "rmse":
        return mean_of((error**2).mean(axis=1), np.sqrt)
    return r2(outputs.numpy(), targets.double().numpy()) if metric == "r2" else None


def _rows(values: torch.Tensor) -> torch.Tensor:
    """[N, …] as [N, K]; [N] as [N, 1]."""
    return values.reshape(len(values), -1)


def _own(
    metric: str, loss: Loss, outputs: torch.Tensor, labels: torch.Tensor,
    parts: Mapping[str, _Part], output: str,
) -> Statistic:  # fmt: skip
    """A function of the network's own outputs (heads on) and targets, as tensors."""
    function = import_object(metric)
    if not callable(function):
        raise InputError(f"{metric} is {type(function).__name__}; expected a function")
    if isinstance(loss, SumLoss):
        pairs = {s.output.name: (z, y) for s, z, y in loss.split(outputs, labels) if y is not None}
        if output:
            given, wanted = pairs[output]
            return own(_guarded(metric, function), given, wanted, len(outputs))
        return own(
            _guarded(metric, function), {k: z for k, (z, _) in pairs.items()},
            {k: y for k, (_, y) in pairs.items()}, len(outputs),
        )  # fmt: skip
    return own(_guarded(metric, function), outputs, labels, len(outputs))


def _guarded(metric: str, function: Callable[..., Any]) -> Callable[[Any, Any], float]:
    def call(outputs: Any, targets: Any) -> float:
        try:
            return float(function(outputs, targets))
        except Exception as error:  # whatever the user's function raises
            text = (str(error).strip().splitlines() or [""])[0][:200]
            raise InputError(
                f"the metric {metric} failed: {type(error).__name__}: {text}; expected a function "
                "(outputs, targets) -> one number"
            ) from error

    return call
