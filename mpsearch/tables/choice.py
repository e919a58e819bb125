"""A choice of number formats: what the search decides for each layer.

A choice is known by its name wherever it is a key, in files, options and messages:

    w4a8       weights of 4 bits with a scale for each channel, activations of 8
    w4g32a16   weights of 4 bits with a scale for every 32 of a channel
    Q4_K       a format of another tool, of which nothing but the name is known here

This is the only module that takes a name apart and that says which of two choices comes first.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import total_ordering
from typing import Any

from mpsearch.errors import InputError

LARGEST_BITS = 64
_CHOICE = re.compile(r"w(\d{1,2})(?:g([1-9]\d{0,4}))?a(\d{1,2})")
_WEIGHTS = re.compile(r"w(\d{1,2})(?:g([1-9]\d{0,4}))?")
_NEARLY = re.compile(r"(?i)w\d+(?:g\d+)?(?:a\d+)?")  # w4g0a8, w100a8: slips, of no other tool
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.+:-]{0,63}")
EXPECTED_NAME = (
    "w4a8, w4g32a16, or a format's name such as Q4_K: a letter, then up to 63 letters, digits and "
    "_ . + : -"
)


@total_ordering
@dataclass(frozen=True, eq=False)
class Choice:
    """Number formats of a layer's weights and of its input activations, named `w4a8`.

    Choices are the same where their names are. They are ordered by the bits of the weights, then by
    those of the activations, then by the size of groups, large ones first. Where no bits are said
    they come last, by name.
    """

    w_bits: int
    """Bits of the weights; 32: left in float. Of another tool's format what its table says, which
    may be a fraction; 0: not said."""
    a_bits: int
    """Bits of the layer's input activations; 32: left in float. As for weights otherwise."""
    group_size: int = 0
    """So many weights of a channel in a row share a scale; 0: all of them."""
    label: str = ""
    """The name of another tool's format; empty for those of our own quantizer."""

    @property
    def name(self) -> str:
        """`w4a8`, `w4g32a16`, `Q4_K`: what `named` reads."""
        return self.label or f"{self.weights}a{self.a_bits}"

    @property
    def weights(self) -> str:
        """`w4`, `w4g32`: the weights' half of the name. Choices that differ in activations alone
        share it, and with it whatever is known of the weights."""
        group = f"g{self.group_size}" if self.group_size else ""
        return self.label or f"w{self.w_bits}{group}"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        group = f", group_size={self.group_size}" if self.group_size else ""
        label = f", label={self.label!r}" if self.label else ""
        return f"Choice({self.w_bits}, {self.a_bits}{group}{label})"

    @property
    def _key(self) -> str | tuple[int, int, int]:
        return self.label or (self.w_bits, self.a_bits, self.group_size)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Choice) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __lt__(self, other: object) -> bool:
        return self._order < other._order if isinstance(other, Choice) else NotImplemented

    @property
    def _order(self) -> tuple[float, float, float, str]:
        endless = float("inf")
        return (self.w_bits or endless, self.a_bits, 1 / (self.group_size or endless), self.label)

    @staticmethod
    def parse(text: str) -> "Choice":
        """`"w4a8"` -> Choice(4, 8): one of our own quantizer. Raises InputError for all else."""
        found = named(text.strip().lower())
        if not isinstance(found, Choice):
            raise InputError(f"got the choice {text!r}; expected the form w4a8 or w4g32a16")
        return found

    @staticmethod
    def called(text: str, w_bits: float = 0, a_bits: float = 0) -> "Choice":
        """One of our own or of another tool, with what is said of its bits.

        Raises ValueError for what is no name, and for bits that contradict it.
        """
        text = text.strip()
        own = named(text.lower())
        if isinstance(own, Choice):
            if not all(1 <= bits <= LARGEST_BITS for bits in (own.w_bits, own.a_bits)):
                raise ValueError(f"is {text!r}; expected 1 to {LARGEST_BITS} bits")
            if (w_bits or own.w_bits, a_bits or own.a_bits) != (own.w_bits, own.a_bits):
                raise ValueError(f"is {own} with w_bits {w_bits:g} and a_bits {a_bits:g}")
            return own
        if own is not None or _NEARLY.fullmatch(text) or not is_label(text):
            raise ValueError(f"is {text[:70]!r}; expected {EXPECTED_NAME}")
        return Choice(w_bits, a_bits, label=text)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """`{"w_bits": 4, "a_bits": 8}`, as files have it: assignments, networks, exports; with
        `"choice": "w4g32a16"` where the bits do not say it all."""
        if not self.group_size and not self.label:
            return {"w_bits": self.w_bits, "a_bits": self.a_bits}
        bits = {"w_bits": self.w_bits, "a_bits": self.a_bits}
        return {"choice": self.name, **{key: value for key, value in bits.items() if value}}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> "Choice":
        """The choice of what `to_json` gave, among other keys. Raises ValueError for others."""
        name = entry.get("choice")
        bits = [entry.get(key, None if name is None else 0) for key in ("w_bits", "a_bits")]
        if name is None:
            if not all(type(one) is int and 1 <= one <= LARGEST_BITS for one in bits):
                raise ValueError(f"w_bits and a_bits are {bits}; expected 1 to {LARGEST_BITS}")
            return Choice(entry["w_bits"], entry["a_bits"])
        if not all(type(one) in (int, float) and 0 <= one <= LARGEST_BITS for one in bits):
            raise ValueError(f"w_bits and a_bits are {bits}; expected 0 to {LARGEST_BITS}")
        if not isinstance(name, str):
            raise ValueError(f"choice is {name!r}; expected a text")
        return Choice.called(name, *bits)


