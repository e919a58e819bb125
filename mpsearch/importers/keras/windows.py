"""Padding 'same' as TensorFlow has it: ceil(size/stride) outputs, the odd zero behind.

https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
"""

Pair = tuple[int, int]


def same_padding(size: int, reach: int, stride: int) -> Pair:
    """(before, after) on one axis; `reach` = dilation·(kernel − 1) + 1: (32, 3, 2) -> (0, 1)."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def output_size(size: int, reach: int, stride: int, pads: Pair) -> int:
    """Places of a window on a padded axis; below 1 where it does not fit."""
    return (size + sum(pads) - reach) // stride + 1


def torch_pads(pads: tuple[Pair, ...]) -> tuple[int, ...]:
    """The list of torch's `pad`, last axis first."""
    return tuple(number for pair in reversed(pads) for number in pair)
