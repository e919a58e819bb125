"""A layer's settings as Keras wrote them, read with checks: the file is untrusted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.errors import InputError

CHANNELS_LAST, CHANNELS_FIRST = "channels_last", "channels_first"
LARGEST = 1 << 20  # of any number of a layer's settings


@dataclass(frozen=True)
class Settings:
    """The `config` of one layer; `layer` names it in messages: `conv2d (Conv2D)`."""

    layer: str
    entries: Mapping[str, Any]

    def error(self, text: str) -> InputError:
        """The error that names the layer."""
        return InputError(f"layer {self.layer}: {text}")

    def wrong(self, key: str, expected: str) -> InputError:
        """The error for a setting that is not as expected."""
        return self.error(f"{key} is {str(self.entries.get(key))[:60]!r}; expected {expected}")

    def get(self, key: str, default: object = None) -> Any:
        """The entry as it is; `default` where it is missing or null."""
        value = self.entries.get(key)
        return default if value is None else value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        value = self.get(key, default)
        if isinstance(value, dict):  # Keras 2 wrote numpy scalars as {"value": …}
            value = value.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number")
        if not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number from 1 on."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST:
            raise self.wrong(key, "a whole number from 1 on")
        return value

    def integers(self, key: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """`count` whole numbers from 1 on; one number stands for all: 3 -> (3, 3)."""
        value = self.get(key, default)
        values = list(value) if isinstance(value, list | tuple) else [value] * count
        if len(values) != count or any(
            isinstance(v, bool) or not isinstance(v, int) or not 0 < v <= LARGEST for v in values
        ):
            raise self.wrong(key, f"{count} whole number(s) from 1 on")
        return tuple(values)

    def margins(self, key: str, axes: int) -> tuple[tuple[int, int], ...]:
        """(before, after) for every axis of ZeroPadding and Cropping: 1, (1, 2), ((1, 1), (2, 2)).

        One pair stands for before and after on one axis, for one number per axis on two.
        """
        value = self.get(key)
        if isinstance(value, int):
            value = [[value, value]] * axes
        elif isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
            value = [value] if axes == 1 else [[v, v] for v in value]
        if not isinstance(value, list | tuple) or len(value) != axes:
            raise self.wrong(key, f"margins for {axes} axes")
        pairs = [tuple(pair) if isinstance(pair, list | tuple) else () for pair in value]
        if any(
            len(pair) != 2 or not all(isinstance(v, int) and 0 <= v <= LARGEST for v in pair)
            for pair in pairs
        ):
            raise self.wrong(key, f"margins for {axes} axes")
        return tuple((pair[0], pair[1]) for pair in pairs)

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        """One of the known words."""
        value = self.get(key, default)
        if value not in known:
            raise self.wrong(key, " or ".join(known))
        return str(value)

    @property
    def data_format(self) -> str:
        """Where the layer has its channels."""
        return self.choice("data_format", (CHANNELS_LAST, CHANNELS_FIRST), CHANNELS_LAST)

    def axis(self, key: str, dimensions: int, default: int = -1) -> int:
        """An axis, counted with the batch as Keras does, as an axis of one sample.

        `dimensions` are those of one sample: axis 3 or -1 of three dimensions is 2.
        """
        value = self.get(key, default)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "one axis")
        positive = value + dimensions + 1 if value < 0 else value
        if not 1 <= positive <= dimensions:
            raise self.wrong(key, f"an axis of {dimensions} dimensions behind the batch")
        return positive - 1
