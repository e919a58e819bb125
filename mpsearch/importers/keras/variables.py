"""Which weights a layer has, and where the two layouts keep them.

`.keras` numbers a layer's weights and names its group after its class: `layers/conv2d_1/vars/0`.
`.h5` has one group per layer of the outermost model, with the trainable weights of everything
inside first, then the others, each in the order of the layers.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.errors import InputError
from mpsearch.importers.keras.layer_graph import TIME_DISTRIBUTED, KerasLayer, KerasModel
from mpsearch.importers.keras.reading import Array, Group, KerasFile

Config = Mapping[str, Any]
Path = tuple[str, ...]  # names of the models around a layer, and its own


@dataclass(frozen=True)
class Variable:
    """A weight of a layer: `kernel`, kept in the sub-layer `part` (a recurrent layer's cell)."""

    name: str
    trainable: bool = True
    part: str = ""


def _biased(*kernels: str) -> Callable[[Config], tuple[Variable, ...]]:
    def make(config: Config) -> tuple[Variable, ...]:
        bias = (Variable("bias"),) if config.get("use_bias", True) else ()
        return (*(Variable(kernel) for kernel in kernels), *bias)

    return make


def _batch_norm(config: Config) -> tuple[Variable, ...]:
    gamma = (Variable("gamma"),) if config.get("scale", True) else ()
    beta = (Variable("beta"),) if config.get("center", True) else ()
    moving = (Variable("moving_mean", False), Variable("moving_variance", False))
    return (*gamma, *beta, *moving)


def _layer_norm(config: Config) -> tuple[Variable, ...]:
    gamma = (Variable("gamma"),) if config.get("scale", True) else ()
    return (*gamma, Variable("beta")) if config.get("center", True) else gamma


def _normalization(config: Config) -> tuple[Variable, ...]:
    if config.get("mean") is not None or config.get("input_mean") is not None:
        return ()
    return tuple(Variable(name, False) for name in ("mean", "variance", "count"))


def _recurrent(config: Config, part: str = "cell") -> tuple[Variable, ...]:
    bias = ("bias",) if config.get("use_bias", True) else ()
    return tuple(Variable(name, part=part) for name in ("kernel", "recurrent_kernel", *bias))


_PROJECTIONS = ("query", "key", "value", "output")


def _attention(config: Config, before: str = "") -> tuple[Variable, ...]:
    names = ("kernel", "bias") if config.get("use_bias", True) else ("kernel",)
    return tuple(
        Variable(name, part=f"{before}{part}_dense") for part in _PROJECTIONS for name in names
    )


def _bidirectional(config: Config) -> tuple[Variable, ...]:
    entry = config.get("layer")
    inner = entry.get("config") if isinstance(entry, Mapping) else None
    settings: Config = inner if isinstance(inner, Mapping) else {}
    ways = ("forward_layer/cell", "backward_layer/cell")
    return tuple(variable for way in ways for variable in _recurrent(settings, way))


VARIABLES: dict[str, Callable[[Config], tuple[Variable, ...]]] = {
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "Conv2DTranspose", "Conv1DTranspose", "Dense"), _biased("kernel")
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _biased("depthwise_kernel")),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"), _biased("depthwise_kernel", "pointwise_kernel")
    ),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), _recurrent),
    "Bidirectional": _bidirectional,
    "MultiHeadAttention": _attention,
    **dict.fromkeys(
        ("GroupQueryAttention", "GroupedQueryAttention"), lambda config: _attention(config, "_")
    ),
    "Attention": lambda config: (Variable("scale"),) if config.get("use_scale") else (),
    "AdditiveAttention": lambda config: (
        (Variable("scale"),) if config.get("use_scale", True) else ()
    ),
    "RMSNormalization": lambda config: (Variable("scale"),),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Normalization": _normalization,
    "LayerScale": lambda config: (Variable("gamma"),),
    "PReLU": lambda config: (Variable("alpha"),),
    "Embedding": lambda config: (Variable("embeddings"),),
}


# What a class is called in Keras's own code, where that is another name.
_CLASSES = {"Model": "Functional", "GroupQueryAttention": "GroupedQueryAttention"}


