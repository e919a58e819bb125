"""LSTM, GRU and RNN as the layers they consist of, one node per use.

torch keeps a recurrent network as one operator over the whole sequence. Here every matrix becomes
an ordinary linear layer, so that whatever knows linear layers knows recurrent networks: per layer
and direction one product W_ih·x + b_ih over the whole sequence, and for every time step t

    LSTM  i, f, g, o = W_ih·x_t + b_ih + W_hh·h + b_hh
          c = σ(f)·c + σ(i)·tanh(g),  h = σ(o)·tanh(c)  (W_hr·h with a projection)
    GRU   r, z = σ(W_ih·x_t + b_ih + W_hh·h + b_hh),  n = tanh(W_in·x_t + b_in + r·(W_hn·h + b_hn))
          h = (1 − z)·n + z·h
    RNN   h = tanh(W_ih·x_t + b_ih + W_hh·h + b_hh), or relu

(Hochreiter & Schmidhuber 1997 with forget gates; Cho et al., arXiv 1406.1078, in torch's form.)
A step of an LSTM takes 4H(I + H) multiply-accumulates, of a GRU 3H(I + H), of an RNN H(I + H).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.graph.layers import argument, packet
from mpsearch.graph.recurrent_states import (
    CELLS,
    GATES,
    SEQUENCES,
    CheckedRun,
    states_of_no_sample,
)
from mpsearch.graph.tensors import fresh_name, set_tensor

_NODES_OF_A_STEP, _BYTES_OF_A_NODE = 16, 2048

aten = torch.ops.aten


@dataclass(frozen=True)
class _Cell:
    """The weights of one layer in one direction; biases and projection are None without them."""

    kind: str
    w_ih: fx.Node
    w_hh: fx.Node
    b_ih: fx.Node | None
    b_hh: fx.Node | None
    w_hr: fx.Node | None = None


def unroll(graph: fx.GraphModule, example_inputs: Sequence[torch.Tensor]) -> None:
    """Replace every recurrent operator; `graph` is changed in place and its shapes are recorded.

    The length of the sequence is that of the examples. Raises InputError for packed sequences, for
    dropout that is left on and where the batch is taken for the sequence.
    """
    nodes = [n for n in graph.graph.nodes if packet(n) in SEQUENCES or packet(n) in CELLS]
    if not nodes:
        return
    sequences = [n for n in nodes if packet(n) in SEQUENCES]
    starts = _check_batch(graph, sequences, example_inputs)
    # Now, because what is written in place of one operator has no shapes yet for the next one
    steps = {node: _steps(node) for node in sequences}
    cells = sum(steps[n] * len(_cells(n, SEQUENCES[packet(n)])) for n in sequences)
    memory_budget.reserve(
        cells * _NODES_OF_A_STEP * _BYTES_OF_A_NODE, f"a graph of {cells:,} recurrent steps"
    )
    for node in nodes:
        writer = _Writer(graph, node, starts)
        if packet(node) in CELLS:
            writer.cell()
        else:
            writer.sequence(steps[node])
    # fx keeps operators with a dropout option: they might draw random numbers
    graph.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))


def _steps(node: fx.Node) -> int:
    """The length of the sequence that a recurrent operator runs over."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    length: int = source.meta["shape"][1 if argument(node, "batch_first") else 0]
    return length


def _check_batch(
    graph: fx.GraphModule, nodes: Sequence[fx.Node], example_inputs: Sequence[torch.Tensor]
) -> dict[fx.Node, torch.Tensor]:
    """The initial states that are the same for every sample, [layers, H]: zeros, or learned ones.

    Refused is a sequence without a batch dimension, which would have the samples one after the
    other in time.
    """
    for node in nodes:
        if str(node.target).endswith(".data"):
            raise InputError(
                f"{node.name} runs over packed sequences; expected sequences of one length, padded"
            )
    inputs = {node.args[0]: node for node in nodes}
    repeated = states_of_no_sample(graph, nodes)
    seen: dict[fx.Node, torch.Size] = {}
    starts: dict[fx.Node, torch.Tensor] = {}

    class Shapes(CheckedRun):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in inputs:
                seen[n] = value.shape
            if n in repeated and torch.equal(value[:, 0], value[:, -1]):
                starts[n] = value[:, 0].clone()
            return value

    with torch.no_grad():
        run = Shapes(graph)
        run.extra_traceback = False
        run.run(*(torch.cat([x[:1]] * 2) for x in example_inputs))
    for source, node in inputs.items():
        if seen[source][0 if argument(node, "batch_first") else 1] != 2:  # type: ignore[index]
            raise InputError(
                f"{node.name} gets samples of shape {tuple(seen[source][1:])} as one sequence; "  # type: ignore[index]
                "expected a sequence per sample: [batch, time, features] and batch_first=True, or "
                "--batch-dim NAME=1 for [time, batch, features]"
            )
    return starts


