"""What reaches each layer: histograms of the input activations over the calibration data."""

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import EMBEDDING, packet
from mpsearch.graph.network import Network
from mpsearch.quantization.quantizer import ActivationQuantizer, activation_quantizer

_BINS = 2048
Range = tuple[float, float]
Observe = Callable[[str, torch.Tensor], None]  # (layer name, what reaches it)


@dataclass(frozen=True)
class Histogram:
    """How often which values reached a layer."""

    counts: np.ndarray
    """In equal bins over [low, high]."""
    low: float
    """The smallest value."""
    high: float
    """The largest value; equal to low for a tensor without spread."""

    def quantizer(self, bits: int) -> ActivationQuantizer:
        """The range with the least squared error at `bits`."""
        return activation_quantizer(bits, self.counts, self.low, self.high)


class _Watching(fx.Interpreter):
    """Runs the graph and shows what reaches chosen nodes, or what they give, each tensor while it
    is there anyway."""

    def __init__(
        self,
        graph: fx.GraphModule,
        observe: Observe,
        layer_of: Mapping[str, str],
        given: Container[str] = (),
    ) -> None:
        super().__init__(graph)
        self.observe, self.layer_of, self.given = observe, layer_of, given

    def run_node(self, n: fx.Node) -> object:
        if n.name in self.layer_of:
            (value,) = self.fetch_args_kwargs_from_env(n)[0][:1]
            assert isinstance(value, torch.Tensor)
            self.observe(self.layer_of[n.name], value)
        result = super().run_node(n)
        if n.name in self.given:
            assert isinstance(result, torch.Tensor)
            self.observe(n.name, result)
        return result


def show_inputs(network: Network, data: Data, batch_size: int, observe: Observe) -> None:
    """Call `observe(layer name, input)` for every use of every layer, batch by batch.

    Embeddings are left out: indices are not quantized.
    """
    tables = {node.name for node in network.graph.graph.nodes if packet(node) == EMBEDDING}
    layer_of = {
        node: layer.name for layer in network.layers for node in layer.nodes if node not in tables
    }
    _run(_Watching(network.graph, observe, layer_of), network.device, data, batch_size)


def _run(watching: fx.Interpreter, device: torch.device, data: Data, batch_size: int) -> None:
    for inputs, _ in data.batches(batch_size):
        with torch.no_grad():
            watching.run(*(x.to(device) for x in inputs))


def calibrate(network: Network, data: Data, batch_size: int = 64) -> dict[str, Histogram]:
    """Histogram of every layer's input over `data`, in two passes: range, then counts.

    The data go to where the network's weights are.

    A layer that is used more than once has one histogram over all uses. That of an embedding table
    is empty: its quantizer is never used. Raises InputError naming a layer that reads what is not
    finite.
    """
    ranges: dict[str, Range] = {}

    def widen(name: str, value: torch.Tensor) -> None:
        low, high = (float(end) for end in torch.aminmax(value))
        old = ranges.get(name, (low, high))
        # numpy's keep what is not a number
        ranges[name] = float(np.minimum(old[0], low)), float(np.maximum(old[1], high))

    show_inputs(network, data, batch_size, widen)
    for name, ends in ranges.items():
        if not all(map(math.isfinite, ends)):
            raise InputError(
                f"layer {name!r} reads infinite values, or not a number, on the calibration data; "
                "expected finite numbers: check the data and what is in front of the layer"
            )
    found = _counted(ranges, lambda observe: show_inputs(network, data, batch_size, observe))
    empty = Histogram(np.zeros(_BINS, dtype=np.int64), 0.0, 0.0)
    return {layer.name: found.get(layer.name, empty) for layer in network.layers}


def calibrate_nodes(
    graph: fx.GraphModule,
    ranges: Mapping[str, Range],
    device: torch.device,
    data: Data,
    batch_size: int = 64,
) -> dict[str, Histogram]:
    """Histogram of what nodes of a graph give over `data`, by name; values beyond a node's range
    count as its ends."""

    def show(observe: Observe) -> None:
        watching = _Watching(graph, lambda n, x: observe(n, x.clamp(*ranges[n])), {}, ranges)
        _run(watching, device, data, batch_size)

    return _counted(ranges, show)


def _counted(ranges: Mapping[str, Range], show: Callable[[Observe], None]) -> dict[str, Histogram]:
    """Of all that `show` shows, under the names that it gives."""
    counts = {name: np.zeros(_BINS, dtype=np.int64) for name in ranges}

    def count(name: str, value: torch.Tensor) -> None:
        low, high = ranges[name]
        if low < high:
            binned = torch.histc(value.float(), bins=_BINS, min=low, max=high)
            counts[name] += binned.to(torch.int64).cpu().numpy()
        else:
            counts[name][0] += value.numel()

    show(count)
    return {name: Histogram(counts[name], *ends) for name, ends in ranges.items()}


def missing_classes(network: Network, data: Data) -> tuple[int, ...]:
    """The classes of which labelled `data` have no sample; none where there are no labels."""
    labels = data.labels
    if labels is None or len(network.output_shape) != 1 or labels.dtype != torch.int64:
        return ()
    if labels.dim() != 1:
        return ()
    present = set(labels.tolist())
    return tuple(label for label in range(network.output_shape[0]) if label not in present)
