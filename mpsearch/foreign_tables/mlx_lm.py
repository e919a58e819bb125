"""mlx-lm's sensitivities: by how much KL divergence grows per million weights of low bits.

Written by `mlx_lm.dynamic_quant` as `MODEL_sensitivities.json`: pairs of a layer and the product of
the gradient with the difference of its weights at low and at high bits, over millions of weights.
"""

import math
from collections.abc import Iterator, Sequence

from mpsearch.errors import InputError
from mpsearch.files.json_file import list_of, number, text
from mpsearch.foreign_tables.reader import Asked, Cell, Source, alone, check, members_of, table_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

USUAL = (Choice(4, 16, 64), Choice(5, 16, 64))  # its --low-bits and --high-bits
SCALE_BYTES = 4  # of a group: its scale and its bias, 16 bits each
_FORM = list_of([text, number()], 1)


class MlxLm:
    """Pairs of a layer and a number."""

    takes: tuple[str, ...] = ("choices",)
    name = "mlx-lm"
    description = (
        "sensitivities of dynamic_quant: KL divergence to first order; wants --shapes; "
        "--table-choices LOW,HIGH [w4g64a16,w5g64a16]"
    )

    def recognises(self, source: Source) -> bool:
        """By the first pair."""
        found = source.document
        first = found[0] if isinstance(found, list) and found else None
        return isinstance(first, list) and len(first) == 2 and isinstance(first[0], str)

    def read(self, sources: Sequence[Source], asked: Asked) -> LayerTable:
        """Two choices a layer; Ω is the sensitivity times the layer's millions of weights."""
        source = alone(sources)
        check(source, _FORM)
        choices = asked.choices or USUAL
        if len(choices) != 2 or any(one.label or not one.group_size for one in choices):
            raise InputError(
                f"got --table-choices {','.join(map(str, choices))[:80]}; expected the low and the "
                "high bits that mlx-lm compared, such as w4g64a16,w5g64a16"
            )
        return table_of(_cells(source, asked, choices), source.name)


def _cells(source: Source, asked: Asked, choices: Sequence[Choice]) -> Iterator[Cell]:
    for number_, (name, sensitivity) in enumerate(source.document):
        (layer,) = members_of([name], asked, name)
        shape = asked.shape_of(name, source)
        omega = sensitivity * layer.weights / 1e6
        for choice, value in zip(choices, (omega, 0.0), strict=True):
            groups = (
                math.prod(shape[:-1]) * math.ceil(shape[-1] / choice.group_size) if shape else 0
            )
            size = math.ceil(layer.weights * choice.w_bits / 8) + groups * SCALE_BYTES
            yield Cell(f"{source.name}, [{number_}]", layer, choice, value, size)


READER = MlxLm()
