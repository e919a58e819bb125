"""What a layer takes in the ONNX file, beside what the layer table predicts."""

from typing import Any

from mpsearch.exporters.onnx.storage import stored_bits
from mpsearch.graph.layers import Layer
from mpsearch.quantization.packing import layer_bytes, packed_bytes
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import FLOAT_BITS


def layer_rows(network: QuantizedNetwork, model: Any) -> list[dict[str, Any]]:
    """One row per layer: bits, stored bits, bytes of packed weights and of all its constants.

    `model` is what `onnx_model` made of the network. Beside weights and biases its constants are
    scales, zero points and bounds of clamps.
    """
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    rows = []
    for layer in network.source.layers:
        choice = network.assignment[layer.name]
        w_bits, a_bits = (_stored(bits) for bits in (choice.w_bits, choice.a_bits))
        prefixes = _prefixes(layer)
        rows.append({
            "layer": layer.name, **choice.to_json(),
            "stored_w_bits": w_bits, "stored_a_bits": a_bits, "macs": layer.macs,
            "weight_bytes": packed_bytes(layer.weights, w_bits),
            "stored_bytes": sum(n for name, n in sizes.items() if name.startswith(prefixes)),
            "size_bytes": layer_bytes(layer, choice),
        })  # fmt: skip
    return rows


def _prefixes(layer: Layer) -> tuple[str, ...]:
    """How the names of the layer's constants begin, see `LayerWriter`."""
    own = ("weight", "weight_by_input", "bias")
    return (*(f"{layer.name}/{kind}/" for kind in own), *(f"{node}/input/" for node in layer.nodes))


def _stored(bits: int) -> int:
    return bits if bits == FLOAT_BITS else stored_bits(bits)
