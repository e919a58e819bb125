"""A layer's settings as Keras wrote them, read with checks: the file is untrusted.

Tensors of the graph under construction, and in which order their axes lie.

Keras has channels last, torch's convolutions channels first. A tensor stays as its operator wrote
it and is permuted when a reader wants the other order, once: from image input to the last pooling
there is one permute. A flattened image stays in torch's order as long as only dense layers read it;
they reorder their columns instead.

What a layer's converter gets, and what it may say about it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.graph.tensors import set_tensor
from mpsearch.importers.keras.reading import Array

CHANNELS_LAST, CHANNELS_FIRST = "channels_last", "channels_first"
LARGEST = 1 << 20  # of any number of a layer's settings


@dataclass(frozen=True)
class Settings:
    """The `config` of one layer; `layer` names it in messages: `conv2d (Conv2D)`."""

    layer: str
    entries: Mapping[str, Any]

    def error(self, text: str) -> InputError:
        """The error that names the layer."""
        return InputError(f"layer {self.layer}: {text}")

    def wrong(self, key: str, expected: str) -> InputError:
        """The error for a setting that is not as expected."""
        return self.error(f"{key} is {str(self.entries.get(key))[:60]!r}; expected {expected}")

    def get(self, key: str, default: object = None) -> Any:
        """The entry as it is; `default` where it is missing or null."""
        value = self.entries.get(key)
        return default if value is None else value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        value = self.get(key, default)
        if isinstance(value, dict):  # Keras 2 wrote numpy scalars as {"value": …}
            value = value.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number")
        if not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number from 1 on."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST:
            raise self.wrong(key, "a whole number from 1 on")
        return value

    def integers(self, key: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """`count` whole numbers from 1 on; one number stands for all: 3 -> (3, 3)."""
        value = self.get(key, default)
        values = list(value) if isinstance(value, list | tuple) else [value] * count
        if len(values) != count or any(
            isinstance(v, bool) or not isinstance(v, int) or not 0 < v <= LARGEST for v in values
        ):
            raise self.wrong(key, f"{count} whole number(s) from 1 on")
        return tuple(values)

    def margins(self, key: str, axes: int) -> tuple[tuple[int, int], ...]:
        """(before, after) for every axis of ZeroPadding and Cropping: 1, (1, 2), ((1, 1), (2, 2)).

        One pair stands for before and after on one axis, for one number per axis on two.
        """
        value = self.get(key)
        if isinstance(value, int):
            value = [[value, value]] * axes
        elif isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
            value = [value] if axes == 1 else [[v, v] for v in value]
        if not isinstance(value, list | tuple) or len(value) != axes:
            raise self.wrong(key, f"margins for {axes} axes")
        pairs = [tuple(pair) if isinstance(pair, list | tuple) else () for pair in value]
        if any(
            len(pair) != 2 or not all(isinstance(v, int) and 0 <= v <= LARGEST for v in pair)
            for pair in pairs
        ):
            raise self.wrong(key, f"margins for {axes} axes")
        return tuple((pair[0], pair[1]) for pair in pairs)

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        """One of the known words."""
        value = self.get(key, default)
        if value not in known:
            raise self.wrong(key, " or ".join(known))
        return str(value)

    @property
    def data_format(self) -> str:
        """Where the layer has its channels."""
        return self.choice("data_format", (CHANNELS_LAST, CHANNELS_FIRST), CHANNELS_LAST)

    def axis(self, key: str, dimensions: int, default: int = -1) -> int:
        """An axis, counted with the batch as Keras does, as an axis of one sample.

        `dimensions` are those of one sample: axis 3 or -1 of three dimensions is 2.
        """
        value = self.get(key, default)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "one axis")
        positive = value + dimensions + 1 if value < 0 else value
        if not 1 <= positive <= dimensions:
            raise self.wrong(key, f"an axis of {dimensions} dimensions behind the batch")
        return positive - 1


Shape = tuple[int, ...]


class Order(Enum):
    """How a tensor lies: as in Keras; its last axis directly behind the batch; or as an image with
    channels first that was flattened."""

    KERAS, CHANNELS_FIRST, FLATTENED = range(3)


@dataclass(frozen=True)
class Value:
    """A tensor: its node, the shape of one sample in Keras's order, and how it lies.

    `image`: for a flattened image its shape (height, width, channels). `masked`: the layer that
    gave it a mask of samples' steps, which follows from the data; empty without.
    """

    node: fx.Node
    shape: Shape
    order: Order = Order.KERAS
    image: Shape = ()
    masked: str = ""

    def __post_init__(self) -> None:
        what = f"a tensor of shape {self.shape} (one sample)"
        if any(size < 1 for size in self.shape):
            raise InputError(what)
        memory_budget.expect(4 * math.prod(self.shape), what)

    def same(self, node: fx.Node) -> "Value":
        """Another tensor of the same shape and order."""
        return replace(self, node=node)


@dataclass(frozen=True)
class Image:
    """A tensor [N, channels, *sizes] for torch's convolutions and pools."""

    node: fx.Node
    channels: int
    sizes: Shape


