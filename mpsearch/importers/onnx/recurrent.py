"""LSTM, GRU and RNN in torch's layout: parameters `rnn.weight_ih_l0`, `rnn.weight_hh_l0`, ….

ONNX stores all directions in one tensor [directions, gates·hidden, …] and orders the gates of an
LSTM as i, o, f, c (torch: i, f, g = c, o) and of a GRU as z, r, h (torch: r, z, n = h).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.importers.onnx.calls import Call, Result
from mpsearch.importers.onnx.steps import Array

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_DIRECTIONS = {"forward": ("",), "reverse": ("",), "bidirectional": ("", "_reverse")}
_NODES_OF_A_STEP, _BYTES_OF_A_NODE = 16, 2048
_HIDDEN = 5  # the input that holds the first hidden state; the next one is the cell state


def _recurrent(call: Call) -> Result:
    kind = call.step.operator
    suffixes = _DIRECTIONS[call.attribute("direction", "forward")]
    relu = _check(call, len(suffixes))
    x = call.tensor(0)
    if call.attribute("layout", 0):
        x = x.transpose(0, 1)
    backwards = call.attribute("direction", "forward") == "reverse"
    if backwards:
        x = x.flip(0)
    hidden = int(call.host(2).shape[-1])
    resets_first = kind == "GRU" and not call.attribute("linear_before_reset", 0)
    weights = [] if resets_first else _weights(call, kind, hidden, suffixes)
    states = [_state(call, _HIDDEN, x, len(suffixes), hidden)]
    settings = (call.has(3), 1, 0.0, False, len(suffixes) == 2, False)
    if kind == "LSTM":
        states.append(_state(call, _HIDDEN + 1, x, len(suffixes), hidden))
        y, *last = torch.lstm(x, states, weights, *settings)
    elif resets_first:
        y, *last = _gru_that_resets_first(call, x, states[0], hidden, suffixes)
    elif kind == "GRU":
        y, *last = torch.gru(x, states[0], weights, *settings)
    else:
        function = torch.rnn_relu if relu else torch.rnn_tanh
        y, *last = function(x, states[0], weights, *settings)
    if backwards:
        y = y.flip(0)
    apart = y.reshape(y.shape[0], y.shape[1], len(suffixes), hidden)
    if call.attribute("layout", 0):
        return (apart.permute(1, 0, 2, 3), *[state.transpose(0, 1) for state in last])
    return (apart.permute(0, 2, 1, 3), *last)


def _check(call: Call, directions: int) -> bool:
    """Refuse what torch's cells cannot do; True for an RNN with ReLU."""
    kind = call.step.operator
    activations = call.attribute("activations", _ACTIVATIONS[kind] * directions)
    relu = kind == "RNN" and activations == ["Relu"] * directions
    if activations != _ACTIVATIONS[kind] * directions and not relu:
        raise InputError(f"got the activations {activations}; expected the default ones")
    if "clip" in call.step.attributes or call.attribute("input_forget", 0):
        raise InputError("got clip or input_forget; expected a plain cell")
    if call.has(7) and bool(np.any(call.host(7))):
        raise InputError("got peepholes; expected an LSTM without them")
    if not (call.is_constant(1) and call.is_constant(2)):
        raise InputError("its weights depend on the data; expected constant ones")
    # As an array it follows from shapes alone. In an export it is a tensor, one number per sample
    # of the free batch: the runs before have seen what it is.
    if call.has(4) and not torch.compiler.is_exporting():
        steps = call.tensor(0).shape[1 if call.attribute("layout", 0) else 0]
        if not bool(np.all(call.host(4) == steps)):
            raise InputError("got sequence_lens; expected that every sample has the full length")
    return relu


def _weights(call: Call, kind: str, hidden: int, suffixes: Sequence[str]) -> list[torch.Tensor]:
    """torch's flat list: per direction weight_ih, weight_hh and, where there are any, biases."""
    order, flat = _ORDER[kind], []
    for direction, suffix in enumerate(suffixes):
        parts = [(1, "weight_ih", 0, False), (2, "weight_hh", 0, False)]
        if call.has(3):
            parts += [(3, "bias_ih", 0, True), (3, "bias_hh", len(order) * hidden, True)]
        for index, role, start, is_bias in parts:
            rows = _rows(direction, order, hidden, start, is_bias)
            flat.append(call.weight(index, f"{role}_l0{suffix}", rows))
    return flat


