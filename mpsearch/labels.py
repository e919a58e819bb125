"""Labels as a loss wants them, checked against an output's shape; errors name the array."""

import math

import torch

from mpsearch.errors import InputError
from mpsearch.outputs import Shape


def is_label_name(name: str) -> bool:
    """`y`, `y0`, `y1`, …, `y_NAME`: names of arrays of labels."""
    return name == "y" or name.startswith("y_") or (name[:1] == "y" and name[1:].isdigit())


def class_numbers(
    source: str, name: str, labels: torch.Tensor, samples: int, shape: Shape
) -> torch.Tensor:
    """int64 [N] for an output [C], [N, …] for [C, …]: one class number per sample and position.

    Raises InputError for another shape, fractions and numbers outside 0 to C - 1.
    """
    expected = (samples, *shape[1:])
    if tuple(labels.shape) != expected:
        each = "sample" if len(shape) < 2 else "position"
        raise InputError(
            f"{source}: array {name} has shape {tuple(labels.shape)}; expected {expected}, "
            f"one class number per {each}"
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
