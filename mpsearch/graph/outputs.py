"""What a network returns: one tensor as it is, or several flattened side by side, by name.

A network with several outputs becomes a graph with one output [N, K]: every output of floats,
flattened to [N, k] and concatenated in the model's order, so that whatever works on one tensor
works on all of them. `Output` says where each one lies and what shape it had.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from mpsearch.errors import InputError

Shape = tuple[int, ...]
_ONLY = "output"
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Output:
    """An output of the model, as columns of the network's flattened one.

    `Output("boxes", (4, 2), 10, 18)`: columns 10 to 17 are the output called `boxes`, [N, 4, 2].
    """

    name: str
    """As the model calls it; `output` for a single one without a name."""
    shape: Shape
    """Of one sample, `(4, 2)`."""
    start: int
    """Its first column."""
    stop: int
    """The column after its last."""


def split_outputs(outputs: Sequence[Output], values: torch.Tensor) -> dict[str, torch.Tensor]:
    """The network's output by name, in the shapes that the model gave: [N, K] -> {name: [N, …]}."""
    rows = values.reshape(len(values), -1)
    return {o.name: rows[:, o.start : o.stop].reshape(-1, *o.shape) for o in outputs}


def lay_out(names: Sequence[str], shapes: Sequence[Shape]) -> tuple[Output, ...]:
    """Outputs of these names and shapes (of one sample), side by side."""
    outputs, start = [], 0
    for name, shape in zip(names, shapes, strict=True):
        stop = start + math.prod(shape)
        outputs.append(Output(name, tuple(shape), start, stop))
        start = stop
    return tuple(outputs)


def output_names(spec: pytree.TreeSpec) -> list[str]:
    """Names of a model's outputs: a dictionary's keys, field names, `output0` for a position.

    `{"logits": x, "aux": [y, z]}` gives `logits`, `aux.0`, `aux.1`; a lone tensor is `output`.
    """
    count = spec.num_leaves
    try:
        tree = pytree.tree_unflatten(range(count), spec)
        paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    except Exception:  # a class of the user's that checks its fields, or has none by name
        paths = [(pytree.SequenceKey(index),) for index in range(count)]
    if count == 1 and all(isinstance(key, pytree.SequenceKey) for key in paths[0]):
        return [_ONLY]
    names: list[str] = []
    for path in paths:
        name = ".".join(_step(key) for key in path)
        if isinstance(path[0], pytree.SequenceKey):
            name = _ONLY + name
        wanted, copies = name, 0
        while name in names:  # the keys 1 and "1" of one dictionary
            copies += 1
            name = f"{wanted}_{copies}"
        names.append(name)
    return names


