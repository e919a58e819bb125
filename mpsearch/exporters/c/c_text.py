"""Python values as C source text."""

import textwrap
from collections.abc import Iterable, Mapping


def array(kind: str, name: str, values: Iterable[int]) -> str:
    """A constant array: ("int8_t", "s", [1, 2]) -> "static const int8_t s[] = {\\n    1,2\\n};"."""
    text = ",".join(str(int(value)) for value in values)
    # Break after commas only; lines of 100 keep the file readable and small.
    lines = textwrap.fill(text.replace(",", ", "), 96, break_long_words=False).replace(", ", ",")
    return f"static const {kind} {name}[] = {{\n{textwrap.indent(lines, '    ')}\n}};\n"


def struct(kind: str, name: str, fields: Mapping[str, object]) -> str:
    """A constant struct with named fields; mappings are structs in it, tuples are arrays."""
    return f"static const {kind} {name} = {_value(fields)};\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f".{key} = {_value(v)}" for key, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "{" + ", ".join(_value(v) for v in value) + "}"
    return str(value)
