"""Oracle: a layer's Hessian block, entry by entry, by reverse-over-reverse autograd in float64."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


def block(
    model: nn.Module, weight_name: str, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor
) -> torch.Tensor:
    """Hessian [n, n] of the mean cross-entropy of `model` in one weight."""
    return block_of(model, weight_name, inputs, lambda z: functional.cross_entropy(z, labels))


def block_of(
    model: nn.Module,
    weight_name: str,
    inputs: tuple[torch.Tensor, ...],
    mean_loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Hessian [n, n] of `mean_loss(outputs)` of `model` in one weight."""
    weight = {**dict(model.named_parameters()), **dict(model.named_buffers())}[weight_name].detach()

    def loss(flat: torch.Tensor) -> torch.Tensor:
        replaced = {weight_name: flat.reshape(weight.shape)}
        return mean_loss(torch.func.functional_call(model, replaced, inputs))

    hessian = torch.autograd.functional.hessian(loss, weight.reshape(-1))
    assert isinstance(hessian, torch.Tensor)
    return hessian