def _step(key: Any) -> str:
    """One step of a path as text that any terminal and table can show."""
    value = next(
        (getattr(key, field) for field in ("key", "idx", "name") if hasattr(key, field)), key
    )
    text = "".join(char if char.isprintable() else "_" for char in str(value))
    return text[: _LONGEST_NAME // 4] or "_"


def samples_first(graph: fx.Graph, copy: fx.Node, value: torch.Tensor) -> fx.Node:
    """An output [T, N, C], whose one free dimension is the batch, as [N, T, C]."""
    shape: Any = value.shape
    free = [dim for dim, size in enumerate(shape) if isinstance(size, torch.SymInt)]
    if len(free) != 1 or free[0] == 0 or not shape[free[0]].node.expr.is_symbol:
        return copy
    order = [free[0], *(dim for dim in range(len(shape)) if dim != free[0])]
    return graph.call_function(torch.ops.aten.permute.default, (copy, order))


def concatenate(graph: fx.GraphModule, names: Sequence[str], shapes: Sequence[Shape]) -> None:
    """Let a graph that returns several tensors [N, *shape] return one; the names are recorded."""
    (node,) = (node for node in graph.graph.nodes if node.op == "output")
    tensors = node.args[0]
    aten = torch.ops.aten
    if len(tensors) == 1:
        (result,) = tensors
    else:
        rows = []
        with graph.graph.inserting_before(node):
            for tensor, shape in zip(tensors, shapes, strict=True):
                if len(shape) == 0:
                    tensor = graph.graph.call_function(aten.unsqueeze.default, (tensor, 1))
                elif len(shape) > 1:
                    tensor = graph.graph.call_function(aten.flatten.using_ints, (tensor, 1))
                rows.append(tensor)
            result = graph.graph.call_function(aten.cat.default, (rows, 1))
    node.args = (result,)
    node.meta["outputs"] = lay_out(names, shapes)
    graph.recompile()


def recorded_outputs(graph: fx.GraphModule, shape: Shape) -> tuple[Output, ...]:
    """The outputs of a graph whose one tensor has `shape` per sample."""
    (node,) = (node for node in graph.graph.nodes if node.op == "output")
    outputs: tuple[Output, ...] = node.meta.get("outputs") or lay_out([_ONLY], [shape])
    return outputs


def output_nodes(graph: fx.GraphModule, outputs: Sequence[Output]) -> list[fx.Node]:
    """The node that gives each of the outputs: as the model returned it, or flattened.

    Raises InputError where the graph does not end as `concatenate` leaves it.
    """
    (result,) = next(node for node in graph.graph.nodes if node.op == "output").args
    assert isinstance(result, fx.Node)
    if len(outputs) == 1:
        return [result]
    rows = result.args[0] if result.target == torch.ops.aten.cat.default else ()
    assert isinstance(rows, list | tuple)
    nodes = [row for row in rows if isinstance(row, fx.Node)]
    if [math.prod(node.meta["shape"]) for node in nodes] != [o.stop - o.start for o in outputs]:
        raise InputError("damaged mpsearch file: its outputs do not match its graph")
    return [_before_flattening(node, o) for node, o in zip(nodes, outputs, strict=True)]


def _before_flattening(row: fx.Node, output: Output) -> fx.Node:
    aten = torch.ops.aten
    if row.target not in (aten.flatten.using_ints, aten.unsqueeze.default):
        return row
    (source, *_) = row.args
    assert isinstance(source, fx.Node)
    return source if source.meta["shape"][1:] == output.shape else row


def record_left_out(graph: fx.GraphModule, names: Sequence[str]) -> None:
    """Remember outputs of the model that the graph does not return."""
    (node,) = (node for node in graph.graph.nodes if node.op == "output")
    node.meta["left_out"] = tuple(names)


def left_out_outputs(graph: fx.GraphModule) -> tuple[str, ...]:
    """Names of the model's outputs that the graph does not return: whole numbers and flags."""
    (node,) = (node for node in graph.graph.nodes if node.op == "output")
    names: tuple[str, ...] = node.meta.get("left_out", ())
    return names


def describe_outputs(outputs: Sequence[Output], left_out: Sequence[str]) -> dict[str, Any]:
    """A file header's entries: `outputs` in order, and `left_out` where there are any."""
    header: dict[str, Any] = {
        "outputs": [{"name": output.name, "shape": list(output.shape)} for output in outputs]
    }
    return {**header, "left_out": list(left_out)} if left_out else header


def read_outputs(graph: fx.GraphModule, header: Mapping[str, Any], shape: Shape) -> None:
    """Record what a header says about a graph that returns `shape` per sample.

    A header of an older version says nothing. Raises InputError when it does not fit the graph.
    """
    if "outputs" not in header:
        return
    (node,) = (node for node in graph.graph.nodes if node.op == "output")
    try:
        names = [_checked_name(entry["name"]) for entry in header["outputs"]]
        shapes = [tuple(int(size) for size in entry["shape"]) for entry in header["outputs"]]
        left_out = tuple(_checked_name(name) for name in header.get("left_out", []))
        outputs = lay_out(names, shapes)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"damaged mpsearch file: outputs: {error}") from error
    expected = shapes[0] if len(shapes) == 1 else (sum(map(math.prod, shapes)),)
    sizes = [size for sizes in shapes for size in sizes]
    if not shapes or shape != expected or min(sizes, default=0) < 0 or len({*names}) < len(names):
        raise InputError("damaged mpsearch file: its outputs do not match its graph")
    node.meta["outputs"], node.meta["left_out"] = outputs, left_out


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise ValueError(f"{name!r:.80} is not a name")
    return name
