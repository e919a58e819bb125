"""What a layer's converter gets, and what it may say about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from mpsearch.importers.keras.reading import Array
from mpsearch.importers.keras.settings import Settings
from mpsearch.importers.keras.values import Emitter, Value


@dataclass(frozen=True)
class Building:
    """A layer to convert: settings, weights by name, the name that they get in the graph."""

    settings: Settings
    weights: Mapping[str, Array]
    scope: str
    class_name: str
    calls: int
    emit: Emitter

    def array(self, name: str, shape: Sequence[int | None]) -> Array:
        """The weight with a shape that was checked; None stands for any size."""
        array = self.weights.get(name)
        if array is None:
            raise self.settings.error(f"has no weight {name}")
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = tuple("any" if size is None else size for size in shape)
            raise self.settings.error(f"{name} has shape {array.shape}; expected {wanted}")
        if not np.isfinite(array).all():
            raise self.settings.error(f"{name} has NaN or infinity")
        return array

    def tensor(self, name: str, make: Callable[[], Array]) -> fx.Node:
        """A weight of the graph, `scope.name`, from numpy; made once for a shared layer."""
        return self.emit.tensor(
            f"{self.scope}.{name}",
            lambda: torch.from_numpy(np.array(make(), dtype=np.float32, order="C")),
        )

    def bias(self, size: int, name: str = "bias") -> fx.Node | None:
        """The layer's bias; None where it has none."""
        if not self.settings.flag("use_bias", True):
            return None
        return self.tensor(name, lambda: self.array("bias", (size,)))


Convert = Callable[[Building, Sequence[Value]], Value]


def only(layer: Building, values: Sequence[Value]) -> Value:
    """The one input. Raises InputError for another number."""
    if len(values) != 1:
        raise layer.settings.error(f"takes {len(values)} inputs; expected one")
    return values[0]
