"""A bundled TinyM²Net as a `.keras` or `.h5` file."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from mpsearch.errors import InputError
from mpsearch.files.writing import atomic_path
from mpsearch.models.registry import build
from mpsearch.models.tinym2net import TinyM2Net, parameter_count
from mpsearch.models.tinym2net_keras import tinym2net_keras

SUFFIXES = (".keras", ".h5")


def write_keras(
    reference: str,
    path: str | os.PathLike[str],
    weights: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
    source: str = "",
) -> int:
    """Write the network `NAME[:MODALITY]`; the number of its parameters, all statistics counted.

    `weights`: the tensors of a trained network of the same architecture by name; fresh ones from
    `seed` otherwise. `source`: what to call the weights in an error. Written atomically. Raises
    InputError for another network or weights of another one.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"got {path}; expected a file that ends in {' or '.join(SUFFIXES)}")
    if weights is None:
        module = build(reference, seed=seed)
        weights = module.state_dict()
    else:
        output = weights.get("head.output.bias")
        classes = len(output) if output is not None and output.dim() else None
        module = build(reference, classes=classes)
    if not isinstance(module, TinyM2Net):
        raise InputError(f"got {reference}; expected tinym2net-battlefield or tinym2net-covid")
    try:
        model = tinym2net_keras(module.config, weights)
    except InputError as error:
        raise InputError(*error.lines_after(f"{source or reference}: ")) from error
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(temporary)
    return parameter_count(module)