@dataclass
class Emitter:
    """The graph so far. `major`: the version of Keras that wrote the model."""

    major: int
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: nn.Module = field(default_factory=nn.Module)
    moved: dict[tuple[fx.Node, str], fx.Node] = field(default_factory=dict)
    tensors: dict[str, fx.Node] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A node that calls a function of torch."""
        return self.graph.call_function(function, args, kwargs)

    def tensor(self, name: str, make: Callable[[], torch.Tensor]) -> fx.Node:
        """The weight `name`; a layer that is used again finds its own."""
        if name not in self.tensors:
            tensor = make().contiguous()
            memory_budget.reserve(tensor.nbytes, f"the weight {name!r:.80}")
            set_tensor(self.root, name, tensor)
            self.tensors[name] = self.graph.get_attr(name)
        return self.tensors[name]

    def module(self, name: str, make: Callable[[], nn.Module], node: fx.Node) -> fx.Node:
        """A call of the module `name`, made once for a shared layer."""
        if name not in self.modules:
            *path, leaf = name.split(".")
            parent = self.root
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = getattr(parent, part)
            parent.add_module(leaf, make())
            self.modules.add(name)
        return self.graph.call_module(name, (node,))

    def plain(self, value: Value) -> Value:
        """The value with its axes as in Keras."""
        if value.order is Order.KERAS:
            return value
        return Value(self._once(value.node, "plain", lambda: self._plain(value)), value.shape)

    def _plain(self, value: Value) -> fx.Node:
        if value.order is Order.CHANNELS_FIRST:
            return self.call(torch.permute, value.node, _last_axes(len(value.shape)))
        image = (value.image[-1], *value.image[:-1])
        unflattened = self.call(torch.reshape, value.node, (-1, *image))
        permuted = self.call(torch.permute, unflattened, _last_axes(len(image)))
        return self.call(torch.flatten, permuted, 1)

    def channels_first(self, value: Value) -> Value:
        """The value with its last axis directly behind the batch."""
        if value.order is Order.CHANNELS_FIRST or len(value.shape) < 2:
            return self.plain(value) if value.order is Order.FLATTENED else value
        value = self.plain(value)
        node = self._once(value.node, "first", lambda: self._channels_first(value))
        return Value(node, value.shape, Order.CHANNELS_FIRST)

    def _channels_first(self, value: Value) -> fx.Node:
        *sizes, channels = value.shape
        if math.prod(sizes) == 1 or channels == 1:  # the order of the numbers is the same
            return self.call(torch.reshape, value.node, (-1, channels, *sizes))
        last = len(value.shape)
        return self.call(torch.permute, value.node, (0, last, *range(1, last)))

    def _once(self, node: fx.Node, way: str, make: Callable[[], fx.Node]) -> fx.Node:
        if (node, way) not in self.moved:
            self.moved[node, way] = make()
        return self.moved[node, way]

    def image(self, value: Value, data_format: str, axes: int) -> Image:
        """The value as torch's convolutions over `axes` axes take it."""
        if len(value.shape) != axes + 1:
            raise InputError(f"its input has shape {value.shape}; expected {axes + 1} dimensions")
        if data_format == CHANNELS_LAST:
            *sizes, channels = value.shape
            return Image(self.channels_first(value).node, channels, tuple(sizes))
        channels, *sizes = value.shape
        return Image(self.plain(value).node, channels, tuple(sizes))

    def value(self, image: Image, data_format: str) -> Value:
        """The tensor of an image again, for the next layer."""
        if data_format == CHANNELS_LAST:
            return Value(image.node, (*image.sizes, image.channels), Order.CHANNELS_FIRST)
        return Value(image.node, (image.channels, *image.sizes))


def _last_axes(dimensions: int) -> tuple[int, ...]:
    """(0, 2, 3, 1) for three dimensions of a sample: channels behind the places."""
    return (0, *range(2, dimensions + 1), 1)


def place(value: Value, axis: int) -> int:
    """The dimension of the node where axis `axis` of a sample lies."""
    if value.order is Order.KERAS:
        return axis + 1
    return 1 if axis == len(value.shape) - 1 else axis + 2


@dataclass(frozen=True)
class Building:
    """A layer to convert: settings, weights by name, the name that they get in the graph.

    `causal`: whether it is called with `use_causal_mask`. `mask`: the constant that it is called
    with as `attention_mask`, True where a step is seen. `call`: the number of this one.
    """

    settings: Settings
    weights: Mapping[str, Array]
    scope: str
    class_name: str
    calls: int
    emit: Emitter
    causal: bool = False
    mask: Array | None = None
    call: int = 0

    def array(self, name: str, shape: Sequence[int | None]) -> Array:
        """The weight with a shape that was checked; None stands for any size."""
        array = self.weights.get(name)
        if array is None:
            raise self.settings.error(f"has no weight {name}")
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = tuple("any" if size is None else size for size in shape)
            raise self.settings.error(f"{name} has shape {array.shape}; expected {wanted}")
        if not np.isfinite(array).all():
            raise self.settings.error(f"{name} has NaN or infinity")
        return array

    def tensor(self, name: str, make: Callable[[], Array]) -> fx.Node:
        """A weight of the graph, `scope.name`, from numpy; made once for a shared layer."""
        return self.emit.tensor(
            f"{self.scope}.{name}",
            lambda: torch.from_numpy(np.array(make(), dtype=np.float32, order="C")),
        )

    def bias(self, size: int, name: str = "bias") -> fx.Node | None:
        """The layer's bias; None where it has none."""
        if not self.settings.flag("use_bias", True):
            return None
        return self.tensor(name, lambda: self.array("bias", (size,)))


Convert = Callable[[Building, Sequence[Value]], Value]


def only(layer: Building, values: Sequence[Value]) -> Value:
    """The one input. Raises InputError for another number."""
    if len(values) != 1:
        raise layer.settings.error(f"takes {len(values)} inputs; expected one")
    return values[0]
