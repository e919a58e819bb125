"""The loss of a network with several outputs: a weighted sum of one loss per output."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mpsearch.graph.outputs import Output, Shape
from mpsearch.losses.forms import Softmax
from mpsearch.losses.loss import Loss, PlainLoss


@dataclass(frozen=True)
class Share:
    """What one of several outputs contributes: weight times loss.

    `labels`: where its targets lie among the labels [N, M] and their shape; None without labels.
    """

    output: Output
    weight: float
    loss: PlainLoss
    labels: Output | None = None


@dataclass(frozen=True)
class SumLoss:
    """Σ weight · loss over a network's outputs, which lie side by side in [N, K].

    Its Hessian in the outputs has one block per output, and outputs without a share have none.
    """

    shares: tuple[Share, ...]

    @property
    def name(self) -> str:
        """`class=cross-entropy + box=0.5*mse`"""
        return " + ".join(
            f"{s.output.name}={'' if s.weight == 1 else f'{s.weight:g}*'}{s.loss.name}"
            for s in self.shares
        )

    @property
    def uses_labels(self) -> bool:
        """Whether any share does: then the gradient in the outputs is not zero."""
        return any(share.loss.uses_labels for share in self.shares)

    @property
    def has_exact_hessian(self) -> bool:
        """Whether all shares' Hessians are known in closed form."""
        return all(share.loss.has_exact_hessian for share in self.shares)

    @property
    def has_curvature(self) -> bool:
        """Whether all shares have second derivatives."""
        return all(share.loss.has_curvature for share in self.shares)

    def per_sample(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """[N] for a target as `target` gives it."""
        targets = iter(target.split([self._target_size(s) for s in self.shares], dim=1))
        return self._sum(
            lambda share, part: share.loss.per_sample(part, _shaped(share, next(targets), part)),
            outputs,
        )

    def target(self, outputs: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """[N, M']: labels and expectations of the shares, flattened, in float64."""
        columns = []
        for share in self.shares:
            own = share.loss.target(self._part(share, outputs), _labels(share, labels))
            columns.append(own.reshape(len(outputs), -1).double())
        return torch.cat(columns, dim=1)

    def increase(
        self, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """[N], in float64."""
        return self._sum(
            lambda share, part: share.loss.increase(
                part, self._part(share, after), _labels(share, labels)
            ),
            before,
        )

    def divergence(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """[N], in float64."""
        return self._sum(
            lambda share, part: share.loss.divergence(part, self._part(share, after)), before
        )

    def curvature(
        self, outputs: torch.Tensor, change: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """uᵀ H u [N]."""
        return self._sum(
            lambda share, part: share.loss.curvature(
                part, self._part(share, change), _labels(share, labels)
            ),
            outputs,
        )

    def columns(self, shape: Shape) -> int:
        """Of all shares together."""
        return sum(share.loss.columns(share.output.shape) for share in self.shares)

    def factor(self, outputs: torch.Tensor) -> torch.Tensor:
        """S [N, K, columns], one block per share."""
        whole = outputs.new_zeros(*outputs.shape, self.columns(()))
        column = 0
        for share in self.shares:
            block = share.loss.factor(self._part(share, outputs)) * share.weight**0.5
            rows = slice(share.output.start, share.output.stop)
            whole[:, rows, column : column + block.shape[2]] = block
            column += block.shape[2]
        return whole

    def direction(self, outputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Independent signs in every share."""
        whole = torch.zeros_like(outputs)
        for share in self.shares:
            part = share.loss.direction(self._part(share, outputs), random) * share.weight**0.5
            whole[:, share.output.start : share.output.stop] = part.reshape(len(outputs), -1)
        return whole

    def gradient_loss(
        self, outputs: torch.Tensor, labels: torch.Tensor | None, random: torch.Generator
    ) -> torch.Tensor:
        """[N]; a share without labels has targets drawn from its output.

        A drawn share's gradient counts with the root of its weight, so that its second moment is
        the weight times the share's Hessian.
        """
        total = None
        for share in self.shares:
            own = _labels(share, labels)
            weight = share.weight if share.loss.uses_labels else share.weight**0.5
            value = weight * share.loss.gradient_loss(self._part(share, outputs), own, random)
            total = value if total is None else total + value
        assert total is not None
        return total

    def centred(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs that have a share."""
        return {s.output.name: s.loss.form.centred(self._part(s, values)) for s in self.shares}

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
        """The mean over the outputs that give answers; None where none does."""
        found = []
        for share in self.shares:
            own = _labels(share, labels)
            one = None if own is None else share.loss.right(self._part(share, outputs), own)
            found += [] if one is None else [one]
        return torch.stack(found).mean(dim=0) if found else None

    def split(
        self, outputs: torch.Tensor, labels: torch.Tensor
    ) -> list[tuple[Share, torch.Tensor, torch.Tensor | None]]:
        """Every share with its output and its labels, in their own shapes."""
        return [(s, self._part(s, outputs), _labels(s, labels)) for s in self.shares]

    def _part(self, share: Share, outputs: torch.Tensor) -> torch.Tensor:
        rows = outputs[:, share.output.start : share.output.stop]
        return rows.reshape(-1, *share.output.shape)

    def _sum(
        self, of: Callable[[Share, torch.Tensor], torch.Tensor], outputs: torch.Tensor
    ) -> torch.Tensor:
        values = [share.weight * of(share, self._part(share, outputs)) for share in self.shares]
        return torch.stack(values).sum(dim=0)

    def _target_size(self, share: Share) -> int:
        if share.loss.uses_labels:
            assert share.labels is not None
            return share.labels.stop - share.labels.start
        return share.output.stop - share.output.start


def _shaped(share: Share, target: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    if not share.loss.uses_labels:
        return target.reshape(outputs.shape).to(outputs.dtype)
    assert share.labels is not None
    return target.reshape(-1, *share.labels.shape)


def _labels(share: Share, labels: torch.Tensor | None) -> torch.Tensor | None:
    if labels is None or share.labels is None:
        return None
    rows = labels[:, share.labels.start : share.labels.stop]
    return rows.reshape(-1, *share.labels.shape)


def to_fp32(loss: Loss) -> Loss:
    """The same loss with what the float network returns as its target."""
    if isinstance(loss, SumLoss):
        shares = [replace(s, loss=replace(s.loss, uses_labels=False)) for s in loss.shares]
        return SumLoss(tuple(shares))
    assert isinstance(loss, PlainLoss)
    return replace(loss, uses_labels=False)


def separate(labels: torch.Tensor, loss: Loss | None) -> dict[str, torch.Tensor]:
    """Labels as arrays of a data file: `y`, or `y_NAME` for every output that has some.

    Class numbers are whole numbers again.
    """
    if not isinstance(loss, SumLoss):
        return {"y": labels}
    found = {}
    for share in loss.shares:
        own = _labels(share, labels)
        if own is not None:
            whole = isinstance(share.loss.form, Softmax)
            found[f"y_{share.output.name}"] = own.long() if whole else own.float()
    return found
