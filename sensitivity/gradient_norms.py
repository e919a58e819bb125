"""Norms of per-sample gradients of all layers, one backward pass per direction in the outputs.

For a direction u [N, C] the gradient of u_nᵀ f_n in the weights of a layer is a sum over positions
of outer products g aᵀ of the gradient at its output and its input. Its squared norm is taken
directly, or, where that is cheaper, as Σ_pq (g_pᵀ g_q)(a_pᵀ a_q), which never forms the gradient
and needs the inputs' products only once for all directions (Goodfellow, arXiv 1510.01799; Rochette
et al., arXiv 1912.06015).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import fx

from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.operators import groups, is_transposed, packet
from mpsearch.sensitivity.unfolding import unfold

# Elements of unfolded inputs held at once: 4 MB stay in the cache, which halved ResNet-20's cost.
_CHUNK = 2**20


class GradientNorms:
    """One forward pass, kept for any number of backward passes through the layers' outputs.

    `directions` is how many passes are planned; it only decides which formula is cheaper. A layer's
    norm is taken as soon as the backward pass reaches it, so gradients are never held together.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        inputs: tuple[torch.Tensor, ...],
        directions: int,
    ) -> None:
        self._norms = {layer.name: _Norm(layer, network.weight(layer), directions)
                       for layer in layers}  # fmt: skip
        tape = _Tape(network, layers, self._norms)
        with torch.enable_grad():
            self.logits: torch.Tensor = tape.run(*inputs)
        self._starts = tape.starts

    def squares(self, direction: torch.Tensor) -> dict[str, torch.Tensor]:
        """||∂(u_nᵀ f_n)/∂W||² for each sample: float64 [N] by layer name, u = `direction` [N, C].

        A layer that does not reach the outputs has 0. A weight that is used more than once has its
        gradients summed over the uses first.
        """
        if self._starts and self.logits.requires_grad:
            torch.autograd.grad(
                self.logits, self._starts, direction, retain_graph=True, allow_unused=True
            )
        zero = torch.zeros(len(direction), dtype=torch.float64, device=direction.device)
        return {name: norm.take(zero) for name, norm in self._norms.items()}


class _Tape(fx.Interpreter):
    """Runs the graph, tells each layer's norm its inputs; gradients start at the first layers."""

    def __init__(
        self, network: Network, layers: Sequence[Layer], norms: "dict[str, _Norm]"
    ) -> None:
        super().__init__(network.graph)
        self.norm_of = {node: norms[layer.name] for layer in layers for node in layer.nodes}
        self.starts: list[torch.Tensor] = []

    def run_node(self, n: fx.Node) -> object:
        norm = self.norm_of.get(n.name)
        value = super().run_node(n)
        if norm is None:
            return value
        assert isinstance(value, torch.Tensor)
        if not value.requires_grad:
            value.requires_grad_(True)
            self.starts.append(value)
        source = self.fetch_args_kwargs_from_env(n)[0][0].detach()
        # The hook holds the norm but no tensor of the graph: a cycle would keep batches alive.
        value.register_hook(partial(norm.receive, n, source))
        return value


_Use = tuple[fx.Node, torch.Tensor, torch.Tensor]  # a layer's node, input, gradient at output
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

    def receive(self, node: fx.Node, source: torch.Tensor, gradient: torch.Tensor) -> None:
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
        a, g = _columns(use, weight)
        gradients = torch.bmm(g, a.transpose(1, 2)).reshape(len(use[1]), -1)
        total = gradients if total is None else total.add_(gradients)
    assert total is not None
    norms: torch.Tensor = total.norm(dim=1)
    return norms.double().square_()


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
    count = len(source) * groups(node)
    patches = unfold(node, source, weight, gradient.shape[2:])  # [n, in, kernel, positions]
    positions = patches.shape[-1]
    return patches.reshape(count, -1, positions), gradient.reshape(count, -1, positions)


def _sizes(use: _Use, weight: torch.Tensor) -> tuple[int, int, int, int]:
    """(groups, weights per output, outputs of one group, positions)."""
    node, source, gradient = use
    if packet(node) == "linear":
        return 1, weight.shape[1], weight.shape[0], source[0].numel() // weight.shape[1]
    if is_transposed(node):
        source, gradient = gradient, source
    count = groups(node)
    positions = gradient[0, 0].numel()
    outputs = gradient.shape[1] // count
    return count, weight.numel() // (count * outputs), outputs, positions


def _products_are_cheaper(use: _Use, weight: torch.Tensor, directions: int) -> bool:
    """By multiplications per direction, as long as the products are no larger than the input."""
    count, inputs, outputs, positions = _sizes(use, weight)
    if is_transposed(use[0]):
        return False  # there the roles change: the constant side is not the unfolded one
    small = count * positions * positions <= use[1][0].numel()
    return small and positions * (outputs + inputs / directions) < outputs * inputs


def _unfolded_elements(use: _Use, weight: torch.Tensor) -> int:
    count, inputs, outputs, positions = _sizes(use, weight)
    return count * (inputs * positions + inputs * outputs)
