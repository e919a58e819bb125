"""An aten graph as JSON: operators by name from an allow-list, arguments as plain values.

Reading it looks names up in fixed tables and builds tuples; no expression is evaluated, nothing is
imported, no attribute is followed that the file could choose.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from mpsearch.errors import InputError
from mpsearch.graph.allowed import draws, find_operator
from mpsearch.graph.tensor_paths import is_tensor_path
from mpsearch.graph.tensors import set_tensor

# Arithmetic on the symbolic batch size, and picking one of several outputs.
_PYTHON = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")
}
_DTYPES = {
    name: getattr(torch, name)
    for name in ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64")
} | {"uint8": torch.uint8, "bool": torch.bool, "complex64": torch.complex64}
_MEMORY_FORMATS = {
    name: getattr(torch, name)
    for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
}
_SIZES = {torch.ops.aten.sym_size.int, torch.ops.aten.sym_numel.default}
_SIZE_BITS, _MOST_BITS = 40, 1024  # of a batch size, and of whole numbers made of sizes
_LAYOUTS = {"strided": torch.strided}
_DEEPEST = 8


def unstorable(graph: fx.GraphModule) -> tuple[tuple[str, str], ...]:
    """(operator, node) wherever an mpsearch file cannot hold the graph, in order; none: it can.

    An operator on the allow-list whose argument cannot be written has it behind its name; a tensor
    whose name cannot be written is the operator get_attr.
    """
    found: list[tuple[str, str]] = []
    for node in graph.graph.nodes:
        if node.op == "get_attr" and not is_tensor_path(node.target):
            found.append((f"get_attr (name {node.target!r:.80})", node.name))
        if not is_storable(node):
            found.append((_operator_name(node), node.name))
            continue
        try:
            _node_to_json(node)
        except InputError as error:
            found.append((f"{_operator_name(node)} ({error})", node.name))
    return tuple(found)


def is_storable(node: fx.Node) -> bool:
    """Whether the node is no operator, or one of the allow-list that draws no random numbers."""
    if node.op != "call_function":
        return True
    return _find_operator(_operator_name(node)) is not None and not draws(node)


def check_storable(graph: fx.GraphModule) -> None:
    """Raise InputError that lists every operator that an mpsearch file cannot hold, with nodes."""
    nodes: dict[str, list[str]] = {}
    for operator_, node in unstorable(graph):
        nodes.setdefault(operator_, []).append(node)
    if nodes:
        listed = ", ".join(f"{name} at {_several(where)}" for name, where in nodes.items())
        raise InputError(
            f"an mpsearch file cannot hold the operators {listed}; "
            "expected operators of its allow-list only"
        )


def _several(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def graph_to_json(graph: fx.GraphModule) -> list[dict[str, Any]]:
    """The nodes in order. Raises InputError as `check_storable`."""
    check_storable(graph)
    return [_node_to_json(node) for node in graph.graph.nodes]


def _operator_name(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    return f"operator.{getattr(node.target, '__name__', node.target)}"


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": node.name, "op": node.op}
    if node.op == "call_function":
        entry["target"] = _operator_name(node)
        entry["kwargs"] = {key: _to_json(value) for key, value in node.kwargs.items()}
    elif node.op != "output":
        entry["target"] = str(node.target)
    entry["args"] = [_to_json(value) for value in node.args]
    if node.meta.get("module"):
        entry["module"] = node.meta["module"]
    return entry


def _to_json(value: object) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, complex):
        return {"complex": [_to_json(value.real), _to_json(value.imag)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for tag, table in (
        ("dtype", _DTYPES),
        ("memory_format", _MEMORY_FORMATS),
        ("layout", _LAYOUTS),
    ):
        for name, known in table.items():
            if value is known:
                return {tag: name}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    raise InputError(f"argument {value!r:.80}")


def graph_from_json(nodes: object, tensors: Mapping[str, torch.Tensor]) -> fx.GraphModule:
    """The graph that `graph_to_json` wrote, over `tensors`. Raises InputError on anything else."""
    if not isinstance(nodes, list):
        raise InputError(f"the graph is {type(nodes).__name__}; expected a list of nodes")
    graph = fx.Graph()
    root = nn.Module()
    made: dict[str, fx.Node] = {}
    for entry in nodes:
        try:
            node = _add_node(graph, root, made, entry, tensors)
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise InputError(f"damaged graph: node {entry!r:.120}: {error}") from error
        if node is not None:
            made[entry["name"]] = node
    if [node.op for node in graph.nodes].count("output") != 1:
        raise InputError("damaged graph: expected one output")
    try:
        module = fx.GraphModule(root, graph)
        module.graph.lint()
    except (RuntimeError, SyntaxError) as error:
        raise InputError(f"damaged graph: {str(error)[:120]}") from error
    return module


def _add_node(
    graph: fx.Graph,
    root: nn.Module,
    made: Mapping[str, fx.Node],
    entry: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
) -> fx.Node | None:
    kind, name, bits = entry["op"], entry["name"], 0
    if not isinstance(name, str) or not name.isidentifier() or name in made:
        raise ValueError("its name is not a fresh identifier")
    args = tuple(_from_json(value, made) for value in entry.get("args", []))
    if kind == "placeholder":
        node = graph.create_node("placeholder", name, name=name)
    elif kind == "get_attr":
        if not is_tensor_path(entry["target"]):
            raise ValueError(f"{entry['target']!r:.80} is not a tensor name")
        set_tensor(root, entry["target"], tensors[entry["target"]])
        node = graph.create_node("get_attr", entry["target"], name=name)
    elif kind == "call_function":
        target = _find_operator(entry["target"])
        if target is None:
            raise InputError(
                f"the file names the operator {str(entry['target'])[:80]!r}, "
                "which is not on the allow-list; it was not run"
            )
        kwargs = {str(key): _from_json(v, made) for key, v in entry.get("kwargs", {}).items()}
        if target in _PYTHON.values():
            bits = _bits(target, args, kwargs)
        node = graph.create_node("call_function", target, args, kwargs, name=name)
        if draws(node):
            raise ValueError("it draws random numbers; expected evaluation mode")
    elif kind == "output":
        if len(args) != 1 or not isinstance(args[0], fx.Node):
            raise ValueError("an output is one node")
        graph.output(args[0])
        return None
    else:
        raise ValueError(f"unknown kind of node {kind!r:.40}")
    node.meta["module"] = str(entry.get("module", ""))
    if bits:
        node.meta["bits"] = bits
    return node


def _bits(target: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """The most bits that Python's arithmetic on sizes may give; 0 where it only picks an item.

    Squared sixty times a size would fill the memory, and a string times a number at once.
    """
    if target is operator.getitem:
        if kwargs or len(args) != 2 or not isinstance(args[0], fx.Node) or type(args[1]) is not int:
            raise ValueError("it picks an item of something that is no result")
        return 0
    operands = [_bits_of(value) for value in args]
    bits = sum(operands) if target is operator.mul else max(operands) + 1
    if kwargs or bits > _MOST_BITS:
        raise ValueError(f"its whole numbers may take {bits} bits; expected {_MOST_BITS} at most")
    return bits


def _bits_of(value: object) -> int:
    """Of a number in the file, a size of a tensor, or what arithmetic made of these."""
    if isinstance(value, int):
        return max(1, value.bit_length())
    if isinstance(value, float):
        return 1  # no larger in memory for being large
    if isinstance(value, fx.Node):
        if "bits" in value.meta:
            return int(value.meta["bits"])
        if value.target in _SIZES or value.target is operator.getitem:
            return _SIZE_BITS
    raise ValueError(f"it computes with {str(value)[:40]!r}; expected sizes and numbers")


def _find_operator(name: object) -> Callable[..., Any] | None:
    if not isinstance(name, str):
        return None
    namespace, _, rest = name.partition(".")
    return _PYTHON.get(rest) if namespace == "operator" else find_operator(name)


def _from_json(value: Any, made: Mapping[str, fx.Node], depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError("its arguments are nested too deeply")
    if isinstance(value, list):
        return [_from_json(item, made, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, name),) = value.items()
    if tag == "node":
        return made[name]
    if tag == "float":
        return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[name]
    if tag == "complex":
        return complex(*(_from_json(part, made, depth + 1) for part in name))
    if tag == "device":
        return torch.device("cpu")
    return {"dtype": _DTYPES, "memory_format": _MEMORY_FORMATS, "layout": _LAYOUTS}[tag][name]