def as_choice(given: object) -> Choice:
    """A Choice as it is, or what a text such as `w4a8` names in our own quantizer. Raises
    InputError for all else."""
    if isinstance(given, Choice):
        return given
    if isinstance(given, str):
        return Choice.parse(given)
    raise InputError(f"got the choice {given!r:.60}; expected a text such as 'w4a8', or a Choice")


@dataclass(frozen=True)
class WeightBits:
    """Every choice with weights of so many bits, `w8`, or of so many in groups, `w4g32`."""

    w_bits: int
    group_size: int = 0

    @property
    def name(self) -> str:
        """`w8`, `w4g32`."""
        return f"w{self.w_bits}g{self.group_size}" if self.group_size else f"w{self.w_bits}"


def by_weights(choices: Iterable[Choice]) -> dict[str, Choice]:
    """`Choice.weights` -> one of the choices that have them."""
    return {choice.weights: choice for choice in choices}


def named(text: str) -> Choice | WeightBits | None:
    """`w4a8` -> this choice, `w8` -> all with such weights, None for what is no such name."""
    if match := _CHOICE.fullmatch(text):
        return Choice(int(match[1]), int(match[3]), int(match[2] or 0))
    match = _WEIGHTS.fullmatch(text)
    return None if match is None else WeightBits(int(match[1]), int(match[2] or 0))


def counted(choices: Iterable[Choice]) -> str:
    """How many layers have each choice, `3 × w4a8, 1 × w8a8`; empty for none."""
    counts = Counter(choices)
    return ", ".join(f"{counts[choice]} × {choice}" for choice in sorted(counts))


def fits(choice: Choice, wanted: Choice | WeightBits) -> bool:
    """Whether it is the wanted choice, or one of them."""
    if not isinstance(wanted, WeightBits):
        return choice == wanted
    return not choice.label and choice.weights == wanted.name


def is_label(text: str) -> bool:
    """Whether a text has the form of another tool's format: `Q4_K`; our own names have it too."""
    return _LABEL.fullmatch(text) is not None


def is_choice(text: str) -> bool:
    """Whether a text is a choice's name, as a row of an evaluation may be called."""
    return isinstance(named(text), Choice)
