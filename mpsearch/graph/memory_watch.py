"""What an operator of torch is going to allocate, before it runs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mpsearch.graph.memory_budget import MemoryBudget

_PART = 512  # bytes of the object of each part that a tensor is split into, at least
_BY_CONTENT = {torch.ops.aten.repeat_interleave.Tensor}
_LIKE_INPUT = {"aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training"}
_WIDENING = {"aten::complex", "aten::polar"}
_PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
_POOLINGS = {"aten::max_pool2d_with_indices", "aten::avg_pool2d"}
_REDUCTIONS = {"aten::mean", "aten::sum", "aten::amax", "aten::amin", "aten::all", "aten::any"}


class MemoryWatch(TorchDispatchMode):
    """While it is open, every operator's results are held against a budget before they exist."""

    def __init__(self, budget: MemoryBudget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._budget = budget
        self._known: dict[Any, int] = {}  # the steps of a recurrent layer are all alike

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: torch would import its compiler, a second, to exclude it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        returns = func._schema.returns
        if returns and str(returns[0].type) == "List[Tensor]":
            longest = max((max(x.shape, default=0) for x in _tensors(args)), default=0)
            self._budget.expect(_PART * longest, f"the operator {func}")
        if func.is_view:
            return func(*args, **kwargs)
        key = _key(func, args, kwargs)
        needed = self._known.get(key)
        if needed is None:
            needed = self._known[key] = _needed(func, args, kwargs)
        self._budget.expect(needed, f"the operator {func}")
        results = func(*args, **kwargs)
        self._budget.add(_tensors(results))
        return results


def _needed(func: Any, args: Any, kwargs: dict[str, Any]) -> int:
    """Bytes of the results that do not lie in the arguments."""
    try:
        known = _known_size(func._schema.name, func.tags, args, kwargs)
        return _on_meta(func, args, kwargs) if known is None else known
    except Exception:  # results that depend on the data; a wrong call fails when it runs
        return _most(func, args)


def _known_size(name: str, tags: Any, args: Any, kwargs: dict[str, Any]) -> int | None:
    """Bytes of the results of what nearly every network has, or a few more; None for the others.

    For the shapes of these torch would import its compiler first, which takes a second.
    """
    if name in _LIKE_INPUT:
        return int(args[0].nbytes + 16 * args[0].shape[1])  # and two numbers for each channel
    if name == "aten::_trilinear":
        return _of_trilinear(*args)
    if name == "aten::convolution":
        return _of_convolution(*args)
    if name in _PRODUCTS:
        left, right = _tensors(args)[-2:]
        return math.prod(left.shape[:-1]) * right.shape[-1] * left.element_size()
    if name in _POOLINGS:
        return _of_pooling(*args)
    if name in _REDUCTIONS:
        return _of_reduction(*args)
    if name == "aten::cat":
        return int(sum(x.numel() for x in args[0]) * max(x.element_size() for x in args[0]))
    if torch.Tag.pointwise in tags and name not in _WIDENING:
        return _of_pointwise(_tensors((args, kwargs)))
    return None


def _on_meta(func: Any, args: Any, kwargs: dict[str, Any]) -> int:
    """By running it without numbers, on torch's device "meta"."""

    def shape_of(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

    given, named = pytree.tree_map(shape_of, (args, kwargs))
    if any(argument.name == "device" for argument in func._schema.arguments):
        named["device"] = "meta"  # what is made from nothing would be made for real
    results = func(*given, **named)
    known = {x.untyped_storage()._cdata for x in _tensors((given, named))}
    made = {x.untyped_storage()._cdata: x.untyped_storage() for x in _tensors(results)}
    return sum(storage.nbytes() for key, storage in made.items() if key not in known)


def _of_pointwise(operands: list[torch.Tensor]) -> int:
    """Bytes of a result that has the operands' common shape, and no narrower numbers."""
    dimensions = max((x.dim() for x in operands), default=0)
    shapes = [(1,) * (dimensions - x.dim()) + tuple(x.shape) for x in operands]
    numbers = math.prod(0 if 0 in sizes else max(sizes) for sizes in zip(*shapes, strict=True))
    return int(numbers * max([4, *(x.element_size() for x in operands)]))


def _of_reduction(x: torch.Tensor, dim: Any = None, *_: object) -> int:
    """Bytes of what is left of a tensor without the dimensions that are reduced; 8 per number."""
    gone = [dim] if isinstance(dim, int) else dim or range(x.dim())
    kept = set(range(x.dim())) - {place % max(1, x.dim()) for place in gone}
    return 8 * math.prod(x.shape[place] for place in kept)


def _of_pooling(
    x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int] = (),
    padding: Sequence[int] = (0,), *_: object,
) -> int:  # fmt: skip
    """Bytes of a pooling's results, at most: indices are of 8 bytes, windows may reach beyond."""
    numbers = math.prod(x.shape[:-2])
    for place, size in enumerate(x.shape[-2:]):
        step, pad = (each[place if len(each) > 1 else 0] for each in (stride or kernel, padding))
        numbers *= (size + 2 * pad) // max(1, step) + 2
    return numbers * (8 + x.element_size())


def _of_trilinear(
    first: torch.Tensor, second: torch.Tensor, third: torch.Tensor, *expanded: list[int]
) -> int:
    """Bytes of the product of all three, which torch makes before it sums."""
    operands = []
    for x, places in zip((first, second, third), expanded, strict=False):
        for place in sorted(places):
            x = x.unsqueeze(place)
        operands.append(x)
    return _of_pointwise(operands)


def _of_convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: object, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int,
) -> int:  # fmt: skip
    """Bytes of a convolution's result; more than that where the call is wrong."""
    numbers = len(x) * (weight.shape[1] * groups if transposed else weight.shape[0])
    for place, (size, kernel) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=False)):
        step, pad, apart, more = (
            each[place if len(each) > 1 else 0]
            for each in (stride, padding, dilation, output_padding)
        )
        reach = apart * (kernel - 1)
        length = (size - 1) * step - 2 * pad + reach + more + 1
        if not transposed:
            length = (size + 2 * pad - reach - 1) // max(1, step) + 1
        numbers *= max(0, length)
    return numbers * x.element_size()


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
