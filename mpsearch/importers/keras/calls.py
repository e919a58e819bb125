"""Calls of layers in a Keras config: Keras 2's lists and Keras 3's objects, and what they read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.errors import InputError

_DEEPEST = 8


@dataclass(frozen=True)
class Reference:
    """The output `tensor` of call number `call` of the layer `layer`."""

    layer: str
    call: int
    tensor: int


@dataclass(frozen=True)
class Call:
    """One use of a layer: positional arguments (references, constants, lists) and keywords."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def references(self) -> tuple[Reference, ...]:
        """Every tensor among the positional arguments, in order."""
        return tuple(_references(self.args))


def read_calls(name: str, class_name: str, nodes: object) -> tuple[Call, ...]:
    if class_name == "InputLayer":
        return (Call((), {}),)
    if nodes is None:
        return ()
    if not isinstance(nodes, list):
        raise InputError(f"damaged config: inbound_nodes of layer {name!r:.60}")
    return tuple(_call(name, node) for node in nodes)


def _call(name: str, node: object) -> Call:
    if isinstance(node, dict) and "args" in node:  # Keras 3
        args, kwargs = node.get("args"), node.get("kwargs") or {}
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise InputError(f"damaged config: a call of layer {name!r:.60}")
        return Call(
            tuple(_argument(value) for value in args),
            {str(key): _argument(value) for key, value in kwargs.items()},
        )
    entries = list(node.values()) if isinstance(node, dict) else node  # Keras 2
    if not isinstance(entries, list) or not entries:
        raise InputError(f"damaged config: a call of layer {name!r:.60}")
    if isinstance(entries[0], str):
        entries = [entries]
    kwargs = {}
    sources = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) < 3:
            raise InputError(f"damaged config: a call of layer {name!r:.60}")
        if entry[0] == "_CONSTANT_VALUE":
            sources.append(entry[2])
        else:
            sources.append(_reference(entry))
        if len(entry) > 3 and isinstance(entry[3], dict):
            kwargs.update(entry[3])
    return Call((sources if len(sources) > 1 else sources[0],), kwargs)


def _argument(value: Any, depth: int = 0) -> Any:
    """An argument of a Keras 3 call with references in place of tensors."""
    if depth > _DEEPEST:
        raise InputError("damaged config: arguments nested too deeply")
    if isinstance(value, list):
        return [_argument(item, depth + 1) for item in value]
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            return _reference(config.get("keras_history") if isinstance(config, dict) else None)
        if value.get("class_name") == "__tuple__":
            return _argument(value.get("items"), depth + 1)
        return {str(key): _argument(item, depth + 1) for key, item in value.items()}
    return value


def _reference(value: object) -> Reference:
    if isinstance(value, list) and len(value) >= 3:
        name, call, tensor = value[:3]
        if isinstance(name, str) and type(call) is int and type(tensor) is int:
            return Reference(name, call, tensor)
    raise InputError(f"damaged config: {str(value)[:60]!r} names no tensor")


def _references(value: object) -> Iterator[Reference]:
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _references(item)


def read_outputs(value: object, depth: int = 0) -> tuple[tuple[str, Reference], ...]:
    """`input_layers` and `output_layers`: one entry, a list, a dictionary by name, or nested."""
    if depth > _DEEPEST:
        raise InputError("damaged config: outputs nested too deeply")
    if isinstance(value, dict):
        found: list[tuple[str, Reference]] = []
        for key, item in value.items():
            inner = read_outputs(item, depth + 1)
            plain = len(inner) == 1
            found += [(str(key) if plain else f"{key}.{name}", where) for name, where in inner]
        return tuple(found)
    if isinstance(value, list) and value and isinstance(value[0], str):
        reference = _reference(value)
        return ((reference.layer, reference),)
    if isinstance(value, list):
        return tuple(pair for item in value for pair in read_outputs(item, depth + 1))
    raise InputError("damaged config: a model without inputs or outputs")
