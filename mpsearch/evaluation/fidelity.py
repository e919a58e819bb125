"""How near a network's outputs are to the float network's: agreement, KL and SQNR, without labels.

    agreement  share of the answers that are FP32's: the same class; the same yes or no; for other
               outputs, the elements within one step of an 8-bit quantizer over FP32's range
    kl         mean over samples of KL(p‖q) in nats, p of FP32's classes or answers (Kullback and
               Leibler, Annals of Mathematical Statistics 22, 1951)
    sqnr       10 log10(Σ r²/Σ (r − q)²) in dB over all samples of an output r of FP32

Samples are the units of every interval: the positions of one sample are drawn together.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn.functional import log_softmax, logsigmoid

from mpsearch.errors import InputError
from mpsearch.evaluation.metrics import Array, Statistic, mean_of
from mpsearch.graph.outputs import split_outputs
from mpsearch.losses.forms import Bernoulli, Form, Softmax
from mpsearch.losses.heads import logits
from mpsearch.losses.labels import Own
from mpsearch.losses.loss import SQUARED, Loss, PlainLoss
from mpsearch.losses.sum_loss import SumLoss

FIDELITY = ("agreement", "kl", "sqnr")
STEPS = 255  # of an 8-bit quantizer


def is_fidelity(name: str) -> bool:
    """Whether a metric, `kl` or `box.sqnr`, compares with FP32's outputs and not with labels."""
    return ":" not in name and name.rpartition(".")[2] in FIDELITY


def fitting(loss: Loss, unlabelled: bool = False) -> tuple[str, ...]:
    """All that fit: of every output, and where there are several of all together.

    unlabelled: only of outputs that have no labels, among others that do.
    """
    if not isinstance(loss, SumLoss):
        return _of_form(loss.form) if isinstance(loss, PlainLoss) else ()
    shares = [share for share in loss.shares if not unlabelled or share.labels is None]
    names = [f"{s.output.name}.{name}" for s in shares for name in _of_form(s.loss.form)]
    together = {name.rpartition(".")[2] for name in names}
    return (*([] if unlabelled else [one for one in FIDELITY if one in together]), *names)


def _of_form(form: Form) -> tuple[str, ...]:
    return FIDELITY if isinstance(form, Softmax | Bernoulli) else ("agreement", "sqnr")


def fidelity_of(
    names: Sequence[str], loss: Loss, outputs: torch.Tensor, reference: torch.Tensor
) -> dict[str, Statistic]:
    """Each of these metrics of outputs [N, …] beside FP32's on the same samples.

    `agreement` of several outputs is the mean over them, `kl` the sum, `sqnr` that of the mean
    ratio of noise to signal, so that large numbers do not drown small ones. Raises InputError for
    outputs that are no finite numbers and for a metric that does not fit.
    """
    for what, values in (("", outputs), (" of FP32", reference)):
        if not bool(torch.isfinite(values).all()):
            raise InputError(
                f"outputs{what} are no finite numbers, so they cannot be compared with FP32's; "
                "expected finite ones"
            )
    parts = _parts(loss, outputs.detach(), reference.detach())
    return {name: _statistic(name, parts) for name in names}


