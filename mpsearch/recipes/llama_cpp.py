"""llama.cpp: the list of `llama-quantize --tensor-type-file`, one `name=type` a line.

Read in llama.cpp: `tools/quantize/quantize.cpp` (the file), `src/llama-quant.cpp` (which tensors it
leaves alone; rows that are no whole blocks get another type); in gguf 0.19 `constants.py` (blocks).
"""

import math
import re
from collections.abc import Mapping

from mpsearch.recipes.names import check_distinct
from mpsearch.recipes.target import NO_SHAPE, Recipe, Target, bytes_column
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

# Type -> (weights of a block, its bytes)
BLOCKS = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2),
    "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34),
    "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176),
    "q6_k": (256, 210), "iq1_s": (256, 50), "iq1_m": (256, 56), "iq2_xxs": (256, 66),
    "iq2_xs": (256, 74), "iq2_s": (256, 82), "iq3_xxs": (256, 98), "iq3_s": (256, 110),
    "iq4_nl": (32, 18), "iq4_xs": (256, 136), "tq1_0": (256, 54), "tq2_0": (256, 66),
    "mxfp4": (32, 17),
}  # fmt: skip
# Our own groups of 32 with a scale of 16 bits are these; a16 or a32: weights alone.
OWN = {"w4g32": "q4_0", "w8g32": "q8_0", "w16": "f16", "w32": "f32"}
ALIGNED = 32  # where each tensor of a file begins
# Tensors that keep their type, by a part of the name.
KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d",
    "shortconv.conv.weight", "time_mix_", "attn_rel_b.weight", ".position_embd", ".rel_pos",
    ".patch_embd", ".patch_merger", "sam.",
)  # fmt: skip


class LlamaCpp(Target):
    name = "llama.cpp"
    description = "llama-quantize --tensor-type-file: a tensor's name and type a line"
    formats = (
        f"{', '.join(kind.upper() for kind in BLOCKS)}; w4g32, w8g32, w16, w32 with a16 or a32 are "
        "Q4_0, Q8_0, F16, F32"
    )

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        kind = _kind(choice)
        if kind is None:
            return "no type of this name" if choice.label else "it has no such integers"
        if not layer.shape:
            return NO_SHAPE
        if kind == "f32" and _kept(layer):
            return ""
        if len(layer.shape) not in (2, 3):
            return "it quantizes tensors of 2 or 3 dimensions"
        if layer.name != layer.name.lower() or re.search(r"[\s=\0]", layer.name):
            return "it reads names in lower case without = and spaces: blk.0.attn_q"
        if _kept(layer):
            return "it keeps this tensor as it is: F32"
        row, block = layer.shape[-1], BLOCKS[kind][0]
        return f"rows of {row} are no whole blocks of {block}" if row % block else ""

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        kind = _kind(choice)
        assert kind is not None
        block, size = BLOCKS[kind]
        stored = math.prod(layer.shape) // block * size
        return {bytes_column(self.name): -(-stored // ALIGNED) * ALIGNED}

    def write(self, recipe: Recipe) -> bytes:
        check_distinct(((name, _tensor(name)) for name in recipe.layers), self.name)
        lines = (
            f"^{re.escape(_tensor(name))}$={_kind(choice)}\n"
            for name, (layer, choice) in recipe.layers.items()
            if not _kept(layer)
        )
        return "".join(lines).encode()


def _kept(layer: TableLayer) -> bool:
    """Whether llama-quantize leaves the tensor as the file has it, at most in F32."""
    vector = len(layer.shape) == 1
    return vector or any(part in _tensor(layer.name) for part in KEPT)


def _tensor(name: str) -> str:
    return name if name.endswith(".weight") else f"{name}.weight"


def _kind(choice: Choice) -> str | None:
    if choice.label:
        kind = choice.label.lower()
        return kind if kind in BLOCKS else None
    return OWN.get(choice.weights) if choice.a_bits in (16, 32) else None


TARGET = LlamaCpp()
