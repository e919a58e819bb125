"""Tensors of the graph under construction, and in which order their axes lie.

Keras has channels last, torch's convolutions channels first. A tensor stays as its operator wrote
it and is permuted when a reader wants the other order, once: from image input to the last pooling
there is one permute. A flattened image stays in torch's order as long as only dense layers read it;
they reorder their columns instead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import fx, nn

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.graph.tensors import set_tensor
from mpsearch.importers.keras.settings import CHANNELS_LAST

Shape = tuple[int, ...]


class Order(Enum):
    """How a tensor lies: as in Keras; its last axis directly behind the batch; or as an image with
    channels first that was flattened."""

    KERAS, CHANNELS_FIRST, FLATTENED = range(3)


@dataclass(frozen=True)
class Value:
    """A tensor: its node, the shape of one sample in Keras's order, and how it lies.

    `image`: for a flattened image its shape (height, width, channels).
    """

    node: fx.Node
    shape: Shape
    order: Order = Order.KERAS
    image: Shape = ()

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
