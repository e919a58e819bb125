"""Recurrent operators cross torch.export in one piece.

To know the shape of an LSTM's output torch.export runs its steps one by one over fake tensors: 500
steps take 40 s. The shapes are plain, so an operator of our own that only knows them stands in for
torch's during the export, and torch's is put back in the graph.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mpsearch.errors import InputError

NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_OPTIONS = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, "
    "bool bidirectional, bool batch_first"
)


@functools.cache
def _stand_ins() -> tuple[torch.library.Library, dict[Any, Any]]:
    """(the library of the stand-ins, torch's functions and operators -> their stand-ins)."""
    library = torch.library.Library("mpsearch", "FRAGMENT")
    found: dict[Any, Any] = {}
    for name in NAMES:
        state, results = ("Tensor[]", 3) if name == "lstm" else ("Tensor", 2)
        returned = ", ".join(["Tensor"] * results)
        library.define(f"{name}(Tensor input, {state} hx, {_OPTIONS}) -> ({returned})")
        torch.library.register_fake(f"mpsearch::{name}", _shapes, lib=library)
        stand_in = getattr(torch.ops.mpsearch, name).default
        found[getattr(torch, name)] = stand_in
        found[getattr(torch.ops.aten, name).input] = stand_in
    return library, found


def _shapes(
    input: torch.Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    states = hx if isinstance(hx, list | tuple) else [hx]
    features = states[0].shape[2] * (2 if bidirectional else 1)
    output = input.new_empty((*input.shape[:2], features))
    return (output, *(state.new_empty(state.shape) for state in states))


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") == "_pack_padded_sequence":
            raise InputError(
                "the model runs a recurrent layer over packed sequences; expected sequences of one "
                "length, padded"
            )
        return _stand_ins()[1].get(func, func)(*args, **(kwargs or {}))


@contextmanager
def in_one_piece() -> Iterator[None]:
    """While it is open, recurrent operators are exported as stand-ins."""
    with _Mode():
        yield


def torchs_own(target: Any) -> Any:
    """torch's operator for a stand-in; any other target as it is."""
    for name in NAMES:
        if str(target) == f"mpsearch.{name}.default":
            return getattr(torch.ops.aten, name).input
    return target
