"""LSTM, GRU and simple recurrent layers as torch's own modules, gates in torch's order.

Keras has the gates i, f, c, o (LSTM) and z, r, h (GRU), torch i, f, g, o and r, z, n. A GRU with
reset_after=True is torch's; an LSTM's one bias is torch's first, the second is zero.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import nn

from mpsearch.importers.keras.reading import Array
from mpsearch.importers.keras.settings import Building, Convert, Settings, Value, only

_GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_MODULES: dict[str, Callable[..., nn.Module]] = {
    "LSTM": nn.LSTM, "GRU": nn.GRU, "SimpleRNN": nn.RNN
}  # fmt: skip
_MERGES: dict[str, Callable[..., Any]] = {"sum": torch.add, "ave": torch.add, "mul": torch.mul}


def _recurrent(layer: Building, values: Sequence[Value]) -> Value:
    sequence = layer.emit.plain(only(layer, values))
    return _run(layer, layer.settings, layer.class_name, "cell", layer.scope, sequence)


def _run(
    layer: Building, settings: Settings, kind: str, part: str, scope: str, sequence: Value
) -> Value:
    """One layer in one direction: [time, features] -> [time, units], or [units] at the end."""
    if len(sequence.shape) != 2:
        raise settings.error(f"its input has shape {sequence.shape}; expected (time, features)")
    _check(settings, kind)
    units, bias = settings.integer("units"), settings.flag("use_bias", True)
    steps, features = sequence.shape
    emit, node = layer.emit, sequence.node
    if settings.flag("go_backwards", False):
        node = emit.call(torch.flip, node, [1])

    def module() -> nn.Module:
        made = _MODULES[kind](features, units, bias=bias, batch_first=True)
        state = {
            name: torch.from_numpy(np.ascontiguousarray(array))
            for name, array in _state(layer, kind, part, features, units, bias).items()
        }
        made.load_state_dict(state)
        made.requires_grad_(False)
        return made

    outputs = emit.call(getitem, emit.module(scope, module, node), 0)
    if settings.flag("return_sequences", False):
        return Value(outputs, (steps, units))
    return Value(emit.call(torch.select, outputs, 1, steps - 1), (units,))


def _check(settings: Settings, kind: str) -> None:
    settings.choice("activation", ("tanh",), "tanh")
    if kind != "SimpleRNN":
        settings.choice("recurrent_activation", ("sigmoid",), "sigmoid")
    for key, wanted in (("return_state", False), ("stateful", False), ("reset_after", True)):
        if settings.flag(key, wanted) is not wanted:
            raise settings.error(f"has {key}={not wanted}, which is not read")


def _state(
    layer: Building, kind: str, part: str, features: int, units: int, bias: bool
) -> dict[str, Array]:
    width = _GATES[kind] * units
    kernel = layer.array(f"{part}/kernel", (features, width))
    recurrent = layer.array(f"{part}/recurrent_kernel", (units, width))
    state = {"weight_ih_l0": _gates(kind, kernel), "weight_hh_l0": _gates(kind, recurrent)}
    if bias:
        if kind == "GRU":
            first, second = layer.array(f"{part}/bias", (2, width))
        else:
            first = layer.array(f"{part}/bias", (width,))
            second = np.zeros_like(first)
        state["bias_ih_l0"], state["bias_hh_l0"] = _gates(kind, first), _gates(kind, second)
    return state


def _gates(kind: str, array: Array) -> Array:
    """[…, gates·units] in Keras's order -> [gates·units, …] in torch's."""
    rows = array.T
    if kind != "GRU":
        return rows
    update, reset, new = np.split(rows, 3)
    return np.concatenate([reset, update, new])


def _bidirectional(layer: Building, values: Sequence[Value]) -> Value:
    """Two layers of one kind; the one that runs backwards gives its sequence turned round."""
    settings, emit = layer.settings, layer.emit
    sequence = emit.plain(only(layer, values))
    forward = _inner(settings, settings.get("layer"))
    if settings.get("backward_layer") is None:
        opposite = not forward[1].flag("go_backwards", False)
        entries = {**forward[1].entries, "go_backwards": opposite}
        backward = (forward[0], Settings(settings.layer, entries))
    else:
        backward = _inner(settings, settings.get("backward_layer"))
    ahead, back = (
        _run(layer, inner, kind, f"{way}/cell", f"{layer.scope}.{way}", sequence)
        for way, (kind, inner) in (("forward_layer", forward), ("backward_layer", backward))
    )
    if len(ahead.shape) != len(back.shape):
        raise settings.error("has two directions of different kinds")
    if len(back.shape) == 2:
        back = back.same(emit.call(torch.flip, back.node, [1]))
    merge = settings.choice("merge_mode", ("concat", *_MERGES), "concat")
    if merge == "concat":
        node = emit.call(torch.cat, [ahead.node, back.node], len(ahead.shape))
        return Value(node, (*ahead.shape[:-1], ahead.shape[-1] + back.shape[-1]))
    if ahead.shape != back.shape:
        raise settings.error("has two directions of different sizes")
    node = emit.call(_MERGES[merge], ahead.node, back.node)
    return ahead.same(emit.call(torch.mul, node, 0.5) if merge == "ave" else node)


def _inner(settings: Settings, entry: object) -> tuple[str, Settings]:
    config = entry.get("config") if isinstance(entry, Mapping) else None
    kind = entry.get("class_name") if isinstance(entry, Mapping) else None
    if kind not in _GATES or not isinstance(config, Mapping):
        raise settings.error(f"wraps a layer of class {str(kind)[:60]}, which is not read")
    return str(kind), Settings(settings.layer, config)


LAYERS: dict[str, Convert] = {
    **dict.fromkeys(_GATES, _recurrent),
    "Bidirectional": _bidirectional,
}
