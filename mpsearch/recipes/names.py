"""Layers' names in the files of other tools: where they mean something else, and as YAML.

Names come from other tools' tables and may be any text. A tool that reads its file's names as
patterns, or under fewer names than the table has, would quantize other layers than those assigned.
"""

from collections.abc import Iterable

from mpsearch.errors import InputError


def check_distinct(addresses: Iterable[tuple[str, str]], tool: str) -> None:
    """Raise InputError where two layers are one for the tool.

    addresses: (layer, what the tool's file calls it).
    """
    known: dict[str, str] = {}
    for layer, address in addresses:
        other = known.setdefault(address, layer)
        if other != layer:
            raise InputError(
                f"layers {other[:60]!r} and {layer[:60]!r} are both {address[:60]!r} for {tool}; "
                "expected a name of its own for each"
            )


def double_quoted(text: str) -> str:
    """A scalar of YAML that means exactly this text.

    JSON's text would do but for two things: YAML has no pairs of surrogates, and folds or refuses
    signs that do not print, such as U+0085 and U+2028.

    >>> double_quoted('a"b')
    '"a\\\\"b"'
    """
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"
