"""What the arguments of aten operators mean for ONNX nodes."""

from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.operators import argument, packet
from mpsearch.integer.operators import integers


def unsupported(node: fx.Node, why: str = "has no form in the ONNX export") -> InputError:
    """The error for a node that is not exported, naming operator and node."""
    return InputError(
        f"{packet(node) or node.op} (node {node.name!r}) {why}; the ONNX export knows "
        "convolutions, linear, common activations, pooling, mean, arithmetic, cat, reshaping, "
        "permute, slice, select, stack, pad, softmax and argmax"
    )


def shape(node: fx.Node) -> tuple[int, ...]:
    """The recorded shape for a batch of one."""
    recorded: tuple[int, ...] = node.meta["shape"]
    return recorded


def spread(value: object, count: int) -> list[int]:
    """One integer per axis: (3, 2) -> [3, 3], ([1, 2], 2) -> [1, 2]."""
    numbers = list(integers(value))
    return numbers * count if len(numbers) == 1 else numbers


def axis(node: fx.Node, value: object, dimensions: int) -> int:
    """A torch dimension, not negative. Raises InputError for the batch dimension."""
    if not isinstance(value, int) or value % dimensions == 0:
        raise unsupported(node, "works along the batch dimension")
    return value % dimensions


def convolution_pads(node: fx.Node, kernel: list[int], dilation: list[int]) -> list[int]:
    """All begins, then all ends; "same" puts the odd one at the end."""
    given = argument(node, "padding")
    if given == "valid":
        return [0] * (2 * len(kernel))
    if given == "same":
        whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [n // 2 for n in whole] + [n - n // 2 for n in whole]
    return spread(given, len(kernel)) * 2


def flag(node: fx.Node, name: str) -> bool:
    """A yes-or-no argument; False where the operator has none of this name."""
    try:
        return bool(argument(node, name))
    except KeyError:
        return False
