"""A choice of bit widths: what the search decides for each layer."""

import re
from dataclasses import dataclass

from mpsearch.errors import InputError

_PATTERN = re.compile(r"w(\d{1,2})a(\d{1,2})")


@dataclass(frozen=True, order=True)
class Choice:
    """Bit widths of a layer's weights and of its input activations, written `w4a8`."""

    w_bits: int
    a_bits: int

    def __str__(self) -> str:
        return f"w{self.w_bits}a{self.a_bits}"

    @staticmethod
    def parse(text: str) -> "Choice":
        """`"w4a8"` -> Choice(4, 8). Raises InputError for anything else."""
        match = _PATTERN.fullmatch(text.strip().lower())
        if match is None:
            raise InputError(f"got the choice {text!r}; expected the form w4a8")
        return Choice(int(match[1]), int(match[2]))
