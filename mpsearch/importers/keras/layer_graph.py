"""The config of a Keras model as a graph of layer calls, in Keras 2's and Keras 3's notation.

A layer that is called several times shares its weights; a model is a layer too. Every call reads
outputs of other calls by `Reference` (calls.py).

Names in the graph for Keras's names, which may hold any character.

Calls of layers in a Keras config: Keras 2's lists and Keras 3's objects, and what they read.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any

from torch import fx, nn

from mpsearch.errors import InputError


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> identifier, different names to different ones: `conv-1` -> `conv_1`.

    A name that is an identifier already stays; one that torch's modules use themselves (`training`)
    gets an underscore.
    """
    names = list(names)
    reserved = nn.Module()
    wanted = {name: _clean(name, reserved) for name in names}
    taken = {name for name in names if wanted[name] == name}
    found = {}
    for name in names:
        choice, count = wanted[name], 0
        while choice != name and choice in taken:
            count += 1
            choice = f"{wanted[name]}_{count}"
        taken.add(choice)
        found[name] = choice
    return found


def _clean(name: str, reserved: nn.Module) -> str:
    text = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_") or "layer"
    if text[0].isdigit():
        text = f"layer_{text}"
    return f"{text}_" if hasattr(reserved, text) or hasattr(fx.GraphModule, text) else text


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
    return tuple(_in_order(class_name, _call(name, node)) for node in nodes)


def _in_order(class_name: str, call: Call) -> Call:
    """Tensors that are given by name behind those that are not."""
    names = _NAMED.get(class_name, ())
    given = [call.kwargs[name] for name in names if call.kwargs.get(name) is not None]
    if not given:
        return call
    tensors = [value if isinstance(value, Reference) else _reference(value) for value in given]
    rest = {key: value for key, value in call.kwargs.items() if key not in names}
    return Call((*call.args, *tensors), rest)


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


TIME_DISTRIBUTED = "TimeDistributed"
# Inputs that a call may give by name, in their order.
_NAMED = dict.fromkeys(
    ("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"),
    ("query", "value", "key"),
)
MODELS = ("Functional", "Model", "Sequential")
_DEEPEST_MODEL, _MOST_LAYERS = 16, 50_000
_OWN_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")


@dataclass(frozen=True)
class KerasLayer:
    """A layer: its class, the class's own module ("" for Keras's), settings and calls.

    `model` is the graph inside where the layer is a model.
    """

    name: str
    class_name: str
    foreign: str
    operation: bool
    config: Mapping[str, Any]
    calls: tuple[Call, ...]
    model: "KerasModel | None" = None

    @property
    def title(self) -> str:
        """For messages: `conv2d (Conv2D)`."""
        return f"{self.name!r:.60} ({self.class_name:.60})"


@dataclass(frozen=True)
class KerasModel:
    """Layers in the order of the file; inputs and named outputs in the order of the model."""

    layers: tuple[KerasLayer, ...]
    inputs: tuple[Reference, ...]
    outputs: tuple[tuple[str, Reference], ...]

    def calls_in_order(self) -> Iterator[tuple[KerasLayer, int]]:
        """(layer, number of the call), every call behind those that it reads, else as in the
        file."""
        calls = [(layer, number) for layer in self.layers for number in range(len(layer.calls))]
        places = {(layer.name, number): place for place, (layer, number) in enumerate(calls)}
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for place, (layer, number) in enumerate(calls):
            sources = [(r.layer, r.call) for r in layer.calls[number].references()]
            for name, call in sources:
                if (name, call) not in places:
                    raise InputError(f"damaged config: no call {call} of a layer {name!r:.60}")
            sorter.add(place, *(places[source] for source in sources))
        try:
            sorter.prepare()
        except CycleError:
            raise InputError("damaged config: its layers form a cycle") from None
        ready: list[int] = []
        while sorter.is_active():
            for place in sorter.get_ready():
                heappush(ready, place)
            first = heappop(ready)
            sorter.done(first)
            yield calls[first]


def read_model(document: Mapping[str, Any], depth: int = 0) -> KerasModel:
    """The graph of a model's config. Raises InputError for what is no such config."""
    if depth > _DEEPEST_MODEL:
        raise InputError("damaged config: models nested too deeply")
    config = document.get("config")
    if document.get("class_name") == "Sequential":
        # Keras 2.0 and 2.1 wrote the list of layers alone
        return _sequential(config if isinstance(config, dict) else {"layers": config}, depth)
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise InputError(
            f"a model of class {str(document.get('class_name'))[:60]} has no layers in its config: "
            "a subclassed model keeps its network in Python code.",
            "Build it with keras.Model(inputs, outputs) or keras.Sequential and save that",
        )
    return _functional(config, depth)


def _functional(config: Mapping[str, Any], depth: int) -> KerasModel:
    layers = tuple(_layer(entry, depth) for entry in _entries(config))
    outputs = read_outputs(config.get("output_layers"))
    inputs = tuple(reference for _, reference in read_outputs(config.get("input_layers")))
    if not inputs or not outputs:
        raise InputError("damaged config: a model without inputs or outputs")
    layers, outputs = _count_calls_from_zero(layers, outputs)
    _check_names(layers, [reference for _, reference in outputs] + list(inputs))
    return KerasModel(layers, inputs, outputs)


