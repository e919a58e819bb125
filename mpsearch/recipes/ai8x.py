"""`--for ai8x`: the quantization policy of ai8x-training, within MAX78000's kernel memory.

The policy as in ai8x-training (`ai8x.py`, `initiate_qat`; `policies/`), what layers can be as in
ai8x-synthesis (README, limitations of networks).
"""

from collections.abc import Mapping, Sequence
from math import prod

from mpsearch.recipes.max7800x_memory import (
    NEURONS,
    PIXELS,
    WORD,
    flat_words,
    flattened,
    passes,
    words_of,
)
from mpsearch.recipes.names import check_distinct, double_quoted
from mpsearch.recipes.own_formats import refused_format
from mpsearch.recipes.target import Recipe, Target, bytes_column
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

_BITS, _A_BITS = (1, 2, 4, 8), 8
_LONGEST = 1000
_KERNELS: Mapping[str, Sequence[tuple[int, ...]]] = {
    "conv1d": [(n,) for n in range(1, 10)],
    "conv2d": [(1, 1), (3, 3)],
    "conv_transpose2d": [(3, 3)],
}
_POLICY = "---\nstart_epoch: 10\noutlier_removal_z_score: 8.0\nweight_bits: 8\noverrides:"


class Ai8x(Target):
    """Bits of the weights by layer of a MAX78000; activations have 8.

    Layers whose words are within `limits` fit, on whatever processors they are.
    """

    name = "ai8x"
    description = "MAX78000: a quantization policy of ai8x-training (YAML)"
    formats = "w1a8, w2a8, w4a8, w8a8"
    limits: Mapping[str, int] = {"ai8x_words": 768}
    channels = 1024
    """Most of a layer, in and out."""

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        """Bits, kernels and channels that the device does not have."""
        if why := refused_format(layer, choice, (*_KERNELS, "linear")):
            return why
        if len(double_quoted(layer.name)) > _LONGEST:
            return f"a key of YAML has at most {_LONGEST} signs"
        if choice.w_bits not in _BITS or choice.a_bits != _A_BITS:
            return "weights have 1, 2, 4 or 8 bits and activations 8"
        outputs, inputs, *kernel = layer.shape
        if not kernel or layer.kind == "linear":
            return self._refused_linear(outputs, inputs, prod(kernel))
        kind = layer.kind or f"conv{len(kernel)}d"
        if tuple(kernel) not in _KERNELS.get(kind, ()):
            return f"it has no {kind} of {' x '.join(map(str, kernel))}"
        most = max(inputs, outputs)
        return "" if most <= self.channels else f"{most} channels are over {self.channels}"

    def _refused_linear(self, outputs: int, inputs: int, pixels: int) -> str:
        if outputs > NEURONS:
            return f"{outputs} outputs of a linear layer are over {NEURONS}"
        if not flattened(inputs, pixels):
            return f"{inputs} inputs are over {NEURONS} channels of {PIXELS} pixels"
        return ""

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        """Bytes of kernel memory on all of the layer's processors, and words on each."""
        outputs, inputs, *kernel = layer.shape
        if not kernel or layer.kind == "linear":
            ways = [
                (passes(channels)[1], flat_words(outputs, channels, pixels, choice.w_bits))
                for channels, pixels in flattened(inputs, prod(kernel))
            ]
        else:
            ways = [(passes(inputs)[1], words_of(outputs, inputs, prod(kernel), choice.w_bits))]
        words = max(each for _, each in ways)
        taken = max(processors * each for processors, each in ways)
        return {bytes_column(self.name): WORD * taken, next(iter(self.limits)): words}

    def write(self, recipe: Recipe) -> bytes:
        """The policy: 8 bits, and overrides by the names of ai8x's modules, which hold their
        convolution as `op`."""
        modules = {name: name.removesuffix(".op") for name in recipe.layers}
        check_distinct(modules.items(), self.name)
        lines = [_POLICY]
        for name, (_, choice) in recipe.layers.items():
            key = double_quoted(modules[name])
            lines += [f"  {key}:", f"    weight_bits: {choice.w_bits}"]
        return ("\n".join(lines) + "\n").encode()


class Ai8xMax78002(Ai8x):
    """The same of a MAX78002, in the words of its smaller processors."""

    name = "ai8x-max78002"
    description = "MAX78002: a quantization policy of ai8x-training (YAML)"
    limits: Mapping[str, int] = {"ai8x_max78002_words": 4096}
    channels = 2048


MAX78000, MAX78002 = Ai8x(), Ai8xMax78002()
