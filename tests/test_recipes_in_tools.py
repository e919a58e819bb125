"""What the tools themselves make of recipes: they read them, have the bits, and take the bytes."""

import importlib
import json
import re
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_bytes import STORED
from torch import nn

from mpsearch.recipes.target import Recipe, Target, bytes_column, find_target
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

OUT, IN = 48, 64


def _recipe(tool: str, names: Iterable[str]) -> tuple[Target, Recipe]:
    """A linear layer for each choice, called after its place."""
    target = find_target(tool)
    layers = {
        str(n): (TableLayer(str(n), "linear", shape=(OUT, IN)), Choice.called(name))
        for n, name in enumerate(names)
    }
    for layer, choice in layers.values():
        assert not target.refused(layer, choice), choice
    return target, Recipe(layers)


def _network(recipe: Recipe) -> nn.Sequential:
    """Of layers in bfloat16 where activations have 16 bits, and in float32 else."""
    torch.manual_seed(0)
    kinds = [
        torch.bfloat16 if choice.a_bits == 16 or choice.label else torch.float32
        for _, choice in recipe.layers.values()
    ]
    return nn.Sequential(*(nn.Linear(IN, OUT, bias=False, dtype=kind) for kind in kinds))


def _costs(target: Target, recipe: Recipe, name: str) -> int:
    return target.costs(*recipe.layers[name])[bytes_column(target.name)]


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _most_levels(weight: torch.Tensor, size: int) -> int:
    """The most different values that any group of a row has; size 0: the row is the group."""
    groups = weight.detach().float().reshape(-1, size or weight.shape[1])
    return max(len(group.unique()) for group in groups)


def _rows(weight: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """Stands in for the kernel of mslk, which runs on GPUs: codes, scales and zeros by group."""
    groups = weight.float().reshape(weight.shape[0], -1, size)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = (high - low) / 15
    codes = ((groups - low) / scale).round() - 8
    zero = low + 8 * scale
    return codes.reshape(weight.shape).to(torch.int8), scale[..., 0].T, zero[..., 0].T


def _pack(codes: torch.Tensor) -> torch.Tensor:
    return (codes[:, ::2] & 15) | (codes[:, 1::2] << 4)


def test_torchao_reads_the_recipe_and_weights_have_the_bits_in_the_bytes_predicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exactly, for every configuration; of Int4WeightOnlyConfig with a stand-in for the one kernel
    that needs a GPU: what is stored is torchao's."""
    pytest.importorskip("torchao")
    from torchao.core.config import config_from_dict
    from torchao.quantization import quantize_

    place = "torchao.quantization.quantize_.workflows.int4.int4_tensor"
    int4 = importlib.import_module(place)
    monkeypatch.setattr(int4, "int4_row_quantize_zp", _rows)
    monkeypatch.setattr(int4, "pack_int4", _pack)
    names = [*STORED["torchao"][0], "int8wo", "int8dq", "int4wo-32"]
    target, recipe = _recipe("torchao", names)
    network = _network(recipe)
    layers = dict(recipe.layers)
    for name, module, shape in (
        ("conv", nn.Conv2d(4, 8, 3), (8, 4, 3, 3)),
        ("table", nn.Embedding(10, 64), (10, 64)),
    ):
        kind = "conv2d" if name == "conv" else "embedding"
        layers[name] = (TableLayer(name, kind, shape=shape), Choice.called("w3a32"))
        network.add_module(name, module)
    config = config_from_dict(json.loads(target.write(Recipe(layers))))
    quantize_(network, config, filter_fn=None)
    for name, (layer, choice) in layers.items():
        weight: Any = network.get_submodule(name).weight
        parts = [weight]
        if hasattr(weight, "tensor_data_names"):
            optional = getattr(weight, "optional_tensor_data_names", ())
            given = (*weight.tensor_data_names, *optional)
            parts = [getattr(weight, part, None) for part in given]
        stored = _bytes(part for part in parts if part is not None)
        assert stored == _costs(target, Recipe(layers), name), choice
        known = Choice.called({"int8wo": "w8a16", "int8dq": "w8a8"}.get(choice.name, choice.name))
        if known.w_bits in range(1, 9) and type(weight).__name__ != "Int4Tensor":
            rows = weight.dequantize()
            if layer.kind == "conv2d":  # a scale for each position of the kernel
                rows = rows.permute(0, 2, 3, 1).reshape(-1, 4)
            assert _most_levels(rows, known.group_size) <= 2**known.w_bits, choice
    with torch.no_grad():
        conv: Any = network.get_submodule("conv")
        assert conv(torch.randn(1, 4, 8, 8)).shape == (1, 8, 6, 6)


def test_compressed_tensors_parses_the_recipe_and_compresses_to_the_bytes_predicted() -> None:
    """Exactly where the table says how wide the network's floats are; with a8 and fp8 in a network
    of 16 bits two bytes less for each scale."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from compressed_tensors.quantization.utils import calculate_qparams

    target, recipe = _recipe("compressed-tensors", STORED["compressed-tensors"][0])
    network = _network(recipe)
    config = QuantizationConfig(**json.loads(target.write(recipe)))
    apply_quantization_config(network, config)
    module: Any
    for module in network:
        if not hasattr(module, "weight_scale"):
            continue
        args = module.quantization_scheme.weights
        groups = module.weight.detach().reshape(OUT, -1, args.group_size or IN)
        more = {}
        if hasattr(module, "weight_global_scale"):
            largest = module.weight.detach().float().abs().max()
            more = {"global_scale": (448 * 6 / largest).reshape(1)}
            module.weight_global_scale.data.copy_(more["global_scale"])
        scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args, **more)
        module.weight_scale.data.copy_(scale.reshape(module.weight_scale.shape))
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(network)
    stored = {
        name: _bytes(module.state_dict().values()) for name, module in network.named_children()
    }
    for name, (_, choice) in recipe.layers.items():
        short = 2 * OUT if choice.label == "fp8" else 0
        assert stored[name] == _costs(target, recipe, name) - short, choice
    compressor.decompress_model(network)
    for name, (_, choice) in recipe.layers.items():
        module = network.get_submodule(name)
        if choice.w_bits in (4, 8):
            assert _most_levels(module.weight, choice.group_size) <= 2**choice.w_bits, choice


def test_modelopt_loads_the_recipe_and_real_weights_take_the_bytes_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Codes and scales exactly: `_amax` of the weights is the calibration's, of the inputs it is
    the scale. Fake quantization of NVFP4 and MX needs a GPU, packing does not."""
    pytest.importorskip("modelopt")
    import modelopt.torch.quantization as mtq
    from modelopt.recipe import load_recipe

    names = [*STORED["modelopt"][0], "NVFP4_DEFAULT_CFG"]
    target, recipe = _recipe("modelopt", names)
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Linear(IN, OUT, bias=False) for _ in names))
    (tmp_path / "recipe.yaml").write_bytes(target.write(recipe))
    x = torch.randn(8, IN)

    def every(model: nn.Sequential) -> None:
        for layer in model:
            layer(x)

    config = load_recipe(tmp_path / "recipe.yaml").quantize
    mtq.quantize(network, config, every)
    for name, (_, choice) in recipe.layers.items():
        layer: Any = network.get_submodule(name)
        if choice.w_bits in (4, 8):
            assert _most_levels(layer.weight_quantizer(layer.weight), choice.group_size) <= (
                2**choice.w_bits
            )
        assert layer.input_quantizer.is_enabled == (choice.a_bits not in (16, 32)) or choice.label
    mtq.compress(network)
    for name, (_, choice) in recipe.layers.items():
        layer = network.get_submodule(name)
        parts = {key: value for key, value in layer.named_buffers() if "_scale" in key}
        inputs = [value for key, value in layer.named_buffers() if key == "input_quantizer._amax"]
        if choice.name.startswith("mx"):
            inputs = []  # found anew for each block
        if choice.w_bits != 16:  # the network of this test is in float32
            stored = _bytes([layer.weight, *parts.values(), *inputs])
            assert stored == _costs(target, recipe, name), choice
    capsys.readouterr()


