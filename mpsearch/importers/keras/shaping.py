"""Layers that move numbers: flatten, reshape, permute, pad, crop, repeat, and those that do
nothing when a network is used."""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from mpsearch.importers.keras.pooling import torch_pads
from mpsearch.importers.keras.settings import (
    CHANNELS_FIRST,
    Building,
    Convert,
    Image,
    Order,
    Value,
    only,
)

# Only training sees them.
IDENTITIES = (
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise",
    "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast",
    "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue",
    "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
    "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom",
    "SpatialDropout1D", "SpatialDropout2D", "StochasticDepth",
)  # fmt: skip


def _identity(layer: Building, values: Sequence[Value]) -> Value:
    return only(layer, values)


def _flatten(layer: Building, values: Sequence[Value]) -> Value:
    emit, value = layer.emit, only(layer, values)
    elements = math.prod(value.shape)
    if layer.settings.data_format == CHANNELS_FIRST and len(value.shape) > 1:
        # Keras puts the channels last before it flattens
        moved = emit.call(torch.movedim, emit.plain(value).node, 1, -1)
        return Value(emit.call(torch.flatten, moved, 1), (elements,))
    if value.order is Order.CHANNELS_FIRST:
        node = emit.call(torch.flatten, value.node, 1)
        if elements in (
            value.shape[-1],
            elements // value.shape[-1] if value.shape[-1] == 1 else 0,
        ):
            return Value(node, (elements,))  # one place or one channel: one order
        return Value(node, (elements,), Order.FLATTENED, value.shape)
    if len(value.shape) < 2:
        return value if value.shape else Value(emit.call(torch.unsqueeze, value.node, 1), (1,))
    return Value(emit.call(torch.flatten, value.node, 1), (elements,))


def _reshape(layer: Building, values: Sequence[Value]) -> Value:
    settings, value = layer.settings, layer.emit.plain(only(layer, values))
    target = settings.get("target_shape")
    if isinstance(target, int):
        target = [target]
    if not isinstance(target, list) or not all(type(n) is int and n >= -1 for n in target):
        raise settings.wrong("target_shape", "sizes")
    elements, known = math.prod(value.shape), math.prod(n for n in target if n != -1)
    shape = tuple(elements // known if n == -1 and known else n for n in target)
    if target.count(-1) > 1 or math.prod(shape) != elements:
        raise settings.error(f"target_shape {target} does not fit {value.shape}")
    return Value(layer.emit.call(torch.reshape, value.node, (-1, *shape)), shape)


def _permute(layer: Building, values: Sequence[Value]) -> Value:
    settings, value = layer.settings, layer.emit.plain(only(layer, values))
    dims = settings.get("dims")
    count = len(value.shape)
    if not isinstance(dims, list | tuple) or sorted(dims) != list(range(1, count + 1)):
        raise settings.wrong("dims", f"the axes 1 to {count} in some order")
    node = layer.emit.call(torch.permute, value.node, (0, *dims))
    return Value(node, tuple(value.shape[axis - 1] for axis in dims))


def _repeat_vector(layer: Building, values: Sequence[Value]) -> Value:
    """[features] -> [n, features]."""
    value, count = layer.emit.plain(only(layer, values)), layer.settings.integer("n")
    node = layer.emit.call(torch.unsqueeze, value.node, 1)
    copies = layer.emit.call(torch.cat, [node] * min(count, 4096), 1)
    if count > 4096 or len(value.shape) != 1:
        raise layer.settings.error(f"repeats {value.shape} {count} times, which is not read")
    return Value(copies, (count, *value.shape))


def _zero_padding(layer: Building, values: Sequence[Value]) -> Value:
    axes = 1 if "1D" in layer.class_name else 2
    form = layer.settings.data_format
    image = layer.emit.image(only(layer, values), form, axes)
    pads = layer.settings.margins("padding", axes)
    node = layer.emit.call(F.pad, image.node, torch_pads(pads))
    sizes = tuple(size + sum(pad) for size, pad in zip(image.sizes, pads, strict=True))
    return layer.emit.value(Image(node, image.channels, sizes), form)


def _cropping(layer: Building, values: Sequence[Value]) -> Value:
    axes = 1 if "1D" in layer.class_name else 2
    form = layer.settings.data_format
    image = layer.emit.image(only(layer, values), form, axes)
    cuts = layer.settings.margins("cropping", axes)
    sizes = tuple(size - sum(cut) for size, cut in zip(image.sizes, cuts, strict=True))
    if min(sizes) < 1:
        raise layer.settings.error(f"cuts {cuts} from {image.sizes}, which leaves nothing")
    node = image.node
    for axis, (before, _) in enumerate(cuts):
        if sizes[axis] < image.sizes[axis]:
            node = layer.emit.call(torch.narrow, node, axis + 2, before, sizes[axis])
    return layer.emit.value(Image(node, image.channels, sizes), form)


def _up_sampling(layer: Building, values: Sequence[Value]) -> Value:
    settings, axes = layer.settings, 1 if "1D" in layer.class_name else 2
    settings.choice("interpolation", ("nearest",), "nearest")
    form = settings.data_format
    image = layer.emit.image(only(layer, values), form, axes)
    factors = settings.integers("size", axes, 2)
    sizes = tuple(size * factor for size, factor in zip(image.sizes, factors, strict=True))
    node = layer.emit.call(F.interpolate, image.node, sizes)
    return layer.emit.value(Image(node, image.channels, sizes), form)


LAYERS: dict[str, Convert] = {
    **dict.fromkeys(IDENTITIES, _identity),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), _zero_padding),
    **dict.fromkeys(("Cropping1D", "Cropping2D"), _cropping),
    **dict.fromkeys(("UpSampling1D", "UpSampling2D"), _up_sampling),
}
