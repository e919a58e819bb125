"""Attention as one operator (opset 23), as torch's newer exporter writes it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import Call, Result


def _attention(call: Call) -> Result:
    """softmax(Q·Kᵀ·scale + mask)·V over heads; inputs [N, heads, T, d] or [N, T, heads·d]."""
    if any(call.has(index) for index in range(4, len(call))) or any(call.step.outputs[1:]):
        raise InputError("got a cache of keys and values; expected plain attention")
    unusual = {"softcap", "left_window_size", "right_window_size"} & set(call.step.attributes)
    if any(call.step.attributes[name] not in (0.0, -1) for name in unusual):
        raise InputError(f"got {', '.join(sorted(unusual))}; expected plain attention")
    query, key, value = (call.tensor(index) for index in range(3))
    flat = query.dim() == 3
    if flat:
        heads = call.attribute("q_num_heads", 0)
        shared = call.attribute("kv_num_heads", 0)
        query, key, value = _apart(query, heads), _apart(key, shared), _apart(value, shared)
    groups = int(query.shape[1]) // int(key.shape[1])
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    mask = call.tensor(3) if call.has(3) else None
    causal = bool(call.attribute("is_causal", 0))
    if causal and mask is not None:
        raise InputError("got a mask and is_causal; expected one of them")
    scale = call.step.attributes.get("scale") or None
    y = F.scaled_dot_product_attention(query, key, value, mask, 0.0, causal, scale=scale)
    return y.transpose(1, 2).flatten(2) if flat else y


def _apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


ATTENTION: dict[str, Callable[[Call], Result]] = {"Attention": _attention}