def test_gguf_reads_a_file_of_the_predicted_bytes(tmp_path: Path) -> None:
    """Every type that the recipe names, quantized where gguf's Python can and else as blocks of
    nothing: tensors, alignment and the whole file."""
    gguf: types.ModuleType = pytest.importorskip("gguf")
    target = find_target("llama.cpp")
    kinds = [gguf.GGMLQuantizationType[name.upper()] for name in importlib.import_module(
        "mpsearch.recipes.llama_cpp").BLOCKS]  # fmt: skip
    shape = (3, 256)
    layers = {
        f"blk.{n}.ffn_up": (TableLayer(f"blk.{n}.ffn_up", shape=shape), Choice.called(kind.name))
        for n, kind in enumerate(kinds)
    }
    lines = target.write(Recipe(layers)).decode().splitlines()
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    rng = np.random.default_rng(0)
    for name in layers:
        fitting = [line for line in lines if re.search(line.rpartition("=")[0], f"{name}.weight")]
        assert len(fitting) == 1  # blk.1 is not blk.11
        kind = gguf.GGMLQuantizationType[fitting[0].rpartition("=")[2].upper()]
        weight = rng.normal(size=shape).astype(np.float32)
        try:
            stored = gguf.quants.quantize(weight, kind)
        except NotImplementedError:
            stored = np.zeros(gguf.quant_shape_to_byte_shape(shape, kind), np.uint8)
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = gguf.GGUFReader(tmp_path / "model.gguf")
    predicted = {name: target.costs(*layer)["llama_cpp_bytes"] for name, layer in layers.items()}
    for tensor, kind, (name, taken) in zip(read.tensors, kinds, predicted.items(), strict=True):
        assert (tensor.name, tensor.tensor_type) == (f"{name}.weight", kind)
        assert tensor.n_bytes <= taken < tensor.n_bytes + 32
        assert gguf.quants.dequantize(tensor.data, kind).shape == shape
    size = (tmp_path / "model.gguf").stat().st_size
    assert size - read.data_offset == sum(predicted.values())
