"""exllamav3's measurement.json: KL divergence and bits that groups of layers gain in better files.

Written by `conversion/measure_model.py` from one quantized model, the base, and others with more
bits. A candidate's `dkld` and `dbits` are what changes if the group's layers come from another one.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import list_of, number, text
from mpsearch.foreign_tables.reader import Asked, Cell, Source, alone, check, members_of, table_of
from mpsearch.tables.choice import LARGEST_BITS, Choice
from mpsearch.tables.table import LayerTable

_MODEL = {"bpw": number(0, LARGEST_BITS)}
_CANDIDATE = {"dkld": number(), "dbits": number(-(2.0**60), 2.0**60)}
_FORM = {
    "base": _MODEL,
    "alts": list_of(_MODEL, 1),
    "groups": list_of({"layers": list_of(text, 1), "candidates": list_of(_CANDIDATE)}, 1),
}


class Exllamav3:
    """Groups of layers, in the base or in one of the other models."""

    takes: tuple[str, ...] = ()
    name = "exllamav3"
    description = "measurement.json of measure.py: KL divergence; bytes beyond the base model's"

    def recognises(self, source: Source) -> bool:
        """By the lists of models and groups."""
        found = source.document
        return isinstance(found, dict) and {"base", "alts", "groups"} <= found.keys()

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """Its groups are groups here; the first layer of each carries the group's Ω and bytes.

        With --shapes the base model's bits per weight are counted too.
        """
        source = alone(sources)
        check(source, _FORM)
        document = source.document
        return table_of(_cells(source, document, asked), source.name)


def _cells(source: Source, document: dict[str, Any], asked: Asked) -> Iterator[Cell]:
    models = [document["base"], *document["alts"]]
    choices = _named([model["bpw"] for model in models])
    for number_, group in enumerate(document["groups"]):
        place = f"{source.name}, groups[{number_}]"
        candidates = group["candidates"]
        if len(candidates) != len(choices) - 1:
            raise InputError(
                f"{place}.candidates: got {len(candidates)}; expected one for each of the "
                f"{len(choices) - 1} models in alts"
            )
        layers = members_of(group["layers"], asked, f"group {number_}")
        bits = [0, *(one["dbits"] for one in candidates)]
        klds = [0.0, *(one["dkld"] for one in candidates)]
        weights = sum(layer.weights for layer in layers)
        # without shapes only what is beyond the smallest is known
        start = weights * models[0]["bpw"] if weights else -min(bits)
        for column, choice in enumerate(choices):
            at = place if column == 0 else f"{place}.candidates[{column - 1}]"
            size = math.ceil(max(0.0, start + bits[column]) / 8)
            for layer in layers:
                first = layer is layers[0]
                yield Cell(
                    at, layer, choice, float(klds[column]) if first else 0.0, size if first else 0
                )


def _named(bpw: Sequence[float]) -> list[Choice]:
    """`bpw3.02`: what the models have on average, whatever the group's own bits are."""
    found: list[Choice] = []
    for bits in bpw:
        name = f"bpw{bits:.2f}"
        while any(choice.label == name for choice in found):
            name += "+"
        found.append(Choice.called(name, round(bits, 4)))
    return found


READER = Exllamav3()
