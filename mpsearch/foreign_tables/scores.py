"""A JSON object of layers and numbers, for one choice a file: `{"conv1": 0.93, "fc": 0.91}`.

AIMET's analyser writes such: `per_layer_quant_enabled.json` (the score with this layer alone
quantized: larger is better) and `per_layer_mse_loss.json` (smaller is better).
"""

import math
from collections.abc import Iterator, Sequence

from mpsearch.errors import InputError
from mpsearch.files.json_file import by_name, number
from mpsearch.foreign_tables.reader import Asked, Cell, Source, check, members_of, table_of
from mpsearch.tables.table import LayerTable

_FORM = by_name(number(), 1)
_EXPECTED = (
    "its numbers may be scores or losses: say --columns omega=-score where larger is better, as in "
    "AIMET's per_layer_quant_enabled.json, or --columns omega=loss"
)


class Scores:
    """One choice a file."""

    takes: tuple[str, ...] = ("choices", "columns")
    name = "scores"
    description = (
        "{layer: number}, such as AIMET's per_layer_*.json: --columns omega=-score or omega=loss, "
        "--table-choices one of each file; wants --shapes"
    )

    def recognises(self, source: Source) -> bool:
        """By the first number."""
        found = source.document
        first = next(iter(found.values()), None) if isinstance(found, dict) else None
        return type(first) in (int, float)

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """Ω is the loss, or what is missing to the layer's best score in any of the files."""
        for source in sources:
            check(source, _FORM)
        said = asked.columns.get("omega")
        if said is None or set(asked.columns) != {"omega"}:
            raise InputError(f"{sources[0].name} is a number for each layer;", _EXPECTED)
        if len(asked.choices) != len(sources):
            raise InputError(
                f"{sources[0].name} does not say what its numbers are of; expected "
                "--table-choices with one choice for each file, such as w4a8 (got "
                f"{len(asked.choices)} for {len(sources)})"
            )
        return table_of(_cells(sources, asked, said.startswith("-")), sources[0].name)


def _cells(sources: Sequence[Source], asked: Asked, larger: bool) -> Iterator[Cell]:
    for source, choice in zip(sources, asked.choices, strict=True):
        for name, value in source.document.items():
            asked.shape_of(name, source)
            (layer,) = members_of([name], asked, name)
            size = math.ceil(layer.weights * choice.w_bits / 8)
            place = f"{source.name}, [{ascii(name)[:60]}]"
            yield Cell(place, layer, choice, -value if larger else value, size)


READER = Scores()
