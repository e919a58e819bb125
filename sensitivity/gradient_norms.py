"""Norms of per-sample gradients of all layers, one backward pass per direction in the outputs.

For a direction u [N, C] the gradient of u_nᵀ f_n in the weights of a layer is a sum over positions
of outer products g aᵀ of the gradient at its output and its input. Its squared norm is taken
directly, or, where that is cheaper, as Σ_pq (g_pᵀ g_q)(a_pᵀ a_q), which never forms the gradient
and needs the inputs' products only once for all directions (Goodfellow, arXiv 1510.01799; Rochette
et al., arXiv 1912.06015). The gradient of an embedding table has g in the row that was read.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import fx

from mpsearch.graph.layers import (
    EMBEDDING,
    Layer,
    argument,
    groups,
    is_transposed,
    layer_input,
    packet,
    unfold,
)
from mpsearch.graph.network import Network
from mpsearch.graph.sample_layout import Layouts, SampleLayout, parts

# Elements of unfolded inputs held at once: 4 MB stay in the cache, which halved ResNet-20's cost.
_CHUNK = 2**20


class GradientNorms:
    """One forward pass, kept for any number of backward passes through the layers' outputs.

    `directions` is how many passes are planned; it only decides which formula is cheaper. A layer's
    norm is taken as soon as the backward pass reaches it, so gradients are never held together.
    Where it is not known which part of a tensor belongs to which sample, samples pass one by one.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        inputs: tuple[torch.Tensor, ...],
        directions: int,
    ) -> None:
        nodes = [node for layer in layers for node in layer.nodes]
        self._passes = [
            _Pass(network, layers, part, layouts, directions)
            for part, layouts in parts(network.graph, nodes, inputs)
        ]
        self.logits = torch.cat([one.logits for one in self._passes])

    def squares(self, direction: torch.Tensor) -> dict[str, torch.Tensor]:
        """||∂(u_nᵀ f_n)/∂W||² for each sample: float64 [N] by layer name, u = `direction` [N, C].

        A layer that does not reach the outputs has 0. A weight that is used more than once has its
        gradients summed over the uses first.
        """
        pieces = direction.split([len(one.logits) for one in self._passes])
        found = [one.squares(piece) for one, piece in zip(self._passes, pieces, strict=True)]
        return {name: torch.cat([squares[name] for squares in found]) for name in found[0]}


class _Pass:
    """Samples that go through the network in one batch."""

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        inputs: tuple[torch.Tensor, ...],
        layouts: Layouts,
        directions: int,
    ) -> None:
        self._norms = {layer.name: _Norm(layer, network.weight(layer), directions)
                       for layer in layers}  # fmt: skip
        tape = _Tape(network, layers, self._norms, layouts, len(inputs[0]))
        with torch.enable_grad():
            self.logits: torch.Tensor = tape.run(*inputs)
        self._starts = tape.starts

    def squares(self, direction: torch.Tensor) -> dict[str, torch.Tensor]:
        if self._starts and self.logits.requires_grad:
            torch.autograd.grad(
                self.logits, self._starts, direction, retain_graph=True, allow_unused=True
            )
        zero = torch.zeros(len(direction), dtype=torch.float64, device=direction.device)
        return {name: norm.take(zero) for name, norm in self._norms.items()}


class _Tape(fx.Interpreter):
    """Runs the graph, tells each layer's norm its inputs; gradients start at the first layers."""

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        norms: "dict[str, _Norm]",
        layouts: Layouts,
        samples: int,
    ) -> None:
        super().__init__(network.graph)
        self.norm_of = {node: norms[layer.name] for layer in layers for node in layer.nodes}
        self.layouts = layouts
        self.samples = samples
        self.starts: list[torch.Tensor] = []

    def run_node(self, n: fx.Node) -> object:
        norm = self.norm_of.get(n.name)
        value = super().run_node(n)
        if norm is None:
            return value
        assert isinstance(value, torch.Tensor)
        layout = self.layouts[n.name]
        value = layout.spread(value, self.samples)
        if not value.requires_grad:
            value.requires_grad_(True)
            self.starts.append(value)
        source = layout.spread(self.env[layer_input(n)].detach(), self.samples)
        # The hook holds the norm but no tensor of the graph: a cycle would keep batches alive.
        value.register_hook(partial(norm.receive, n, layout, self.samples, source))
        return value


# A layer's node, its input and the gradient at its output, both [N, positions, …as they are]: a
# convolution has one position here and sees the others inside, a linear layer may have several.
_Use = tuple[fx.Node, torch.Tensor, torch.Tensor]
_Work = Callable[[list[_Use], torch.Tensor], torch.Tensor]


