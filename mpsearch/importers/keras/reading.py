"""The containers: Keras 3's `.keras` zip, and HDF5 files of Keras 2 and 3.

HDF5 files can point into other files (external links, external storage, virtual data sets) and
announce arrays of any size; both are refused here. h5py reads numbers and strings only.

HDF5's global heaps, which hold texts: checked before its library walks through them.

The library steps from object to object by the sizes that it finds, and never ends where one is 0
(tried with HDF5 1.14: an interrupt does not reach it either). Layout: HDF5 File Format
Specification, III.E, with lengths of 8 bytes, as every file of Keras has them.
"""

import io
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.errors import InputError, MissingExtraError, first_line
from mpsearch.files.archives import is_archive, open_archive
from mpsearch.files.json_file import parse_json
from mpsearch.graph import memory_budget
from mpsearch.tables.units import whole_number

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\x01\0\0\0"  # signature and version
_HEAD = 16  # bytes of a heap's header, and of an object's


def check_file(path: str | os.PathLike[str]) -> None:
    """`check_heaps` of a file, which is not read into memory."""
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                check_heaps(content)


def check_heaps(content: "bytes | mmap.mmap") -> None:
    """Raise InputError for a heap whose objects do not fill it, and for other lengths than 8."""
    start = bytes(content[:16])
    widths = start[13:15] if start[8:9] in (b"\0", b"\1") else start[9:11]
    if not start.startswith(_SIGNATURE) or widths != b"\x08\x08":
        raise InputError("is no HDF5 file with addresses of 8 bytes from its first byte on")
    place = content.find(_HEAP)
    while place >= 0:
        if not _is_whole(content, place):
            raise InputError("damaged HDF5 file: a heap of texts whose sizes cannot be")
        place = content.find(_HEAP, place + 1)


def _is_whole(content: "bytes | mmap.mmap", place: int) -> bool:
    if place + _HEAD > len(content):
        return False
    end = place + struct.unpack_from("<Q", content, place + 8)[0]
    at = place + _HEAD
    if end > len(content):
        return False
    while at + _HEAD <= end:
        number, _, _, size = struct.unpack_from("<HHIQ", content, at)
        step = size if number == 0 else _HEAD + -(-size // 8) * 8  # 0 is free room
        if step < _HEAD or at + step > end:
            return False
        at += step
    return True


Array = np.ndarray[Any, Any]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LARGEST_CONFIG = 1 << 26


@dataclass(frozen=True)
class KerasFile:
    """An open file: `config` of the model, Keras's version, the loss it was trained with (as text),
    and `group`, the HDF5 group of the weights; `legacy`: the layout of `.h5`, by layer names."""

    config: Mapping[str, Any]
    version: str
    loss: str
    group: "Group"
    legacy: bool

    @property
    def major(self) -> int:
        """2 or 3: what some functions mean changed."""
        first = whole_number(self.version.partition(".")[0])
        return 3 if first is None else first


@contextmanager
def open_keras(path: str | os.PathLike[str]) -> Iterator[KerasFile]:
    """Open a `.keras` or `.h5` file. Raises InputError in one line, MissingExtraError without h5py.

    Whatever HDF5 raises on a damaged file while it is open becomes an InputError as well.
    """
    h5py = _h5py()
    zipped = is_archive(path)
    try:
        content = _members(path) if zipped else {}
        if zipped:
            check_heaps(content[WEIGHTS])
        else:
            check_file(path)
        source: Any = io.BytesIO(content[WEIGHTS]) if zipped else path
        with h5py.File(source, "r") as file:
            root = Group(file, "", h5py)
            yield _zipped(root, content) if zipped else _hdf5(root)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged Keras file: {first_line(error)}") from error
    except InputError as error:
        raise InputError(*error.lines_after(f"{path}: ")) from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "keras", "reading Keras files") from None
    return h5py


def _members(path: str | os.PathLike[str]) -> dict[str, bytes]:
    with open_archive(path) as archive:
        found = {}
        for name in (CONFIG, METADATA, WEIGHTS):
            if name not in archive.sizes:
                if name == METADATA:
                    continue
                raise InputError(f"no {name} in it; expected a file of model.save('net.keras')")
            size = archive.sizes[name]
            if name != WEIGHTS and size > _LARGEST_CONFIG:
                raise InputError(f"{name} would unpack to {size:,} bytes; not read")
            memory_budget.reserve(size, name)
            found[name] = archive.read(name)
        return found


