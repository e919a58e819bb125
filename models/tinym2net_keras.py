"""TinyM²Net as a Keras model, with the weights of a trained torch network where there are any.

Branches are models of their own, named like the modality, so that layers have the same names as in
`tinym2net.py`: `audio/conv1`, `image/sep2`, `head/output`. Inputs have channels last: (44, 13, 1).

A bundled TinyM²Net as a `.keras` or `.h5` file.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.files.whole import atomic_path
from mpsearch.models.registry import build
from mpsearch.models.tinym2net import (
    Convolution,
    Modality,
    TinyM2Net,
    TinyM2NetConfig,
    flattened_size,
    parameter_count,
)
from mpsearch.running.plugins import keras_package

# What torch's BatchNorm2d has: it counts the new value with 0.1 where Keras counts the old with 0.9
_EPSILON, _MOMENTUM = 1e-5, 0.9


def tinym2net_keras(
    config: TinyM2NetConfig, weights: Mapping[str, torch.Tensor] | None = None
) -> Any:
    """The `keras.Model` of a configuration; one input per modality, logits [N, classes].

    `weights`: tensors by the torch network's names (`audio.conv1.weight`), from `state_dict()` or
    an mpsearch file. Raises InputError for weights that are missing or do not fit, and
    MissingExtraError without Keras.
    """
    keras = keras_package("TinyM²Net as a Keras model")
    inputs = [
        keras.Input(_channels_last(modality), name=f"{modality.name}_input")
        for modality in config.modalities
    ]
    branches = [_branch(keras, modality, config.dropout) for modality in config.modalities]
    features = [branch(x) for branch, x in zip(branches, inputs, strict=True)]
    joined = keras.layers.Concatenate(name="join")(features) if len(inputs) > 1 else features[0]
    head = _head(keras, config)
    model = keras.Model(inputs, head(joined), name="tinym2net")
    if weights is not None:
        for modality, branch in zip(config.modalities, branches, strict=True):
            _fill(branch, modality.name, weights, modality)
        _fill(head, "head", weights, None)
    return model


def _channels_last(modality: Modality) -> tuple[int, int, int]:
    channels, height, width = modality.shape
    return height, width, channels


def _branch(keras: Any, modality: Modality, dropout: float) -> Any:
    layers = keras.layers
    branch = [keras.Input(_channels_last(modality), name=f"{modality.name}_branch")]
    for number, block in enumerate(modality.blocks, start=1):
        branch += _block(layers, block, number, dropout)
    branch += [
        layers.Flatten(name="flatten"),
        layers.Dense(modality.dense, activation="relu", name="dense"),
    ]
    return keras.Sequential(branch, name=modality.name)


def _block(layers: Any, block: Convolution, number: int, dropout: float) -> list[Any]:
    if block.separable:
        made = [
            layers.SeparableConv2D(block.filters, 3, padding=block.padding, name=f"sep{number}")
        ]
    else:
        made = [
            layers.Conv2D(block.filters, 3, padding=block.padding, name=f"conv{number}"),
            layers.BatchNormalization(epsilon=_EPSILON, momentum=_MOMENTUM, name=f"bn{number}"),
        ]
    made.append(layers.ReLU(name=f"relu{number}"))
    if block.pool > 1:
        made.append(layers.MaxPooling2D(block.pool, name=f"pool{number}"))
        made.append(layers.Dropout(dropout, name=f"dropout{number}"))
    return made


def _head(keras: Any, config: TinyM2NetConfig) -> Any:
    size = sum(modality.dense for modality in config.modalities)
    head = [keras.Input((size,), name="features")]
    for number, hidden in enumerate(config.hidden, start=1):
        head.append(keras.layers.Dense(hidden, activation="relu", name=f"dense{number}"))
    head.append(keras.layers.Dense(config.classes, name="output"))
    return keras.Sequential(head, name="head")


def _fill(
    part: Any, scope: str, weights: Mapping[str, torch.Tensor], modality: Modality | None
) -> None:
    for layer in part.layers:
        arrays = _arrays(f"{scope}.{layer.name}", type(layer).__name__, weights, modality)
        wanted = [tuple(variable.shape) for variable in layer.weights]
        if [array.shape for array in arrays] != wanted:
            raise InputError(
                f"the weights of {scope}.{layer.name} have the shapes "
                f"{[array.shape for array in arrays]} in Keras's order; expected {wanted}"
            )
        layer.set_weights(arrays)


def _arrays(
    name: str, kind: str, weights: Mapping[str, torch.Tensor], modality: Modality | None
) -> list[np.ndarray[Any, Any]]:
    """A layer's arrays in Keras's order of axes and of weights."""

    def of(key: str) -> torch.Tensor:
        if f"{name}.{key}" not in weights:
            raise InputError(
                f"no weight {name}.{key}; expected those of the torch network of this name"
            )
        return weights[f"{name}.{key}"].detach()

    match kind:
        case "Conv2D":
            tensors = [of("weight").permute(2, 3, 1, 0), of("bias")]
        case "SeparableConv2D":
            depthwise, pointwise = of("depthwise.weight"), of("pointwise.weight")
            tensors = [depthwise.permute(2, 3, 0, 1), pointwise.permute(2, 3, 1, 0)]
            tensors.append(of("pointwise.bias"))
        case "BatchNormalization":
            tensors = [of(key) for key in ("weight", "bias", "running_mean", "running_var")]
        case "Dense":
            kernel = of("weight")
            if modality is not None and kernel.shape[1] == flattened_size(modality):
                # torch flattens channel by channel, Keras place by place
                channels = modality.blocks[-1].filters
                kernel = kernel.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)
            tensors = [kernel.T, of("bias")]
        case _:
            tensors = []
    return [tensor.contiguous().cpu().numpy() for tensor in tensors]


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