def variables_of(layer: KerasLayer) -> tuple[Variable, ...]:
    """The weights of a layer that is no model; none for a class that is not known to have any."""
    make = VARIABLES.get(layer.class_name)
    return make(layer.config) if make and not layer.foreign and not layer.operation else ()


def read_variables(file: KerasFile, model: KerasModel) -> dict[Path, dict[str, Array]]:
    """The weights of every layer by its path, by name: {("block", "conv"): {"kernel": …}}."""
    if not file.legacy:
        return dict(_numbered(file.group, model, ()))
    found: dict[Path, dict[str, Array]] = {}
    for layer in model.layers:
        slots = list(_slots(layer, ()))
        if slots:
            found.update(_legacy(file.group.group_at(layer.name), layer, slots))
    return found


def _numbered(
    group: Group, model: KerasModel, path: Path
) -> Iterator[tuple[Path, dict[str, Array]]]:
    taken: dict[str, int] = {}
    for layer in model.layers:
        if layer.operation:  # keras.ops are no layers and have no group
            continue
        name = _snake_case(_CLASSES.get(layer.class_name, layer.class_name))
        taken[name] = taken.get(name, -1) + 1
        name = f"{name}_{taken[name]}" if taken[name] else name
        here = (*path, layer.name)
        if layer.model:
            inside = group.group_at("layers").group_or_none(name)
            if layer.class_name == TIME_DISTRIBUTED and layer.model.layers[-1].model is None:
                inner = layer.model.layers[-1]
                yield from _own(group, f"layers/{name}/layer", inner, (*here, inner.name))
            elif inside is not None and layer.class_name == TIME_DISTRIBUTED:
                inner = layer.model.layers[-1]
                assert inner.model is not None
                yield from _numbered(inside.group_at("layer"), inner.model, (*here, inner.name))
            elif inside is not None:
                yield from _numbered(inside, layer.model, here)
            continue
        yield from _own(group, f"layers/{name}", layer, here)


def _own(
    group: Group, place: str, layer: KerasLayer, path: Path
) -> Iterator[tuple[Path, dict[str, Array]]]:
    """The weights of a layer that is no model, from its own group."""
    wanted = variables_of(layer)
    if not wanted:
        return
    for part in place.split("/"):
        group = group.group_at(part)
    counts: dict[str, int] = {}
    arrays = {}
    for variable in wanted:
        number = counts.get(variable.part, 0)
        counts[variable.part] = number + 1
        inside = f"{variable.part}/vars" if variable.part else "vars"
        arrays[_key(variable)] = group.group_at(inside).array(str(number))
    yield path, arrays


def _key(variable: Variable) -> str:
    return f"{variable.part}/{variable.name}" if variable.part else variable.name


def _snake_case(name: str) -> str:
    """`SeparableConv2D` -> `separable_conv2d`, the rule of the format."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _slots(layer: KerasLayer, path: Path) -> Iterator[tuple[Path, Variable, bool]]:
    """(layer's path, weight, trained?) of everything inside, in the order of the layers."""
    here = (*path, layer.name)
    if layer.model:
        for inner in layer.model.layers:
            yield from _slots(inner, here)
        return
    trained = layer.config.get("trainable", True) is not False
    for variable in variables_of(layer):
        yield here, variable, trained and variable.trainable


def _legacy(
    group: Group, layer: KerasLayer, slots: list[tuple[Path, Variable, bool]]
) -> dict[Path, dict[str, Array]]:
    names = group.texts("weight_names")
    if len(names) != len(slots):
        raise InputError(
            f"layer {layer.title} has {len(names)} weights in the file; expected {len(slots)}"
        )
    found: dict[Path, dict[str, Array]] = {}
    slots = [s for s in slots if s[2]] + [s for s in slots if not s[2]]
    for name, (path, variable, _) in zip(names, slots, strict=True):
        stored = name.rpartition("/")[2].partition(":")[0]
        named = not stored.startswith("variable")  # some layers give their weights no name
        if named and stored != variable.name and not variable.name.endswith(f"_{stored}"):
            raise InputError(
                f"layer {layer.title} has the weight {name!r:.80} where {variable.name} of "
                f"{path[-1]!r:.60} was expected"
            )
        found.setdefault(path, {})[_key(variable)] = group.array(name)
    return found
