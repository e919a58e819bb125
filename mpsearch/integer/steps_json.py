"""Steps as JSON without their numbers: kinds, shapes and places, which is all that planning reads.

Arrays, factors and weights keep their shapes; read again they are zeros. Which tensors a step reads
and writes is said by the caller, for these have other names and bits in every assignment.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from mpsearch.integer import (
    arithmetic,
    beside,
    comparing,
    functions,
    gathering,
    graph,
    log_softmax,
    norms,
    products,
    resizing,
)
from mpsearch.integer.fixed_point import Rescale
from mpsearch.integer.graph import ComputedStep, IntegerTensor, Scaling, Step, Weights

_MODULES = (
    graph, arithmetic, beside, comparing, functions, gathering, log_softmax, norms, products,
    resizing,
)  # fmt: skip
KINDS: Mapping[str, type[Step]] = {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Step) and kind not in (Step, ComputedStep)
}


def step_to_json(step: Step) -> dict[str, Any]:
    """Its kind and all fields but the tensors' names: {"kind": "MaxPool", "kernel": [2, 2], …}."""
    return {
        "kind": type(step).__name__,
        **{
            field.name: _encoded(getattr(step, field.name))
            for field in fields(step)
            if field.name not in ("sources", "output")
        },
    }


def step_from_json(
    document: Mapping[str, Any],
    sources: tuple[str, ...],
    output: IntegerTensor,
    w_bits: Mapping[str, int],
) -> Step:
    """The step on these tensors; `w_bits` are those of the layers. Raises LookupError, TypeError or
    ValueError for a document that `step_to_json` did not write."""
    given = {name: _decoded(value, w_bits) for name, value in document.items() if name != "kind"}
    return KINDS[document["kind"]](sources=sources, output=output, **given)


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": list(value.shape), "dtype": value.dtype.name}
    if isinstance(value, Rescale):
        return {"factors": len(value.multipliers)}
    if isinstance(value, Scaling):
        return {"scaled": list(value.rescale.multipliers.shape)}
    if isinstance(value, Weights):
        return {"layer": value.layer, "codes": list(value.codes.shape)}
    if isinstance(value, tuple | list):
        return [_encoded(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _decoded(value: Any, w_bits: Mapping[str, int]) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(entry, w_bits) for entry in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return _zeros(value["array"], value["dtype"])
    if "factors" in value:
        return Rescale(_zeros([value["factors"]], "int32"), _zeros([value["factors"]], "int8"))
    if "scaled" in value:
        factors = _zeros(value["scaled"], "int32"), _zeros(value["scaled"], "int8")
        return Scaling(0, Rescale(*factors), 0, 0)
    name, shape = value["layer"], value["codes"]
    bias = _zeros(shape[:1], "int32")
    return Weights(name, w_bits[name], _zeros(shape, "int16"), bias, zero_point=0, bound=0)


def _zeros(shape: list[int], dtype: str) -> np.ndarray:
    """As many zeros, which take no memory."""
    return np.broadcast_to(np.zeros((), dtype=dtype), tuple(shape))
