"""The same bytes in other tools: brevitas at our bits, and MCT's own search.

    python benchmarks/equal_bytes_peers.py equal_bytes.json --networks resnet20,ds-cnn

Adds `peers` to the file that equal_bytes.py wrote, on the same samples and beside our own row. It
needs an environment of its own with `brevitas==0.13.4` and `model-compression-toolkit==2.6.1`,
which are no dependencies of mpsearch. Bytes are counted as ours: packed weights, and 8 for each
output channel. MCT searches among 2, 4 and 8 bits, which is what its IMX500 target has.
"""

import copy
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import ds_cnn
import torch
from equal_bytes import Yardstick, load
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mpsearch.files.whole import write_atomic
from mpsearch.importers.loading import ModelSource, load_module
from mpsearch.models.features import cache_folder
from mpsearch.post_training.repairing import PostTraining
from mpsearch.tables.choice import Choice

_BATCH = 64
_WEIGHTS = {"resnet20": "resnet20.safetensors", "resnet8": "resnet8_from_h5.safetensors"}
Network = Callable[..., torch.Tensor]


def module_of(name: str) -> nn.Module:
    """The float network as its authors' module, batch norms folded, layers by our names."""
    if name == "ds-cnn":
        return ds_cnn.module()
    path = Path(os.environ.get("MPSEARCH_DATA", ""), "pretrained", _WEIGHTS[name])
    module, _ = load_module(ModelSource(str(path), model=name), None)
    module = module.eval()
    for layer, conv in list(module.named_modules()):
        norm = layer.replace("conv", "bn")
        if isinstance(conv, nn.Conv2d) and norm != layer:
            found = dict(module.named_modules()).get(norm)
            if isinstance(found, nn.BatchNorm2d):
                _put(module, layer, fuse_conv_bn_eval(conv, found))
                _put(module, norm, nn.Identity())
    return module


def _put(module: nn.Module, name: str, new: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(module.get_submodule(owner), last, new)


def with_brevitas(stick: Yardstick, bits: Mapping[str, Choice], learned: bool) -> Network:
    """Each layer at our bits: nearest with bias correction, or after GPTQ."""
    import brevitas.nn as qnn
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.graph.gptq import gptq_mode
    from brevitas.quant import (
        Int8WeightPerChannelFloatMSE,
        ShiftedUint8ActPerTensorFloat,
    )

    model = module_of(stick.name)
    for name, layer in list(model.named_modules()):
        if name not in bits:
            continue
        common = {
            "weight_quant": Int8WeightPerChannelFloatMSE, "weight_bit_width": bits[name].w_bits,
            "input_quant": ShiftedUint8ActPerTensorFloat, "input_bit_width": bits[name].a_bits,
            "bias": True,
        }  # fmt: skip
        if isinstance(layer, nn.Conv2d):
            new: nn.Module = qnn.QuantConv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,
                layer.padding, layer.dilation, layer.groups, **common,
            )  # fmt: skip
        else:
            assert isinstance(layer, nn.Linear)
            new = qnn.QuantLinear(layer.in_features, layer.out_features, **common)
        new.load_state_dict(layer.state_dict(), strict=False)
        _put(model, name, new)
    model = model.eval()
    with torch.no_grad():
        with calibration_mode(model):
            for inputs, _ in stick.seen.batches(_BATCH):
                model(*inputs)
        model(*next(iter(stick.seen.batches(_BATCH)))[0])  # makes its quantizers
        if learned:
            with gptq_mode(model, act_order=True, use_quant_activations=True) as gptq:
                for _ in range(gptq.num_layers):
                    for inputs, _ in stick.seen.batches(_BATCH):
                        gptq.model(*inputs)
                    gptq.update()
        with bias_correction_mode(model):
            for inputs, _ in stick.seen.batches(_BATCH):
                model(*inputs)
    return model


def with_mct(stick: Yardstick, limit: int, epochs: int) -> tuple[Network, int]:
    """MCT's own search for `limit` bytes of ours, and GPTQ for so many epochs; its weight bytes."""
    import model_compression_toolkit as mct

    channels = sum(layer.channels for layer in stick.network.layers)
    model = module_of(stick.name)

    def samples() -> Iterator[list[torch.Tensor]]:
        for inputs, _ in stick.seen.batches(_BATCH):
            yield list(inputs)

    config = mct.core.CoreConfig(mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig())
    usage = mct.core.ResourceUtilization(weights_memory=limit - 8 * channels)
    target = mct.get_target_platform_capabilities()
    if epochs:
        tuning = mct.gptq.get_pytorch_gptq_config(n_epochs=epochs)
        quantized, info = mct.gptq.pytorch_gradient_post_training_quantization(
            model, samples, usage, core_config=config, gptq_config=tuning,
            target_platform_capabilities=target,
        )  # fmt: skip
    else:
        quantized, info = mct.ptq.pytorch_post_training_quantization(
            model, samples, usage, core_config=config, target_platform_capabilities=target
        )
    taken = info.final_resource_utilization.weights_memory
    return quantized.eval(), int(taken) + 8 * channels


def peers(stick: Yardstick, share: int, bits: Mapping[str, Choice], epochs: int) -> dict[str, Any]:
    """Each tool at one share of the bytes."""
    limit = share * stick.bytes_at(8) // 100
    found: dict[str, Any] = {
        "ours": stick.measured(bits, PostTraining()),
        "ours, nearest": stick.measured(bits, PostTraining(rounding="nearest")),
    }
    for name, learned in (("brevitas nearest", False), ("brevitas GPTQ", True)):
        started = time.process_time()
        network = with_brevitas(stick, bits, learned)
        seconds = round(time.process_time() - started, 1)
        found[f"{name} (our bits)"] = {**stick.row(network), "CPU seconds": seconds}
    for name, count in (("MCT", 0), ("MCT GPTQ", epochs)):
        if name != "MCT" and not epochs:
            continue
        started = time.process_time()
        network, taken = with_mct(stick, limit, count)
        seconds = round(time.process_time() - started, 1)
        found[name] = {**stick.row(network), "CPU seconds": seconds, "bytes": taken}
    return found


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("path", type=click.Path(exists=True, dir_okay=False))
@click.option("--networks", default="resnet20,ds-cnn", show_default=True)
@click.option("--shares", default="31,38", show_default=True)
@click.option("--epochs", type=click.IntRange(min=0), default=0, help="Of MCT's GPTQ.")
def main(path: str, networks: str, shares: str, epochs: int) -> None:
    """Measure the peers at the bits that our default metric chose, and print what they lose."""
    document = json.loads(Path(path).read_text())
    for name in networks.split(","):
        stick = load(name, cache_folder() / "ranking", copy.deepcopy(document[name]))
        for share in shares.split(","):
            texts = document[name]["bits"][share]
            bits = {layer: Choice.parse(text) for layer, text in texts.items()}
            rows = peers(stick, int(share), bits, epochs)
            document[name].setdefault("peers", {})[share] = rows
            write_atomic(path, json.dumps(document, indent=2) + "\n")
            for way, cell in rows.items():
                click.echo(
                    f"{name} {share} %: {way} {cell['accuracy']:.1f} % "
                    f"({cell.get('bytes', '')} bytes, {cell['CPU seconds']} CPU s)"
                )


if __name__ == "__main__":
    main()
