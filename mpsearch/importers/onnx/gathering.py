"""Operators that look values up: embedding tables, selections, scattered updates."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from mpsearch.errors import InputError
from mpsearch.importers.onnx.calls import (
    Call,
    Result,
    as_type,
    axis_of,
    check_elements,
    is_symbolic,
)


def _gather(call: Call) -> Result:
    """Rows of a constant table are an embedding; a constant position is a selection."""
    axis = call.attribute("axis", 0)
    where = call.values[1]
    if isinstance(where, torch.Tensor) and axis == 0 and call.is_constant(0):
        table = call.host(0)
        if table.ndim == 2 and table.dtype.kind == "f":
            return F.embedding(as_type(where, torch.int64), call.weight(0, "weight"))
    x = call.tensor(0)
    axis = axis_of(axis, x.dim())
    if isinstance(where, np.ndarray) and not is_symbolic(where):
        if where.ndim == 0:
            return x.select(axis, int(where))
        if where.ndim == 1:
            size = x.shape[axis]
            rows = np.where(where < 0, where + size, where) if isinstance(size, int) else where
            return x.index_select(axis, call.derived("rows", lambda: rows.astype(np.int64)))
    # an index behind `axis` whole dimensions
    before: list[slice | torch.Tensor] = [slice(None)] * axis
    return x[(*before, as_type(call.tensor(1), torch.int64))]


def _gather_elements(call: Call) -> Result:
    x, axis, where = call.tensor(0), call.attribute("axis", 0), call.tensor(1)
    size = x.shape[axis]
    return torch.gather(x, axis, as_type(torch.where(where < 0, where + size, where), torch.int64))


def _gather_nd(call: Call) -> Result:
    x, where = call.tensor(0), as_type(call.tensor(1), torch.int64)
    if call.attribute("batch_dims", 0):
        raise InputError("got batch_dims; expected 0")
    return x[tuple(where.unbind(-1))]


def _scatter_elements(call: Call) -> Result:
    x, where, updates = call.tensor(0), call.tensor(1), call.tensor(2)
    axis = call.attribute("axis", 0)
    if call.attribute("reduction", "none") != "none":
        raise InputError("got a reduction; expected none")
    size = x.shape[axis]
    where = as_type(torch.where(where < 0, where + size, where), torch.int64)
    return torch.scatter(x, axis, where, updates)


def _one_hot(call: Call) -> Result:
    where, depth = call.tensor(0), int(call.sizes(1)[0])
    off, on = (float(value) for value in call.host(2).reshape(-1))
    axis = axis_of(call.attribute("axis", -1), where.dim() + 1)
    where = torch.where(where < 0, where + depth, where).unsqueeze(axis)
    shape = [1] * where.dim()
    shape[axis] = depth
    check_elements(shape)
    classes = call.derived("classes", lambda: np.arange(depth).reshape(shape))
    return torch.where(where == classes, on, off)


GATHERING: dict[str, Callable[[Call], Result]] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "OneHot": _one_hot,
}
