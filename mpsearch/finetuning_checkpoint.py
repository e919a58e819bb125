"""The state of a fine-tuning run between two epochs, kept on disk: safetensors, nothing pickled.

As with the journal of a profile, the file's name holds a digest of everything that the result
depends on: a changed model, data set or setting gets a file of its own.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mpsearch.errors import InputError
from mpsearch.files import digest, hidden_path, open_own, write_atomic
from mpsearch.oscillations import Oscillations

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # Adam's, per parameter
_OSCILLATIONS = tuple(field.name for field in fields(Oscillations))  # per layer


@dataclass(frozen=True)
class State:
    """Parameters, Adam's moments and the best parameters, each by name, oscillations, the history.

    `best_parameters` is empty while the start is the best. `oscillations` are by layer name, empty
    where none are followed. A history row has the fields of `Epoch`.
    """

    parameters: Mapping[str, torch.Tensor]
    moments: Mapping[str, Mapping[str, torch.Tensor]]
    best_parameters: Mapping[str, torch.Tensor]
    oscillations: Mapping[str, Oscillations]
    history: Sequence[Sequence[Any]]


def checkpoint_path(output: str | os.PathLike[str], run_digest: str) -> Path:
    """`quantized.pt` -> `.quantized.pt.0123456789abcdef.checkpoint` beside it."""
    return hidden_path(output, run_digest, "checkpoint")


def save_state(state: State, path: Path) -> None:
    """Write the state in one step; the one before stays until it is on the disk."""
    tensors = {f"parameter {name}": value for name, value in state.parameters.items()}
    tensors |= {f"best {name}": value for name, value in state.best_parameters.items()}
    for name, moments in state.moments.items():
        tensors |= {f"{moment} {name}": moments[moment] for moment in _MOMENTS}
    for name, layer in state.oscillations.items():
        tensors |= {f"{part} {name}": getattr(layer, part) for part in _OSCILLATIONS}
    whole = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    history = json.dumps(state.history)
    if os.path.lexists(path):
        open_own(path).close()
    write_atomic(path, save(whole, {"history": history, "digest": _digest(whole, history)}))


def _digest(tensors: Mapping[str, torch.Tensor], history: str) -> str:
    parts: list[str | bytes] = [history]
    for name in sorted(tensors):
        parts += [f"{name} {tuple(tensors[name].shape)}", tensors[name].numpy().tobytes()]
    return digest(*parts)


def load_state(path: Path) -> State | None:
    """What `save_state` wrote; None when there is no file. Raises InputError for any other."""
    if not os.path.lexists(path):
        return None
    open_own(path).close()
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = file.metadata() or {}
        if told["digest"] != _digest(tensors, told["history"]):
            raise ValueError("it is not as mpsearch wrote it")
        history = json.loads(told["history"])
        names = [n.partition(" ")[2] for n in tensors if n.startswith("parameter ")]
        followed = [n.partition(" ")[2] for n in tensors if n.startswith("frozen ")]
        parameters = {name: tensors[f"parameter {name}"] for name in names}
        return State(
            parameters,
            {name: {m: tensors[f"{m} {name}"] for m in _MOMENTS} for name in names},
            {n.partition(" ")[2]: t for n, t in tensors.items() if n.startswith("best ")},
            {n: Oscillations(*(tensors[f"{p} {n}"] for p in _OSCILLATIONS)) for n in followed},
            [tuple(row) for row in history],
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); delete it to begin anew") from None
