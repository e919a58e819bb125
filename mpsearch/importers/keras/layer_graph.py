"""The config of a Keras model as a graph of layer calls, in Keras 2's and Keras 3's notation.

A layer that is called several times shares its weights; a model is a layer too. Every call reads
outputs of other calls by `Reference` (calls.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any

from mpsearch.errors import InputError
from mpsearch.importers.keras.calls import Call, Reference, read_calls, read_outputs

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
    return KerasLayer(
        name=name,
        class_name=class_name,
        foreign=foreign,
        operation=".ops." in f"{module}." or not (module or {"dtype", "trainable"} & set(settings)),
        config=settings,
        calls=read_calls(name, class_name, entry.get("inbound_nodes")),
        model=read_model({**entry, "config": config}, depth + 1) if inside else None,
    )


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
