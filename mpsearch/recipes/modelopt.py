"""NVIDIA Model Optimizer: a recipe in YAML, whose `quantize` is what `mtq.quantize` takes.

Read in nvidia-modelopt 0.47: `recipe/loader.py` and `modelopt_recipes/` (the file),
`torch/quantization/config.py` (the entries), `torch/quantization/qtensor/` (what a layer holds).
"""

import json
import math
from collections.abc import Mapping
from glob import escape
from typing import Any

from mpsearch.recipes.names import double_quoted
from mpsearch.recipes.target import FLOATS, NO_SHAPE, Recipe, Target, bytes_column, left_alone
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

_MX = {"-1": 32, "type": "dynamic", "scale_bits": "e8m0"}
_NV = {"-1": 16, "type": "dynamic", "scale_bits": "e4m3"}
_FP8 = {"num_bits": "e4m3", "axis": None}
_INT8 = {"num_bits": 8, "axis": 0}
_MXFP4, _MXFP8 = ({"num_bits": bits, "block_sizes": _MX} for bits in ("e2m1", "e4m3"))
_NVFP4 = {"num_bits": "e2m1", "block_sizes": _NV}
# Label -> (quantizer of the weights, of the inputs, bits of a code, weights of a block, bytes of
# its scale, further bytes of a layer: scales of whole tensors in float32)
LABELS: dict[str, tuple[Any, Any, int, int, int, int]] = {
    "int8": (_INT8, {"num_bits": 8, "axis": None}, 8, 0, 4, 4),
    "fp8": (_FP8, _FP8, 8, 0, 0, 8),
    "nvfp4": (_NVFP4, _NVFP4, 4, 16, 1, 8),
    "w4a16_nvfp4": (_NVFP4, None, 4, 16, 1, 4),
    "mxfp4": (_MXFP4, _MXFP4, 4, 32, 1, 0),
    "mxfp8": (_MXFP8, _MXFP8, 8, 32, 1, 0),
}


class ModelOpt(Target):
    name = "modelopt"
    description = "NVIDIA Model Optimizer's mtq.quantize: a recipe in YAML (.yaml)"
    formats = (
        "w8a8, w8a16 (a32) in linear and convolution layers; in linear layers w4 in groups with "
        f"a16 (a32): w4g128a16; {', '.join(LABELS)}, also as NVFP4_DEFAULT_CFG; w16, w32 (left "
        "alone)"
    )

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        if not layer.shape:
            return NO_SHAPE
        if left_alone(choice):
            return ""
        form = _form(choice)
        if form is None:
            return (
                "no format of this name" if choice.label
                else "of integers it has w8a8, w8a16 and w4 in groups with a16"
            )  # fmt: skip
        weights, _, bits, block, _, _ = form
        if layer.kind == "embedding" or "transpose" in layer.kind or len(layer.shape) < 2:
            return "it quantizes linear and convolution layers"
        if len(layer.shape) > 2 and weights != _INT8:
            return "convolutions have 8-bit integers alone"
        if block and layer.shape[1] % block:
            return f"{layer.shape[1]} inputs are no whole blocks of {block}"
        return "an odd number of inputs" if bits == 4 and layer.shape[1] % 2 else ""

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        weights, column = math.prod(layer.shape), bytes_column(self.name)
        form = _form(choice)
        if form is None:
            return {column: weights * choice.w_bits // 8}
        _, _, bits, block, scale, more = form
        scales = weights // block if block else layer.shape[0]
        return {column: weights * bits // 8 + scales * scale + more}

    def write(self, recipe: Recipe) -> bytes:
        lines = ['    - {"quantizer_name": "*", "enable": false}']
        for name, (_, choice) in recipe.layers.items():
            weights, inputs, *_ = _form(choice) or (None, None)
            for part, attributes in (("weight", weights), ("input", inputs)):
                if attributes is not None:
                    quantizer = double_quoted(f"{escape(name)}.{part}_quantizer")
                    said = json.dumps(attributes).replace('"-1": ', "-1: ")  # keys of YAML
                    lines.append(f'    - {{"quantizer_name": {quantizer}, "cfg": {said}}}')
        head = "metadata:\n  recipe_type: ptq\n  description: bits found by mpsearch\n"
        head += "quantize:\n  algorithm: max\n  quant_cfg:\n"
        return (head + "\n".join(lines) + "\n").encode()


def _form(choice: Choice) -> tuple[Any, Any, int, int, int, int] | None:
    """As of LABELS; None for what is no format of the tool, and for layers left alone."""
    if choice.label:
        return LABELS.get(choice.label.lower().removesuffix("_cfg").removesuffix("_default"))
    if choice.w_bits == 8 and not choice.group_size:
        if choice.a_bits == 8:
            return LABELS["int8"]
        return (_INT8, None, 8, 0, 4, 0) if choice.a_bits in FLOATS else None
    if choice.w_bits != 4 or not choice.group_size or choice.a_bits not in FLOATS:
        return None
    weights = {"num_bits": 4, "block_sizes": {"-1": choice.group_size, "type": "static"}}
    return (weights, None, 4, choice.group_size, 4, 0)


TARGET = ModelOpt()
