"""Names of layers and tensors as the framework that wrote the file knew them.

Exporters keep them in different places: as the initializer's name (`layer1.0.conv1.weight`), as the
node's name (`/layer1/layer1.0/conv1/Conv`, when the weight has become `onnx::Conv_123`) or in the
node's metadata (`pkg.torch.onnx.name_scopes`).
"""

import ast
import keyword
import re
from collections.abc import Mapping

from torch import fx

_ROLE = re.compile(r"^(.+)[./](weight|kernel|bias|W|w|B|b)(:0)?$|^(.+)_(weight|bias)$")
_SCOPES = "pkg.torch.onnx.name_scopes"
# Attributes of modules: a tensor must not take their place.
_TAKEN = frozenset(dir(fx.GraphModule)) | {"training", "forward", "plan", "tensors"}


class TensorNames:
    """Gives every tensor a qualified name of its own, out of the characters that a graph takes."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._branches: set[str] = set()

    def fresh(self, wanted: str) -> str:
        """`wanted` as a legal name, with `_1`, `_2`, … where another tensor has it already."""
        legal = legal_path(wanted)
        name, count = legal, 0
        while not self._is_free(name):
            count += 1
            name = _numbered(legal, count)
        self._leaves.add(name)
        parts = name.split(".")
        self._branches.update(".".join(parts[:i]) for i in range(1, len(parts)))
        return name

    def _is_free(self, name: str) -> bool:
        parts = name.split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        return name not in self._branches and not above & self._leaves


def _numbered(name: str, count: int) -> str:
    """The name of another layer: a second weight under a name is not another tensor of its layer.

    `fc.weight` -> `fc_1.weight`, and for the layers of an LSTM `rnn.weight_ih_l0` ->
    `rnn.weight_ih_l1`.
    """
    stacked = re.match(r"(.*_[ih]h_l)0(_reverse)?$", name)
    if stacked:
        return f"{stacked.group(1)}{count}{stacked.group(2) or ''}"
    owner, dot, leaf = name.rpartition(".")
    return f"{owner}_{count}.{leaf}" if dot else f"{leaf}_{count}"


def legal_path(name: str) -> str:
    """`/features/0/weight:0` -> `features.0.weight_0`: identifiers and numbers between dots.

    Two names may become one; `TensorNames` keeps them apart.
    """
    parts = [part for part in re.split(r"[./]+", name) if part]
    return ".".join(_legal_part(part) for part in parts) or "tensor"


def _legal_part(part: str) -> str:
    legal = re.sub(r"[^0-9A-Za-z_]+", "_", part)
    if legal.startswith("__") or not legal.strip("_"):
        legal = "t" + legal
    if legal in _TAKEN or keyword.iskeyword(legal):
        legal += "_"
    return legal


def identifier(name: str) -> str:
    """A Python identifier for an input: `input:0` -> `input_0`."""
    legal = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"x_{legal}" if not legal or legal[0].isdigit() or keyword.iskeyword(legal) else legal


def layer_of_tensor(name: str) -> str:
    """Where a parameter's role follows: `layer1.0.conv1.weight` -> `layer1.0.conv1.`.

    torch's attention has `attn.in_proj_weight` -> `attn.in_proj_`. Empty for a name that tells no
    layer, such as `onnx::Conv_123`.
    """
    match = _ROLE.match(name)
    if match is None or "::" in name:
        return ""
    if match.group(1):
        return match.group(1) + "."
    return match.group(4) + ("_" if "." in name else ".")


def layer_of_node(name: str, metadata: Mapping[str, str]) -> str:
    """`/layer1/layer1.0/conv1/Conv` -> `layer1.0.conv1`; empty when the node stands at the top."""
    scopes = _scopes(metadata)
    if scopes:
        return scopes
    parts = [part for part in name.split("/") if part]
    path: list[str] = []
    for part in parts[:-1]:
        # torch writes an element of a list under the name of the list
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join(path)


def _scopes(metadata: Mapping[str, str]) -> str:
    """The innermost module in torch's list `['', 'encoder', 'encoder.fc', 'linear']`."""
    try:
        scopes = ast.literal_eval(metadata.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    if not isinstance(scopes, list) or len(scopes) < 2:
        return ""
    return str(scopes[-2])
