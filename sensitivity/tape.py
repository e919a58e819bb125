"""A forward pass that keeps what enters and leaves every layer, with gradients from there on."""

from typing import Any

import torch
from torch import fx

from mpsearch.graph.network import Network
from mpsearch.graph.sample_layout import Layouts


class Tape(fx.Interpreter):
    """Runs the graph; `arguments` and `outputs` are those of the layers' nodes.

    The outputs require gradients and the weights do not, so a backward pass costs no weight
    gradients. Arguments are detached. An output that all samples share is there once per sample.
    """

    def __init__(self, network: Network, layouts: Layouts, samples: int) -> None:
        super().__init__(network.graph)
        self.layouts = layouts
        self.samples = samples
        self.layer_nodes = {node for layer in network.layers for node in layer.nodes}
        self.arguments: dict[fx.Node, tuple[Any, ...]] = {}
        self.outputs: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        if n.name not in self.layer_nodes:
            return super().run_node(n)
        args = self.fetch_args_kwargs_from_env(n)[0]
        self.arguments[n] = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in args)
        value = super().run_node(n)
        assert isinstance(value, torch.Tensor)
        value = self.layouts[n.name].spread(value, self.samples)
        if not value.requires_grad:
            value.requires_grad_(True)
        self.outputs[n] = value
        return value
