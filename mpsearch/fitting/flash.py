"""Flash of a firmware: constants, which the table has, and code, which depends on what is used.

The code is a fixed charge for every kernel that an assignment uses, so a limit on all of it is one
on the constants for each set of kernels: `fitting` asks for the best assignment of every set.
Bytes are from `code_bytes.json`, which benchmarks/code_bytes.py measures, and never below what a
linked firmware takes.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.exporters.c.kernels import Kernel
from mpsearch.exporters.c.summing import Summed, layer_of
from mpsearch.fitting.sizes import Sizes
from mpsearch.integer.fixed_point import Rescale
from mpsearch.integer.functions import Lookup
from mpsearch.integer.graph import Scaling, Step
from mpsearch.tables.choice import Choice

TABLE = "code_bytes.json"
_CALL = 80  # bytes of one step's call and of what describes its tensors, at most
_KNOTS = 2049 * 2  # of a function's table, at most
_SUM = 64  # what describes a sum that is part of a layer, at most
_SHARED = 3 * 1024  # tables that steps of one kind share
_PER_CHANNEL = 8  # of a layer's factors, where float32 scales do not give them exactly

# What computes a step: of layers by the kernel.
_LAYERS = {
    ("Convolution", Kernel.PLAIN.name): "mps_convolve",
    ("Convolution", Kernel.PATCHES.name): "mps_convolve_patches",
    ("Convolution", Kernel.DEPTHWISE.name): "mps_convolve_depthwise",
    ("Linear", Kernel.PLAIN.name): "mps_multiply",
    ("Linear", Kernel.PATCHES.name): "mps_multiply_patches",
}
LAYERS = tuple(sorted(_LAYERS.values()))
_OTHERS = {
    "TransposedConvolution": "mps_convolve_transposed", "Embedding": "mps_embed",
    "Requantize": "mps_requantize", "Clamp": "mps_clamp", "Add": "mps_add",
    "MaxPool": "mps_max_pool", "AveragePool": "mps_average_pool", "Mean": "mps_mean",
    "Concatenate": "mps_move", "Permute": "mps_move", "Slice": "mps_move", "Arrange": "mps_move",
    "Pad": "mps_move mps_fill", "Softmax": "mps_softmax", "ArgMax": "mps_argmax",
    "Reshape": "", "Lookup": "mps_look_up", "Interval": "mps_compare",
    "Affine": "mps_transform mps_combine", "Multiply": "mps_times", "Prelu": "mps_prelu",
    "LogSoftmax": "mps_log_softmax", "Normalize": "mps_normalize",
    "MatMul": "mps_multiply_matrices", "Gather": "mps_gather mps_move",
    "Fill": "mps_fill mps_move", "Resize": "mps_resize", "Beside": "mps_move mps_fill",
}  # fmt: skip


@dataclass(frozen=True)
class Flash:
    """What a firmware for one microcontroller takes, beside the constants of layers."""

    target: str
    base: int
    code: Mapping[str, int]
    """Function -> bytes, with all that it calls."""
    together: Mapping[str, int]
    """Several kernels of layers, by their names in order -> bytes."""
    step: Mapping[str, int]
    """Function -> bytes of the description that each of its calls has."""

    def of_functions(self, functions: Iterable[str]) -> int:
        """Their code."""
        names = set(functions)
        layers = " ".join(name for name in LAYERS if name in names)
        own = self.together.get(layers, self.code.get(layers, 0))
        return own + sum(self.code[name] for name in names.difference(LAYERS))

    def of_step(self, step: Step, functions: Iterable[str]) -> int:
        """Its description, its call and its tables."""
        described = max((self.step[function] for function in functions), default=0)
        return described + _CALL + _table_bytes(step)

    def of_layers(self, channels: Iterable[int]) -> int:
        """What layers may take above what the table says, by their output channels."""
        return sum(_PER_CHANNEL * count for count in channels)


@cache
def flash_of(target: str) -> Flash:
    """The figures of a microcontroller. Raises InputError for a target without."""
    text = (files("mpsearch.exporters.c") / TABLE).read_text(encoding="utf-8")
    known = json.loads(text)["targets"]
    if target not in known:
        raise InputError(
            f"--flash counts the code of {', '.join(known)}; got --target {target}: leave --flash "
            "out, or limit the constants with --size"
        )
    functions = known[target]["functions"]
    return Flash(
        target,
        known[target]["base"] + _SHARED,
        {name: one["code"] for name, one in functions.items()},
        known[target]["layers"],
        {name: one["step"] for name, one in functions.items()},
    )


def functions_of(kind: str, kernel: str) -> tuple[str, ...]:
    """The C functions that a step of this kind may call; `kernel` is a layer's."""
    if (kind, kernel) in _LAYERS:
        return (_LAYERS[kind, kernel],)
    return tuple(_OTHERS[kind].split())