def _zipped(root: "Group", content: Mapping[str, bytes]) -> KerasFile:
    config = _json(content[CONFIG], CONFIG)
    metadata = _json(content.get(METADATA, b"{}"), METADATA)
    loss = _loss(config.get("compile_config"))
    return KerasFile(config, str(metadata.get("keras_version", "3")), loss, root, legacy=False)


def _hdf5(root: "Group") -> KerasFile:
    text = root.text("model_config")
    if text is None:
        raise InputError(
            "holds weights without the network; save the whole model: model.save('net.keras')"
        )
    training = root.text("training_config")
    return KerasFile(
        _json(text, "model_config"),
        root.text("keras_version") or "2",
        _loss(_json(training, "training_config") if training else None),
        root.group_at("model_weights"),
        legacy=True,
    )


def _json(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        document = parse_json(text)
    except ValueError as error:
        raise InputError(f"{name} is damaged: {first_line(error)}") from error
    if not isinstance(document, dict):
        raise InputError(f"{name} is {type(document).__name__}; expected an object")
    return document


def _loss(settings: object) -> str:
    """The loss of a compiled model as text; empty when the model was not compiled."""
    loss = settings.get("loss") if isinstance(settings, dict) else None
    return json.dumps(loss).lower() if loss else ""


@dataclass(frozen=True)
class Group:
    """A group of an HDF5 file, entered by hard links only."""

    group: Any
    path: str
    h5py: Any

    def _entry(self, name: str) -> Any:
        found = self.group
        for part in name.split("/"):
            if not isinstance(found, self.h5py.Group) or part not in found:
                return None
            if not isinstance(found.get(part, getlink=True), self.h5py.HardLink):
                raise InputError(
                    f"{self.path}/{part} is a link to another place; such files are not read"
                )
            found = found[part]
        return found

    def has(self, name: str) -> bool:
        """True when the group has an entry of this name."""
        return self._entry(name) is not None

    def group_or_none(self, name: str) -> "Group | None":
        """The group inside; None when there is none."""
        found = self._entry(name)
        if not isinstance(found, self.h5py.Group):
            return None
        return Group(found, f"{self.path}/{name}", self.h5py)

    def group_at(self, name: str) -> "Group":
        """The group inside. Raises InputError when there is none."""
        found = self.group_or_none(name)
        if found is None:
            raise InputError(f"no weights {self.path}/{name}; expected a whole model")
        return found

    def array(self, name: str) -> Array:
        """The numbers of a data set as float32. Raises InputError for anything else."""
        found = self._entry(name)
        place = f"{self.path}/{name}"
        if not isinstance(found, self.h5py.Dataset):
            raise InputError(f"no weight {place}")
        if found.external or found.is_virtual:
            raise InputError(f"{place} lies in another file; such files are not read")
        if found.dtype.kind not in "fiu":
            raise InputError(
                f"{place} has type {found.dtype}; expected numbers: save the model in float32"
            )
        memory_budget.reserve(max(int(found.nbytes), 4 * int(found.size)), place)
        return np.asarray(found[()], dtype=np.float32)

    def text(self, name: str) -> str | None:
        """An attribute that is one string; None when there is none."""
        value = self.group.attrs.get(name)
        if isinstance(value, bytes):
            value = value.decode("utf-8")
        if value is not None and not isinstance(value, str):
            raise InputError(f"the attribute {name} is {type(value).__name__}; expected a string")
        return value

    def texts(self, name: str) -> list[str]:
        """An attribute that is a list of strings, cut in pieces `name0`, `name1` where long."""
        attributes = self.group.attrs
        pieces = [name] if name in attributes else []
        while f"{name}{len(pieces)}" in attributes:
            pieces.append(f"{name}{len(pieces)}")
        return [
            value.decode("utf-8") if isinstance(value, bytes) else str(value)
            for piece in pieces
            for value in np.ravel(attributes[piece])
        ]
