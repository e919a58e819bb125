"""The assigned network's outputs on some samples, part by part and in several equal ways."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.exporters.agreement_of_outputs import Array, Part, Reference
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import set_tensor, tensor_nodes
from mpsearch.integer.inference import outputs
from mpsearch.integer.operators import CLAMPS, IDENTITIES, RESHAPES
from mpsearch.quantization.quantized import QuantizedNetwork

BATCH = 64
_ORDERING = IDENTITIES | RESHAPES | CLAMPS | {"cat", "permute", "transpose", "slice"}


def reference_of(quantized: QuantizedNetwork, data: Data) -> Reference:
    """What the fake-quantized network gives for all of `data`, ready to judge an export.

    The other ways, should they be needed: one sample at a time, torch's own kernels instead of
    oneDNN's, and float64. They differ by nothing but rounding.
    """

    @cache
    def ways() -> tuple[Array, ...]:
        found = [outputs(quantized, data, 1).numpy()]
        with _without_onednn():
            found.append(outputs(quantized, data, BATCH).numpy())
        with suppress(RuntimeError):  # an operator of the network may insist on float32
            found.append(outputs(_in_float64(quantized.graph), data, BATCH).numpy())
        return tuple(found)

    return Reference(outputs(quantized, data, BATCH).numpy(), output_parts(quantized.source), ways)


def output_parts(network: Network) -> tuple[Part, ...]:
    """Every output, and every operand of a concatenation that an output is made of.

    `torch.cat([box, score], 1)` gives `output`, `output, part 1 of 2` and `output, part 2 of 2`:
    the operands may have very different ranges.
    """
    origin = _origins(network)
    parts = []
    for output in network.outputs:
        columns = tuple(range(output.start, output.stop))
        if not columns:
            continue
        vector = len(output.shape) == 1
        parts.append(Part(output.name, columns, vector))
        labels = list(dict.fromkeys(origin[c] for c in columns))
        for place, label in enumerate(labels if len(labels) > 1 else ()):
            members = tuple(c for c in columns if origin[c] == label)
            name = f"{output.name}, part {place + 1} of {len(labels)}"
            parts.append(Part(name, members, vector))
    return tuple(parts)


def _origins(network: Network) -> list[int]:
    """Which tensor each column of the output comes from, through all that only orders values."""
    (result,) = next(node for node in network.graph.graph.nodes if node.op == "output").args
    assert isinstance(result, fx.Node)
    origins: dict[fx.Node, int] = {}
    ordering: set[fx.Node] = set()
    pending = [result]
    while pending:
        node = pending.pop()
        if packet(node) not in _ORDERING:
            origins.setdefault(node, len(origins))
        elif node not in ordering:
            ordering.add(node)
            pending += [source for source in node.all_input_nodes if "shape" in source.meta]
    if len(origins) == 1:
        return [0] * int(np.prod(network.output_shape))
    labelled = _Labelled(network.graph, origins, ordering)
    examples = [
        torch.zeros(1, *shape, dtype=dtype)
        for shape, dtype in zip(network.input_shapes, network.input_dtypes, strict=True)
    ]
    with torch.no_grad():
        labels = labelled.run(*examples)
    assert isinstance(labels, torch.Tensor)
    return [int(label) for label in labels.reshape(-1)]


class _Labelled(fx.Interpreter):
    """Runs a graph with a number in place of every value of an origin."""

    def __init__(
        self, graph: fx.GraphModule, origins: dict[fx.Node, int], ordering: set[fx.Node]
    ) -> None:
        super().__init__(graph)
        self.origins, self.ordering = origins, ordering

    def run_node(self, n: fx.Node) -> object:
        if n in self.ordering and packet(n) in CLAMPS:
            return self.env[n.args[0]]  # type: ignore[index]
        value = super().run_node(n)
        if n not in self.origins:
            return value
        assert isinstance(value, torch.Tensor)
        return torch.full_like(value, self.origins[n])


@contextmanager
def _without_onednn() -> Iterator[None]:
    """torch's own convolutions. `torch.backends.mkldnn.flags` warns about GPUs of Intel."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def _in_float64(graph: fx.GraphModule) -> Callable[..., torch.Tensor]:
    copy = copy_graph(graph)
    for _, name, tensor in list(tensor_nodes(copy)):
        if tensor.is_floating_point():
            set_tensor(copy, name, tensor.double())

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        result = copy(*(x.double() if x.is_floating_point() else x for x in inputs))
        assert isinstance(result, torch.Tensor)
        return result

    return run