def _table_bytes(step: Step) -> int:
    """Of constants that are no layer's, at most."""
    if layer_of(step) is not None:
        return _SUM if isinstance(step, Summed) else 0
    constants = [value for name, value in vars(step).items() if name not in ("sources", "output")]
    return 4 * sum(map(_numbers, constants)) + (_KNOTS if isinstance(step, Lookup) else 0)


def _numbers(value: Any) -> int:
    """In arrays, factors and tuples."""
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, Rescale | Scaling):
        return sum(map(_numbers, vars(value).values()))
    if isinstance(value, tuple):
        return sum(map(_numbers, value))
    return int(isinstance(value, int))


@dataclass(frozen=True)
class Charges:
    """What of the flash does not depend on the constants of layers."""

    flash: Flash
    fixed: int
    """All but the kernels of layers."""
    kernels: Mapping[str, Mapping[Choice, str]]
    """Layer -> choice -> the C function that computes it."""

    def of(self, functions: Collection[str]) -> int:
        """With these kernels of layers."""
        return self.fixed + self.flash.of_functions(functions)

    def used(self, choices: Mapping[str, Choice]) -> frozenset[str]:
        """The kernels of an assignment's layers."""
        return frozenset(known[choices[name]] for name, known in self.kernels.items())

    def sets(self) -> list[frozenset[str]]:
        """Sets of kernels that are enough for every layer, the smallest first."""
        functions = sorted({f for known in self.kernels.values() for f in known.values()})
        return [
            found
            for count in range(1, len(functions) + 1)
            for found in map(frozenset, combinations(functions, count))
            if all(found & set(known.values()) for known in self.kernels.values())
        ]

    def outside(self, functions: Collection[str]) -> dict[str, set[Choice]]:
        """Layer -> choices that other kernels compute."""
        return {
            name: {choice for choice, function in known.items() if function not in functions}
            for name, known in self.kernels.items()
        }


def charges(sizes: Sizes, flash: Flash) -> Charges:
    """Of a network: steps that only some assignments have count as if all had them."""
    planned = sizes.planned
    most: dict[str, int] = {}
    others: set[str] = set()
    assert sizes.functions
    for chosen, _ in sizes.seen:
        choices = {name: classes[chosen[name]][0] for name, classes in sizes.classes.items()}
        graph, origin = planned.template.assembled(choices)
        arranged = planned.family.arrange(graph)
        own: dict[str, int] = {}
        kernels = planned.family.kernels(arranged)
        for step in arranged.steps:
            layer, kernel = layer_of(step), ""
            if layer is not None:
                kernel = kernels[layer.weights.layer].name
            functions = functions_of(type(layer or step).__name__, kernel)
            node = origin.get(step.output.name, step.sources[0])
            own[node] = own.get(node, 0) + flash.of_step(step, functions)
            if not kernel:
                others |= set(functions)
        most = {node: max(own.get(node, 0), most.get(node, 0)) for node in own.keys() | most}
    layers: dict[str, tuple[str, int]] = {}
    for each in planned.template.nodes:
        if each.layer:
            kind, weights = each.steps[0]["kind"], each.steps[0]["weights"]
            layers[each.layer] = (kind, weights["codes"][0])
    fixed = flash.base + flash.of_functions(others) + sum(most.values())
    fixed += flash.of_layers(count for _, count in layers.values())
    kernels_of = {
        name: {
            choice: functions_of(layers[name][0], sizes.kernel_of(name, choice))[0]
            for classes in sizes.classes[name] for choice in classes
        }
        for name in sizes.classes
    }  # fmt: skip
    return Charges(flash, fixed, kernels_of)
