"""Zeros around an image that only convolutions read: the convolution's own padding."""

from collections.abc import Sequence
from dataclasses import replace

from mpsearch.integer.graph import (
    Convolution,
    IntegerInput,
    IntegerTensor,
    Pad,
    Step,
    TransposedConvolution,
)


def fold_pads(
    inputs: Sequence[IntegerInput], steps: Sequence[Step], output: IntegerTensor
) -> list[Step]:
    """The steps without `Pad`s that put zeros around the places of what convolutions alone read.

    A convolution pads with its source's zero point, as such a `Pad` does: the same integers, and no
    padded copy in memory. `output` leaves the network.
    """
    tensors = {entry.tensor.name: entry.tensor for entry in inputs}
    tensors |= {step.output.name: step.output for step in steps}
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.sources:
            readers.setdefault(name, []).append(step)
    folded = {
        step.output.name: step
        for step in steps
        if isinstance(step, Pad)
        and step.output.name != output.name
        and _pads_places_with_zeros(step, tensors[step.sources[0]])
        and all(_takes_more(reader) for reader in readers.get(step.output.name, [None]))
    }
    kept: list[Step] = []
    for step in steps:
        if step.output.name in folded:
            continue
        pad = folded.get(step.sources[0])
        if pad is not None:
            assert isinstance(step, Convolution)
            before, after = zip(*((0, 0), *pad.pads[1:])[-2:], strict=True)
            more = (*before, *after)
            padding = tuple(p + m for p, m in zip(step.padding, more, strict=True))
            step = replace(step, sources=pad.sources, padding=padding)
        kept.append(step)
    return kept


def _pads_places_with_zeros(pad: Pad, source: IntegerTensor) -> bool:
    """Nothing is cut off, no channel is added, and the value is the code of 0."""
    grows = all(before >= 0 and after >= 0 for before, after in pad.pads)
    return grows and pad.pads[0] == (0, 0) and pad.value == source.zero_point


def _takes_more(step: Step | None) -> bool:
    return isinstance(step, Convolution) and not isinstance(step, TransposedConvolution)
