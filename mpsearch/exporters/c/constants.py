"""Constant arrays and structs of the generated C, and the bytes that they take."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mpsearch.exporters.c.c_text import array, struct


@dataclass
class Constants:
    """C text so far; `bytes` counts what the arrays take, by account (weights, tables, …)."""

    text: list[str] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)

    def array(self, kind: str, name: str, values: np.ndarray, account: str = "tables") -> str:
        """Add an array and count its bytes; its name."""
        flat = values.reshape(-1)
        self.text.append(array(kind, name, flat.tolist()))
        size = len(flat) * np.dtype(kind.removesuffix("_t")).itemsize
        self.bytes[account] = self.bytes.get(account, 0) + size
        return name

    def struct(self, kind: str, number: int | str, fields: Mapping[str, object]) -> None:
        """Add the struct step_NUMBER."""
        self.text.append(struct(kind, f"step_{number}", fields))
