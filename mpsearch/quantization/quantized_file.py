"""The file of a quantized network: packed integers, scales and biases, nothing executable.

A zip like the mpsearch file (see network_file) in which `LAYER:packed` holds the weight codes at
their bit width, `LAYER:scales` float32, [channels] or [channels, groups], and `LAYER:bias` int32:
together the bytes that the layer table predicts. Tensors that belong to no quantized layer are
stored in float. `undone` of the header names the repairs that did harm, and the layers that they
were undone for; `input_ranges` what each input was on the calibration data; `post_training` how it
was quantized; `stored` the quantizers of tensors between layers; `sample` the digest of
`sample.safetensors`, see kept_sample.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mpsearch.errors import InputError
from mpsearch.files.json_file import (
    anything,
    by_name,
    check_form,
    list_of,
    null_or,
    number,
    text,
    whole,
)
from mpsearch.graph import memory_budget
from mpsearch.graph.graph_json import graph_to_json
from mpsearch.graph.layers import Layer
from mpsearch.graph.memory_budget import SPARE, TIMES
from mpsearch.graph.network import Network, output_shape
from mpsearch.graph.network_file import (
    check_apart,
    check_same_graph,
    describe_inputs,
    read_archive,
    read_graph,
    write_archive,
)
from mpsearch.graph.outputs import describe_outputs, left_out_outputs, recorded_outputs
from mpsearch.graph.tensors import tensor_nodes
from mpsearch.quantization.kept_sample import read_sample
from mpsearch.quantization.packing import pack, unpack
from mpsearch.quantization.quantized import QuantizedLayer, QuantizedNetwork, assemble
from mpsearch.quantization.quantizer import (
    FLOAT_BITS,
    ActivationQuantizer,
    QuantizedWeight,
    check_bits,
    check_choice,
)
from mpsearch.quantization.scale_layout import layout_of
from mpsearch.tables.choice import Choice

FORMAT, VERSION = "mpsearch.quantized", 1
_PACKED = 16  # weights of 2 bits in the file are float32 in memory


def payload(layer: Layer, quantized: QuantizedLayer, network: Network) -> dict[str, torch.Tensor]:
    """The tensors that are stored for one layer; their bytes are the layer's size."""
    tensors: dict[str, torch.Tensor] = {}
    bias = network.bias(layer)
    if quantized.weight is None:
        tensors[layer.weight_name] = network.weight(layer)
    else:
        packed = pack(quantized.weight.codes.numpy(), quantized.choice.w_bits)
        tensors[f"{layer.name}:packed"] = torch.from_numpy(packed)
        tensors[f"{layer.name}:scales"] = quantized.weight.stored_scales(
            layout_of(layer, quantized.choice), layer
        )
    if quantized.bias_codes is not None:
        tensors[f"{layer.name}:bias"] = quantized.bias_codes
    elif bias is not None:
        tensors[layer.bias_name] = bias
    return tensors


def save_quantized(network: QuantizedNetwork, path: str | os.PathLike[str]) -> None:
    """Write the quantized network as a file that loads without executing anything.

    What was written is read back and run; raises InputError, and leaves no file, where it differs.
    """
    network = network.to(torch.device("cpu"))
    source = network.source
    tensors = {name: tensor for _, name, tensor in tensor_nodes(source.graph)}
    for layer in source.layers:
        tensors.pop(layer.weight_name)
        tensors.pop(layer.bias_name, None)
        tensors.update(payload(layer, network.layers[layer.name], source))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "inputs": describe_inputs(source.input_shapes, source.input_dtypes),
        **describe_outputs(source.outputs, source.left_out_outputs),
        "parameters": source.parameters,
        "graph": graph_to_json(source.graph),
        "layers": [_describe(layer, network) for layer in source.layers],
    }
    if network.model_digest is not None:
        header["model_digest"] = network.model_digest
    if network.input_ranges is not None:
        header["input_ranges"] = [
            None if one is None else list(one) for one in network.input_ranges
        ]
    if network.post_training is not None:
        header["post_training"] = dict(network.post_training)
    if network.stored is not None:
        header["stored"] = {
            name: {"bits": q.bits, "scale": q.scale, "zero_point": q.zero_point}
            for name, q in network.stored.items()
        }
    if network.undone:
        header["undone"] = {repair: list(names) for repair, names in network.undone.items()}
    if network.sample is not None:
        header["sample"] = {"digest": network.sample.digest}
    sample = {} if network.sample is None else network.sample.tensors()

    def read_back(written: Path) -> None:
        again = load_quantized(written)
        check_same_graph(source.graph, again.source.graph)
        for name, layer in network.layers.items():
            if (layer.choice, layer.activation) != (
                again.layers[name].choice,
                again.layers[name].activation,
            ):
                raise InputError(f"its layer {name} comes back with other bits or another range")
        if network.stored != again.stored:
            raise InputError("its stored tensors come back with other bits or ranges")
        with torch.no_grad():
            shapes = zip(source.input_shapes, source.input_dtypes, strict=True)
            again(*(torch.zeros(1, *shape, dtype=dtype) for shape, dtype in shapes))

    write_archive(path, header, tensors, sample, read_back)


def _describe(layer: Layer, network: QuantizedNetwork) -> dict[str, Any]:
    quantized = network.layers[layer.name]
    return {
        "name": layer.name,
        "weight": layer.weight_name,
        "bias": layer.bias_name,
        "shape": list(network.source.weight(layer).shape),
        "channels": layer.channels,
        **quantized.choice.to_json(),
        "a_scale": quantized.activation.scale,
        "a_zero_point": quantized.activation.zero_point,
    }


