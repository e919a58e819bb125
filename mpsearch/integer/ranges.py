"""The range of every tensor of a quantized network on calibration data."""

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.quantized import QuantizedNetwork

Ranges = dict[str, tuple[float, float]]


class _Recorder(fx.Interpreter):
    """Runs the graph and widens the range of every node that gives a tensor of real numbers."""

    def __init__(self, graph: fx.GraphModule, ranges: Ranges) -> None:
        super().__init__(graph)
        self.ranges = ranges

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and n.op != "get_attr" and value.is_floating_point():
            low, high = (float(end) for end in torch.aminmax(value))
            old = self.ranges.get(n.name, (low, high))
            self.ranges[n.name] = (min(low, old[0]), max(high, old[1]))
        return value


def tensor_ranges(quantized: QuantizedNetwork, data: Data, batch_size: int) -> Ranges:
    """Node name -> (smallest, largest value) that the fake-quantized network computes on `data`."""
    ranges: Ranges = {}
    recorder = _Recorder(quantized.graph, ranges)
    with torch.no_grad():
        for inputs, _ in data.batches(batch_size):
            recorder.run(*inputs)
    return ranges
