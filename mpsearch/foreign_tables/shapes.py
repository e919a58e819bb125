"""Shapes of a network's weights, from the header of a safetensors or GGUF file: the tensors stay
unread."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import by_name, check_form, list_of, parse_json, read_json, whole
from mpsearch.files.whole import like_file, read_limited
from mpsearch.foreign_tables.gguf_header import MAGIC, tensor_shapes

LARGEST_MIB = 64
LARGEST_HEADER = 100 << 20  # as the format itself has it
MOST_FILES = 1000
_LENGTHS = list_of(whole(0, 2**40))
_HEADER = by_name({"shape?": _LENGTHS})
_ENDING = ".weight"


def read_shapes(paths: Iterable[str | os.PathLike[str]]) -> dict[str, tuple[int, ...]]:
    """Layer -> shape of its weight, of safetensors and GGUF files, of folders with safetensors
    files, and of JSON files that say so: `{"fc": [10, 64]}`.

    Layers are called as their tensors without `.weight`. Raises InputError for other files, and for
    two shapes of one layer.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in map(Path, paths):
        for file in _files(path):
            for name, lengths in _in_file(file).items():
                layer, shape = name.removesuffix(_ENDING), tuple(lengths)
                if found.setdefault(layer, shape) != shape:
                    raise InputError(
                        f"{file}: {layer!r} has the shape {list(shape)}, and {list(found[layer])} "
                        "in another file of --shapes"
                    )
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.safetensors"))[:MOST_FILES]
    if not files:
        raise InputError(f"{path} has no .safetensors file; expected one with the weights")
    return files


def _in_file(path: Path) -> dict[str, list[int]]:
    """Name of a tensor -> its shape."""
    try:
        if not path.is_fifo() and path.stat().st_size:
            with path.open("rb") as file:
                if file.read(4) == MAGIC:
                    return dict(tensor_shapes(file))
        header = _header(path)
        if header is None:
            document = read_json(path, "file of shapes", LARGEST_MIB)
            check_form(document, by_name(_LENGTHS), "")
            return dict(document)
        check_form(header, _HEADER, "its header")
        return {name: entry["shape"] for name, entry in header.items() if "shape" in entry}
    except FileNotFoundError:
        raise InputError(f"there is no file of shapes {path}{like_file(path)}") from None
    except ValueError as error:
        raise InputError(
            f"{path} is no safetensors or GGUF file and no JSON with shapes: {str(error)[:150]}"
        ) from None


def _header(path: Path) -> Any:
    """The header of a safetensors file; None where the file begins as JSON does."""
    if path.stat().st_size == 0 or path.is_fifo():
        read_limited(path, LARGEST_MIB, "a file of shapes")
        raise ValueError("it is empty")
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > LARGEST_HEADER:
            if start.lstrip()[:1] == b"{":
                return None
            raise ValueError(f"its header would have {length} bytes")
        content = file.read(length)
    if len(content) < length:
        raise ValueError("it is cut off")
    return parse_json(content)
