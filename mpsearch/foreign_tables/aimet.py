"""AIMET's mixed precision: the score of the network with one group of quantizers at a candidate.

`choose_mixed_precision` keeps `.cache/accuracy_list.json`: the group's quantizers, the candidate's
text, the score, where larger is better, and how many bit operations it saves.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import list_of, number, one_of, text
from mpsearch.foreign_tables.reader import (
    Asked,
    Cell,
    Source,
    alone,
    called,
    check,
    members_of,
    table_of,
)
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable, TableLayer

_PART = r"\((\d{1,2}), <QuantizationDataType\.(int|float): \d>\)"
_CANDIDATE = re.compile(rf"\({_PART}(?:, {_PART}|,)\)")
_WEIGHT = "weight"
_FORM = list_of(
    [list_of([one_of("input", "output", _WEIGHT), text], 1), text, number(), number()], 1
)


class Aimet:
    """Groups of quantizers at candidates of bits."""

    takes: tuple[str, ...] = ("choices",)
    name = "AIMET"
    description = (
        "accuracy_list.json of mixed precision: the score lost; wants --shapes; --table-choices "
        "BASELINE"
    )

    def recognises(self, source: Source) -> bool:
        """By the first entry: quantizers, the candidate's text, two numbers."""
        found = source.document
        first = found[0] if isinstance(found, list) and found else None
        return (
            isinstance(first, list)
            and len(first) == 4
            and isinstance(first[0], list)
            and isinstance(first[1], str)
            and "QuantizationDataType" in first[1]
        )

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """Ω is what is missing to the best score; the candidate that AIMET starts from is not in
        the list: --table-choices adds it with Ω 0."""
        source = alone(sources)
        check(source, _FORM)
        return table_of(_cells(source, asked), source.name)


def _cells(source: Source, asked: Asked) -> Iterator[Cell]:
    best = max(float(entry[2]) for entry in source.document)
    groups: dict[tuple[str, ...], list[TableLayer]] = {}
    for number_, (quantizers, candidate, score, _) in enumerate(source.document):
        place = f"{source.name}, [{number_}]"
        names = _names(quantizers)
        if names not in groups:
            groups[names] = members_of(names, asked, names[0])
            for layer in groups[names] if any(kind == _WEIGHT for kind, _ in quantizers) else ():
                asked.shape_of(layer.name, source)
        choice = _choice(candidate, f"{place}[1]")
        yield from _row(place, groups[names], choice, best - score)
    for choice in asked.choices:
        if not choice.w_bits:
            raise InputError(
                f"got --table-choices {choice}; expected the bits that AIMET starts from, such as "
                "w16a16"
            )
        for members in groups.values():
            yield from _row("--table-choices", members, choice, 0.0)


def _row(place: str, layers: list[TableLayer], choice: Choice, omega: float) -> Iterator[Cell]:
    for layer in layers:
        size = math.ceil(layer.weights * choice.w_bits / 8)
        yield Cell(place, layer, choice, omega if layer is layers[0] else 0.0, size)


def _names(quantizers: list[Any]) -> tuple[str, ...]:
    """The modules whose weights are in the group; of a group of activations alone its first
    quantizer, `output.relu1`."""
    weights = tuple(dict.fromkeys(name for kind, name in quantizers if kind == _WEIGHT))
    return weights or (".".join(quantizers[0]),)


def _choice(text_: str, place: str) -> Choice:
    """Activations first: `((8, <QuantizationDataType.int: 1>), (4, <…>))` is w4a8."""
    match = _CANDIDATE.fullmatch(text_)
    if match is None:
        raise InputError(
            f"{place}: got {ascii(text_)[:80]}; expected ((8, <QuantizationDataType.int: 1>), …)"
        )
    a_bits, a_type, w_bits, w_type = match.groups()
    signs = {"int": "", "float": "fp", None: ""}
    name = f"w{signs[w_type]}{w_bits}a{signs[a_type]}{a_bits}" if w_bits else f"a{a_bits}"
    return called(name, int(w_bits or 0), int(a_bits), place)


READER = Aimet()
