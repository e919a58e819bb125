"""A loss that is the user's own function of outputs and targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mpsearch.errors import InputError
from mpsearch.graph.outputs import Output, split_outputs
from mpsearch.losses.forms import Squared

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
