"""Softmax or sigmoid at a network's end: what a loss on logits has to take off."""

from dataclasses import replace

import torch
from torch import fx

from mpsearch.graph.layers import argument, packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.outputs import Output
from mpsearch.losses.forms import Bernoulli, Form, Softmax
from mpsearch.losses.loss import Loss, PlainLoss
from mpsearch.losses.sum_loss import SumLoss

_SOFTMAX = {"softmax": "softmax", "_softmax": "softmax", "_safe_softmax": "softmax",
            "log_softmax": "log_softmax", "_log_softmax": "log_softmax"}  # fmt: skip
_SHAPING = {"flatten", "unsqueeze", "reshape", "view", "clone", "contiguous"}


def head_of(network: Network, output: Output) -> str:
    """`softmax` (over the classes), `log_softmax` or `sigmoid` where it ends this output, else ''.

    What only reshapes the result is looked through in networks with several outputs.
    """
    node = _end(network.graph, network.outputs.index(output), len(network.outputs))
    return _kind(node)


def fits(form: Form, head: str) -> str:
    """The head itself where the loss contains it, else ''."""
    if isinstance(form, Softmax):
        return head if head in ("softmax", "log_softmax") else ""
    return head if isinstance(form, Bernoulli) and head == "sigmoid" else ""


def without_heads(network: Network, loss: Loss) -> tuple[Network, Loss]:
    """The network that returns logits where the loss contains its head, and the loss for it.

    Layers, their names and weights are the same. Nothing changes for a loss without heads.
    """
    if isinstance(loss, PlainLoss):
        if not loss.head:
            return network, loss
        return _without(network, (0,)), replace(loss, head="")
    if not isinstance(loss, SumLoss) or not any(share.loss.head for share in loss.shares):
        return network, loss
    places = tuple(network.outputs.index(s.output) for s in loss.shares if s.loss.head)
    shares = tuple(replace(s, loss=replace(s.loss, head="")) for s in loss.shares)
    return _without(network, places), SumLoss(shares)


def heads_of(loss: Loss | None) -> list[str]:
    """The operators that `without_heads` takes off, in the outputs' order."""
    losses = [loss] if isinstance(loss, PlainLoss) else []
    if isinstance(loss, SumLoss):
        losses = [share.loss for share in loss.shares]
    return [one.head for one in losses if one.head]


def logits(loss: Loss, outputs: torch.Tensor) -> torch.Tensor:
    """Outputs [N, …] of a network with its heads on, as logits: log p, or log p − log(1 − p).

    A probability that was rounded to 0 or 1 counts as the nearest number that is not.
    """
    if isinstance(loss, PlainLoss):
        return _inverse(loss.head, outputs)
    if not isinstance(loss, SumLoss) or not any(share.loss.head for share in loss.shares):
        return outputs
    changed = outputs.clone()
    for share in loss.shares:
        rows = slice(share.output.start, share.output.stop)
        changed[:, rows] = _inverse(share.loss.head, outputs[:, rows])
    return changed


def _inverse(head: str, values: torch.Tensor) -> torch.Tensor:
    if head == "softmax":
        return values.clamp_min(torch.finfo(values.dtype).tiny).log()
    if head == "sigmoid":
        return torch.logit(values, eps=torch.finfo(values.dtype).eps / 2)
    return values


def _without(network: Network, places: tuple[int, ...]) -> Network:
    graph = copy_graph(network.graph)
    for place in places:
        head = _end(graph, place, len(network.outputs))
        (source,) = head.args[:1]
        assert isinstance(source, fx.Node)
        head.replace_all_uses_with(source)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return replace(network, graph=graph)


def _end(graph: fx.GraphModule, place: int, count: int) -> fx.Node:
    """The node that makes output number `place`, before what only reshapes it."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    node = output.args[0]
    assert isinstance(node, fx.Node)
    if count > 1 and packet(node) == "cat":
        parts = node.args[0]
        assert isinstance(parts, list | tuple)
        node = parts[place]
        assert isinstance(node, fx.Node)
    while count > 1 and node.op == "call_function" and packet(node) in _SHAPING:
        (source,) = node.args[:1]
        assert isinstance(source, fx.Node)
        node = source
    return node


def _kind(node: fx.Node) -> str:
    if node.op != "call_function" or len(node.users) > 1:
        return ""
    name = packet(node)
    if name in _SOFTMAX:
        dims = len(node.meta["shape"])
        return _SOFTMAX[name] if int(str(argument(node, "dim"))) % dims == 1 else ""
    return "sigmoid" if name == "sigmoid" else ""