class _Part:
    """One output beside FP32's: as the network returns it, [N, K], and as the loss's logits."""

    def __init__(self, form: Form, loss: PlainLoss, after: torch.Tensor, before: torch.Tensor):
        self.form = form
        self.after, self.before = (x.reshape(len(x), -1).double() for x in (after, before))
        # of float32: what was rounded to 0 there was not as little as float64 can be
        self.logits, self.expected = logits(loss, after).double(), logits(loss, before).double()

    def agreeing(self) -> Array:
        """[N]: the share of each sample's answers or elements."""
        if isinstance(self.form, Softmax):
            same = self.logits.argmax(1) == self.expected.argmax(1)
        elif isinstance(self.form, Bernoulli):
            same = (self.logits > 0) == (self.expected > 0)
        else:
            low, high = self.before.min().clamp_max(0), self.before.max().clamp_min(0)
            same = (self.after - self.before).abs() <= (high - low) / STEPS
        found: Array = same.reshape(len(same), -1).double().mean(1).numpy()
        return found

    def divergences(self) -> Array | None:
        """[N], in nats; None where there are no classes and no answers."""
        p, q = self.expected, self.logits  # their own formula: exactly 0 where both are equal
        if isinstance(self.form, Softmax):
            p, q = log_softmax(p, dim=1), log_softmax(q, dim=1)
            each = (p.exp() * (p - q)).sum(1)
        elif isinstance(self.form, Bernoulli):
            yes, no = logsigmoid(p) - logsigmoid(q), logsigmoid(-p) - logsigmoid(-q)
            each = p.sigmoid() * yes + (-p).sigmoid() * no
        else:
            return None
        nats: Array = each.reshape(len(each), -1).mean(1).clamp_min(0).numpy()  # less by rounding
        return nats

    def squares(self) -> tuple[Array, Array]:
        """(signal, noise), [N] each: sums over the elements of each sample."""
        noise = self.after - self.before
        return self.before.square().sum(1).numpy(), noise.square().sum(1).numpy()


def _parts(loss: Loss, after: torch.Tensor, before: torch.Tensor) -> Mapping[str, _Part]:
    """By output; '' for an only one."""
    if isinstance(loss, SumLoss):
        shown, expected = (
            split_outputs([share.output for share in loss.shares], one) for one in (after, before)
        )
        return {
            s.output.name: _Part(
                s.loss.form, s.loss, shown[s.output.name], expected[s.output.name]
            )
            for s in loss.shares
        }  # fmt: skip
    assert isinstance(loss, PlainLoss)
    if isinstance(loss.form, Own) and loss.form.outputs:
        shown, expected = (split_outputs(loss.form.outputs, one) for one in (after, before))
        return {name: _Part(SQUARED, loss, shown[name], expected[name]) for name in shown}
    return {"": _Part(loss.form, loss, after, before)}


def _statistic(name: str, parts: Mapping[str, _Part]) -> Statistic:
    output, _, metric = name.rpartition(".")
    some = [parts[output]] if output or "" in parts else list(parts.values())
    if metric == "agreement":
        return agreement(np.mean([part.agreeing() for part in some], axis=0))
    if metric == "sqnr":
        signal, noise = zip(*(part.squares() for part in some), strict=True)
        found = sqnr(np.array(signal), np.array(noise))
        if found.value == -np.inf:
            raise InputError(
                f"the metric {name} has no value: FP32's output is 0 on all samples, and the "
                "quantized one is not; leave that output out with --loss OUTPUT=none"
            )
        return found
    nats = [one for part in some if (one := part.divergences()) is not None]
    if not nats:
        raise InputError(
            f"the metric {name} compares classes or yes-or-no answers, and the output gives "
            "numbers; expected agreement or sqnr, or --loss kl or bce-to-fp32 where it does answer"
        )
    return kl(np.sum(nats, axis=0))


def agreement(shares: Array) -> Statistic:
    """The mean of each sample's share [n]: Wilson's interval for one answer a sample."""
    if bool(np.isin(shares, (0.0, 1.0)).all()):
        return mean_of(shares)
    return Statistic(len(shares), lambda weights: float(weights @ shares / weights.sum()))


def kl(nats: Array) -> Statistic:
    """The mean of divergences [n], which are skewed: by the bootstrap."""
    return Statistic(len(nats), lambda weights: float(weights @ nats / weights.sum()))


def sqnr(signal: Array, noise: Array) -> Statistic:
    """In dB, from sums of squares of each output and sample, [outputs, n] each; ∞ without noise."""

    def at(weights: Array) -> float:
        power, error = signal @ weights, noise @ weights
        with np.errstate(divide="ignore"):
            ratio = np.where(error == 0, 0.0, error / np.where(error == 0, 1.0, power))
            return float(-10 * np.log10(ratio.mean()))

    return Statistic(signal.shape[1], at)
