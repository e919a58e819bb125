"""Hessian traces of all layers over a data set: exact where possible, sampled to a bound elsewhere.

Tr(H_i) = Tr(G_i) + Tr(R_i), Gauss-Newton part and residual part. R_i vanishes where the outputs are
piecewise linear in the layer's weights, and for every layer where the loss is the divergence from
the network's own predictions (its gradient in the outputs is zero there). Tr(G_i) is exact for up
to `MOST_EXACT_CLASSES` classes (for other losses: outputs below that number). A loss of the user's
own is not taken apart: all of Tr(H_i) is estimated. What remains is estimated in rounds of probes,
until each layer's standard error, times what one unit of trace contributes to its Ω, is below rtol
× max(its own Ω, the layers' mean Ω): a layer that contributes little need not be known well, and no
layer hides behind the total.

Traces of the layers' Gauss-Newton blocks, without second derivatives: exact, or sampled.

The Gauss-Newton block of layer i is G_i = (1/N) Σ_n J_niᵀ H_n J_ni with H_n the Hessian of the loss
in the outputs, diag(p) − p pᵀ for softmax cross-entropy (Schraudolph, Neural Computation 2002).
With H_n = S_n S_nᵀ its trace is (1/N) Σ_n Σ_c ||J_niᵀ s_nc||², a sum of squared per-sample
gradients: one backward pass per column of S_n gives the traces of all layers at once. For the exact
trace of cross-entropy S_n is the Cholesky factor of diag(p) − p pᵀ, which is known in closed form
(Tanabe & Sagae, J. R. Statist. Soc. B 1992) and has C − 1 columns for C classes. For many classes
||J_niᵀ S_n ε||² with random signs ε is an unbiased estimate of a sample's part at one backward
pass.

Where the Hessian block of a layer equals its Gauss-Newton block.

The loss is ℓ(f(W)) with ℓ convex in the outputs f. The Hessian block is JᵀH_outJ + Σ_c ∂ℓ/∂f_c
∇²f_c; the second term vanishes when every output is piecewise linear in the layer's weights, that
is when the weight is used once and only piecewise linear operators lie between it and the output.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from mpsearch.data import Data, with_loss
from mpsearch.errors import InputError
from mpsearch.graph.layers import LINEAR_OPERATORS, Layer, packet
from mpsearch.graph.network import Network
from mpsearch.losses.heads import without_heads
from mpsearch.losses.loss import CROSS_ENTROPY, Loss, check_curvature
from mpsearch.running.journal import Journal
from mpsearch.running.seeds import generator
from mpsearch.sensitivity.gradient_norms import GradientNorms
from mpsearch.sensitivity.hutchinson import Moments, estimate, residual_traces
from mpsearch.sensitivity.study import Study


def trace_sums(
    network: Network, inputs: tuple[torch.Tensor, ...], loss: Loss = CROSS_ENTROPY
) -> dict[str, float]:
    """Σ_n Tr(J_niᵀ H_n J_ni) over the samples of one batch, by layer name. Exact.

    A layer that does not reach the output has 0. A weight that is used more than once has its
    per-sample gradients summed over the uses before squaring, as J demands.
    """
    columns = loss.columns(network.output_shape)
    norms = GradientNorms(network, network.layers, inputs, columns)
    factor = loss.factor(norms.logits)
    shape = norms.logits.shape
    sums = {layer.name: 0.0 for layer in network.layers}
    for column in range(columns):
        for name, squares in norms.squares(factor[:, :, column].reshape(shape)).items():
            sums[name] += float(squares.sum())
    return sums


def sampled_traces(
    network: Network,
    inputs: tuple[torch.Tensor, ...],
    layers: Sequence[Layer],
    keys: Sequence[str],
    loss: Loss = CROSS_ENTROPY,
) -> dict[str, Moments]:
    """Estimates of the same sums, one backward pass per key, by layer name. Unbiased.

    Samples have signs of their own, so their errors are independent and the variance is estimated
    from all of them, not only from the few probes' sums.
    """
    norms = GradientNorms(network, layers, inputs, len(keys))
    draws = [norms.squares(loss.direction(norms.logits, generator(key))) for key in keys]
    return {
        layer.name: Moments.of(torch.stack([draw[layer.name] for draw in draws]))
        for layer in layers
    }


_ANY_ARGUMENT = frozenset(
    """
    _unsafe_view abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d add amax amin avg_pool1d avg_pool2d avg_pool3d
    cat channel_shuffle chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous
    expand flatten flip getitem hardsigmoid hardtanh index_select leaky_relu max max_pool1d
    max_pool2d max_pool3d maximum mean min minimum movedim narrow neg pad permute
    pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d relu relu6 repeat
    replication_pad1d replication_pad2d reshape roll rsub select slice split
    split_with_sizes squeeze stack sub sum swapaxes sym_size t threshold transpose unbind
    unflatten unsqueeze upsample_bilinear2d upsample_nearest1d upsample_nearest2d view
    """.split()
)
# Linear in their first argument, as long as the others do not depend on the layer.
_FIRST_ARGUMENT = frozenset(LINEAR_OPERATORS) | frozenset(
    """
    _native_batch_norm_legit_no_training batch_norm bmm div masked_fill matmul mm mul prelu
    """.split()
)


def piecewise_linear(graph: fx.GraphModule, layer: Layer) -> bool:
    """True when the outputs of `graph` are piecewise linear in the layer's weights."""
    if len(layer.nodes) != 1:
        return False
    dependent: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.name == layer.nodes[0]:
            dependent.add(node)
        elif node.op == "output":
            continue
        elif any(source in dependent for source in node.all_input_nodes):
            if not _keeps_linearity(node, dependent):
                return False
            dependent.add(node)
    return True


