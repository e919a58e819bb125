"""Flash of a firmware: constants, which the table has, and code, which depends on what is used.

The code is a fixed charge for every kernel that an assignment uses, so a limit on all of it is one
on the constants for each set of kernels: `fitting` asks for the best assignment of every set.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mpsearch.exporters.c.code_bytes import Flash, functions_of
from mpsearch.exporters.c.summing import Summed, layer_of
from mpsearch.fitting.sizes import Sizes
from mpsearch.integer.fixed_point import Rescale
from mpsearch.integer.functions import Lookup
from mpsearch.integer.graph import Scaling, Step
from mpsearch.tables.choice import Choice

_KNOTS = 2049 * 2  # of a function's table, at most
_SUM = 64  # what describes a sum that is part of a layer, at most
_SHARED = 3 * 1024  # tables that steps of one kind share
_PER_CHANNEL = 8  # of a layer's factors, where float32 scales do not give them exactly


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
            own[node] = own.get(node, 0) + flash.of_call(functions) + _table_bytes(step)
            if not kernel:
                others |= set(functions)
        most = {node: max(own.get(node, 0), most.get(node, 0)) for node in own.keys() | most}
    layers: dict[str, tuple[str, int]] = {}
    for each in planned.template.nodes:
        if each.layer:
            kind, weights = each.steps[0]["kind"], each.steps[0]["weights"]
            layers[each.layer] = (kind, weights["codes"][0])
    fixed = flash.base + _SHARED + flash.of_functions(others) + sum(most.values())
    fixed += sum(_PER_CHANNEL * count for _, count in layers.values())
    kernels_of = {
        name: {
            choice: functions_of(layers[name][0], sizes.kernel_of(name, choice))[0]
            for classes in sizes.classes[name] for choice in classes
        }
        for name in sizes.classes
    }  # fmt: skip
    return Charges(flash, fixed, kernels_of)
