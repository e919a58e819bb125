"""What an ONNX file says of its inputs and outputs: sizes, types, and where the samples lie.

A size of the batch may be written as a name, as nothing, as 0 or as -1. The samples of an input lie
along its first dimension, or where the name of the batch stands: in x [N, T, F] with states
h [L, N, H] it is N.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.graph.border import (
    BatchDim,
    Fix,
    assignments,
    checked_dim,
    fixed_value,
)
from mpsearch.importers.onnx.elementwise import DTYPES

_BATCH_NAMES = re.compile(r"(?i)n|b|bs|.*batch.*|num_?samples|n_samples")
_LARGEST_BATCH = 4096


@dataclass(frozen=True)
class Declared:
    """An input or output as the file declares it; sizes are None where it leaves them open."""

    name: str
    sizes: tuple[int | None, ...] | None
    """None when it says nothing, not even how many dimensions there are."""
    names: tuple[str, ...]
    """Names of the open sizes, empty for the others."""
    dtype: torch.dtype

    @property
    def rank(self) -> int:
        """How many dimensions are known."""
        return len(self.sizes or ())


@dataclass(frozen=True)
class Inputs:
    """One way to read the file: what each input takes, and where its samples lie."""

    samples: Mapping[str, torch.Tensor]
    """One zero sample for each input that is per sample, [1, …], by name in order."""
    dims: Mapping[str, int]
    """The dimension of every input in `samples` that holds the samples in the file."""
    batch: int
    """The file's batch size; 1 where it is free."""
    is_fixed: bool
    """Whether the file fixes it."""


def declared(value: Any) -> Declared:
    """What the file says of one input or output. Raises InputError for other things than tensors.

    Floating point of any width is float32.
    """
    if not value.type.HasField("tensor_type"):
        raise InputError(f"input {value.name!r} is no tensor; expected tensors only")
    tensor = value.type.tensor_type
    if tensor.elem_type not in DTYPES:
        raise InputError(f"input {value.name!r} has a type that cannot be read")
    dims = tensor.shape.dim
    sizes = tuple(
        int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims
    )
    names = tuple(str(d.dim_param) for d in dims)
    known = sizes if tensor.HasField("shape") else None
    return Declared(str(value.name), known, names, DTYPES[tensor.elem_type])


def constants_of(values: Sequence[Declared], fix: Fix) -> "dict[str, np.ndarray[Any, Any]]":
    """The constants that the caller gives inputs. Raises InputError for one that does not fit."""
    return {
        value.name: fixed_value(value.name, fix[value.name], value.sizes, value.dtype).numpy()
        for value in values
        if value.name in fix
    }


def readings(
    rest: Sequence[Declared],
    shapes: Sequence[tuple[int, ...]],
    given: Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    batch_dim: BatchDim,
) -> Iterator[Inputs]:
    """The ways to read inputs that are per sample, the likeliest first.

    `shapes` and `given` as `load_onnx` takes them. Raises InputError when there is none.
    """
    if not rest:
        raise InputError("the graph has no inputs that take samples")
    for value in rest:
        if value.sizes == ():
            raise InputError(
                f"input {value.name!r} is a single number; expected a batch of samples, or a "
                f"constant: --fix {value.name}=1"
            )
    if isinstance(given, Mapping):
        given = [given[value.name] for value in rest if value.name in given]
    for what, count in (("--input-shape", len(shapes)), ("inputs in the data", len(given))):
        if count and count != len(rest):
            names = ", ".join(value.name for value in rest)
            raise InputError(f"got {count} × {what}; expected one for each of {names}")
    said = {
        value.name: checked_dim(value.name, batch_dim[value.name], value.rank or 1)
        for value in rest
        if value.name in batch_dim
    }
    named = _named(rest, said)
    first: InputError | None = None
    any_reading = False
    for dims in assignments({**named, **said}, _choices(rest, {**named, **said})):
        try:
            reading = _reading(rest, dims, shapes, given)
        except InputError as error:
            first = first or error
            continue
        any_reading = True
        yield reading
    if not any_reading and first is not None:
        raise first


def _named(values: Sequence[Declared], said: BatchDim) -> dict[str, int]:
    """Where the name of the batch stands: the first size's of an input, if not another's."""
    shared = [{name for name in value.names if name} for value in values if any(value.names)]
    if not shared:
        return {}
    fronts = [v.names[said.get(v.name, 0)] for v in values if v.rank]
    everywhere = set.intersection(*shared)
    usual = [
        name for value in values for name in value.names
        if name and _BATCH_NAMES.fullmatch(name)
    ]  # fmt: skip
    candidates = [name for name in fronts if name in usual] + [
        name for name in usual if name in everywhere
    ]
    candidates += usual + [name for name in fronts if name]
    if not candidates:
        return {}
    batch = candidates[0]
    return {
        value.name: value.names.index(batch) for value in values if value.names.count(batch) == 1
    }


def _choices(values: Sequence[Declared], known: BatchDim) -> dict[str, list[int]]:
    """Dimensions that may hold the samples: in front, and others that are open or fit the batch."""
    fronts = [v.sizes[known.get(v.name, 0)] for v in values if v.sizes]
    written = {size for size in fronts if size is not None} | {1}
    return {
        value.name: [
            dim for dim, size in enumerate(value.sizes or (None,))
            if dim == 0 or size in written or (size is None and len(values) > 1)
        ]
        for value in values
    }  # fmt: skip


def _reading(
    values: Sequence[Declared],
    dims: BatchDim,
    shapes: Sequence[tuple[int, ...]],
    given: Sequence[torch.Tensor],
) -> Inputs:
    samples = {}
    batches: list[int | None] = []
    for index, value in enumerate(values):
        dim = dims[value.name]
        batches.append(value.sizes[dim] if value.sizes else None)
        sizes = None if value.sizes is None else [s for d, s in enumerate(value.sizes) if d != dim]
        known = list(shapes[index]) if shapes else sizes
        if known is None or None in known:
            if not given:
                raise InputError(
                    f"input {value.name!r} leaves its shape open; give --data, or --input-shape "
                    "once per input (for example --input-shape 3x32x32)"
                )
            known = list(given[index].shape[1:])
        agree = sizes is None or (
            len(known) == len(sizes)
            and all(s in (None, k) for s, k in zip(sizes, known, strict=True))
        )
        if not agree:
            wanted = "x".join("?" if s is None else str(s) for s in sizes or ())
            raise InputError(
                f"input {value.name!r}: got the shape {'x'.join(map(str, known))}; "
                f"expected {wanted}"
            )
        known_sizes = [int(size) for size in known if size is not None]
        elements = math.prod(known_sizes)
        if elements <= 0:
            raise InputError(f"input {value.name!r} has the shape {known_sizes}, which is empty")
        memory_budget.reserve(
            8 * elements, f"input {value.name!r} of the shape {known_sizes} (one sample)"
        )
        samples[value.name] = torch.zeros(1, *known_sizes, dtype=value.dtype)
    written = {batch for batch in batches if batch is not None}
    if len(written) > 1:
        raise InputError(
            f"its inputs have the batch sizes {sorted(written)}; expected one for all.",
            "Say where the samples lie (--batch-dim NAME=DIM), or give a constant to an input "
            "that is not per sample (--fix NAME=VALUE)",
        )
    batch = written.pop() if written else 1
    if batch > _LARGEST_BATCH:
        raise InputError(f"got a batch size of {batch}")
    return Inputs(samples, dict(dims), batch, any(b is not None for b in batches))
