"""What an operator of torch is going to allocate, before it runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mpsearch.memory_budget import MemoryBudget

_BY_CONTENT = {torch.ops.aten.repeat_interleave.Tensor}


class MemoryWatch(TorchDispatchMode):
    """While it is open, every operator's results are held against a budget before they exist."""

    def __init__(self, budget: MemoryBudget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._budget = budget
        self._shapes = FakeTensorMode(allow_fallback_kernels=False)
        self._known: dict[Any, int] = {}  # the steps of a recurrent layer are all alike

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        key = _key(func, args, kwargs)
        needed = self._known.get(key)
        if needed is None:
            needed = self._known[key] = self._needed(func, args, kwargs)
        self._budget.expect(needed, f"the operator {func}")
        results = func(*args, **kwargs)
        self._budget.add(_tensors(results))
        return results

    def _needed(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> int:
        """Bytes of the results that do not lie in the arguments."""

        def shape_of(value: Any) -> Any:
            return self._shapes.from_tensor(value) if isinstance(value, torch.Tensor) else value

        try:
            given, named = pytree.tree_map(shape_of, (args, kwargs))
            with self._shapes:
                results = func(*given, **named)
        except Exception:  # results that depend on the data; a wrong call fails when it runs
            return _most(func, args)
        known = {x.untyped_storage()._cdata for x in _tensors((given, named))}
        made = {x.untyped_storage()._cdata: x.untyped_storage() for x in _tensors(results)}
        return sum(storage.nbytes() for key, storage in made.items() if key not in known)


def _key(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Equal for calls that make results of equal sizes; contents matter to `_most` alone."""
    parts: list[Any] = [func]
    for value in (*args, *sorted(kwargs.items())):
        if isinstance(value, torch.Tensor):
            whole = value.tolist() if func in _BY_CONTENT else 0
            parts.append((value.shape, value.stride(), value.dtype, str(whole)))
        elif isinstance(value, list | tuple):
            inner = [(x.shape, x.dtype) if isinstance(x, torch.Tensor) else str(x) for x in value]
            parts.append(tuple(inner))
        else:
            parts.append(str(value))
    return tuple(parts)


def _most(func: Any, args: Any) -> int:
    """A bound for operators whose results depend on data: positions of what they were given."""
    if func in _BY_CONTENT:
        return 8 * int(args[0].sum())
    return sum(8 * x.numel() * max(1, x.dim()) for x in _tensors(args))


def _tensors(values: Any) -> list[torch.Tensor]:
    return [x for x in pytree.tree_leaves(values) if isinstance(x, torch.Tensor)]
