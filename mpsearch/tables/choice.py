"""A choice of number formats: what the search decides for each layer.

A choice is known by its name wherever it is a key, in files, options and messages. This is the only
module that takes a name apart and that says which of two choices comes first.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mpsearch.errors import InputError

LARGEST_BITS = 64
_CHOICE = re.compile(r"w(\d{1,2})a(\d{1,2})")
_WEIGHTS = re.compile(r"w(\d{1,2})")


@dataclass(frozen=True, order=True)
class Choice:
    """Bit widths of a layer's weights and of its input activations, named `w4a8`.

    Choices are the same where their names are. They are ordered by the bits of the weights, then by
    those of the activations.
    """

    w_bits: int
    """Bits of the weights; 32: left in float."""
    a_bits: int
    """Bits of the layer's input activations; 32: left in float."""

    @property
    def name(self) -> str:
        """`w4a8`: what `parse` reads."""
        return f"w{self.w_bits}a{self.a_bits}"

    @property
    def weights(self) -> str:
        """`w4`: the weights' half of the name. Choices that differ in activations alone share it,
        and with it whatever is known of the weights."""
        return f"w{self.w_bits}"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Choice({self.w_bits}, {self.a_bits})"

    @staticmethod
    def parse(text: str) -> "Choice":
        """`"w4a8"` -> Choice(4, 8). Raises InputError for anything else."""
        found = named(text.strip().lower())
        if not isinstance(found, Choice):
            raise InputError(f"got the choice {text!r}; expected the form w4a8")
        return found

    def to_json(self) -> dict[str, Any]:
        """`{"w_bits": 4, "a_bits": 8}`, as files have it: assignments, networks, exports."""
        return {"w_bits": self.w_bits, "a_bits": self.a_bits}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> "Choice":
        """The choice of what `to_json` gave, among other keys. Raises ValueError for other bits."""
        bits = [entry.get(key) for key in ("w_bits", "a_bits")]
        if not all(type(one) is int and 1 <= one <= LARGEST_BITS for one in bits):
            raise ValueError(f"w_bits and a_bits are {bits}; expected 1 to {LARGEST_BITS}")
        return Choice(entry["w_bits"], entry["a_bits"])


def as_choice(given: object) -> Choice:
    """A Choice as it is, or what a text such as `w4a8` names. Raises InputError for all else."""
    if isinstance(given, Choice):
        return given
    if isinstance(given, str):
        return Choice.parse(given)
    raise InputError(f"got the choice {given!r:.60}; expected a text such as 'w4a8', or a Choice")


@dataclass(frozen=True)
class WeightBits:
    """Every choice with weights of so many bits, named `w8`."""

    w_bits: int

    @property
    def name(self) -> str:
        """`w8`."""
        return f"w{self.w_bits}"


def by_weights(choices: Iterable[Choice]) -> dict[str, Choice]:
    """`Choice.weights` -> one of the choices that have them."""
    return {choice.weights: choice for choice in choices}


def named(text: str) -> Choice | WeightBits | None:
    """`w4a8` -> this choice, `w8` -> all with such weights, None for what is no such name."""
    if match := _CHOICE.fullmatch(text):
        return Choice(int(match[1]), int(match[2]))
    match = _WEIGHTS.fullmatch(text)
    return None if match is None else WeightBits(int(match[1]))


def counted(choices: Iterable[Choice]) -> str:
    """How many layers have each choice, `3 × w4a8, 1 × w8a8`; empty for none."""
    counts = Counter(choices)
    return ", ".join(f"{counts[choice]} × {choice}" for choice in sorted(counts))


def fits(choice: Choice, wanted: Choice | WeightBits) -> bool:
    """Whether it is the wanted choice, or one of them."""
    return choice.w_bits == wanted.w_bits if isinstance(wanted, WeightBits) else choice == wanted


def is_choice(text: str) -> bool:
    """Whether a text is a choice's name, as a row of an evaluation may be called."""
    return isinstance(named(text), Choice)
