"""Tables as other tools write them: small ones, with the version that wrote them or was read."""

import json
import struct
from pathlib import Path
from typing import Any

Q, K, FC = "layers.0.q", "layers.0.k", "fc"
SHAPES = {f"{Q}.weight": [8, 128], f"{K}.weight": [4, 128], f"{FC}.weight": [10, 64]}
EXLLAMAV3 = {  # conversion/measure_model.py, 1.6.5
    "base": {"dir": "/models/m-2bpw", "bpw": 2.0},
    "alts": [{"dir": "/models/m-3bpw", "bpw": 3.0}, {"dir": "/models/m-4bpw", "bpw": 4.0}],
    "groups": [
        {
            "idx": 0,
            "layers": [Q, K],
            "candidates": [{"dkld": -0.02, "dbits": 1536}, {"dkld": -0.05, "dbits": 3072}],
        },
        {
            "idx": 1,
            "layers": [FC],
            "candidates": [{"dkld": 0.0001, "dbits": 640}, {"dkld": -0.01, "dbits": 1280}],
        },
    ],
    "base_kld": 0.11,
    "arch_string": "LlamaForCausalLM",
}
_INT4, _INT8, _NONE = (
    "INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0)", "INT8_DEFAULT_CFG(effective-bits: 8.0)",
    "NONE(effective-bits: 16.0)",
)  # fmt: skip
MODELOPT = {  # mtq.auto_quantize on three linear layers, 0.47.0, its candidate_stats by json.dump
    f"{Q}.quant_recipe": {
        "formats": [_INT4, _INT8, _NONE],
        "scores": [0.0009021877776831388, 9.14595784706762e-06, 0],
        "costs": [256.0, 512.0, 1024.0],
        "module_names": [Q],
        "quantizer_attrs": {Q: ["input_quantizer", "weight_quantizer", "output_quantizer"]},
        "cost_weight": 1.0,
        "allow_no_quant": True,
        "is_fixed": False,
        "uncompressed_cost": 1024.0,
    },
    f"{FC}.quant_recipe": {
        "formats": [_INT4, "NVFP4_DEFAULT_CFG(effective-bits: 4.5)"],
        "scores": [0.0008050890173763037, 0.0007],
        "costs": [160.0, 180.0],
        "module_names": [FC, K],
        "cost_weight": 0.5,
    },
}


def _auto_round(bits: int, data_type: str, group: int, act_bits: int, scores: Any) -> Any:
    """As _save_autoscheme_scores of 0.16.1 writes it; its values are ours."""
    return {
        "version": 1,
        "score_granularity": "per_op",
        "cache_key": "k",
        "cache_config": {"model_id": "m", "nsamples": 8, "seqlen": 32},
        "scheme_index": 0,
        "scheme": {
            "bits": bits, "group_size": group, "sym": True, "data_type": data_type,
            "act_bits": act_bits, "act_group_size": None, "super_bits": None,
        },
        "created_at": "2026-11-29T20:47:09",
        "layer_scores": scores,
        "total_loss_for_scheme": 0.1875,
        "total_params": 2176,
    }  # fmt: skip


AUTO_ROUND = [
    _auto_round(4, "int", 128, 16, {Q: [4256, 0.0625], FC: [2801, 0.125]}),
    _auto_round(4, "mx_fp", 32, 4, {Q: [4352, 0.25], FC: [2720, 0.5]}),
]
_INT = "<QuantizationDataType.int: 1>"
AIMET = [  # common/amp/mixed_precision_algo.py, 2.42.0
    [[["input", f"{Q}_input_quantizer_idx_0"], ["weight", Q]], f"((8, {_INT}), (8, {_INT}))", 0.91,
     -100],
    [[["output", "relu"], ["weight", FC]], f"((8, {_INT}), (8, {_INT}))", 0.905, -90],
    [[["output", "softmax"]], f"((8, {_INT}),)", 0.9, -3],
    [[["input", f"{Q}_input_quantizer_idx_0"], ["weight", Q]], f"((8, {_INT}), (4, {_INT}))", 0.8,
     -200],
    [[["output", "relu"], ["weight", FC]],
     "((16, <QuantizationDataType.float: 2>), (16, <QuantizationDataType.float: 2>))", 0.912, -10],
]  # fmt: skip
MLX_LM = [[Q, 12.5], [K, -2.0], [FC, 100.0]]  # quant/dynamic_quant.py, 0.32.2
SCORES = [{Q: 0.9, FC: 0.75}, {Q: 0.91, FC: 0.9}]  # per_layer_quant_enabled.json, twice

# File -> what is in it, and how `mpsearch table` reads it
FILES: dict[str, tuple[Any, str]] = {
    "measurement.json": (EXLLAMAV3, "measurement.json --shapes shapes.json"),
    "modelopt.json": ({"candidate_stats": MODELOPT}, "modelopt.json"),
    "scheme_00.json": (
        AUTO_ROUND[0], "scheme_00.json scheme_01.json --table-choices w16a16 --shapes shapes.json",
    ),
    "scheme_01.json": (AUTO_ROUND[1], "scheme_01.json"),
    "accuracy_list.json": (AIMET, "accuracy_list.json --table-choices w16a16 --shapes shapes.json"),
    "sensitivities.json": (MLX_LM, "sensitivities.json --shapes shapes.json"),
    "scores.json": (
        SCORES[0],
        "scores.json scores8.json --table-choices w4a8,w8a8 --columns omega=-score "
        "--shapes shapes.json",
    ),
    "scores8.json": (
        SCORES[1], "scores8.json --table-choices w8a8 --columns omega=loss --shapes shapes.json",
    ),
    "shapes.json": (SHAPES, "sensitivities.json --shapes shapes.json"),
}  # fmt: skip


def write_all(folder: Path) -> None:
    """Write all of them."""
    for name, (document, _) in FILES.items():
        (folder / name).write_text(json.dumps(document))


def gguf(*tensors: tuple[str, tuple[int, ...]], keys: bytes = b"", count: int = 0) -> bytes:
    """The header of a GGUF file, version 3."""

    def text(one: str) -> bytes:
        return struct.pack("<Q", len(one)) + one.encode()

    found = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + keys
    for name, shape in tensors:
        found += text(name) + struct.pack("<I", len(shape))
        found += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", 12, 0)
    return found
