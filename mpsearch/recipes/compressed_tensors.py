"""compressed-tensors: the `quantization_config` of a checkpoint, as vLLM and transformers read it.

Read in compressed-tensors 0.20: `quantization/quant_config.py`, `quant_args.py`, `quant_scheme.py`
(the file), `compressors/` (what a layer holds); in vLLM: `compressed_tensors_wNa16.py` (4 and 8
bits, rows of whole 32-bit words).
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from mpsearch.recipes.target import FLOATS, NO_SHAPE, Recipe, Target, bytes_column, left_alone
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

GROUPS = (32, 64, 128)  # that vLLM's kernels have, beside whole channels
_TOKEN = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
_NVFP4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group",
          "group_size": 16, "dynamic": False, "scale_dtype": "torch.float8_e4m3fn"}  # fmt: skip
_MXFP4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "group",
          "group_size": 32, "dynamic": False, "scale_dtype": "torch.uint8"}  # fmt: skip
_FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
# Label -> (format, weights, inputs, bytes of a scale, further bytes of a layer)
LABELS: dict[str, tuple[str, Any, Any, int, int]] = {
    "fp8": ("float-quantized", _FP8, _TOKEN | {"type": "float"}, 4, 0),
    "nvfp4": ("nvfp4-pack-quantized", _NVFP4, _NVFP4 | {"dynamic": "local"}, 1, 8),
    "nvfp4a16": ("nvfp4-pack-quantized", _NVFP4, None, 1, 4),
    "mxfp4": ("mxfp4-pack-quantized", _MXFP4, _MXFP4 | {"dynamic": True}, 1, 0),
    "mxfp4a16": ("mxfp4-pack-quantized", _MXFP4, None, 1, 0),
}


class CompressedTensors(Target):
    name = "compressed-tensors"
    description = "quantization_config of vLLM and transformers: config groups as JSON"
    formats = (
        "w4, w8 of linear layers, also in groups of 32, 64 or 128, with a16, a32 (weights only) or "
        f"a8 (by token): w4g32a16, w8a8; {', '.join(LABELS)}; w16, w32 (in the ignore list)"
    )

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        if not layer.shape:
            return NO_SHAPE
        if left_alone(choice):
            return ""
        scheme = _scheme(choice)
        if scheme is None:
            return (
                "no format of this name" if choice.label
                else "of integers it has weights of 4 and 8 bits, activations of 8 or in float, "
                "groups of 32, 64 or 128, none with w8a8"
            )  # fmt: skip
        if len(layer.shape) != 2 or layer.kind == "embedding":
            return "it quantizes linear layers"
        step = scheme[1].get("group_size") or 32 // scheme[1]["num_bits"]
        odd = layer.shape[1] % step
        return f"{layer.shape[1]} inputs are no whole groups or words of {step}" if odd else ""

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        column, scheme = bytes_column(self.name), _scheme(choice)
        weights = math.prod(layer.shape)
        if scheme is None:
            return {column: weights * choice.w_bits // 8}
        _, args, _, wide, more = scheme
        scales = weights // (args.get("group_size") or layer.shape[1])
        return {column: weights * args["num_bits"] // 8 + scales * wide + more}

    def write(self, recipe: Recipe) -> bytes:
        groups: dict[Choice, list[str]] = {}
        for name, (_, choice) in recipe.layers.items():
            groups.setdefault(choice, []).append(_target(name))
        config: dict[str, Any] = {}
        for choice, names in groups.items():
            if (scheme := _scheme(choice)) is not None:
                form, weights, inputs, _, _ = scheme
                config[f"group_{len(config)}"] = {
                    "targets": names, "weights": weights, "input_activations": inputs,
                    "format": form,
                }  # fmt: skip
        forms = {group["format"] for group in config.values()}
        document = {
            "quant_method": "compressed-tensors",
            "format": forms.pop() if len(forms) == 1 else "mixed-precision" if forms else "dense",
            "config_groups": config,
            "ignore": [
                _target(name) for name, (_, one) in recipe.layers.items() if left_alone(one)
            ],
        }
        return (json.dumps(document, indent=2) + "\n").encode()


def _target(name: str) -> str:
    """What fits this layer alone: its name, but where that might be an expression or (a part of)
    the name of a class, which the tools look for too: `qkv` fits vLLM's QKVParallelLinear."""
    plain = set(name) & set("._") and not name.startswith("re:")
    return name if plain else rf"re:{re.escape(name)}\Z"


def _scheme(choice: Choice) -> tuple[str, Any, Any, int, int] | None:
    """As of LABELS; None for what is no format of the tool, and for layers left alone."""
    if choice.label:
        return LABELS.get(choice.label.lower())
    size, known = choice.group_size, choice.w_bits in (4, 8) and choice.a_bits in (8, *FLOATS)
    if not known or (size and size not in GROUPS):
        return None
    weights: dict[str, Any] = {
        "num_bits": choice.w_bits, "type": "int", "symmetric": True, "dynamic": False,
        **({"strategy": "group", "group_size": size} if size else {"strategy": "channel"}),
    }  # fmt: skip
    inputs = _TOKEN if choice.a_bits == 8 else None
    wide = 2 if choice.a_bits == 16 else 4  # scales are as wide as the network's floats
    if inputs is not None and choice.w_bits == 8 and size:
        return None  # vLLM's 8-bit products of integers have whole channels alone
    if inputs is not None and choice.w_bits == 8:
        return ("int-quantized", weights, inputs, wide, 0)
    return ("pack-quantized", weights, inputs, wide, 16)  # the shape: two of 64 bits


TARGET = CompressedTensors()
