"""A way out of an infeasible budget, as `mpsearch solve` and `Solution.remedies` say it."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mpsearch.tables.choice import Choice

Option = tuple[str, str]
"""An option of `mpsearch solve` and its text: `("--pin", "fc=w8a8")`."""


@dataclass(frozen=True)
class Remedy:
    """What has to be done, all of it together: then there is an assignment, which was tried."""

    limits: tuple[Option, ...] = ()
    """Limits to give instead, as they are typed: `(("--size", "5.38KB"),)`."""
    left_out: tuple[Option, ...] = ()
    """Options to leave out."""
    choices: tuple[Choice, ...] = ()
    """Choices that the table would have to have too."""
    max_distinct: int | None = None
    """How many different choices there would have to be allowed; None: as many as there are."""
    there: tuple[Choice, ...] = ()
    """Choices that the table has."""
    least: str = ""
    """How small it gets with these choices, in words."""

    def __str__(self) -> str:
        """`--size 5.38KB`, `leave out --pin fc=w8a8`, `a table with w2a8 too: …`."""
        parts = [_typed(self.limits)] if self.limits else []
        if self.max_distinct is not None:
            parts.append(f"--max-distinct {self.max_distinct}")
        if self.left_out:
            parts.append(f"leave out {_typed(self.left_out)}")
        if self.choices:
            names = ", ".join(map(str, self.choices))
            every = ",".join(map(str, sorted({*self.there, *self.choices})))
            command = f"mpsearch profile … --choices {every}"
            parts.append(f"a table with {names} too{self.least}: {command}")
        return ", and ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As `mpsearch solve --json` prints it."""
        return {
            "words": str(self),
            "limits": [list(pair) for pair in self.limits],
            "left_out": [list(pair) for pair in self.left_out],
            "choices": [str(choice) for choice in self.choices],
            "max_distinct": self.max_distinct,
        }


def _typed(options: Iterable[Option]) -> str:
    return shlex.join(word for option in options for word in option)
