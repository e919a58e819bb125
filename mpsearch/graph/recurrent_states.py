"""The operators LSTM, GRU and RNN, and what their initial states must be.

Checked before torch's operator runs: its kernels trust the shapes of states and weights.
"""

from collections.abc import Sequence
from typing import Any

from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import argument, packet

SEQUENCES = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "tanh", "rnn_relu": "relu"}
CELLS = {
    "lstm_cell": "lstm", "gru_cell": "gru", "rnn_tanh_cell": "tanh", "rnn_relu_cell": "relu"
}  # fmt: skip
RECURRENT = frozenset({*SEQUENCES, *CELLS})
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}
# Whatever their tensor holds, only its size matters.
_OF_A_SIZE = {
    "sym_size", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"
}  # fmt: skip


class CheckedRun(fx.Interpreter):
    """Runs a graph; raises InputError before a recurrent operator reads beyond its states."""

    def run_node(self, n: fx.Node) -> Any:
        if packet(n) in RECURRENT:
            check_states(n, self.fetch_args_kwargs_from_env(n)[0])
        return super().run_node(n)


def states_of_no_sample(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """The initial states of `nodes` that do not depend on what the inputs hold."""
    depends: set[fx.Node] = set()
    for node in graph.graph.nodes:
        read = packet(node) not in _OF_A_SIZE and not depends.isdisjoint(node.all_input_nodes)
        if node.op == "placeholder" or read:
            depends.add(node)
    states: set[fx.Node] = set()
    for node in nodes:
        given: Any = argument(node, "hx")
        states.update(given if isinstance(given, list | tuple) else [given])
    return states - depends


def check_states(node: fx.Node, args: Sequence[Any]) -> None:
    """Raise InputError unless weights and states fit each other; `args` are those of the call.

    torch's recurrent operators read beyond the end of those that do not.
    """
    name, x, states = packet(node), args[0], args[1]
    found = [tuple(s.shape) for s in (states if isinstance(states, list | tuple) else [states])]
    directions, leading = 1, tuple(x.shape[:-1])
    if name in CELLS:
        given = list(args[2:])
        weights = [weight for weight in given if weight is not None]
        has_biases = len(weights) == 4
        count = 1
    else:
        weights, has_biases, directions = list(args[2]), bool(args[3]), 2 if args[7] else 1
        count = int(args[4]) * directions
        leading = (count, *leading[1:]) if not args[8] else (count, *leading[:-1])
    width = 4 if has_biases else 2
    per_cell = len(weights) // max(1, count)
    fits = count > 0 and per_cell in (width, width + 1) and len(weights) == per_cell * count
    gates, inputs = GATES[{**SEQUENCES, **CELLS}[name]], x.shape[-1]
    for index in range(count if fits else 0):
        cell = [tuple(weight.shape) for weight in weights[index * per_cell :][:per_cell]]
        hidden = cell[0][0] // gates if cell[0] else 0
        out = cell[-1][0] if per_cell > width and cell[-1] else hidden
        rows = gates * hidden
        wanted = [(rows, inputs), (rows, out), *[(rows,)] * (width - 2)]
        wanted += [(out, hidden)] if per_cell > width else []
        both = [(*leading, out), (*leading, hidden)]
        fits = fits and hidden > 0 and cell == wanted and found == both[: len(found)]
        if (index + 1) % directions == 0:
            inputs = out * directions
    if not fits or len(found) != (2 if "lstm" in name else 1):
        raise InputError(
            f"{node.name}: got {name} with states of shapes {str(found)[:100]} and weights of "
            f"{str([tuple(w.shape) for w in weights])[:200]} for inputs {tuple(x.shape)}; expected "
            "states and weights that fit each other"
        )
