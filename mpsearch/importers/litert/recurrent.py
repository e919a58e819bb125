"""UNIDIRECTIONAL_SEQUENCE_LSTM: one matrix per gate, put together as ONNX has them (i, o, f, c)."""

from collections.abc import Callable

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.litert.node import Node
from mpsearch.importers.litert.reading import Array

# places of the inputs, gates in the order i, f, c, o
_INPUT, _RECURRENT, _BIAS = (1, 2, 3, 4), (5, 6, 7, 8), (12, 13, 14, 15)
_PEEPHOLES, _PROJECTION, _NORMS = (9, 10, 11), (16, 17), (20, 21, 22, 23)
_STATES = (18, 19)
_ORDER = (0, 3, 1, 2)
_TANH = 4


def _lstm(node: Node) -> None:
    """The sequence of hidden states, [N, T, units] or with the time first."""
    extra = {"peepholes": _PEEPHOLES, "a projection": _PROJECTION, "layer norms": _NORMS}
    for what, places in extra.items():
        if any(map(node.has, places)):
            raise InputError(f"got {what}; expected a plain LSTM")
    if int(node.option("fusedActivationFunction")) != _TANH:
        raise InputError("got another activation than tanh; expected a plain LSTM")
    if node.option("projClip", 0.0) or not all(map(node.has, (*_INPUT, *_RECURRENT))):
        raise InputError("got coupled gates or a clipped projection; expected a plain LSTM")
    for place in _STATES:
        if node.has(place) and not node.tensor(place).variable:
            raise InputError("it begins in a state of its own; expected zeros")
    clip = float(node.option("cellClip", 0.0))
    if clip:
        node.translation.notes.append(
            f"{node.label}: the limit of ±{clip:g} on the cell's state is left out"
        )
    weights = [_stacked(node, places, role) for places, role in ((_INPUT, "W"), (_RECURRENT, "R"))]
    if all(map(node.has, _BIAS)):
        weights.append(_stacked(node, _BIAS, "B"))
    batched = not node.option("timeMajor", False)
    hidden = node.shape(_RECURRENT[0])[-1]
    name = node.translation.fresh(f"{node.translation.name_of(node.output)} directions")
    node.translation.step(
        "LSTM", [node.plain(0), *weights], [name], hidden_size=hidden, layout=int(batched)
    )
    axis = node.sizes("direction", [2 if batched else 1])
    target = node.translation.written(node.output, "channels last")
    node.translation.step("Squeeze", [name, axis], [target])


def _stacked(node: Node, places: tuple[int, ...], role: str) -> str:
    """[1, 4·units, …]; of biases the input's, and zeros for the recurrent one."""
    arrays = [node.array(place) for place in places]
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"its gates have weights of the shapes {[a.shape for a in arrays]}")

    def change(_: Array) -> Array:
        stacked = np.concatenate([arrays[gate] for gate in _ORDER])
        if role == "B":
            stacked = np.concatenate([stacked, np.zeros_like(stacked)])
        return stacked[None]

    return node.weight(places[0], role, change)


RECURRENT: dict[str, Callable[[Node], None]] = {"UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm}
