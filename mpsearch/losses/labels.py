"""Labels as a loss wants them, checked against an output's shape; errors name the array.

A loss that is the user's own function of outputs and targets.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mpsearch.errors import InputError
from mpsearch.graph.outputs import Output, Shape, split_outputs
from mpsearch.losses.forms import Squared

_ROUNDING = 1e-3  # of probabilities that sum to one


def class_numbers(
    source: str, name: str, labels: torch.Tensor, samples: int, shape: Shape
) -> torch.Tensor:
    """int64 [N] for an output [C], [N, …] for [C, …]: one class number per sample and position.

    One-hot labels of the output's shape are class numbers too, and so is a column [N, 1]. Raises
    InputError for another shape, fractions and numbers outside 0 to C - 1.
    """
    if len(labels) == samples and is_one_hot(labels, shape):
        return (labels == 1).to(torch.int8).argmax(1)
    expected = (samples, *shape[1:])
    if len(shape) == 1 and tuple(labels.shape) == (samples, 1):
        labels = labels[:, 0]
    if tuple(labels.shape) != expected:
        each = "sample" if len(shape) < 2 else "position"
        raise InputError(
            f"{source}: array {name} has shape {tuple(labels.shape)}; expected {expected}, "
            f"one class number per {each}, or the output's shape with a single 1 for each"
        )
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise InputError(f"{source}: array {name} has fractions; expected class numbers")
    classes = shape[0] if shape else 1
    whole = labels.to(torch.int64)
    low, high = int(whole.min()), int(whole.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"{source}: array {name} has labels from {low} to {high}; expected 0 to "
            f"{classes - 1}, as the network has {classes} outputs"
        )
    return whole


def is_one_hot(labels: torch.Tensor, shape: Shape) -> bool:
    """Whether labels of the shape of an output [C, …], C > 1, are 0 but for a single 1 over C."""
    if len(shape) == 0 or shape[0] < 2 or tuple(labels.shape[1:]) != shape:
        return False
    return zero_or_one(labels) and bool(((labels == 1).sum(1) == 1).all())


def zero_or_one(labels: torch.Tensor) -> bool:
    """Whether all are 0 or 1."""
    return bool(((labels == 0) | (labels == 1)).all())


def note_of(name: str, labels: torch.Tensor, shape: Shape, loss: str) -> str:
    """What to know where the loss of labels that may mean several things was not named, or ''."""
    if loss == "cross-entropy" and is_one_hot(labels, shape):
        return (
            f"array {name} has a single 1 in each row: taken as classes (cross-entropy); numbers "
            "would be --loss mse"
        )
    if loss != "mse":
        return ""
    if zero_or_one(labels):
        return (
            f"array {name} holds nothing but 0 and 1, as floats: taken as numbers (mse); answers "
            "would be --loss bce"
        )
    if len(shape) > 0 and shape[0] > 1 and tuple(labels.shape[1:]) == shape:
        shares = labels.double()
        if float(shares.min()) >= 0 and bool(((shares.sum(1) - 1).abs() < _ROUNDING).all()):
            return (
                f"the rows of array {name} sum to 1: taken as numbers (mse); for cross-entropy "
                "give class numbers"
            )
    return ""


def numbers(
    source: str, name: str, labels: torch.Tensor, samples: int, shape: Shape
) -> torch.Tensor:
    """float32 (or float64 as given) of the output's shape; [N] also fits an output [1].

    Raises InputError for another number of elements, NaN and infinity.
    """
    expected = (samples, *shape)
    same = tuple(labels.shape) == expected or (
        math.prod(shape) == 1 and tuple(labels.shape) in ((samples,), (samples, 1))
    )
    if not same:
        raise InputError(
            f"{source}: array {name} has shape {tuple(labels.shape)}; expected {expected}, the "
            "shape of the network's output"
        )
    values = labels if labels.dtype == torch.float64 else labels.float()
    if not bool(torch.isfinite(values).all()):
        row = int((~torch.isfinite(values)).reshape(samples, -1).any(1).nonzero()[0])
        raise InputError(f"{source}: array {name} has NaN or infinity in sample {row}")
    return values.reshape(expected)


def zeros_and_ones(
    source: str, name: str, labels: torch.Tensor, samples: int, shape: Shape
) -> torch.Tensor:
    """The same between 0 and 1: answers, or how probable they are."""
    values = numbers(source, name, labels, samples, shape)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise InputError(
            f"{source}: array {name} has values from {low:g} to {high:g}; expected 0 and 1 for "
            "the loss bce"
        )
    return values


def any_labels(source: str, name: str, labels: torch.Tensor, samples: int) -> torch.Tensor:
    """Labels for a loss of the user's own: any shape [N, …], whole numbers as int64."""
    if labels.dim() == 0 or len(labels) != samples:
        raise InputError(
            f"{source}: array {name} has shape {tuple(labels.shape)}; expected {samples} samples"
        )
    if not labels.is_floating_point():
        return labels.to(torch.int64)
    return labels if labels.dtype == torch.float64 else labels.float()


Function = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Own(Squared):
    """`function(outputs, targets)` -> [N], one value per sample, differentiable in the outputs.

    Its Hessian comes from autograd and need not be positive semidefinite. With several outputs both
    arguments are dictionaries by output name; `outputs` and `labels` say where each one lies (empty
    for a network with one output).
    """

    name: str = "own"
    has_exact_hessian: bool = False
    function: Function = lambda outputs, targets: outputs
    outputs: tuple[Output, ...] = ()
    labels: tuple[Output, ...] = ()
    whole: frozenset[str] = frozenset()  # labels that were whole numbers

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.outputs:
            given: Any = split_outputs(self.outputs, outputs)
            wanted: Any = named_labels(self.labels, target, self.whole)
        else:
            given, wanted = outputs, target
        try:
            values = self.function(given, wanted)
        except InputError:
            raise
        except Exception as error:  # whatever the user's function raises
            text = (str(error).strip().splitlines() or [""])[0][:200]
            raise InputError(
                f"the loss {self.name} failed: {type(error).__name__}: {text}"
            ) from error
        if not isinstance(values, torch.Tensor) or values.shape != (len(outputs),):
            got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise InputError(
                f"the loss {self.name} returns {got}; expected one value per sample, a tensor "
                f"({len(outputs)},)"
            )
        return values

    def curvature(
        self, outputs: torch.Tensor, change: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        """uᵀ H u by a derivative of the gradient along u; 0 for a loss that is linear."""
        assert target is not None
        with torch.enable_grad():
            z = outputs.detach().requires_grad_(True)
            total = self.per_sample(z, target).sum()
            if not total.requires_grad:
                raise InputError(
                    f"the loss {self.name} has no gradient in the outputs; expected a function "
                    "made of torch's differentiable operations"
                )
            (gradient,) = torch.autograd.grad(total, z, create_graph=True)
            if not gradient.requires_grad:
                return torch.zeros(len(z), dtype=z.dtype, device=z.device)
            (product,) = torch.autograd.grad(gradient, z, grad_outputs=change.to(z))
        return (product * change).reshape(len(change), -1).sum(dim=1)


def named_labels(
    labels: Sequence[Output], values: torch.Tensor, whole: frozenset[str]
) -> dict[str, torch.Tensor]:
    """Labels [N, M] by name; those that were whole numbers are so again, others are float32."""
    found = split_outputs(labels, values)
    return {k: v.long() if k in whole else v.float() for k, v in found.items()}
