"""What the tensors of a graph may be called: `blocks.Conv-A.weight`.

torch.fx writes Python code that reads every tensor, `getattr(self.blocks, "Conv-A").weight`, and
runs it; a name must not be able to end that string, to mean another name, or to be one of Python's
or torch's own attributes.
"""

import keyword
import unicodedata
from collections.abc import Iterable
from functools import cache

from torch import fx, nn

_LONGEST_PART, _LONGEST = 100, 1000  # characters
_ENDS_STRING = '"\\'


def is_tensor_path(path: object) -> bool:
    """Whether a graph's tensor may be called so: parts between dots, of printable characters."""
    if not isinstance(path, str) or len(path) > _LONGEST:
        return False
    return all(_is_part(part, place == 0) for place, part in enumerate(path.split(".")))


def tensor_paths(names: Iterable[str]) -> dict[str, str]:
    """The names of a torch module's tensors, and what they are called in a graph: the same, but for
    parts that may not be. Those get `_` for what they cannot have, and at their end until they are
    different."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda one: not is_tensor_path(one)):
        before, called = "", ""
        for part in name.split("."):
            before = f"{before}.{part}" if before else part
            if before not in found:
                found[before] = _fresh(called, part, taken)
                taken.add(found[before])
            called = found[before]
    return found


def _fresh(owner: str, part: str, taken: set[str]) -> str:
    start = f"{owner}." if owner else ""
    if not _is_part(part, not owner):
        part = unicodedata.normalize("NFKC", part)[: _LONGEST_PART // 2].lstrip("_")
        part = "".join(c if c.isprintable() and c not in _ENDS_STRING + "." else "_" for c in part)
        part = part if _is_part(part, not owner) else f"{part or 'x'}_"
    while start + part in taken:
        part += "_"
    return start + part


def _is_part(part: str, is_first: bool) -> bool:
    """`is_first`: it becomes an attribute of the graph module, others of plain modules."""
    if not part.isprintable() or not 0 < len(part) <= _LONGEST_PART:
        return False
    if part.startswith("__") or part in _attributes(is_first) or set(_ENDS_STRING) & set(part):
        return False
    if not part.isidentifier():
        return True
    # Python reads identifiers in this form, whatever was written
    return not keyword.iskeyword(part) and unicodedata.normalize("NFKC", part) == part


@cache
def _attributes(of_graph: bool) -> frozenset[str]:
    module = fx.GraphModule(nn.Module(), fx.Graph()) if of_graph else nn.Module()
    return frozenset({*dir(type(module)), *vars(module)})