def load_quantized(path: str | os.PathLike[str], max_memory: int | None = None) -> QuantizedNetwork:
    """Read what `save_quantized` wrote; its outputs equal those of the network that was saved.

    `max_memory`: bytes that all tensors may take while it is loaded; without it 64 times the file,
    because 2 bits become 32, and 1 GiB.
    """
    if max_memory is None and Path(path).is_file():
        max_memory = _PACKED * TIMES * Path(path).stat().st_size + SPARE
    with memory_budget.of_load(path, max_memory):
        return _load_quantized(path)


def _load_quantized(path: str | os.PathLike[str]) -> QuantizedNetwork:
    header, tensors, sample = read_archive(path)
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: got the format {header.get('format')!r}; expected {FORMAT!r}")
    try:
        with memory_budget.watched():
            layers = {str(e["name"]): _read_layer(e, tensors) for e in header["layers"]}
            for entry in header["layers"]:  # assemble() fills these with what the codes mean
                tensors.setdefault(entry["weight"], torch.zeros(entry["shape"]))
                if entry["bias"]:
                    tensors.setdefault(entry["bias"], torch.zeros(entry["channels"]))
        parameters = int(header["parameters"])
        undone = header.get("undone", {})
        check_form(undone, by_name(list_of(text)), "undone")
        post_training = header.get("post_training")
        check_form(post_training, null_or(by_name(anything)), "post_training")
        ranges = header.get("input_ranges")
        check_form(ranges, null_or(list_of(null_or([number(), number()]))), "input_ranges")
        stored = _read_stored(header.get("stored"))
    except InputError as error:
        raise InputError(*error.lines_after(f"{path}: ")) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: damaged mpsearch file: {error}") from error
    graph, examples = read_graph(path, header, tensors)
    network = Network(
        graph=graph,
        input_names=tuple(str(n.target) for n in graph.graph.nodes if n.op == "placeholder"),
        input_shapes=tuple(tuple(x.shape[1:]) for x in examples),
        input_dtypes=tuple(x.dtype for x in examples),
        output_shape=output_shape(graph),
        parameters=parameters,
        outputs=recorded_outputs(graph, output_shape(graph)),
        left_out_outputs=left_out_outputs(graph),
    )
    if {layer.name for layer in network.layers} != set(layers):
        raise InputError(f"{path}: damaged mpsearch file: its layers do not match its graph")
    made_from = header.get("model_digest")
    known = made_from if isinstance(made_from, str) else None
    nodes = {node.name for node in graph.graph.nodes if node.op != "output"}
    for name in stored or {}:
        if name not in nodes:
            raise InputError(
                f"{path}: damaged mpsearch file: it stores {name!a}, which its graph lacks"
            )
    with memory_budget.watched():
        quantized = assemble(network, layers, stored)
    check_apart(path, quantized.source, examples)
    if ranges is not None and len(ranges) != len(network.input_names):
        raise InputError(
            f"{path}: damaged mpsearch file: input_ranges of {len(ranges)} inputs; expected "
            f"{len(network.input_names)}"
        )
    return replace(
        quantized,
        model_digest=known,
        undone={k: tuple(names) for k, names in undone.items()},
        post_training=post_training,
        input_ranges=ranges and tuple(one and (one[0], one[1]) for one in ranges),
        sample=read_sample(str(path), header.get("sample"), sample, network),
    )


def _read_stored(entries: Any) -> dict[str, ActivationQuantizer] | None:
    """The quantizers of tensors between layers; None in files of before there were any."""
    if entries is None:
        return None
    form = {"bits": whole(2, 16), "scale": number(), "zero_point": whole()}
    check_form(entries, by_name(form), "stored")
    stored = {
        name: ActivationQuantizer(
            check_bits(entry["bits"]), float(entry["scale"]), entry["zero_point"]
        )
        for name, entry in entries.items()
    }
    for name, quantizer in stored.items():
        _check_range(name, quantizer)
    return stored


def _check_range(name: str, quantizer: ActivationQuantizer) -> None:
    inside = 0 <= quantizer.zero_point < 2**quantizer.bits
    if not (inside and 0 < quantizer.scale < math.inf):
        raise ValueError(f"range of {name!a}: {quantizer}")


def _read_layer(entry: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> QuantizedLayer:
    name, channels = str(entry["name"]), int(entry["channels"])
    choice = check_choice(Choice.from_json(entry))
    activation = ActivationQuantizer(
        choice.a_bits, float(entry["a_scale"]), int(entry["a_zero_point"])
    )
    if choice.a_bits != FLOAT_BITS:
        _check_range(name, activation)
    if f"{name}:packed" not in tensors:
        return QuantizedLayer(choice, None, None, activation)
    count = torch.Size(entry["shape"]).numel()
    codes = unpack(tensors[f"{name}:packed"].numpy(), choice.w_bits, count)
    try:
        weight = QuantizedWeight.from_stored(
            torch.from_numpy(codes), tensors[f"{name}:scales"], channels, choice
        )
    except ValueError as error:
        raise ValueError(f"scales of {name!a} {error}") from None
    return QuantizedLayer(choice, weight, tensors.get(f"{name}:bias"), activation)
