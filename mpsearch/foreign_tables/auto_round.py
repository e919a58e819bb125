"""AutoRound's scores: what each layer loses under one scheme, a file for each scheme.

AutoScheme keeps them in its cache, `scheme_NN_KEY.json`: bits with scales, and the change of loss.
"""

import math
from collections.abc import Iterator, Sequence

from mpsearch.files.json_file import anything, by_name, number, one_of
from mpsearch.foreign_tables.reader import (
    FLOAT_BITS,
    Asked,
    Cell,
    Source,
    called,
    check,
    check_at,
    members_of,
    table_of,
)
from mpsearch.tables.choice import LARGEST_BITS, Choice
from mpsearch.tables.table import LayerTable

_BITS, _GROUP = number(0, LARGEST_BITS), number(-1, 99_999)
_BLOCKS = {"mx_fp": 32, "nv_fp": 16}  # weights that share a scale, by definition of the format
_FORM = {
    "score_granularity": one_of("per_op"),
    "scheme": by_name(anything),
    "layer_scores": by_name([number(0, 2.0**60), number()], 1),
}


class AutoRound:
    """One scheme a file."""

    takes: tuple[str, ...] = ("choices",)
    name = "AutoRound"
    description = (
        "scheme_*.json of AutoScheme's cache, one file a scheme: its scores; bits with scales"
    )

    def recognises(self, source: Source) -> bool:
        """By its scores and what they are of."""
        found = source.document
        return isinstance(found, dict) and {"score_granularity", "layer_scores"} <= found.keys()

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """A choice of 16 bits, which AutoRound does not score, has Ω 0: --table-choices w16a16 adds
        it, and wants --shapes."""
        for source in sources:
            check(source, _FORM)
        cells = [cell for source in sources for cell in _cells(source, asked)]
        layers = {cell.layer.name: cell.layer for cell in cells}
        for choice in asked.choices:
            for layer in layers.values():
                size = math.prod(asked.shape_of(layer.name, sources[0])) * FLOAT_BITS // 8
                cells.append(Cell("--table-choices", layer, choice, 0.0, size))
        return table_of(cells, sources[0].name)


def _cells(source: Source, asked: Asked) -> Iterator[Cell]:
    choice = _choice(source)
    for name, (bits, loss) in source.document["layer_scores"].items():
        place = f"{source.name}, layer_scores[{ascii(name)[:60]}]"
        (layer,) = members_of([name], asked, name)
        yield Cell(place, layer, choice, float(loss), math.ceil(bits / 8))


def _choice(source: Source) -> Choice:
    """Our own name where it is integers with a scale per channel or group, weights alone, `mxfp4`
    and `nvfp4` as others call them; else one of its parts: `fp8_fp8`."""
    scheme, place = source.document["scheme"], f"{source.name}, scheme"
    if isinstance(scheme.get("preset"), str):
        return called(scheme["preset"], 0, 0, place)
    bits, group = scheme.get("bits", 0), scheme.get("group_size", 0)
    activations = scheme.get("act_bits") or FLOAT_BITS
    for key, value, form in (
        ("bits", bits, _BITS), ("act_bits", activations, _BITS), ("group_size", group, _GROUP),
    ):  # fmt: skip
        check_at(source, form, value, f"scheme.{key}")
    kind, act_kind = (str(scheme.get(key) or "int") for key in ("data_type", "act_data_type"))
    plain = kind == "int" and not scheme.get("super_bits") and type(bits) is int
    grouped = f"g{group}" if group > 0 else ""
    if plain and activations >= FLOAT_BITS and group and 1 <= bits <= FLOAT_BITS:
        return called(f"w{bits}{grouped}a{FLOAT_BITS}", 0, 0, place)
    if kind in _BLOCKS and (group, activations) == (_BLOCKS[kind], bits):
        return called(f"{kind.replace('_', '')}{bits:g}", bits, activations, place)
    parts = f"{kind}{bits:g}{grouped}"
    if activations < FLOAT_BITS:
        parts += f"_{act_kind}{activations:g}"
    return called(parts, bits, activations, place)


READER = AutoRound()
