"""What is said of a network's inputs and outputs: where the samples lie, and constants for inputs.

`--batch-dim h=1` and `--fix sr=16000`, checked against the names, sizes and types of the network,
for every kind of model file.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget

BatchDim = Mapping[str, int]
Fix = Mapping[str, Any]
Sizes = Sequence[int | None]
_TRIES = 64


def fixed_value(name: str, value: Any, shape: Sizes | None, dtype: torch.dtype) -> torch.Tensor:
    """The constant of an input, typed and shaped as the input wants it; None: a free size or shape.

    A single number fills a known shape. Raises InputError for one that does not fit.
    """
    what = f"--fix {name}={shown(value)}"
    try:
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        array = np.asarray(array)
        numbers = array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: expected a number or a list of numbers") from None
    if np.isnan(numbers).any():
        raise InputError(f"{what}: expected numbers")
    if not dtype.is_floating_point:
        kind = torch.iinfo(dtype) if dtype != torch.bool else None
        low, high = (0, 1) if kind is None else (kind.min, kind.max)
        whole = bool((numbers == np.round(numbers)).all())
        if not whole or not bool(((numbers >= low) & (numbers <= high)).all()):
            wanted = "true or false" if kind is None else f"whole numbers of {_named(dtype)}"
            raise InputError(f"{what}: input {name!r} takes {wanted}")
    tensor = torch.from_numpy(np.array(array)).to(dtype)
    if shape is None or tuple(shape) == tuple(tensor.shape):
        return tensor
    sizes = [1 if size is None else size for size in shape]
    if tensor.dim() == 0:
        memory_budget.expect(8 * math.prod(sizes), f"input {name!r} of the shape {sizes}")
        return tensor.expand(sizes).contiguous()
    free = [index for index, size in enumerate(shape) if size is None]
    known = int(math.prod(sizes))
    if len(free) == 1 and tensor.numel() % known == 0:
        sizes[free[0]] = tensor.numel() // known
    if not sizes or math.prod(sizes) != tensor.numel():
        wanted = "x".join("?" if size is None else str(size) for size in shape)
        wanted = f"{wanted} numbers" if wanted else "a single number"
        raise InputError(f"{what}: got {tensor.numel()} numbers; input {name!r} takes {wanted}")
    return tensor.reshape(sizes)


def shown(value: Any) -> str:
    plain = value.tolist() if hasattr(value, "tolist") else value
    return (",".join(map(str, plain)) if isinstance(plain, list | tuple) else str(plain))[:80]


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def moved(x: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """The tensor with dimension `source` at `target`, as a permutation."""
    if source == target:
        return x
    order = [dim for dim in range(x.dim()) if dim != source]
    order.insert(target, source)
    return x.permute(order)


def check_forms(batch_dim: object, fix: object) -> None:
    """Raise InputError for what is no mapping, as people may write it in Python."""
    for option, given, example in (("batch_dim", batch_dim, '"h": 1'), ("fix", fix, '"sr": 16000')):
        if given is not None and not isinstance(given, Mapping):
            raise InputError(
                f"got {type(given).__name__} for {option}; expected values by name, {{{example}}}"
            )


def check_names(
    batch_dim: BatchDim, fix: Fix, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Raise InputError for names that the network does not have, or that are said twice."""
    for name in fix:
        if name not in inputs:
            raise InputError(
                f"--fix {name}={shown(fix[name])}: the network has no input {name!r}; expected "
                f"one of {', '.join(inputs)}"
            )
        if name in batch_dim:
            raise InputError(
                f"--fix and --batch-dim for {name!r}: expected one of them, an input with a "
                "constant has no samples"
            )
    for name in batch_dim:
        if name not in inputs and name not in outputs:
            raise InputError(
                f"--batch-dim {name}={batch_dim[name]}: the network has no input or output "
                f"{name!r}; expected one of {', '.join((*inputs, *outputs))}"
            )


def checked_dim(name: str, dim: int, rank: int) -> int:
    """`-1` of 3 dimensions -> 2. Raises InputError out of range."""
    if isinstance(dim, bool) or not isinstance(dim, int) or not -rank <= dim < rank:
        raise InputError(
            f"--batch-dim {name}={dim}: {name!r} has {rank} dimensions; expected 0 to {rank - 1}"
        )
    return dim % rank


def assignments(
    given: Mapping[str, int], choices: Mapping[str, Sequence[int]]
) -> list[dict[str, int]]:
    """Where the samples of the inputs may lie, the likeliest first: few that are not in front."""
    names = [*choices]
    options = [[given[name]] if name in given else list(choices[name]) for name in names]
    found = itertools.islice(itertools.product(*options), 16 * _TRIES)
    ordered = sorted(found, key=lambda dims: (len([d for d in dims if d]), sum(dims)))
    return [dict(zip(names, dims, strict=True)) for dims in ordered[:_TRIES]]


def grown(
    name: str,
    first: Sequence[int],
    second: Sequence[int],
    said: int | None,
    batches: tuple[int, int] = (2, 3),
) -> int:
    """The dimension of an output that holds the samples, from its shapes for two batch sizes.

    Raises InputError where none or several do, unless `said` is one of them.
    """
    axes = range(len(first)) if len(first) == len(second) else ()
    dims = [axis for axis in axes if (first[axis], second[axis]) == batches]
    seen = (
        f"output {name!r} has the shape {tuple(first)} for {batches[0]} and {tuple(second)} for "
        f"{batches[1]} samples"
    )
    if said is not None:
        said = checked_dim(name, said, len(first))
        if said not in dims:
            where = f"along dimension {dims[0]}" if dims else "along none"
            raise InputError(f"--batch-dim {name}={said}: {seen}; they lie {where}")
        return said
    if not dims:
        raise InputError(f"{seen}; expected one dimension that holds them")
    if len(dims) > 1:
        raise InputError(f"{seen};", f"say which holds them: --batch-dim {name}={dims[0]}")
    return dims[0]


def undecided(name: str, dims: Sequence[int]) -> InputError:
    """The error for samples that may lie along several dimensions of an input."""
    return InputError(
        f"the samples of input {name!r} may lie along dimension {' or '.join(map(str, dims))};",
        f"say which: --batch-dim {name}={dims[-1]}",
    )
