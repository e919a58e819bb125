"""What of data lies outside of the inputs that the activations' ranges were made for.

Bytes where a network was calibrated on numbers from 0 to 1, or the other way round: it runs and
answers, and every accuracy is that of other inputs.
"""

import math
from collections.abc import Sequence

from mpsearch.data import Data
from mpsearch.graph.layers import EMBEDDING, layer_input, packet
from mpsearch.graph.network import Network
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS

Range = tuple[float, float]
_SHARE = 0.01  # outside, from which on it is worth a line
_FEW = 8  # values that a second draw of the calibration data may well have outside
_STEPS = 255  # of the range: what lies one step outside is no matter
# Operators that give their input's values again.
_SAME = {
    "alias",
    "clone",
    "contiguous",
    "flatten",
    "permute",
    "reshape",
    "transpose",
    "unsqueeze",
    "view",
}
_FILLED = 0.02  # of the range, below which a scaling is missing the other way round


def input_ranges(network: Network, data: Data) -> tuple[Range | None, ...]:
    """Smallest and largest value of every input; None for one of whole numbers."""
    return tuple(
        (float(x.min()), float(x.max())) if dtype.is_floating_point else None
        for x, dtype in zip(data.inputs, network.input_dtypes, strict=True)
    )


def ranges_of(quantized: QuantizedNetwork) -> tuple[Range | None, ...]:
    """Those that it was calibrated on, or else what its own quantizers say of its inputs.

    The latter may cut off what is rare: they count with as much again at either end.
    """
    if quantized.input_ranges is not None:
        return quantized.input_ranges
    network = quantized.source
    nodes = {node.name: node for node in network.graph.graph.nodes}
    found: dict[str, Range] = {}
    for layer in network.layers:
        activation = quantized.layers[layer.name].activation
        for node in (nodes[name] for name in layer.nodes):
            if packet(node) == EMBEDDING or activation.bits == FLOAT_BITS:
                continue
            source = layer_input(node)
            while source.op == "call_function" and packet(source) in _SAME:
                source = source.all_input_nodes[0]
            if source.op == "placeholder":
                span = activation.scale * (2**activation.bits - 1)
                low = -activation.scale * activation.zero_point - span
                old = found.get(str(source.target), (low, low + 3 * span))
                found[str(source.target)] = min(old[0], low), max(old[1], low + 3 * span)
    return tuple(found.get(name) for name in network.input_names)


def outside_notes(
    network: Network, data: Data, ranges: Sequence[Range | None], calibrated: int | None = None
) -> list[str]:
    """A sentence for every input of `data` that is not what `ranges` were made for.

    `calibrated`: how many samples they are of; few of them leave some values outside by chance.
    """
    notes = []
    for name, x, known in zip(network.input_names, data.inputs, ranges, strict=True):
        if known is None or not x.is_floating_point():
            continue
        low, high = known
        found_low, found_high = float(x.min()), float(x.max())
        step = (high - low) / _STEPS
        outside = int(((x < low - step) | (x > high + step)).sum())
        few = 0.0 if calibrated is None else _FEW / (calibrated * math.prod(x.shape[1:]))
        seen = (
            f"calibrated ({low:.4g} to {high:.4g}; these are {found_low:.4g} to {found_high:.4g}): "
            "is a scaling missing?"
        )
        share = outside / x.numel()
        drawn = int((x != 0).sum())  # of pictures that are nearly empty, what was drawn
        if share > max(_SHARE, few) or (few < 0.5 and outside > max(drawn / 2, _FEW)):
            notes.append(
                f"input {name}: {100 * share:.3g} % of its values lie outside of what was {seen}"
            )
        elif 0 < found_high - found_low < _FILLED * (high - low):
            filled = (found_high - found_low) / (high - low)
            notes.append(f"input {name}: its values fill {100 * filled:.2g} % of what was {seen}")
    return notes
