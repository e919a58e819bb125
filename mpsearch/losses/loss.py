"""The loss that sensitivity is measured on, per sample."""

from dataclasses import dataclass
from typing import Protocol

import torch

from mpsearch.errors import InputError
from mpsearch.graph.outputs import Shape
from mpsearch.losses.forms import Absolute, Bernoulli, Form, Softmax, Squared

SOFTMAX, BERNOULLI, SQUARED, ABSOLUTE = Softmax(), Bernoulli(), Squared(), Absolute()


class Loss(Protocol):
    """A loss per sample: outputs [N, …] and a target -> [N], and what metrics need of it.

    `uses_labels`: its target are labels. Otherwise the target is the float network's own output,
    and the loss is the divergence from it: zero for the float network itself. Members without a
    description are those of `mpsearch.losses.forms.Form`.
    """

    @property
    def name(self) -> str: ...
    @property
    def uses_labels(self) -> bool: ...
    @property
    def has_exact_hessian(self) -> bool:
        """Whether its Hessian in the outputs is known in closed form, positive semidefinite."""
        ...

    @property
    def has_curvature(self) -> bool:
        """Whether its second derivatives say anything."""
        ...

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor: ...
    def target(self, outputs: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor: ...
    def increase(
        self, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """Per sample, what the loss grows by from the float outputs to changed ones."""
        ...

    def divergence(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The same on targets that the float outputs expect; no labels."""
        ...

    def curvature(
        self, outputs: torch.Tensor, change: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor: ...
    def columns(self, shape: Shape) -> int: ...
    def factor(self, outputs: torch.Tensor) -> torch.Tensor: ...
    def direction(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor: ...
    def gradient_loss(
        self, outputs: torch.Tensor, labels: torch.Tensor | None, random: torch.Generator
    ) -> torch.Tensor:
        """Per sample, the loss on the labels, or on targets drawn from the outputs: for Fisher."""
        ...

    def centred(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every output by name, float64 and without what no prediction depends on."""
        ...

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None: ...


@dataclass(frozen=True)
class PlainLoss:
    """The loss `form` on a network's only output, or on one of several.

    `head`: the operator that ends the network and that the loss contains too (`softmax`,
    `log_softmax`, `sigmoid`); `mpsearch.losses.heads` takes it off. Empty: outputs are logits
    already.
    """

    name: str
    uses_labels: bool
    form: Form
    head: str = ""

    @property
    def has_exact_hessian(self) -> bool:
        """Whether the Hessian in the outputs is known in closed form."""
        return self.form.has_exact_hessian

    @property
    def has_curvature(self) -> bool:
        """Whether second derivatives say anything; those of the absolute error do not."""
        return self.form.has_curvature

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """[N] for a target as `target` gives it."""
        if self.uses_labels:
            return self.form.per_sample(outputs, target)
        return self.form.divergence(outputs, target)

    def target(self, outputs: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """The labels, or what the float network's `outputs` expect."""
        if not self.uses_labels:
            return self.form.expectation(outputs.detach())
        assert labels is not None
        return labels

    def increase(
        self, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """[N], in float64."""
        if not self.uses_labels:
            return self.divergence(before, after)
        assert labels is not None
        first = self.form.per_sample(before.double(), labels)
        return self.form.per_sample(after.double(), labels) - first

    def divergence(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """[N], in float64."""
        if not self.form.has_exact_hessian:
            raise InputError(
                f"the loss {self.name} has no divergence from FP32: it is defined by labels alone; "
                "expected the metric loss, or --loss cross-entropy, bce or mse"
            )
        return self.form.divergence(after.double(), self.form.expectation(before.double()))

    def curvature(
        self, outputs: torch.Tensor, change: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """uᵀ H u [N] for changes u of the outputs."""
        return self.form.curvature(outputs, change, labels if self.uses_labels else None)

    def columns(self, shape: Shape) -> int:
        """How many columns `factor` has for one sample's output of this shape."""
        return self.form.columns(shape)

    def factor(self, outputs: torch.Tensor) -> torch.Tensor:
        """S [N, K, columns] with S Sᵀ = H."""
        return self.form.factor(outputs)

    def direction(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """A random direction in the outputs whose second moment is H."""
        return self.form.direction(outputs, random)

    def gradient_loss(
        self, outputs: torch.Tensor, labels: torch.Tensor | None, random: torch.Generator
    ) -> torch.Tensor:
        """[N]; its gradients' second moment is H where the targets are drawn."""
        if not self.uses_labels:
            return self.form.on_drawn(outputs, random)
        assert labels is not None
        return self.form.per_sample(outputs, labels)

    def centred(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """One entry."""
        return {"output": self.form.centred(values)}

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
        """The share of each sample's answers that is right; None for a regression."""
        return self.form.right(outputs, labels)


CROSS_ENTROPY = PlainLoss("cross-entropy", True, SOFTMAX)
DIVERGENCE = PlainLoss("kl-to-fp32", False, SOFTMAX)


def target_of(loss: Loss, logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """The loss's target: the labels, or what the float network's `logits` expect."""
    return loss.target(logits, labels)


def check_curvature(loss: Loss, metric: str) -> None:
    """Raise InputError where `metric` looks at second derivatives and the loss has none."""
    if not loss.has_curvature:
        raise InputError(
            f"the loss {loss.name} has no curvature (mae has no second derivatives) and the metric "
            f"{metric} sees nothing else; expected --loss mse, or the metric loss, fisher or sqnr"
        )
