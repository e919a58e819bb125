"""`--for brevitas`: keywords of its quantized layers, by name."""

import json
from collections.abc import Mapping
from typing import Any

from mpsearch.recipes.own_formats import FLOAT, KINDS, as_packed, refused_format
from mpsearch.recipes.target import Recipe, Target, bytes_column
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

_BITS = (*range(2, 9), 16)
_WEIGHTS, _READ = "Int8WeightPerChannelFloat", "ShiftedUint8ActPerTensorFloat"


class Brevitas(Target):
    """Quantizers of `brevitas.quant` by name, with the assigned bits in place of their eight."""

    name = "brevitas"
    description = "JSON: keywords of brevitas.nn's layers, and name_blacklist"
    formats = "w2 to w8 or w16 with a2 to a8, a16 or a32; w32a32"

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        """Layers that brevitas.nn has, at the bits that our own quantizer has."""
        if why := refused_format(layer, choice, KINDS):
            return why
        if (choice.w_bits, choice.a_bits) == (FLOAT, FLOAT):
            return ""
        if choice.w_bits not in _BITS:
            return "weights have 2 to 8 or 16 bits, or float with float activations"
        return "" if choice.a_bits in (*_BITS, FLOAT) else "activations have 2 to 8 or 16 bits"

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        """What its integers take, packed, with a float32 scale and a bias for each channel."""
        return {bytes_column(self.name): as_packed(layer, choice)}

    def write(self, recipe: Recipe) -> bytes:
        """Layers with their keywords, and the names of those that stay in float."""
        layers, kept = dict[str, Any](), list[str]()
        for name, (_, choice) in recipe.layers.items():
            if choice.w_bits == FLOAT:
                kept.append(name)
                continue
            layers[name] = {"weight_quant": _WEIGHTS, "weight_bit_width": choice.w_bits}
            if choice.a_bits != FLOAT:
                layers[name] |= {"input_quant": _READ, "input_bit_width": choice.a_bits}
        document = {"layers": layers, "name_blacklist": kept}
        return (json.dumps(document, indent=1) + "\n").encode()


TARGET = Brevitas()
