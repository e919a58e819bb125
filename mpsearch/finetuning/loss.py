"""What fine-tuning minimises, and what it measures after every epoch, for any loss."""

import torch
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate, logits_of
from mpsearch.finetuning.data import Teacher
from mpsearch.graph.network import Network
from mpsearch.losses.forms import Softmax
from mpsearch.losses.heads import logits as as_logits
from mpsearch.losses.loss import DIVERGENCE, Loss, PlainLoss
from mpsearch.losses.sum_loss import to_fp32
from mpsearch.quantization.quantized import QuantizedNetwork

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
