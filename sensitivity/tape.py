"""A forward pass that keeps what enters and leaves every layer, with gradients from there on."""

from typing import Any

import torch
from torch import fx

from mpsearch.network import Network


class Tape(fx.Interpreter):
    """Runs the graph; `arguments` and `outputs` are those of the layers' nodes.

    The outputs require gradients and the weights do not, so a backward pass costs no weight
    gradients. Arguments are detached.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network.graph)
        self.layer_nodes = {node for layer in network.layers for node in layer.nodes}
        self.arguments: dict[fx.Node, tuple[Any, ...]] = {}
        self.outputs: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        if n.name not in self.layer_nodes:
            return super().run_node(n)
        source, *rest = self.fetch_args_kwargs_from_env(n)[0]
        self.arguments[n] = (source.detach(), *rest)
        value = super().run_node(n)
        assert isinstance(value, torch.Tensor)
        if not value.requires_grad:
            value.requires_grad_(True)
        self.outputs[n] = value
        return value
