"""What quantizers do to tensors that no layer quantizes, on the calibration data."""

from collections.abc import Mapping, Sequence

import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.integer.ranges import Ranges
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import ActivationQuantizer

Candidates = Mapping[str, Sequence[ActivationQuantizer]]


def squared_errors(
    network: QuantizedNetwork, data: Data, batch_size: int, candidates: Candidates, ranges: Ranges
) -> dict[str, list[float]]:
    """Graph node -> Σ (Q(x) - x)² over `data` for each of its candidates, x within `ranges`."""
    recorder = _Recorder(network.graph, candidates, ranges)
    if candidates:
        with torch.no_grad():
            for inputs, _ in data.batches(batch_size):
                recorder.run(*inputs)
    return recorder.sums


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, candidates: Candidates, ranges: Ranges) -> None:
        super().__init__(graph)
        self.candidates, self.ranges = candidates, ranges
        self.sums = {name: [0.0] * len(tried) for name, tried in candidates.items()}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.name in self.candidates:
            assert isinstance(value, torch.Tensor)
            kept = value.clamp(*self.ranges[n.name])
            for place, quantizer in enumerate(self.candidates[n.name]):
                error = (quantizer.fake_quantize(kept) - kept).double().square().sum()
                self.sums[n.name][place] += float(error)
        return value
