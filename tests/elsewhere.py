"""A device without a GPU: numbers that claim to be on "meta" and are computed on the CPU.

As on a GPU, an operator refuses tensors of both places, and numpy and files refuse those that are
elsewhere. The results are the CPU's but for the last bits: torch lays some of them out otherwise.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

NAME = "meta"  # a device that torch knows and that has no numbers of its own
_HERE = torch.device("cpu")
_ACROSS = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Elsewhere(torch.Tensor):
    """A tensor that says that it is on `NAME`; `numbers` are its numbers on the CPU."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> "Elsewhere":
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, numbers.size(), strides=numbers.stride(), dtype=numbers.dtype,
            device=torch.device(NAME), storage_offset=numbers.storage_offset(),
        )  # fmt: skip
        made.numbers = numbers
        return made

    def tolist(self) -> Any:
        """As of any tensor; torch does not do it for classes of others."""
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _call(func, args, kwargs or {})


class Device(TorchDispatchMode):
    """While it is open, `NAME` is a device that computes; `calls` counts its operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = _call(func, args, kwargs or {})
        self.calls += isinstance(results, Elsewhere)
        return results


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = any(isinstance(x, Elsewhere) for x in tensors)
    here = [x for x in tensors if not isinstance(x, Elsewhere) and x.dim() > 0]
    if there and here and func not in _ACROSS:
        shapes = ", ".join(f"{type(x).__name__} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(f"{func}: expected all tensors to be on the same device: {shapes}")
    place = kwargs.get("device")
    if not there and place is None:
        return func(*args, **kwargs)
    if place is not None:
        there = torch.device(place).type == NAME
        kwargs = {**kwargs, "device": _HERE}
    elif func is torch.ops.aten.copy_.default:
        there = isinstance(args[0], Elsewhere)
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: expected a generator of the device {NAME}, got one of the CPU")
    results = func(*_each(args, _numbers), **_each(kwargs, _numbers))
    if not there:
        return results
    moved = _each(results, lambda x: Elsewhere(x) if isinstance(x, torch.Tensor) else x)
    if func is torch.ops.aten._to_copy.default:
        return moved
    return return_and_correct_aliasing(func, args, kwargs, moved)


def _each(values: Any, change: Callable[[Any], Any]) -> Any:
    return pytree.tree_map(change, values)


def _numbers(value: Any) -> Any:
    return value.numbers if isinstance(value, Elsewhere) else value
