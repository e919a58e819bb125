"""A bundled TinyM²Net as a `.keras` or `.h5` file."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from mpsearch.errors import InputError
from mpsearch.files import atomic_path
from mpsearch.model_files import read_tensors
from mpsearch.models.registry import build
from mpsearch.models.tinym2net import TinyM2Net, parameter_count
from mpsearch.models.tinym2net_keras import tinym2net_keras

SUFFIXES = (".keras", ".h5")


def write_keras(
    reference: str, path: str | os.PathLike[str], weights: str | None = None, seed: int = 0
) -> int:
    """Write the network `NAME[:MODALITY]`; the number of its parameters, all statistics counted.

    `weights`: a trained mpsearch file or state dict of the same network; fresh ones from `seed`
    otherwise. Written atomically. Raises InputError for another network or weights of another one.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"got {path}; expected a file that ends in {' or '.join(SUFFIXES)}")
    if weights is None:
        module = build(reference, seed=seed)
        tensors: Mapping[str, torch.Tensor] = module.state_dict()
    else:
        tensors = read_tensors(weights)
        output = tensors.get("head.output.bias")
        classes = len(output) if output is not None and output.dim() else None
        module = build(reference, classes=classes)
    if not isinstance(module, TinyM2Net):
        raise InputError(f"got {reference}; expected tinym2net-battlefield or tinym2net-covid")
    try:
        model = tinym2net_keras(module.config, tensors)
    except InputError as error:
        raise InputError(*error.lines_after(f"{weights or reference}: ")) from error
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(temporary)
    return parameter_count(module)