def _gru_that_resets_first(
    call: Call, x: torch.Tensor, state: torch.Tensor, hidden: int, suffixes: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A GRU as Cho et al. wrote it (arXiv 1406.1078), which torch has no cell for, step by step:

    n = tanh(W_in·x_t + b_in + W_hn·(r·h) + b_hn), where torch has r·(W_hn·h + b_hn). The products
    of r, z and of n are layers of their own.
    """
    length = int(x.shape[0])
    memory_budget.reserve(
        length * len(suffixes) * _NODES_OF_A_STEP * _BYTES_OF_A_NODE,
        f"a graph of {length * len(suffixes):,} recurrent steps",
    )
    bias = call.has(3)
    outputs, last = [], []
    for direction, suffix in enumerate(suffixes):

        def weight(index: int, role: str, gates: Sequence[int], start: int = 0) -> torch.Tensor:
            rows = _rows(direction, gates, hidden, start, index == 3, of=3)  # noqa: B023
            return call.weight(index, f"{role}_l0{suffix}", rows)  # noqa: B023

        w_ih, b_ih = weight(1, "weight_ih", (1, 0, 2)), None
        w_gates, b_gates = weight(2, "weight_hh_gates", (1, 0)), None
        w_new, b_new = weight(2, "weight_hh_new", (2,)), None
        if bias:
            b_ih = weight(3, "bias_ih", (1, 0, 2))
            b_gates = weight(3, "bias_hh_gates", (1, 0), 3 * hidden)
            b_new = weight(3, "bias_hh_new", (2,), 3 * hidden)
        given = F.linear(x, w_ih, b_ih)
        h, steps = state[direction], []
        for position in range(length)[:: -1 if direction else 1]:
            gates, new = given[position].split([2 * hidden, hidden], -1)
            reset, update = (gates + F.linear(h, w_gates, b_gates)).sigmoid().chunk(2, -1)
            new = torch.tanh(new + F.linear(reset * h, w_new, b_new))
            h = (1 - update) * new + update * h
            steps.append(h)
        outputs.append(torch.stack(steps[:: -1 if direction else 1]))
        last.append(h)
    return torch.cat(outputs, -1), torch.stack(last)


def _rows(
    direction: int, order: Sequence[int], hidden: int, start: int, is_bias: bool, of: int = 0
) -> Callable[[Array], Array]:
    """The gates in `order` out of as many, or out of `of`."""
    count = of or len(order)

    def change(array: Array) -> Array:
        stored = array[direction, start : start + count * hidden]
        rest = stored.shape[1:]
        shape = (count, hidden) if is_bias else (count, hidden, *rest)
        return stored.reshape(shape)[list(order)].reshape(len(order) * hidden, *rest)

    return change


def _state(call: Call, index: int, x: torch.Tensor, directions: int, hidden: int) -> torch.Tensor:
    """[directions, N, hidden]: as given, for every sample the one of the file, or zeros."""
    if not call.has(index):
        return torch.zeros(directions, x.shape[1], hidden)
    known = call.values[index]
    if isinstance(known, np.ndarray) and not known.any():
        return torch.zeros(directions, x.shape[1], hidden)
    state, samples = call.tensor(index), 1
    if call.attribute("layout", 0):
        state, samples = state.transpose(0, 1), 0
    if isinstance(known, np.ndarray) and bool((known == known.take([0], samples)).all()):
        state = state[:, :1].expand(directions, x.shape[1], hidden)  # the same for every sample
    # torch's operators read beyond states that do not fit
    if state.dim() != 3 or tuple(state.shape[::2]) != (directions, hidden):
        raise InputError(
            f"got an initial state of shape {tuple(state.shape)}; expected [{directions}, samples, "
            f"{hidden}]"
        )
    if state.shape[1] != x.shape[1]:
        raise InputError(
            f"got initial states of {state.shape[1]} samples for {x.shape[1]} sequences"
        )
    return state


RECURRENT: dict[str, Callable[[Call], Result]] = dict.fromkeys(_ORDER, _recurrent)
