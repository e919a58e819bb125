"""Normalization in float: over stored statistics, channels, groups, the last dimensions."""

import numpy as np
import torch

from mpsearch.exporters.onnx.call import Call, Operand, Tensor, Writer
from mpsearch.exporters.onnx.sizes import Size


def _stored(call: Call, source: Tensor) -> str:
    """(x - mean) / sqrt(var + eps)·weight + bias with the statistics of the training."""
    if call.flag("training") or not (call.has("running_mean") and call.has("running_var")):
        raise call.refuse("has no stored statistics")
    mean, variance = (call.tensor(f"running_{name}") for name in ("mean", "var"))
    (channels,) = mean.sizes
    weight = _parameter(call, "weight", [channels.fixed], 1.0)
    bias = _parameter(call, "bias", [channels.fixed], 0.0)
    read = [source, weight, bias, mean, variance]
    return call.add("BatchNormalization", read, epsilon=float(call.number("eps")))


def _parameter(call: Call, name: str, sizes: list[int], missing: float) -> Operand:
    if call.has(name):
        return call.tensor(name)
    return call.constant(np.full(sizes, missing, dtype=np.float32))


def _batch_norm(call: Call) -> str:
    return _stored(call, call.tensor("input"))


def _batch_norm_of_several(call: Call) -> list[str | None]:
    """The other results are the statistics of the batch in training."""
    return [_stored(call, call.tensor("input")), *[None] * (len(call.results) - 1)]


def _instance_norm(call: Call) -> str:
    source = call.tensor("input")
    if not call.flag("use_input_stats"):
        return _stored(call, source)
    channels = source.sizes[1].fixed
    read = [
        source,
        *(_parameter(call, n, [channels], v) for n, v in (("weight", 1.0), ("bias", 0.0))),
    ]
    return call.add("InstanceNormalization", read, epsilon=float(call.number("eps")))


def _layer_norm(call: Call) -> list[str]:
    sizes = call.wholes("normalized_shape")
    read = [call.tensor("input"), _parameter(call, "weight", sizes, 1.0)]
    if call.has("bias"):
        read.append(call.tensor("bias"))
    return call.several(
        "LayerNormalization", read, 1 if call.operator == "layer_norm" else 3,
        axis=-len(sizes), epsilon=float(call.number("eps")),
    )  # fmt: skip


def _plain_layer_norm(call: Call) -> str:
    return _layer_norm(call)[0]


def _group_norm(call: Call) -> str:
    """Every group as one channel of an instance norm, then the channels' own factors."""
    source = call.tensor("input")
    count = call.whole("num_groups" if call.has("num_groups") else "group")
    batch, channels, *rest = source.sizes
    if not batch.is_fixed or all(size.is_fixed for size in rest):
        inner = channels.fixed // count * int(np.prod([size.fixed for size in rest]))
        split = call.reshape(source, [batch, Size(count), Size(inner)])
    else:
        raise call.refuse("has the batch in another dimension than its first")
    ones, zeros = (call.constant(np.full(count, v, dtype=np.float32)) for v in (1.0, 0.0))
    made = call.add(
        "InstanceNormalization", [split, ones, zeros], epsilon=float(call.number("eps"))
    )
    made = call.reshape(made, source.sizes)
    for name, operator in (("weight", "Mul"), ("bias", "Add")):
        if call.has(name):
            column = call.reshape(call.tensor(name), [channels, *[Size(1)] * len(rest)])
            made = call.add(operator, [made, column])
    return made


def _group_norm_of_several(call: Call) -> list[str | None]:
    return [_group_norm(call), None, None]


def _rms_norm(call: Call) -> str:
    """x / sqrt(mean(x²) + eps)·weight."""
    source, sizes = call.tensor("input"), call.wholes("normalized_shape")
    eps = call.number("eps", torch.finfo(torch.float32).eps)
    axes = call.whole_list(list(range(-len(sizes), 0)))
    squares = call.add("Mul", [source, source])
    mean = call.add("ReduceMean", [squares, axes], keepdims=1)
    root = call.add("Sqrt", [call.add("Add", [mean, call.scalar(float(eps))])])
    made = call.add("Div", [source, root])
    return call.add("Mul", [made, call.tensor("weight")]) if call.has("weight") else made


WRITERS: dict[str, Writer] = {
    "batch_norm": _batch_norm,
    "native_batch_norm": _batch_norm_of_several,
    "_native_batch_norm_legit_no_training": _batch_norm_of_several,
    "instance_norm": _instance_norm,
    "layer_norm": _plain_layer_norm,
    "native_layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "native_group_norm": _group_norm_of_several,
    "rms_norm": _rms_norm,
}