class _Writer:
    """Writes the nodes that stand for one recurrent operator before it."""

    def __init__(
        self, module: fx.GraphModule, node: fx.Node, starts: Mapping[fx.Node, torch.Tensor]
    ) -> None:
        self.module, self.graph = module, module.graph
        self.node = node
        self.starts = starts

    def call(self, name: str, operator: Any, *args: Any) -> fx.Node:
        node = self.graph.create_node(
            "call_function", operator, args, {}, name=f"{self.node.name}_{name}"
        )
        node.meta["module"] = self.node.meta.get("module", "")
        return node

    def cell(self) -> None:
        """One step that the model's own loop asks for."""
        node, kind = self.node, CELLS[packet(self.node)]
        weights: tuple[Any, ...] = tuple(
            argument(node, name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")
        )
        states: Any = argument(node, "hx")
        with self.graph.inserting_before(node):
            cell = _Cell(kind, *weights)
            x = self.call("x", aten.linear.default, node.args[0], cell.w_ih, cell.b_ih)
            h, c = states if kind == "lstm" else (states, None)
            h, c = self.step(cell, x, h, c, "")
        if kind == "lstm":
            for user in list(node.users):
                user.replace_all_uses_with((h, c)[user.args[1]])  # type: ignore[index,arg-type]
        else:
            node.replace_all_uses_with(h)

    def sequence(self, steps: int) -> None:
        """All steps of all layers and directions."""
        node, kind = self.node, SEQUENCES[packet(self.node)]
        if argument(node, "train") and argument(node, "dropout"):
            raise InputError(f"{node.name} has dropout that is left on; expected model.eval()")
        batch_first = bool(argument(node, "batch_first"))
        directions = 2 if argument(node, "bidirectional") else 1
        cells = _cells(node, kind)
        initial: Any = argument(node, "hx")
        starts = initial if kind == "lstm" else [initial]
        last: list[list[fx.Node]] = [[] for _ in starts]
        with self.graph.inserting_before(node):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            x = source if batch_first else self.batch_first(source)
            for index in range(0, len(cells), directions):
                runs = []
                for direction in range(directions):
                    place = index + direction
                    label = f"l{index // directions}{'_reverse' if direction else ''}"
                    outputs, states = self.run(cells[place], x, starts, place, steps, label)
                    runs.append(outputs)
                    for collected, state in zip(last, states, strict=True):
                        collected.append(state)
                parts = runs[0]
                if directions == 2:
                    parts = [
                        self.call(f"l{index // 2}_both", aten.cat.default, list(pair), 1)
                        for pair in zip(*runs, strict=True)
                    ]
                if index + directions < len(cells):
                    x = self.call(f"l{index // directions}", aten.stack.default, parts, 1)
        for user in list(node.users):
            which = user.args[1]
            assert isinstance(which, int)
            if which == 0:
                self.replace(user, parts, 1 if batch_first else 0)
            else:
                self.replace(user, last[which - 1], 0)

    def run(
        self,
        cell: _Cell,
        x: fx.Node,
        starts: Sequence[fx.Node],
        place: int,
        steps: int,
        label: str,
    ) -> tuple[list[fx.Node], list[fx.Node]]:
        """(h of every step in the order of time, last states) of one layer in one direction."""
        inputs = self.call(f"{label}_x", aten.linear.default, x, cell.w_ih, cell.b_ih)
        order = range(steps)[::-1] if label.endswith("reverse") else range(steps)
        outputs: dict[int, fx.Node] = {}
        h: fx.Node | None = None
        c: fx.Node | None = None
        for t in order:
            x_t = self.call(f"{label}_x_t", aten.select.int, inputs, 1, t)
            if h is None:
                states = [self.start(start, place, x_t) for start in starts]
                h, c = (states[0], states[1] if len(states) > 1 else None)
            h, c = self.step(cell, x_t, h, c, f"{label}_")
            outputs[t] = h
        assert h is not None
        return [outputs[t] for t in range(steps)], [h] if c is None else [h, c]

    def start(self, given: fx.Node, place: int, x_t: fx.Node) -> fx.Node:
        """The initial state [N, H] of one layer; `given` holds those of all, [layers, N, H]."""
        if given in self.starts:
            return self.repeated(self.starts[given][place : place + 1], x_t)
        if packet(given) == "unsqueeze" and given.args[1] == 0:  # [N, width] of the one layer
            source = given.args[0]
            assert isinstance(source, fx.Node)
            return source
        swapped = _swapped(given)
        if swapped is not None:
            return self.call("start", aten.select.int, swapped, 1, place)
        return self.call("start", aten.select.int, given, 0, place)

    def repeated(self, row: torch.Tensor, x_t: fx.Node) -> fx.Node:
        """A state [1, width] for every sample."""
        if not row.any():  # of the batch's size without asking for it
            columns = self.call("columns", aten.slice.Tensor, x_t, 1, 0, row.shape[1])
            return self.call("zeros", aten.zeros_like.default, columns)
        name = fresh_name(self.module, f"{self.node.name}_start")
        set_tensor(self.module, name, row.clone())
        samples = self.call("samples", aten.sym_size.int, x_t, 0)
        stored = self.graph.get_attr(name)
        return self.call("start", aten.expand.default, stored, [samples, row.shape[1]])

    def step(
        self, cell: _Cell, x: fx.Node, h: fx.Node, c: fx.Node | None, label: str
    ) -> tuple[fx.Node, fx.Node | None]:
        """(h, c) after one step, given W_ih·x + b_ih; c is None but in an LSTM."""

        def call(name: str, operator: Any, *args: Any) -> fx.Node:
            return self.call(label + name, operator, *args)

        def gate(gates: fx.Node, index: int, function: Any, count: int = 1) -> fx.Node:
            start, stop = index * width, (index + count) * width
            part = call("gate", aten.slice.Tensor, gates, 1, start, stop)
            return call("gate", function, part) if function is not None else part

        width = cell.w_hh.meta["shape"][0] // GATES[cell.kind]
        hidden = call("h", aten.linear.default, h, cell.w_hh, cell.b_hh)
        sigmoid, tanh = aten.sigmoid.default, aten.tanh.default
        add, mul = aten.add.Tensor, aten.mul.Tensor
        if cell.kind == "gru":
            both = [gate(gates, 0, None, 2) for gates in (x, hidden)]
            update = call("gates", sigmoid, call("gates", add, *both))
            reset = call("reset", mul, gate(update, 0, None), gate(hidden, 2, None))
            new = call("new", tanh, call("new", add, gate(x, 2, None), reset))
            change = call(
                "change", mul, gate(update, 1, None), call("minus", aten.sub.Tensor, h, new)
            )
            return call("state", add, new, change), None
        gates = call("gates", add, x, hidden)
        if cell.kind != "lstm":
            function = tanh if cell.kind == "tanh" else aten.relu.default
            return call("state", function, gates), None
        kept = call("kept", mul, gate(gates, 1, sigmoid), c)
        new = call("new", mul, gate(gates, 0, sigmoid), gate(gates, 2, tanh))
        c = call("memory", add, kept, new)
        h = call("state", mul, gate(gates, 3, sigmoid), call("shown", tanh, c))
        if cell.w_hr is not None:
            h = call("projected", aten.linear.default, h, cell.w_hr)
        return h, c

    def batch_first(self, source: fx.Node) -> fx.Node:
        """[time, batch, …] as [batch, time, …]."""
        swapped = _swapped(source)
        if swapped is not None:
            return swapped
        return self.call("swapped", aten.transpose.int, source, 0, 1)

    def replace(self, node: fx.Node, parts: Sequence[fx.Node], dim: int) -> None:
        """Let users of `node`, the stack of `parts` along `dim`, read the parts where they can.

        So `output[:, -1]` and `hidden[-1]` are nodes of the last step, and no tensor with another
        first dimension than the batch is made unless the model wants it.
        """
        for user in list(node.users):
            name = packet(user)
            place = user.args[1] if len(user.args) > 1 else None
            rank = len(node.meta["shape"])
            on_stack = isinstance(place, int) and place % rank == dim
            if name == "slice" and on_stack:
                start, stop, step = (argument(user, key) for key in ("start", "end", "step"))
                self.replace(user, parts[start:stop:step], dim)  # type: ignore[index]
            elif name == "slice" and _takes_all(user):
                self.replace(user, parts, dim)
            elif name == "select" and on_stack:
                user.replace_all_uses_with(parts[user.args[2]])  # type: ignore[index]
            elif name == "squeeze" and on_stack and len(parts) == 1:
                user.replace_all_uses_with(parts[0])
            elif _swapped(user) is node:
                self.replace(user, parts, 1 - dim)
        if node.users:
            with self.graph.inserting_before(node):
                stacked = self.call("stack", aten.stack.default, list(parts), dim)
            node.replace_all_uses_with(stacked)


def _takes_all(node: fx.Node) -> bool:
    """True for `x[:]`, which torch writes for every colon before an index."""
    start, stop, step = (argument(node, key) for key in ("start", "end", "step"))
    return start in (0, None) and step == 1 and stop in (None, 2**63 - 1)


def _swapped(node: fx.Node) -> fx.Node | None:
    """What `node` is the same as with its first two dimensions swapped, if it is that."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or "shape" not in node.meta:
        return None
    rank = len(node.meta["shape"])
    if packet(node) in ("transpose", "swapaxes"):
        pair = {dim % rank for dim in node.args[1:3] if isinstance(dim, int)}
        return source if pair == {0, 1} else None
    if packet(node) == "permute":
        dims: Any = node.args[1]
        order = [dim % rank for dim in dims]
        return source if order == [1, 0, *range(2, rank)] else None
    return None


def _cells(node: fx.Node, kind: str) -> list[_Cell]:
    """The cells in torch's order: layer by layer, forward before reverse."""
    params: Any = argument(node, "params")
    layers: Any = argument(node, "num_layers")
    count = layers * (2 if argument(node, "bidirectional") else 1)
    biased = bool(argument(node, "has_biases"))
    size = len(params) // count
    cells = []
    for start in range(0, len(params), size):
        w_ih, w_hh, *rest = params[start : start + size]
        biases = [rest.pop(0), rest.pop(0)] if biased else [None, None]
        cells.append(_Cell(kind, w_ih, w_hh, *biases, *rest))
    return cells
