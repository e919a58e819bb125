"""NVIDIA ModelOpt's candidate statistics: scores and costs of formats for groups of modules.

`mtq.auto_quantize` returns them as `search_state["candidate_stats"]`. Its formats are objects whose
texts are `NVFP4_DEFAULT_CFG(effective-bits: 4.5)`: `json.dump(…, default=str)` writes those.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import by_name, list_of, number, text
from mpsearch.foreign_tables.reader import (
    Asked,
    Cell,
    Source,
    alone,
    called,
    check_at,
    members_of,
    table_of,
)
from mpsearch.tables.choice import LARGEST_BITS, Choice
from mpsearch.tables.table import LayerTable

STATISTICS = "candidate_stats"
BYTES = 2  # of a weight whose compression is 1
LEAST_WEIGHT = 1e-9
_RECIPE = re.compile(r"(?s)(.+?)\(effective-bits: ([0-9.]{1,20})\)")
# Formats that are ours by definition: 4-bit integers in blocks of 128, and layers left alone.
_OURS = {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG": Choice(4, 16, 128), "NONE": Choice(16, 16)}
_SUFFIX = ".quant_recipe"  # of the hyperparameter that a module's format is
_FORM = by_name(
    {
        "formats": list_of(text, 1),
        "scores": list_of(number()),
        "costs": list_of(number(0, 2.0**60)),
        "module_names?": list_of(text),
        "cost_weight?": number(0, 2.0**60),
    },
    1,
)


class ModelOpt:
    """Groups of modules with a list of formats each."""

    takes: tuple[str, ...] = ()
    name = "ModelOpt"
    description = (
        "candidate_stats of auto_quantize, written as JSON: its scores; bytes of the weights"
    )

    def recognises(self, source: Source) -> bool:
        """By formats, scores and costs of the first entry."""
        found = _statistics(source.document)
        first = next(iter(found.values()), None) if isinstance(found, dict) else None
        return isinstance(first, dict) and {"formats", "scores", "costs"} <= first.keys()

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """Modules of one entry are a group; the first of them carries its score and bytes."""
        source = alone(sources)
        found = _statistics(source.document)
        prefix = "" if found is source.document else STATISTICS
        check_at(source, _FORM, found, prefix)
        return table_of(_cells(source, found, prefix, asked), source.name)


def _statistics(document: Any) -> Any:
    return document.get(STATISTICS, document) if isinstance(document, dict) else None


def _cells(
    source: Source, statistics: Mapping[str, Any], prefix: str, asked: Asked
) -> Iterator[Cell]:
    for name, entry in statistics.items():
        place = f"{source.name}, {prefix}[{ascii(name)[:60]}]"
        count = len(entry["formats"])
        for key in ("scores", "costs"):
            if len(entry[key]) != count:
                raise InputError(
                    f"{place}.{key}: got {len(entry[key])}; expected {count}, one for each format"
                )
        modules = entry.get("module_names") or [name.removesuffix(_SUFFIX)]
        layers = members_of(modules, asked, name)
        said = entry.get("cost_weight", 1)  # below 1: of experts of which few are active
        weight = said if said > LEAST_WEIGHT else 1
        for number_, (recipe, score, cost) in enumerate(
            zip(entry["formats"], entry["scores"], entry["costs"], strict=True)
        ):
            at = f"{place}.formats[{number_}]"
            size = math.ceil(BYTES * cost / weight)
            for layer in layers:
                first = layer is layers[0]
                yield Cell(
                    at, layer, _choice(recipe, at), float(score) if first else 0.0,
                    size if first else 0,
                )  # fmt: skip


def _choice(recipe: str, place: str) -> Choice:
    match = _RECIPE.fullmatch(recipe)
    name = match[1] if match else recipe
    if name in _OURS:
        return _OURS[name]
    try:
        bits = min(float(match[2]), LARGEST_BITS) if match else 0.0
    except ValueError:
        bits = 0.0
    return called(name, bits, 0, place)


READER = ModelOpt()
