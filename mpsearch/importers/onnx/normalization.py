"""Normalizations in evaluation mode."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call, Result, axis_of


def _batch_norm(call: Call) -> Result:
    if call.attribute("training_mode", 0) or not call.attribute("spatial", 1):
        raise InputError("batch norm in training mode; export the model in evaluation mode")
    x, gamma, beta, mean, variance = (call.tensor(index) for index in range(5))
    return F.batch_norm(x, mean, variance, gamma, beta, False, eps=call.attribute("epsilon", 1e-5))


def _instance_norm(call: Call) -> Result:
    x, gamma, beta = (call.tensor(index) for index in range(3))
    return F.instance_norm(
        x, weight=gamma, bias=beta, use_input_stats=True, eps=call.attribute("epsilon", 1e-5)
    )


def _layer_norm(call: Call) -> Result:
    x, gamma = call.tensor(0), call.tensor(1)
    beta = call.tensor(2) if call.has(2) else None
    shape = [int(size) for size in x.shape[axis_of(call.attribute("axis", -1), x.dim()) :]]
    epsilon = call.attribute("epsilon", 1e-5)
    if all(t is None or list(t.shape) == shape for t in (gamma, beta)):
        return F.layer_norm(x, shape, gamma, beta, epsilon)
    y = F.layer_norm(x, shape, None, None, epsilon) * gamma
    return y if beta is None else y + beta


def _rms_norm(call: Call) -> Result:
    x, gamma = call.tensor(0), call.tensor(1)
    shape = [int(size) for size in x.shape[axis_of(call.attribute("axis", -1), x.dim()) :]]
    epsilon = call.attribute("epsilon", 1e-5)
    if list(gamma.shape) == shape:
        return F.rms_norm(x, shape, gamma, epsilon)
    return F.rms_norm(x, shape, None, epsilon) * gamma


def _group_norm(call: Call) -> Result:
    """Scale and bias are per group before opset 21 and per channel since."""
    x, gamma, beta = (call.tensor(index) for index in range(3))
    groups, channels = call.attribute("num_groups", 1), int(x.shape[1])
    epsilon = call.attribute("epsilon", 1e-5)
    if gamma.numel() == channels and (call.opset >= 21 or groups == channels):
        return F.group_norm(x, groups, gamma, beta, epsilon)
    shape = [groups, channels // groups, 1]
    per_channel = [t.reshape(groups, 1, 1).expand(shape).reshape(channels) for t in (gamma, beta)]
    return F.group_norm(x, groups, per_channel[0], per_channel[1], epsilon)


def _lp_normalization(call: Call) -> Result:
    x, axis = call.tensor(0), call.attribute("axis", -1)
    if call.attribute("p", 2) == 1:
        norm = x.abs().sum(axis, keepdim=True)
    else:
        norm = (x * x).sum(axis, keepdim=True).sqrt()
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def _mean_variance(call: Call) -> Result:
    x, axes = call.tensor(0), call.attribute("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred * centred).mean(axes, keepdim=True).sqrt() + 1e-9)


def _local_response(call: Call) -> Result:
    size = call.attribute("size", 1)
    if size % 2 == 0:
        raise InputError(f"got size {size}; expected an odd number of channels")
    x, half = call.tensor(0), size // 2
    squares = F.pad(x * x, [0, 0] * (x.dim() - 2) + [half, half])
    channels = int(x.shape[1])
    total = squares[:, :channels]
    for offset in range(1, size):
        total = total + squares[:, offset : offset + channels]
    alpha, beta = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75)
    return x / (call.attribute("bias", 1.0) + alpha / size * total).pow(beta)


NORMALIZATION: dict[str, Callable[[Call], Result]] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance,
    "LRN": _local_response,
}