def _sequential(config: Mapping[str, Any], depth: int) -> KerasModel:
    """A chain; without an input layer, the first layer or the model says the shape."""
    layers = [_layer(entry, depth) for entry in _entries(config)]
    if layers and layers[0].class_name != "InputLayer":
        first = layers[0].config
        shape = first.get("batch_input_shape") or first.get("batch_shape")
        shape = shape or config.get("build_input_shape")
        name = f"{layers[0].name}_input"
        start = {"batch_shape": shape, "dtype": first.get("dtype"), "name": name}
        layers.insert(0, KerasLayer(name, "InputLayer", "", False, start, ()))
    if not layers:
        raise InputError("damaged config: a model without layers")
    chain = [replace(layers[0], calls=(Call((), {}),))]
    for layer in layers[1:]:
        before = Reference(chain[-1].name, 0, 0)
        chain.append(replace(layer, calls=(Call((before,), {}),)))
    _check_names(tuple(chain), [])
    last = chain[-1].name
    return KerasModel(
        tuple(chain), (Reference(chain[0].name, 0, 0),), ((last, Reference(last, 0, 0)),)
    )


def _entries(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = config.get("layers")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError("damaged config: layers is not a list of objects")
    if len(entries) > _MOST_LAYERS:
        raise InputError(f"damaged config: {len(entries):,} layers")
    return entries


def _layer(entry: Mapping[str, Any], depth: int) -> KerasLayer:
    class_name, config = entry.get("class_name"), entry.get("config")
    if not isinstance(class_name, str) or not isinstance(config, dict | list):
        raise InputError("damaged config: a layer without class or settings")
    settings: Mapping[str, Any] = config if isinstance(config, dict) else {"layers": config}
    name = entry.get("name") or settings.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(f"damaged config: a {class_name:.60} without a name")
    module = entry.get("module") or ""
    registered = entry.get("registered_name")
    foreign = ""
    if isinstance(module, str) and module and module.partition(".")[0] not in ("keras", "tf_keras"):
        foreign = "" if module.startswith(_OWN_MODULES) else module
    if isinstance(registered, str) and registered not in ("", class_name):
        foreign = foreign or registered
    inside = class_name in MODELS and not foreign
    repeated = class_name == TIME_DISTRIBUTED and not foreign
    return KerasLayer(
        name=name,
        class_name=class_name,
        foreign=foreign,
        operation=".ops." in f"{module}." or not (module or {"dtype", "trainable"} & set(settings)),
        config=settings,
        calls=read_calls(name, class_name, entry.get("inbound_nodes")),
        model=_around(settings, depth + 1)
        if repeated
        else read_model({**entry, "config": config}, depth + 1)
        if inside
        else None,
    )


def _around(settings: Mapping[str, Any], depth: int) -> KerasModel:
    """The layer or model inside of TimeDistributed, as a model of one layer."""
    entry = settings.get("layer")
    if depth > _DEEPEST_MODEL or not isinstance(entry, dict):
        raise InputError("damaged config: a TimeDistributed without a layer in it")
    start = KerasLayer("step", "InputLayer", "", False, {}, (Call((), {}),))
    first = Reference(start.name, 0, 0)
    inner = replace(_layer(entry, depth), calls=(Call((first,), {}),))
    if inner.name == start.name:
        inner = replace(inner, name="layer")
    return KerasModel((start, inner), (first,), ((inner.name, Reference(inner.name, 0, 0)),))


def _count_calls_from_zero(
    layers: tuple[KerasLayer, ...], outputs: tuple[tuple[str, Reference], ...]
) -> tuple[tuple[KerasLayer, ...], tuple[tuple[str, Reference], ...]]:
    """Keras 2 counts the building of a model inside as its call 0, which the file leaves out."""
    used: dict[str, set[int]] = {layer.name: set() for layer in layers if layer.model}
    everything = [r for layer in layers for call in layer.calls for r in call.references()]
    for reference in (*everything, *(where for _, where in outputs)):
        if reference.layer in used:
            used[reference.layer].add(reference.call)
    ahead = {name: min(calls) for name, calls in used.items() if calls and min(calls) > 0}
    if not ahead:
        return layers, outputs

    def moved(value: Any) -> Any:
        if isinstance(value, Reference):
            return replace(value, call=value.call - ahead.get(value.layer, 0))
        if isinstance(value, list | tuple):
            return type(value)(moved(item) for item in value)
        return value

    return (
        tuple(
            replace(layer, calls=tuple(replace(c, args=moved(c.args)) for c in layer.calls))
            for layer in layers
        ),
        tuple((name, moved(where)) for name, where in outputs),
    )


def _check_names(layers: tuple[KerasLayer, ...], used: list[Reference]) -> None:
    names = {layer.name for layer in layers}
    if len(names) < len(layers):
        raise InputError("damaged config: two layers of one name")
    for reference in used:
        if reference.layer not in names:
            raise InputError(f"damaged config: no layer {reference.layer!r:.60}")
