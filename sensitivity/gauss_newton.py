"""Exact traces of the layers' Gauss-Newton blocks, without second derivatives and without sampling.

The Gauss-Newton block of layer i is G_i = (1/N) Σ_n J_niᵀ H_n J_ni with H_n = diag(p) − p pᵀ, the
Hessian of softmax cross-entropy in the logits (Schraudolph, Neural Computation 2002). With H_n =
S_n S_nᵀ its trace is (1/N) Σ_n Σ_c ||J_niᵀ s_nc||², a sum of squared per-sample gradients: one
backward pass per column of S_n gives the traces of all layers at once. S_n is the Cholesky factor
of diag(p) − p pᵀ, which is known in closed form (Tanabe & Sagae, J. R. Statist. Soc. B 1992) and
has C − 1 columns for C classes.
"""

import torch
from torch import fx

from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.operators import groups, is_transposed, packet
from mpsearch.sensitivity.unfolding import unfold

_CHUNK = 2**24  # elements of unfolded inputs that are held at once (64 MB)


def output_factor(logits: torch.Tensor) -> torch.Tensor:
    """S [N, C, C-1] with S Sᵀ = diag(p) − p pᵀ for p = softmax(logits [N, C]).

    Column j is zero above row j, sqrt(p_j q_{j+1}/q_j) in row j and −p_i sqrt(p_j/(q_j q_{j+1}))
    below, where q_j = p_j + … + p_C. The sums run from the small end, so nothing is subtracted.
    """
    p = torch.softmax(logits.detach().double(), dim=1)
    tails = p.flip(1).cumsum(1).flip(1)  # q_1 … q_C
    ahead, behind = tails[:, :-1], tails[:, 1:]
    columns = p.shape[1] - 1
    root = torch.sqrt(p[:, :-1] / (ahead * behind))
    root = torch.where(behind > 0, root, torch.zeros_like(root))
    factor = -p[:, :, None] * root[:, None, :]
    rows = torch.arange(p.shape[1])[:, None]
    factor = torch.where(rows > torch.arange(columns)[None, :], factor, torch.zeros_like(factor))
    index = torch.arange(columns)
    factor[:, index, index] = torch.sqrt(p[:, :-1] * behind / ahead)
    return factor.to(logits.dtype)


def trace_sums(network: Network, inputs: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Σ_n Tr(J_niᵀ H_n J_ni) over the samples of one batch, by layer name.

    A layer that does not reach the output has 0. A weight that is used more than once has its
    per-sample gradients summed over the uses before squaring, as J demands.
    """
    tape = _Tape(network)
    logits = tape.run(*inputs)
    factor = output_factor(logits)
    nodes = list(tape.outputs)
    sums = dict.fromkeys((layer.name for layer in network.layers), 0.0)
    for column in range(factor.shape[2]):
        gradients = torch.autograd.grad(
            logits, [tape.outputs[node] for node in nodes], factor[:, :, column],
            retain_graph=True, allow_unused=True,
        )  # fmt: skip
        by_name = {node.name: gradient for node, gradient in zip(nodes, gradients, strict=True)}
        for layer in network.layers:
            uses = [
                (node, tape.inputs[node], by_name[node.name])
                for node in nodes
                if node.name in layer.nodes and by_name[node.name] is not None
            ]
            sums[layer.name] += _squared_gradient(layer, network.weight(layer), uses)
    return sums


class _Tape(fx.Interpreter):
    """Runs the graph and keeps what enters and leaves every layer; gradients start at layers."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.graph)
        self.layer_nodes = {node for layer in network.layers for node in layer.nodes}
        self.inputs: dict[fx.Node, torch.Tensor] = {}
        self.outputs: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        if n.name not in self.layer_nodes:
            return super().run_node(n)
        self.inputs[n] = self.fetch_args_kwargs_from_env(n)[0][0].detach()
        value = super().run_node(n)
        assert isinstance(value, torch.Tensor)
        if not value.requires_grad:
            value.requires_grad_(True)
        self.outputs[n] = value
        return value


_Use = tuple[fx.Node, torch.Tensor, torch.Tensor]


def _squared_gradient(layer: Layer, weight: torch.Tensor, uses: list[_Use]) -> float:
    """Σ_n ||∂(s_nᵀ f_n)/∂W||² from the layer's inputs and the gradients at its outputs."""
    if not uses:
        return 0.0
    node, source, gradient = uses[0]
    if packet(node) == "linear" and len(uses) == 1 and source.dim() == 2:
        # the gradient of a sample is the outer product g aᵀ, whose norm is ||g||·||a||
        squares = source.norm(dim=1).double() * gradient.norm(dim=1).double()
        return float(squares.square().sum())
    samples = len(source)
    elements = max(_unfolded_elements(n, s, g, weight) for n, s, g in uses)
    step = max(1, _CHUNK // max(1, elements))
    total = 0.0
    for start in range(0, samples, step):
        rows = slice(start, start + step)
        parts = [_weight_gradients(n, s[rows], g[rows], weight) for n, s, g in uses]
        per_sample_norms = sum(parts[1:], parts[0]).flatten(1).norm(dim=1)
        total += float(per_sample_norms.double().square().sum())
    return total


def _unfolded_elements(
    node: fx.Node, source: torch.Tensor, gradient: torch.Tensor, weight: torch.Tensor
) -> int:
    if packet(node) == "linear":
        return source[0].numel() + weight.numel()
    positions = (source if is_transposed(node) else gradient)[0, 0].numel()
    channels = gradient.shape[1] if is_transposed(node) else source.shape[1]
    return channels * weight[0, 0].numel() * positions + weight.numel()


def _weight_gradients(
    node: fx.Node, source: torch.Tensor, gradient: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Gradient of each sample's scalar with respect to the weight: [n, *weight.shape] up to
    order."""
    if packet(node) == "linear":
        a = source.reshape(len(source), -1, source.shape[-1])
        g = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        return torch.bmm(g.transpose(1, 2), a)
    if is_transposed(node):  # input and output change places
        source, gradient = gradient, source
    return _convolution_gradients(node, source, gradient, weight)


def _convolution_gradients(
    node: fx.Node, source: torch.Tensor, gradient: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """[n, groups, out/groups, in/groups·kernel] by one batched product over positions."""
    n, count = len(source), groups(node)
    patches = unfold(node, source, weight, gradient.shape[2:])  # [n, in, kernel, positions]
    positions = patches.shape[-1]
    a = patches.reshape(n * count, -1, positions)
    g = gradient.reshape(n * count, -1, positions)
    return torch.bmm(g, a.transpose(1, 2)).reshape(n, -1)
