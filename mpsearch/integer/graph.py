"""`IntegerGraph`: a network as a list of integer operations on named tensors.

It is plain data: dataclasses, numpy arrays, tuples. `inference` runs it; a generator of C
needs nothing else. docs/integer.md defines every operation exactly. Shapes, axes and paddings are
those of one sample, without the batch: axis 0 of an image tensor are its channels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpsearch.integer.fixed_point import Integers, Rescale, rescale, saturate

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class IntegerTensor:
    """A named tensor whose value q stands for scale·(q - zero_point).

    Codes of an activation quantizer are unsigned with 2 to 8 or 16 `bits`; everything else is
    signed with 16 bits (or 32, where the network has no quantizers for its sums) and zero point 0.
    """

    name: str
    shape: Shape
    bits: int
    signed: bool
    scale: float
    zero_point: int

    @property
    def low(self) -> int:
        """The smallest value; the range of signed tensors is symmetric."""
        return -self.high if self.signed else 0

    @property
    def high(self) -> int:
        """The largest value."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def dtype(self) -> npt.DTypeLike:
        """The smallest numpy type that holds the range."""
        if self.signed:
            return np.int16 if self.bits <= 16 else np.int32
        return np.uint8 if self.bits <= 8 else np.uint16


def reciprocal(tensor: IntegerTensor) -> float:
    """1/scale as quantizing multiplies with it: in float32 for codes, as torch has it."""
    if tensor.signed:
        return 1 / tensor.scale
    return float(np.float32(1) / np.float32(tensor.scale))


@dataclass(frozen=True)
class Step:
    """One operation: reads the tensors named in `sources`, writes `output`."""

    sources: tuple[str, ...]
    output: IntegerTensor


@dataclass(frozen=True)
class ComputedStep(Step):
    """A step with its arithmetic beside its constants."""

    def compute(self, *sources: Integers) -> Integers:
        """The output's codes [N, …] for those of the sources, in integers only."""
        raise NotImplementedError


@dataclass(frozen=True)
class Weights:
    """A layer's integers: `codes` (int16, of `bits` bits) and `bias` [out] (int32).

    The accumulator is Σ w·(q - zero_point) + bias, with the source's zero point; `bound` is the
    largest magnitude that it, or a partial sum in any order, can reach.
    """

    layer: str
    bits: int
    codes: Integers
    bias: Integers
    zero_point: int
    bound: int

    @property
    def accumulator_bits(self) -> int:
        """32 where that is proven to be enough, else 64."""
        return 32 if self.bound < 2**31 else 64


@dataclass(frozen=True)
class Convolution(Step):
    """Two-dimensional convolution; a one-dimensional one has height 1.

    Codes are [out, in/groups, kh, kw]; `padding` is (top, left, bottom, right). The accumulator is
    rescaled per channel, the output's zero point is added, and the result clipped to [low, high].
    """

    weights: Weights
    rescale: Rescale
    low: int
    high: int
    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    groups: int


@dataclass(frozen=True)
class TransposedConvolution(Convolution):
    """The transpose of a convolution: input (y, x) adds its products with place (i, j) of the
    kernel to output (y·stride - padding + i·dilation, …), if there is such a place.

    Codes are [out, in/groups, kh, kw] as in a `Convolution`; `padding` is cut off.
    """


@dataclass(frozen=True)
class Linear(Step):
    """Matrix product over the last axis, codes [out, in]; otherwise as a `Convolution`."""

    weights: Weights
    rescale: Rescale
    low: int
    high: int


@dataclass(frozen=True)
class Embedding(Linear):
    """Rows of a table by number: codes [rows, columns], each row with a factor of its own; numbers
    beyond the table read its first or last row."""


@dataclass(frozen=True)
class Requantize(Step):
    """Another scale: round((q - source_zero)·factor) + zero point, clipped to [low, high]."""

    rescale: Rescale
    low: int
    high: int
    source_zero: int = 0


@dataclass(frozen=True)
class Clamp(Step):
    """ReLU and ReLU6 on codes: q clipped to [low, high]."""

    low: int
    high: int


@dataclass(frozen=True)
class Add(Step):
    """Sum of two signed tensors of one scale, saturated, then clipped to [low, high]."""

    low: int
    high: int


@dataclass(frozen=True)
class MaxPool(Step):
    """Maximum over windows of the last two axes; what is padded never wins."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


@dataclass(frozen=True)
class Scaling:
    """What becomes of Σ (q - source_zero): times a factor, rounded once, plus the output's zero
    point, clipped to [low, high]. The factors have the shape [1], or that of the divisors."""

    source_zero: int
    rescale: Rescale
    low: int
    high: int

    def means(self, sums: Integers, taken: Integers | int, zero_point: int) -> Integers:
        """Of sums of `taken` codes, for an output with this zero point; integers only."""
        scaled = rescale(sums - self.source_zero * taken, self.rescale) + zero_point
        return saturate(scaled, self.low, self.high)


@dataclass(frozen=True)
class AveragePool(Step):
    """Mean over windows of the last two axes: output (i, j) sums rows[i] × columns[j] (start, end),
    without padding, and divides by `counts`[i, j], rounded half to even; int64 sums. With a
    `scaling` that division is part of its factors; without, the output has the source's scale."""

    rows: tuple[Pair, ...]
    columns: tuple[Pair, ...]
    counts: Integers
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Mean(Step):
    """Mean over whole `axes`, rounded half to even; int64 sums. `scaling` as for `AveragePool`."""

    axes: tuple[int, ...]
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Concatenate(Step):
    """The sources one after the other along `axis`."""

    axis: int


@dataclass(frozen=True)
class Reshape(Step):
    """The same values in row-major order in the output's shape (flatten, view, squeeze, …)."""


@dataclass(frozen=True)
class Permute(Step):
    """Output axis i is the source's axis `axes`[i]."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Slice(Step):
    """Every `step`-th index of [start, end) along `axis`."""

    axis: int
    start: int
    end: int
    step: int


@dataclass(frozen=True)
class Pad(Step):
    """`value` around the source: `pads` has (before, after) for every axis; negative ones crop."""

    pads: tuple[Pair, ...]
    value: int


@dataclass(frozen=True)
class Softmax(Step):
    """Softmax along `axis`; `rescale` turns differences of codes into log2 units at 2^-20.

    The output is unsigned with scale 2^-15. See `softmax`.
    """

    axis: int
    rescale: Rescale


@dataclass(frozen=True)
class ArgMax(Step):
    """Index of the largest value along `axis`, the first of equal ones."""

    axis: int


@dataclass(frozen=True)
class IntegerInput:
    """Codes that enter for the network's input number `index`; one input may enter at several
    scales. x becomes round(x / scale) + zero point, see `network.quantize_input`."""

    index: int
    tensor: IntegerTensor


@dataclass(frozen=True)
class IntegerGraph:
    """Entries, steps in order, the output's name, and the step by which outputs are compared.

    `output_step` is the scale of an 8-bit quantizer over the logits' range on the calibration data.
    """

    inputs: tuple[IntegerInput, ...]
    steps: tuple[Step, ...]
    output: IntegerTensor
    output_step: float

    @property
    def gives_classes(self) -> bool:
        """True when the output is an arg-max: class numbers, not real numbers."""
        return any(
            isinstance(step, ArgMax) and step.output.name == self.output.name for step in self.steps
        )

    @property
    def tensors(self) -> dict[str, IntegerTensor]:
        """Every tensor by name."""
        entries = [entry.tensor for entry in self.inputs]
        return {tensor.name: tensor for tensor in (*entries, *(s.output for s in self.steps))}
