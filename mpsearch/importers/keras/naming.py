"""Names in the graph for Keras's names, which may hold any character."""

import re
from collections.abc import Iterable

from torch import fx, nn


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> identifier, different names to different ones: `conv-1` -> `conv_1`.

    A name that is an identifier already stays; one that torch's modules use themselves (`training`)
    gets an underscore.
    """
    names = list(names)
    reserved = nn.Module()
    wanted = {name: _clean(name, reserved) for name in names}
    taken = {name for name in names if wanted[name] == name}
    found = {}
    for name in names:
        choice, count = wanted[name], 0
        while choice != name and choice in taken:
            count += 1
            choice = f"{wanted[name]}_{count}"
        taken.add(choice)
        found[name] = choice
    return found


def _clean(name: str, reserved: nn.Module) -> str:
    text = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_") or "layer"
    if text[0].isdigit():
        text = f"layer_{text}"
    return f"{text}_" if hasattr(reserved, text) or hasattr(fx.GraphModule, text) else text
