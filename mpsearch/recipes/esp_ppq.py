"""`--for esp-ppq`: on which of ESP-DL's integers each operation runs."""

import json
from collections.abc import Mapping

from mpsearch.errors import InputError
from mpsearch.recipes.onnx_layers import onnx_layers
from mpsearch.recipes.own_formats import refused_format, weights_of
from mpsearch.recipes.target import Recipe, Target, bytes_column
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

_KINDS = ("conv1d", "conv2d", "depthwise_conv1d", "depthwise_conv2d", "linear")
_BITS = {(8, 8), (8, 16), (16, 16)}
_MIXED = Choice(8, 16)
_GROUPED = "convolutions in groups have weights of 16 bits beside activations of 16"
_ALIGNED, _EXPONENT = 16, 8


class EspPpq(Target):
    """esp-ppq's dispatching table: a kind of quantization by the name of the operation."""

    name = "esp-ppq"
    description = "JSON: the dispatching table of esp-ppq, which writes .espdl"
    formats = "w8a8, w8a16, w16a16"

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        """What ESP-DL has no kernels for."""
        if why := refused_format(layer, choice, _KINDS):
            return why
        if (choice.w_bits, choice.a_bits) not in _BITS:
            return f"it has {self.formats}"
        unnamed = not layer.kind and len(layer.shape) > 2 and layer.shape[1] == 1
        return _GROUPED if choice == _MIXED and (unnamed or "depthwise" in layer.kind) else ""

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        """Tensors of the .espdl file, in blocks of 16 bytes: weights, a bias of 4 bytes for each
        channel (8 beside 16-bit activations), and for each channel of both an exponent of 8 bytes.
        """
        channels = layer.shape[0]
        bias = channels * (4 if choice.a_bits == 8 else 8)
        tensors = (weights_of(layer) * choice.w_bits // 8, bias, *[channels * _EXPONENT] * 2)
        return {bytes_column(self.name): sum(-(-n // _ALIGNED) * _ALIGNED for n in tensors)}

    def write(self, recipe: Recipe) -> bytes:
        """Each layer's operations, and a Relu that alone reads one, which is fused with it."""
        found = onnx_layers(recipe.model, recipe.layers, self.name)
        table = dict[str, str]()
        for name, (_, choice) in recipe.layers.items():
            for use in found[name]:
                if choice == _MIXED and use.groups > 1:
                    raise InputError(f"layer {name!r}: {_GROUPED}; choose {Choice(16, 16)} for it")
                table |= dict.fromkeys(filter(None, (use.node, use.relu)), choice.name)
        return (json.dumps({"dispatching": table}, indent=1) + "\n").encode()


TARGET = EspPpq()