def _keeps_linearity(node: fx.Node, dependent: set[fx.Node]) -> bool:
    name = packet(node)
    if name in _ANY_ARGUMENT:
        return True
    if name not in _FIRST_ARGUMENT:
        return False
    varying = [source for source in node.all_input_nodes if source in dependent]
    if name in ("mul", "matmul", "mm", "bmm") and len(varying) == 1:
        return node.args[0] is not node.args[1]  # bilinear: linear in either one, but not squared
    return varying == [node.args[0]]


# Exact costs C - 1 backward passes and has no error; sampling costs 8 per round and mostly stops
# after one to four rounds at 5 %. Beyond 32 classes sampling is cheaper.
MOST_EXACT_CLASSES = 32
ROUND = 8  # probes


@dataclass(frozen=True)
class Trace:
    """Trace of one layer's Hessian block of the mean loss."""

    value: float
    """Tr(H_i), in units of the loss per squared weight."""
    stderr: float
    """Its standard error; 0 where it is exact."""
    gauss_newton: float
    """Tr(G_i), the Gauss-Newton part of it."""
    gauss_newton_stderr: float
    """The standard error of that."""
    probes: int
    """Random probes that were used; 0 where nothing is estimated."""


def hessian_traces(
    network: Network,
    data: Data,
    rtol: float = 0.05,
    max_probes: int = 256,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[str, Trace]:
    """Tr(H_i) of every layer by name, H_i the Hessian of the mean loss over `data` in its weights.

    Tr(H_i) = Tr(G_i) + Tr(R_i): the Gauss-Newton part Σ_n Tr(J_niᵀ ∇²ℓ_n J_ni)/N is exact for up
    to 31 outputs, else sampled; the residual part, zero where the outputs are piecewise linear in
    the weights, is estimated by Hutchinson's E[vᵀR_i v], v of independent signs (Hutchinson, 1990).
    Estimates get probes until their standard error is below rtol × max(its magnitude, the layers'
    mean) or `max_probes` are used. The loss is the data's, or what output and labels decide. It
    runs where `network` is. Raises InputError for a loss without a second derivative and for a
    trace that is not finite.
    """
    data = with_loss(data, network)
    assert data.loss is not None
    bare, loss = without_heads(network, data.loss)
    study = Study(
        bare, data, loss, choices=(), batch_size=batch_size, seed=seed, rtol=rtol,
        max_probes=max_probes, device=network.device,
    )  # fmt: skip
    weights = dict.fromkeys((layer.name for layer in network.layers), 1.0)
    with Journal(None, "") as journal:
        return traces(study, weights, journal, lambda: None)


def split(study: Study) -> tuple[list[Layer], list[Layer]]:
    """(layers whose Hessian block equals its Gauss-Newton block, the others)."""
    equal: list[Layer] = []
    smooth: list[Layer] = []
    for layer in study.network.layers:
        vanishes = study.loss.has_exact_hessian and (
            not study.loss.uses_labels or piecewise_linear(study.network.graph, layer)
        )
        (equal if vanishes else smooth).append(layer)
    return equal, smooth


def is_sampled(study: Study) -> bool:
    """True when there are too many classes or outputs for exact Gauss-Newton traces."""
    loss = study.loss
    return loss.has_exact_hessian and loss.columns(study.network.output_shape) >= MOST_EXACT_CLASSES


def traces(
    study: Study, weights: Mapping[str, float], journal: Journal, step: Callable[[], None]
) -> dict[str, Trace]:
    """Trace of every layer by name. `weights`: Ω of the layer per unit of trace.

    Pieces go to the journal per batch and round. `step` is called as often as `steps` says: for the
    rounds that are not needed, at the end. Raises InputError when a trace is not finite.
    """
    check_curvature(study.loss, "hessian")
    n = len(study.data)
    exactly = _is_exact(study)
    exact: dict[str, float] = dict.fromkeys((layer.name for layer in study.network.layers), 0.0)
    for index, batch in enumerate(study.batches()):
        key = f"exact batch {index}"
        if exactly and study.workers.owns(index) and journal.get(key) is None:
            journal.put(key, trace_sums(study.network, batch[0], study.loss))
        if exactly:
            step()
    journal.adopt(study.workers.share(journal.values()))
    for index in range(study.batch_count if exactly else 0):
        for name, value in journal.get(f"exact batch {index}").items():
            exact[name] += value / n
    result = {name: Trace(value, 0.0, value, 0.0, 0) for name, value in exact.items()}
    _check(result)
    active = _estimated(study)
    left = _most_rounds(study)
    samples = {layer.name: _Samples() for layer in active}
    done = 0
    while active and done < study.max_probes:
        probes = min(ROUND, study.max_probes - done)
        keys = range(done, done + probes)
        _round(study, active, keys, samples, journal, step)
        done += probes
        left -= 1
        for layer in active:
            result[layer.name] = samples[layer.name].trace(exact[layer.name], n, done)
        _check(result)
        active = [
            layer for layer in active if not within_bound(layer.name, result, weights, study.rtol)
        ]
    for _ in range(left * study.batch_count):
        step()
    return result


def steps(study: Study) -> int:
    """Batches times passes over the data, if every round of probes should be needed."""
    return study.batch_count * (_is_exact(study) + _most_rounds(study))


def _is_exact(study: Study) -> bool:
    return study.loss.has_exact_hessian and not is_sampled(study)


def _estimated(study: Study) -> list[Layer]:
    return list(study.network.layers) if is_sampled(study) else split(study)[1]


def _most_rounds(study: Study) -> int:
    return -(-study.max_probes // ROUND) if _estimated(study) else 0


def within_bound(
    name: str, traces: Mapping[str, Trace], weights: Mapping[str, float], rtol: float
) -> bool:
    """True when the layer's Ω is known to rtol × max(its |Ω|, mean |Ω| of the layers)."""
    omegas = {layer: abs(trace.value) * weights[layer] for layer, trace in traces.items()}
    bound = rtol * max(omegas[name], sum(omegas.values()) / len(omegas))
    return traces[name].stderr * weights[name] <= bound


class _Samples:
    """What a layer's rounds measured so far, batch by batch."""

    def __init__(self) -> None:
        self.gauss_newton: list[list[Moments]] = []
        self.residual: list[list[Moments]] = []

    def trace(self, exact: float, n: int, probes: int) -> Trace:
        value, stderr = estimate(self.gauss_newton) if self.gauss_newton else (exact * n, 0.0)
        more, more_stderr = estimate(self.residual) if self.residual else (0.0, 0.0)
        both = (stderr**2 + more_stderr**2) ** 0.5
        return Trace((value + more) / n, both / n, value / n, stderr / n, probes)


def _round(
    study: Study,
    active: list[Layer],
    probes: range,
    samples: Mapping[str, _Samples],
    journal: Journal,
    step: Callable[[], None],
) -> None:
    """One round of probes for the active layers: from the journal, or measured and journaled."""
    smooth = {layer.name for layer in split(study)[1]}
    with_residual = [layer for layer in active if layer.name in smooth]
    for layer in active:
        samples[layer.name].gauss_newton += [[]] if is_sampled(study) else []
        samples[layer.name].residual += [[]] if layer.name in smooth else []
    name_of = f"probes {probes.start} to {probes.stop - 1} batch {{}}".format
    for index, (inputs, labels) in enumerate(study.batches()):
        if study.workers.owns(index) and journal.get(name_of(index)) is None:
            keys = [f"{study.seed} {index} {probe}" for probe in probes]
            piece: dict[str, dict[str, list[float]]] = {"gauss_newton": {}, "residual": {}}
            if is_sampled(study):
                found = sampled_traces(study.network, inputs, active, keys, study.loss)
                piece["gauss_newton"] = _plain(found)
            if with_residual:
                batch = inputs, labels
                found = residual_traces(study.network, study.loss, batch, with_residual, keys)
                piece["residual"] = _plain(found)
            journal.put(name_of(index), piece)
        step()
    journal.adopt(study.workers.share(journal.values()))
    for index in range(study.batch_count):
        piece = journal.get(name_of(index))
        for name, (total, scatter) in piece["gauss_newton"].items():
            samples[name].gauss_newton[-1].append(Moments(len(probes), total, scatter))
        for name, (total, scatter) in piece["residual"].items():
            samples[name].residual[-1].append(Moments(len(probes), total, scatter))


def _plain(found: Mapping[str, Moments]) -> dict[str, list[float]]:
    return {name: [moments.total, moments.scatter] for name, moments in found.items()}


def _check(traces: Mapping[str, Trace]) -> None:
    for name, trace in traces.items():
        if not abs(trace.value) + trace.stderr < float("inf"):
            raise InputError(
                f"the Hessian trace of layer {name} is {trace.value}; expected a finite number: "
                "check the network's weights and the data for NaN, infinite or huge values"
            )
