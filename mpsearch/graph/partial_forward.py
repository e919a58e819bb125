"""Forward passes that start at a changed layer: everything before it comes from the float run.

One float pass over a batch keeps every node's value. A cell (layer, choice) then recomputes only
the nodes that depend on the layer, so that a late layer, or one in another branch, costs a fraction
of a forward pass. Several choices of a layer go through the rest of the network in one batch where
every tensor has its samples along dimension 0.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import fx

from mpsearch.graph.layers import Layer, packet
from mpsearch.graph.tensors import get_tensor

# replace(a node of the layer, its arguments, index of the choice) -> arguments to use
Replacement = Callable[[fx.Node, tuple[Any, ...], int], tuple[Any, ...]]
# Choices share one batch while each of its tensors holds at most this much. On a CPU larger ones
# fall out of the cache (ResNet-20: 0.43 forward passes per cell with 1 MB, 0.61 with 4 MB).
_STACKED_BYTES = {"cpu": 2**20, "cuda": 2**28}


class PartialForward:
    """The graph prepared for partial passes; `batch_first` says that choices may share a batch."""

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> None:
        self.graph = graph
        self.nodes = [node for node in graph.graph.nodes if node.op != "output"]
        (self.output,) = next(n for n in graph.graph.nodes if n.op == "output").args
        self._example = [x[:1] for x in inputs]
        self._downstream: dict[str, list[fx.Node]] = {}
        self.varying: set[fx.Node] = set()  # nodes whose value depends on the inputs
        for node in self.nodes:
            if node.op == "placeholder" or any(s in self.varying for s in node.all_input_nodes):
                self.varying.add(node)

    @cached_property
    def batch_first(self) -> bool:
        """True when every tensor that depends on the inputs has one row per sample, in order.

        Tried with two and three samples: no other dimension may change, and integers may come only
        from the size of the batch itself.
        """
        runs = [self.run([torch.cat([x] * n) for x in self._example]) for n in (2, 3)]
        for node in self.varying:
            two, three = (values[node] for values in runs)
            several = isinstance(two, list | tuple)  # of a split, which only getitem reads
            pairs = zip(two, three, strict=False) if several else [(two, three)]
            if several and len(two) != len(three):
                return False
            if not all(_one_row_each(node, *pair) for pair in pairs):
                return False
        return True

    def run(self, inputs: Sequence[torch.Tensor]) -> dict[fx.Node, Any]:
        """Every node's value for a batch, without gradients."""
        values: dict[fx.Node, Any] = {}
        remaining = iter(inputs)
        with torch.no_grad():
            for node in self.nodes:
                if node.op == "placeholder":
                    values[node] = next(remaining)
                elif node.op == "get_attr":
                    values[node] = get_tensor(self.graph, str(node.target))
                else:
                    values[node] = _call(node, node.args, node.kwargs, values.__getitem__)
        return values

    def logits(self, values: dict[fx.Node, Any]) -> torch.Tensor:
        """The network's output among the values of a run."""
        output = values[self.output]
        assert isinstance(output, torch.Tensor)
        return output

    def downstream(self, layer: Layer) -> list[fx.Node]:
        """The layer's nodes and all that depend on them, in order."""
        if layer.name in self._downstream:
            return self._downstream[layer.name]
        dependent: dict[fx.Node, None] = {}
        for node in self.nodes:
            uses = any(source in dependent for source in node.all_input_nodes)
            if node.name in layer.nodes or uses:
                dependent[node] = None
        self._downstream[layer.name] = list(dependent)
        return self._downstream[layer.name]

    def rerun(
        self, layer: Layer, values: dict[fx.Node, Any], replace: Replacement, choices: int
    ) -> list[torch.Tensor]:
        """The network's outputs [N, …] with the layer's arguments replaced, for each of its
        choices.

        `values` are those of a run over the same batch. A layer that the output does not depend on
        gives the output of that run.
        """
        nodes = self.downstream(layer)
        if self.output not in nodes:
            return [self.logits(values)] * choices
        largest = max(v.nbytes for n in nodes if isinstance(v := values[n], torch.Tensor))
        limit = _STACKED_BYTES.get(self.logits(values).device.type, 0)
        varying = {node.name for node in self.varying}
        # An embedding of positions has no row per sample: its choices would not add up.
        apart = not varying.issuperset(layer.nodes)
        if choices > 1 and largest * choices <= limit and not apart and self.batch_first:
            return list(self._suffix(layer, nodes, values, replace, range(choices)).chunk(choices))
        return [self._suffix(layer, nodes, values, replace, [c]) for c in range(choices)]

    def _suffix(
        self,
        layer: Layer,
        nodes: Sequence[fx.Node],
        values: dict[fx.Node, Any],
        replace: Replacement,
        choices: Sequence[int],
    ) -> torch.Tensor:
        count = len(choices)
        changed: dict[fx.Node, Any] = {}
        last_use = {source: node for node in nodes for source in node.all_input_nodes}

        def stacked(node: fx.Node) -> Any:
            if node in changed:
                return changed[node]
            value = values[node]
            if count == 1 or node not in self.varying:
                return value
            if isinstance(value, list | tuple):
                return [torch.cat([part] * count) for part in value]
            return torch.cat([value] * count) if isinstance(value, torch.Tensor) else value * count

        with torch.no_grad():
            for node in nodes:
                if node.name in layer.nodes:
                    parts = {
                        source: changed[source].chunk(count)
                        if source in changed
                        else [values[source]] * count
                        for source in node.all_input_nodes
                    }
                    results = []
                    for position, choice in enumerate(choices):
                        here = {source: part[position] for source, part in parts.items()}
                        args = replace(node, fx.map_arg(node.args, here.__getitem__), choice)
                        results.append(node.target(*args, **node.kwargs))  # type: ignore[operator]
                    changed[node] = torch.cat(results) if count > 1 else results[0]
                else:
                    changed[node] = _call(node, node.args, node.kwargs, stacked)
                for source in node.all_input_nodes:
                    if last_use[source] is node and source is not self.output:
                        changed.pop(source, None)
        output = changed[self.output]
        assert isinstance(output, torch.Tensor)
        return output


def _one_row_each(node: fx.Node, two: Any, three: Any) -> bool:
    """True for values of two and of three samples with a row each, and for their number."""
    if isinstance(two, torch.Tensor) and two.dim() > 0:
        return (two.shape[0], three.shape[0]) == (2, 3) and two.shape[1:] == three.shape[1:]
    return (two, three) == (2, 3) and packet(node) == "sym_size"


def _call(node: fx.Node, args: Any, kwargs: Any, value_of: Callable[[fx.Node], Any]) -> Any:
    return node.target(*fx.map_arg(args, value_of), **fx.map_arg(kwargs, value_of))  # type: ignore[operator]


def activation_bytes(graph: fx.GraphModule) -> int:
    """Bytes of all intermediate values of one sample, at 4 bytes per element."""
    return sum(
        4 * torch.Size(node.meta["shape"]).numel()
        for node in graph.graph.nodes
        if node.op in ("placeholder", "call_function") and "shape" in node.meta
    )
