"""What the formats of `mpsearch export` store and compute at the bits assigned.

Other bits are exported too, in the next wider type: the same numbers or finer ones, in more bytes
than the search counted. The exporters take their widths from here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice, counted
from mpsearch.tables.table import Layer, LayerTable

FLOAT = 32
INTEGERS = (2, 3, 4, 5, 6, 7, 8, 16)
ONNX_BITS = (4, 8, 16)  # ONNX has no other integers up to opset 21
_ONNX = (*ONNX_BITS, FLOAT)
LITERT_ACTIVATIONS = 8
LITERT_WEIGHTS, LITERT_WEIGHTS_LINEAR = (4, 8), (2, 4, 8)
_SHOWN = 3  # layers that a message names


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` codes of `bits` bits, without padding between them: (5, 4) -> 3."""
    return (count * bits + 7) // 8


@dataclass(frozen=True)
class StoredWidths:
    """Widths that are stored as assigned: of weights, of linear layers' weights, of activations;
    and whether weights may share scales in groups."""

    weights: Sequence[int]
    weights_linear: Sequence[int]
    activations: Sequence[int]
    groups: bool = False

    def runs(self, kind: str, choice: Choice) -> bool:
        """Whether a layer of this kind (`conv2d`, `linear`, …) is stored at this very choice."""
        if choice.group_size and not self.groups:
            return False
        weights = self.weights_linear if kind == "linear" else self.weights
        return not choice.label and choice.w_bits in weights and choice.a_bits in self.activations


FORMATS: Mapping[str, StoredWidths] = {
    "c": StoredWidths(INTEGERS, INTEGERS, INTEGERS),
    "litert": StoredWidths(LITERT_WEIGHTS, LITERT_WEIGHTS_LINEAR, (LITERT_ACTIVATIONS,)),
    # TensorFlow Lite Micro's FULLY_CONNECTED has no 4-bit weights with a scale per channel.
    "tflm": StoredWidths(LITERT_WEIGHTS, LITERT_WEIGHTS[-1:], (LITERT_ACTIVATIONS,)),
    "onnx": StoredWidths(_ONNX, _ONNX, _ONNX, groups=True),
}


def in_integers(choice: Choice) -> bool:
    """Whether integer inference computes it: a product of codes, scaled once for each channel."""
    bits = max(choice.w_bits, choice.a_bits)
    return bits <= INTEGERS[-1] and not choice.group_size and not choice.label


def check_no_groups(choices: Mapping[str, Choice]) -> None:
    """Raise InputError, in one line, for layers whose weights share scales in groups."""
    found = {name: choice for name, choice in choices.items() if choice.group_size}
    if found:
        raise InputError(f"{_named(list(found))} {_groups(found.values())}")


def _named(layers: Sequence[str]) -> str:
    more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
    verb = "has" if len(layers) == 1 else "have"
    which = ", ".join(map(repr, layers[:_SHOWN])) + more
    return f"{'layer' if len(layers) == 1 else 'layers'} {which} {verb}"


def _groups(choices: Iterable[Choice]) -> str:
    """`scales for groups of weights (2 × w4g32a8): only --format onnx has groups; …`."""
    takers = ", ".join(form for form, widths in FORMATS.items() if widths.groups)
    return (
        f"scales for groups of weights ({counted(choices)}): only --format {takers} has groups; "
        "for the others choose a scale per channel, such as w4a8"
    )


def choices_for(form: str, kinds: Iterable[str], choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """Those of `choices` that the format stores in layers of every kind."""
    kinds = set(kinds)
    return tuple(c for c in choices if all(FORMATS[form].runs(kind, c) for kind in kinds))


def excludes_for(form: str, table: LayerTable) -> list[str]:
    """What to `--exclude`: `w4a4` where no layer runs it, else `conv1=w2a8` for those that do not.

    Raises InputError for a layer that would be left without any choice.
    """
    found, runs = [], FORMATS[form].runs
    for layer in table.layers:
        has = _of(table, layer)
        if all(choice.group_size for choice in has) and not FORMATS[form].groups:
            raise InputError(f"{table.source}: {_named([layer.name])} only {_groups(has)}")
        if not any(runs(layer.kind, choice) for choice in has):
            way = f"profile again with --format {form}, or export at wider bits without --format"
            if any(choice.label for choice in has):
                way = "formats of other tools go into their files: `mpsearch recipe`, no --format"
            raise InputError(
                f"{table.source}: {form} stores none of the choices of layer {layer.name!r}: "
                f"{', '.join(map(str, has))}",
                way,
            )
    for choice in table.choices:
        stuck = [layer.name for layer in table.layers if not runs(layer.kind, choice)]
        everywhere = len(stuck) == len(table.layers)
        found += [str(choice)] if everywhere else [f"{name}={choice}" for name in stuck]
    return found


def note_of(form: str, excludes: Iterable[str]) -> list[str]:
    """`litert does not store w4a4, w2a8 in 3 layers at these bits: left out`, if anything was."""
    layers: dict[str, int] = {}
    for text in excludes:
        name, _, choice = text.rpartition("=")
        layers[choice] = layers.get(choice, 0) + bool(name)
    if not layers:
        return []
    words = [f"{c} in {count} layers" if count else c for c, count in layers.items()]
    return [f"{form} does not store {', '.join(words)} at these bits: left out (--format)"]


def _of(table: LayerTable, layer: Layer) -> list[Choice]:
    row = table.row_index[table.layer_names.index(layer.name)]
    return [choice for choice, index in zip(table.choices, row.tolist(), strict=True) if index >= 0]
