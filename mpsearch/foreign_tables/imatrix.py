"""llama.cpp's `llama-imatrix --show-statistics`: no table, and an error that says what would be.

It says how strong the inputs of each tensor are, in one number for all formats: what a format costs
a tensor is not in it.
"""

import re
from collections.abc import Sequence

from mpsearch.errors import InputError
from mpsearch.foreign_tables.reader import Asked, Source
from mpsearch.tables.table import LayerTable

_HEADER = re.compile(r"^\s*Layer\s+Tensor\s.*(?:A(?:ct)?²|L₂)", re.MULTILINE)
_START = 200_000  # characters that are looked through: a log stands before it


class Imatrix:
    """Refused by name."""

    takes: tuple[str, ...] = ("choices", "columns")
    name = "llama-imatrix"
    description = "refused: --show-statistics is of inputs, and says nothing of formats"

    def recognises(self, source: Source) -> bool:
        """By the heading of its table."""
        return source.document is None and bool(_HEADER.search(source.text[:_START]))

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """Raises InputError."""
        raise InputError(
            f"{sources[0].name} has llama-imatrix's statistics, one for all formats of a tensor;",
            "expected what each format costs it, such as the divergence of llama-perplexity with "
            "this tensor alone at --tensor-type: --columns layer=name,choice=type,omega=kld,…",
        )


READER = Imatrix()
