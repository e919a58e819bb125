"""TinyM²Net: one small convolutional branch per modality, concatenated, then a dense head.

Rashid, Ovi, Busart, Gangopadhyay, Mohsenin: "TinyM²Net: A Flexible System Algorithm Co-designed
Multimodal Learning Framework for Tiny Devices", tinyML Research Symposium 2022 (arXiv 2202.04303).
The first convolution of a branch is traditional and batch-normalised, the later ones are depthwise
separable. Everything that differs between the paper's two networks is in a configuration.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mpsearch.errors import InputError

Padding = Literal["same", "valid"]


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution of `filters` outputs, then ReLU; `pool` > 1: max pooling and dropout.

    `separable` replaces the traditional convolution with batch norm by a depthwise (without bias)
    and a pointwise one (with bias), as Keras's SeparableConv2D does.
    """

    filters: int
    padding: Padding
    separable: bool = False
    pool: int = 1


@dataclass(frozen=True)
class Modality:
    """One input, `shape` = (channels, height, width), for example (1, 44, 13), and its branch."""

    name: str
    shape: tuple[int, int, int]
    blocks: tuple[Convolution, ...]
    dense: int


@dataclass(frozen=True)
class TinyM2NetConfig:
    """The whole network: its modalities in input order, hidden sizes of the head, and classes."""

    modalities: tuple[Modality, ...]
    hidden: tuple[int, ...]
    classes: int
    dropout: float = 0.2

    def only(self, *names: str) -> "TinyM2NetConfig":
        """The same network with the named modalities alone; an unknown name is an InputError."""
        known = [modality.name for modality in self.modalities]
        for name in names:
            if name not in known:
                raise InputError(f"unknown modality {name!r}; this network has {', '.join(known)}")
        kept = tuple(modality for modality in self.modalities if modality.name in names)
        return TinyM2NetConfig(kept, self.hidden, self.classes, self.dropout)


BATTLEFIELD = TinyM2NetConfig(
    modalities=tuple(
        Modality(
            name,
            shape,
            blocks=(
                Convolution(64, "same"),
                Convolution(32, "same", separable=True, pool=2),
                Convolution(64, "same", separable=True, pool=2),
            ),
            dense=64,
        )
        for name, shape in (("audio", (1, 44, 13)), ("image", (3, 32, 32)))
    ),
    hidden=(64,),
    classes=4,
)

COVID = TinyM2NetConfig(
    modalities=(
        Modality(
            "cough",
            (1, 203, 20),
            blocks=(
                Convolution(16, "valid"),
                Convolution(32, "valid", separable=True, pool=3),
                Convolution(32, "valid", separable=True, pool=3),
            ),
            dense=32,
        ),
        Modality(
            "speech",
            (1, 333, 13),
            blocks=(
                Convolution(64, "same"),
                Convolution(32, "valid", separable=True, pool=2),
                Convolution(16, "valid", separable=True, pool=2),
            ),
            dense=32,
        ),
    ),
    hidden=(256, 128),
    classes=2,
)


class TinyM2Net(nn.Module):
    """The network of a configuration; one tensor per modality in, logits `[N, classes]` out.

    Layers are named by modality and kind: `audio.conv1`, `image.sep2.depthwise`,
    `image.sep2.pointwise`, `audio.dense`, `head.dense1`, `head.output`.
    """

    def __init__(self, config: TinyM2NetConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        for modality in config.modalities:
            self.add_module(modality.name, _branch(modality, config.dropout))
        head = nn.Sequential()
        size = sum(modality.dense for modality in config.modalities)
        for number, hidden in enumerate(config.hidden, start=1):
            head.add_module(f"dense{number}", nn.Linear(size, hidden))
            head.add_module(f"relu{number}", nn.ReLU())
            size = hidden
        head.add_module("output", nn.Linear(size, config.classes))
        self.head = head

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        features = [
            self.get_submodule(modality.name)(x)
            for modality, x in zip(self.config.modalities, inputs, strict=True)
        ]
        logits: torch.Tensor = self.head(torch.cat(features, dim=1))
        return logits


def flattened_size(modality: Modality) -> int:
    """Features that a branch gives to its dense layer, for example 4096 for the 32x32 image."""
    channels, height, width = modality.shape
    for block in modality.blocks:
        border = 0 if block.padding == "same" else 2
        height = (height - border) // block.pool
        width = (width - border) // block.pool
        if height < 1 or width < 1:
            return 0
        channels = block.filters
    return channels * height * width


def parameter_count(model: nn.Module) -> int:
    """Parameters and batch-norm statistics: the paper's (and Keras's) count."""
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    return statistics + sum(p.numel() for p in model.parameters())


def _check(config: TinyM2NetConfig) -> None:
    names = [modality.name for modality in config.modalities]
    for modality in config.modalities:
        name = modality.name
        # A modality's name becomes an attribute and the first part of its layers' names.
        if not name.isidentifier() or hasattr(nn.Module, name) or name in ("head", "config"):
            raise InputError(f"a modality cannot be named {name!r}")
        if names.count(name) > 1:
            raise InputError(f"there are two modalities named {name!r}")
        if flattened_size(modality) < 1:
            raise InputError(f"nothing is left of the input {name} {modality.shape} after pooling")
    if not names:
        raise InputError("a network needs at least one modality")


def _branch(modality: Modality, dropout: float) -> nn.Sequential:
    branch = nn.Sequential()
    channels = modality.shape[0]
    for number, block in enumerate(modality.blocks, start=1):
        if block.separable:
            branch.add_module(f"sep{number}", _separable(channels, block))
        else:
            branch.add_module(
                f"conv{number}", nn.Conv2d(channels, block.filters, 3, padding=_border(block))
            )
            branch.add_module(f"bn{number}", nn.BatchNorm2d(block.filters))
        branch.add_module(f"relu{number}", nn.ReLU())
        if block.pool > 1:
            branch.add_module(f"pool{number}", nn.MaxPool2d(block.pool))
            branch.add_module(f"dropout{number}", nn.Dropout(dropout))
        channels = block.filters
    branch.add_module("flatten", nn.Flatten())
    branch.add_module("dense", nn.Linear(flattened_size(modality), modality.dense))
    branch.add_module("dense_relu", nn.ReLU())
    return branch


def _separable(channels: int, block: Convolution) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module(
        "depthwise",
        nn.Conv2d(channels, channels, 3, padding=_border(block), groups=channels, bias=False),
    )
    layers.add_module("pointwise", nn.Conv2d(channels, block.filters, 1))
    return layers


def _border(block: Convolution) -> int:
    return 1 if block.padding == "same" else 0
