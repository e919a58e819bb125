"""Families of kernels for layers, one for each kind of processor: what computes a layer, the memory
that it works in, the order of its weights, its C files.

Everything else (moves, pools, functions) is computed by the same C everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mpsearch.exporters.c import helium, pairs
from mpsearch.exporters.c.kernels import (
    Kernel,
    Scratch,
    kernel_of,
    offset,
    ordered_codes,
    scratch,
)
from mpsearch.exporters.c.layouts import Arranged, arrange
from mpsearch.exporters.c.overlapping import portable_lag
from mpsearch.exporters.c.packed import with_packed
from mpsearch.exporters.c.summing import layer_of
from mpsearch.integer.fixed_point import Integers
from mpsearch.integer.graph import Convolution, IntegerGraph, IntegerTensor, Linear, Shape, Step


@dataclass(frozen=True)
class Family:
    """How one kind of processor computes layers."""

    name: str
    headers: tuple[str, ...]
    """Beside those that all families share; files of exporters/c/, in a folder or not."""
    sources: tuple[str, ...]
    """The C files of its layers."""
    kernel: Callable[[Convolution | Linear, IntegerTensor], Kernel]
    """(step, what it reads) -> what computes it."""
    scratch: Callable[[Step, Kernel, IntegerTensor], Scratch]
    """(step, its kernel, what it reads) -> what the kernel works in."""
    order: Callable[[Convolution | Linear, Kernel, Shape | None], Integers]
    """(step, its kernel, the image that was flattened) -> the weights as the kernel reads them."""
    offset: Callable[[Kernel, IntegerTensor, int], int]
    """(kernel, what it reads, its zero point) -> what the kernel takes from codes."""
    stack: int
    """Bytes of stack that firmware keeps for a run and its main function, above what any network
    was seen to take: 6,660, 1,164 and 2,392."""
    lag: Callable[[Convolution | Linear, Kernel, IntegerTensor, IntegerTensor], int | None]
    """(step, its kernel, what it reads, what it writes) -> how many bytes before the first one that
    it reads it may begin to write; None: it must write elsewhere."""
    packs: bool = False
    """Whether its layers read and write codes that share bytes."""

    def arrange(self, graph: IntegerGraph) -> Arranged:
        """The steps in order, and how each tensor lies in memory."""
        arranged = arrange(graph)
        return with_packed(graph, arranged) if self.packs else arranged

    def kernels(self, arranged: Arranged) -> dict[str, Kernel]:
        """The kernel of every layer; one that is used twice stores its weights in one order."""
        chosen: dict[str, Kernel] = {}
        for step in arranged.steps:
            if (layer := layer_of(step)) is not None:
                kernel = self.kernel(layer, arranged.tensors[layer.sources[0]])
                name = layer.weights.layer
                chosen[name] = kernel if chosen.get(name, kernel) == kernel else Kernel.PLAIN
        return chosen


PORTABLE = Family(
    "portable",
    tuple(
        "unpacking.h products.h products_avx2.h products_neon.h products_sdot.h products_vnni.h"
        " products_plain.h centring_neon.h lanes_avx2.h lines.h lines_avx2.h lines_sdot.h"
        " lines_vnni.h rescaling_avx2.h rescaling_neon.h".split()
    ),
    ("patches.c", "depthwise.c"),
    kernel_of,
    scratch,
    ordered_codes,
    offset,
    6912,
    portable_lag,
    packs=True,
)
CORTEX_M = Family(
    "cortex-m",
    tuple(f"cortex_m/{name}.h" for name in "dsp finishing pairs pairs_thumb2 pairs_armv6m".split()),
    ("cortex_m/patches.c", "cortex_m/depthwise.c", "cortex_m/finishing.c"),
    pairs.kernel_of,
    pairs.scratch,
    pairs.ordered_codes,
    pairs.offset,
    2048,
    pairs.lag,
    packs=True,
)
HELIUM = Family(
    "helium",
    tuple(f"mve/{name}.h" for name in "helium adding finishing dot_products gathering".split()),
    ("mve/patches.c", "mve/depthwise.c"),
    helium.kernel,
    helium.scratch,
    helium.order,
    offset,
    3072,
    helium.lag,
    packs=True,
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in (PORTABLE, CORTEX_M, HELIUM)}
