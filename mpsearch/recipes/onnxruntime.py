"""`--for onnxruntime`: the types of tensors that its `quantize_static` takes as overrides."""

import json
from collections.abc import Mapping
from typing import Any

from mpsearch.errors import InputError
from mpsearch.recipes.onnx_layers import OPERATORS, onnx_layers
from mpsearch.recipes.own_formats import FLOAT, KINDS, refused_format, weights_of
from mpsearch.recipes.target import Recipe, Target, bytes_column
from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import packed_bytes
from mpsearch.tables.table import TableLayer

_WEIGHTS, _ACTIVATIONS = (4, 8, 16), (8, 16)


class OnnxRuntime(Target):
    """`TensorQuantOverrides`: a type for each weight, by channel, and for what layers read."""

    name = "onnxruntime"
    description = "JSON: tensor overrides and excluded nodes for quantize_static, QDQ"
    formats = "w4, w8 or w16 with a8 or a16; w32a32"

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        """Its types, for layers whose shape is known."""
        if why := refused_format(layer, choice, KINDS):
            return why
        if (choice.w_bits, choice.a_bits) == (FLOAT, FLOAT):
            return ""
        if choice.w_bits not in _WEIGHTS:
            return "weights have 4, 8 or 16 bits, or float with float activations"
        return "" if choice.a_bits in _ACTIVATIONS else "activations have 8 or 16 bits"

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        """Constants of the QDQ file: codes, and for each channel a scale and a zero point in the
        weights' type and an int32 bias with a scale and a zero point of its own; scale and zero
        point of what the layer reads."""
        channels, count = layer.shape[0], weights_of(layer)
        if choice.w_bits == FLOAT:
            return {bytes_column(self.name): 4 * (count + channels)}
        stored = packed_bytes(count, choice.w_bits) + packed_bytes(channels, choice.w_bits)
        return {bytes_column(self.name): stored + 16 * channels + 4 + choice.a_bits // 8}

    def write(self, recipe: Recipe) -> bytes:
        """Overrides by tensor, nodes to exclude and the options that quantize layers alone."""
        found = onnx_layers(recipe.model, recipe.layers, self.name)
        read: dict[str, dict[int, list[str]]] = {}  # tensor -> bits -> the nodes that read it so
        overrides: dict[str, list[dict[str, Any]]] = {}
        excluded = []
        for name, (_, choice) in recipe.layers.items():
            for use in found[name]:
                if choice.w_bits == FLOAT:
                    excluded.append(use.node)
                    continue
                said = [{"quant_type": f"QInt{choice.w_bits}", "axis": use.axis, "symmetric": True}]
                if overrides.setdefault(use.weight, said) != said:
                    raise InputError(
                        f"layer {name!r} shares its weight {use.weight!r} with another layer, of "
                        "other bits; give both the same: --pin, or --group"
                    )
                read.setdefault(use.source, {}).setdefault(choice.a_bits, []).append(use.node)
        for tensor, nodes in read.items():
            overrides[tensor] = [{"quant_type": f"QUInt{max(nodes)}"}]
            if len(nodes) > 1:  # the wider one, and from it the other
                fewer = {"quant_type": f"QUInt{min(nodes)}", "recv_nodes": nodes[min(nodes)]}
                overrides[tensor][0]["convert"] = fewer
        options = {"OpTypesToExcludeOutputQuantization": list(OPERATORS)}
        document = {
            "op_types_to_quantize": list(OPERATORS), "nodes_to_exclude": excluded,
            "extra_options": options, "tensor_quant_overrides": overrides,
        }  # fmt: skip
        return (json.dumps(document, indent=1) + "\n").encode()


TARGET = OnnxRuntime()
