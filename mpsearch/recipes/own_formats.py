"""What targets have in common that take our own quantizer's bits: integers of b bits by channel."""

from collections.abc import Iterable
from math import prod

from mpsearch.recipes.target import NO_SHAPE
from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import packed_bytes
from mpsearch.tables.table import TableLayer

FLOAT = 32
CONVOLUTIONS = (
    "conv1d", "conv2d", "conv3d", "depthwise_conv1d", "depthwise_conv2d", "depthwise_conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip
KINDS = (*CONVOLUTIONS, "linear")


def refused_format(layer: TableLayer, choice: Choice, kinds: Iterable[str]) -> str:
    """Why a target of such bits refuses a layer of other kinds (one of no kind it believes), of no
    shape, and a choice of another tool or with groups; "" where it does not."""
    if choice.label:
        return "it has bits, w4a8, and no formats by name"
    if choice.group_size:
        return "it has scales by channel, none by groups"
    if layer.kind and layer.kind not in kinds:
        return f"it has no layers of the kind {layer.kind}"
    if len(layer.shape) == 1:
        return "its weight has one dimension"
    return "" if layer.shape else NO_SHAPE


def weights_of(layer: TableLayer) -> int:
    """How many weights its shape has."""
    return prod(layer.shape)


def as_packed(layer: TableLayer, choice: Choice) -> int:
    """Bytes of packed weights with a bias of 4 bytes, and unless in float a scale of 4, for each
    channel."""
    each = 4 if choice.w_bits == FLOAT else 8
    return packed_bytes(weights_of(layer), choice.w_bits) + each * layer.shape[0]
