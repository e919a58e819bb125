"""One budget of memory per load of a model file that anybody may have written.

A file of some KB can ask for gigabytes: a constant of any shape, a pad, a link to one array a
thousand times. So all tensors that exist at once while a file is loaded, its weights included, may
take four times the bytes of the file and 1 GiB, or what `--max-model-memory` says. Whoever loads a
file opens the budget with `of_load`; until it is closed,

- `reserve` counts bytes that stay (weights as they are read, copies of them),
- `expect` asks for bytes that are about to be allocated,
- `watched` asks for every operator of torch that runs inside of it: its results are computed as
  shapes first, and added to the tensors that are alive.

Outside of a load nothing is counted: the caller's own model has no file that could lie, and passes
over data have bounds of their own (`--memory`, the batch size).
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError
from mpsearch.tables.units import format_size

if TYPE_CHECKING:
    import torch

TIMES, SPARE = 4, 1 << 30


class MemoryBudget:
    """`limit` bytes for what is reserved and for the storages of tensors that are alive."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._alive: dict[int, tuple[Any, int]] = {}  # storages by address, with weak references
        self.watch: Any = None

    def expect(self, size: int, what: str) -> None:
        """Raise InputError when `size` more bytes would not fit."""
        if self._used + size > self.limit:
            for key, (storage, bytes_) in list(self._alive.items()):
                if storage.expired():
                    del self._alive[key]
                    self._used -= bytes_
        if self._used + size > self.limit:
            raise InputError(
                f"{what} would need {format_size(size)} of memory beside {format_size(self._used)} "
                f"in use; the limit for this file is {format_size(self.limit)}: give "
                "--max-model-memory SIZE if you trust it"
            )

    def reserve(self, size: int, what: str) -> None:
        """Count `size` bytes for good."""
        self.expect(size, what)
        self._used += size

    def add(self, tensors: Sequence["torch.Tensor"]) -> None:
        """Count tensors until they are freed."""
        from torch.multiprocessing.reductions import StorageWeakRef

        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._alive:  # no other one lies there while it is referenced
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self._used += storage.nbytes()


_open: ContextVar[MemoryBudget | None] = ContextVar("memory budget", default=None)


@contextlib.contextmanager
def of_load(path: str | os.PathLike[str], limit: int | None = None) -> Iterator[None]:
    """The budget of loading `path`, `limit` bytes; inside of another load that one's goes on."""
    if _open.get() is not None:
        yield
        return
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    token = _open.set(MemoryBudget(TIMES * size + SPARE if limit is None else limit))
    try:
        yield
    finally:
        _open.reset(token)


def reserve(size: int, what: str) -> None:
    """Count `size` bytes, about to be allocated, until the load ends. Raises InputError."""
    budget = _open.get()
    if budget is not None:
        budget.reserve(size, what)


def expect(size: int, what: str) -> None:
    """Raise InputError when `size` bytes, about to be allocated, would not fit."""
    budget = _open.get()
    if budget is not None:
        budget.expect(size, what)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Ask for the results of every operator of torch before it runs."""
    budget = _open.get()
    if budget is None:
        yield
        return
    from mpsearch.graph.memory_watch import MemoryWatch

    budget.watch = budget.watch or MemoryWatch(budget)
    with budget.watch:
        yield
