"""torchao: `FqnToConfig` as JSON, which `config_from_dict` reads and `quantize_` applies.

Read in torchao 0.18: `quantization/quant_api.py` (which layers each configuration takes), the
tensors in `quantization/quantize_/workflows/` (what they hold), `core/config.py` (the JSON).
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from mpsearch.recipes.names import check_distinct
from mpsearch.recipes.target import FLOATS, NO_SHAPE, Recipe, Target, bytes_column, left_alone
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

PACKED_GROUPS = (32, 64, 128, 256)  # of Int4WeightOnlyConfig
LABELS = {"int8wo": Choice(8, 16), "int8dq": Choice(8, 8)} | {
    f"int4wo-{size}": Choice(4, 16, size) for size in PACKED_GROUPS
}


class Torchao(Target):
    name = "torchao"
    description = "PyTorch's quantize_: FqnToConfig as JSON, also for transformers and vLLM"
    formats = (
        "w1 … w8 in linear layers, also in groups (w4g32a16), with a16, a32 (weights only) or a8 "
        "(dynamic), in embeddings and conv2d with a16, a32; w16, w32 (left alone); "
        f"{', '.join(LABELS)}"
    )

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        choice = LABELS.get(choice.label, choice)
        shape, w_bits, group = layer.shape, choice.w_bits, choice.group_size
        if choice.label:
            return "no format of this name"
        if not shape:
            return NO_SHAPE
        if layer.name.startswith("re:") or layer.name == "_default":
            return "its name stands for other layers there"
        if left_alone(choice):
            return ""
        if not 1 <= w_bits <= 8 or choice.a_bits not in (8, *FLOATS):
            return "it has weights of 1 to 8 bits, activations of 8, or 16 and 32 for float"
        if len(shape) not in (2, 4) or "transpose" in layer.kind:
            return "it quantizes linear layers, embeddings and conv2d"
        if choice.a_bits == 8 and (len(shape) == 4 or layer.kind == "embedding"):
            return "it quantizes activations of linear layers alone"
        if (group or shape[1]) == 1:
            return "it has no scale for each weight, as of layers of one input: depthwise ones"
        return f"{shape[1]} inputs are no whole groups" if group and shape[1] % group else ""

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        choice = LABELS.get(choice.label, choice)
        weights, column = math.prod(layer.shape), bytes_column(self.name)
        if left_alone(choice):
            return {column: weights * choice.w_bits // 8}
        scales = weights // (choice.group_size or layer.shape[1])
        form = _form(layer, choice)
        if form == "Int4WeightOnlyConfig":
            return {column: weights // 2 + scales * (2 + 2)}  # scale, zero point in bfloat16
        # whatever the bits, a code takes a byte; scales are float32 but in weights for bfloat16
        wide = 2 if form == "IntxWeightOnlyConfig" and choice.a_bits == 16 else 4
        return {column: weights + scales * (wide + 1)}

    def write(self, recipe: Recipe) -> bytes:
        weights = ((name, name.removesuffix(".weight")) for name in recipe.layers)
        check_distinct(weights, self.name)
        configs = {name: _config(*one) for name, one in recipe.layers.items()}
        document = _typed("FqnToConfig", 1, fqn_to_config=configs)
        return (json.dumps(document, indent=2) + "\n").encode()


def _form(layer: TableLayer, choice: Choice) -> str:
    """Which configuration stores it in the fewest bytes, among those that take the layer."""
    linear = len(layer.shape) == 2 and layer.kind != "embedding"
    if choice.a_bits == 8:
        return (
            "Int8DynamicActivationInt8WeightConfig"
            if choice.w_bits == 8 and not choice.group_size
            else "Int8DynamicActivationIntxWeightConfig"
        )
    if linear and choice.w_bits == 8:
        return "Int8WeightOnlyConfig"
    packed = choice.w_bits == 4 and choice.a_bits == 16 and choice.group_size in PACKED_GROUPS
    return "Int4WeightOnlyConfig" if linear and packed else "IntxWeightOnlyConfig"


def _config(layer: TableLayer, choice: Choice) -> dict[str, Any] | None:
    choice = LABELS.get(choice.label, choice)
    if left_alone(choice):
        return None
    form, size = _form(layer, choice), choice.group_size
    if form == "Int4WeightOnlyConfig":
        return _typed(form, 2, group_size=size)
    if form == "Int8DynamicActivationInt8WeightConfig":
        return _typed(form, 2)
    groups = _typed("PerGroup", 1, group_size=size)
    if form == "Int8WeightOnlyConfig":
        return _typed(form, 2, granularity=groups if size else _typed("PerRow", 1, dim=-1))
    prefix = "weight_" if choice.a_bits == 8 else ""
    data = {
        "weight_dtype": _dtype(f"int{choice.w_bits}"),
        f"{prefix}granularity": groups if size else _typed("PerAxis", 1, axis=0),
        f"{prefix}scale_dtype": _dtype("bfloat16" if choice.a_bits == 16 else "float32"),
    }
    return _typed(form, 2, **data)


def _typed(kind: str, version: int, **data: Any) -> dict[str, Any]:
    return {"_type": kind, "_version": version, "_data": data}


def _dtype(name: str) -> dict[str, str]:
    return {"_type": "torch.dtype", "_data": name}


TARGET = Torchao()