class _Norm:
    """Squared gradient norms of one layer, from its inputs and the gradients at its outputs."""

    def __init__(self, layer: Layer, weight: torch.Tensor, directions: int) -> None:
        self.layer = layer
        self.weight = weight
        self.directions = directions
        self.uses: list[_Use] = []
        self.squares: torch.Tensor | None = None
        self.products: torch.Tensor | None = None  # aᵀa of the only use

    def receive(
        self,
        node: fx.Node,
        layout: SampleLayout,
        samples: int,
        source: torch.Tensor,
        gradient: torch.Tensor,
    ) -> None:
        source, gradient = (layout.by_sample(x, samples) for x in (source, gradient))
        if len(self.layer.nodes) == 1:
            self.squares = self._single(node, source, gradient)
        else:
            self.uses.append((node, source, gradient))

    def take(self, zero: torch.Tensor) -> torch.Tensor:
        """The squares of this pass; forgets them."""
        squares, uses = self.squares, self.uses
        self.squares, self.uses = None, []
        if uses:
            squares = _in_chunks(uses, self.weight, _direct)
        return zero if squares is None else squares

    def _single(self, node: fx.Node, source: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        use = (node, source, gradient)
        if packet(node) == EMBEDDING:
            meet = _positions(use) ** 2 <= self.weight.numel()
            return _in_chunks([use], self.weight, _equal_rows if meet else _direct)
        if not _products_are_cheaper(use, self.weight, self.directions):
            return _in_chunks([use], self.weight, _direct)
        if self.products is None:
            self.products = _in_chunks([use], self.weight, _input_products)
        g = _columns(use, self.weight)[1]
        products = torch.bmm(g.transpose(1, 2), g).mul_(self.products)
        # Rounding may leave a zero norm slightly below zero.
        return products.reshape(len(source), -1).sum(1, dtype=torch.float64).clamp_(min=0)


def _in_chunks(uses: list[_Use], weight: torch.Tensor, work: _Work) -> torch.Tensor:
    samples = len(uses[0][1])
    step = max(1, _CHUNK // max(_unfolded_elements(use, weight) for use in uses))
    parts = [
        work([(node, s[n : n + step], g[n : n + step]) for node, s, g in uses], weight)
        for n in range(0, samples, step)
    ]
    return torch.cat(parts)


def _direct(uses: list[_Use], weight: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor | None = None
    for use in uses:
        if packet(use[0]) == EMBEDDING:
            gradients = _scattered(use, weight)
        else:
            a, g = _columns(use, weight)
            gradients = torch.bmm(g, a.transpose(1, 2)).reshape(len(use[1]), -1)
        total = gradients if total is None else total.add_(gradients)
    assert total is not None
    norms: torch.Tensor = total.norm(dim=1)
    return norms.double().square_()


def _read_rows(use: _Use) -> tuple[torch.Tensor, torch.Tensor]:
    """(indices [n, positions], gradients [n, positions, D]); the padding's row has no gradient."""
    node, indices, gradient = use
    rows = indices.reshape(len(indices), -1).long()
    padding = argument(node, "padding_idx")
    gradients = gradient.reshape(*rows.shape, gradient.shape[-1])
    assert isinstance(padding, int)
    return rows, gradients * rows.ne(padding)[:, :, None]


def _scattered(use: _Use, weight: torch.Tensor) -> torch.Tensor:
    """The gradients of an embedding table, [n, weights]."""
    rows, gradients = _read_rows(use)
    table = gradients.new_zeros(len(rows), *weight.shape)
    table.scatter_add_(1, rows[:, :, None].expand_as(gradients), gradients)
    return table.reshape(len(rows), -1)


def _equal_rows(uses: list[_Use], weight: torch.Tensor) -> torch.Tensor:
    """Σ_pq g_pᵀ g_q over the positions that read the same row of a table."""
    rows, gradients = _read_rows(uses[0])
    products = torch.bmm(gradients, gradients.transpose(1, 2))
    products.mul_(rows[:, :, None] == rows[:, None, :])
    return products.reshape(len(rows), -1).sum(1, dtype=torch.float64).clamp_(min=0)


def _positions(use: _Use) -> int:
    """How often a sample reads the table."""
    return use[1][0].numel()


def _input_products(uses: list[_Use], weight: torch.Tensor) -> torch.Tensor:
    a, _ = _columns(uses[0], weight)
    return torch.bmm(a.transpose(1, 2), a)


def _columns(use: _Use, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(inputs [n·groups, weights per output, positions], gradients [n·groups, outputs, positions]).

    The product of the first by the second transposed is the gradient of each sample, up to order.
    """
    node, source, gradient = use
    if packet(node) == "linear":
        a = source.reshape(len(source), -1, source.shape[-1])
        g = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        return a.transpose(1, 2), g.transpose(1, 2)
    if is_transposed(node):  # input and output change places
        source, gradient = gradient, source
    patches = unfold(node, source.flatten(0, 1), weight, gradient.shape[3:])
    split = (*source.shape[:2], groups(node), -1, patches.shape[-1])
    return _gathered(patches.reshape(split)), _gathered(gradient.reshape(split))


def _gathered(parts: torch.Tensor) -> torch.Tensor:
    """[n, images, groups, k, positions] -> [n·groups, k, images·positions]."""
    n, images, count, size, positions = parts.shape
    return parts.permute(0, 2, 3, 1, 4).reshape(n * count, size, images * positions)


def _sizes(use: _Use, weight: torch.Tensor) -> tuple[int, int, int, int]:
    """(groups, weights per output, outputs of one group, positions)."""
    node, source, gradient = use
    if packet(node) == "linear":
        return 1, weight.shape[1], weight.shape[0], source[0].numel() // weight.shape[1]
    if is_transposed(node):
        source, gradient = gradient, source
    count = groups(node)
    positions = gradient[0, :, 0].numel()
    outputs = gradient.shape[2] // count
    return count, weight.numel() // (count * outputs), outputs, positions


def _products_are_cheaper(use: _Use, weight: torch.Tensor, directions: int) -> bool:
    """By multiplications per direction, as long as the products are no larger than the input."""
    count, inputs, outputs, positions = _sizes(use, weight)
    if is_transposed(use[0]):
        return False  # there the roles change: the constant side is not the unfolded one
    small = count * positions * positions <= use[1][0].numel()
    return small and positions * (outputs + inputs / directions) < outputs * inputs


def _unfolded_elements(use: _Use, weight: torch.Tensor) -> int:
    if packet(use[0]) == EMBEDDING:
        return use[2][0].numel() + weight.numel()
    count, inputs, outputs, positions = _sizes(use, weight)
    return count * (inputs * positions + inputs * outputs)
