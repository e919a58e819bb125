"""The bundled networks by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mpsearch.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]  # (channels, height, width)


@dataclass(frozen=True)
class Architecture:
    """A network: `make(inputs, classes)` builds it; `inputs` by name, (channels, height, width)."""

    make: "Callable[[Mapping[str, Shape], int], nn.Module]"
    inputs: dict[str, Shape]
    classes: int
    dataset: str
    reference: str
    description: str


TINYM2NET = 'Rashid et al., "TinyM²Net", tinyML 2022, arXiv 2202.04303'


def _tinym2net(preset: str) -> "Callable[[Mapping[str, Shape], int], nn.Module]":
    def make(inputs: Mapping[str, Shape], classes: int) -> "nn.Module":
        from mpsearch.models import tinym2net

        config: tinym2net.TinyM2NetConfig = getattr(tinym2net, preset).only(*inputs)
        modalities = []
        for one in config.modalities:
            channels, height, width = inputs[one.name]
            modalities.append(replace(one, shape=(channels, height, width)))
        config = replace(config, modalities=tuple(modalities), classes=classes)
        return tinym2net.TinyM2Net(config)

    return make


def _resnet20(inputs: Mapping[str, Shape], classes: int) -> "nn.Module":
    from mpsearch.models.resnets import resnet20

    return resnet20(classes, inputs["image"][0])


def _resnet8(inputs: Mapping[str, Shape], classes: int) -> "nn.Module":
    from mpsearch.models.resnets import ResNet8

    return ResNet8(classes, inputs["image"][0])


ARCHITECTURES = {
    "tinym2net-battlefield": Architecture(
        _tinym2net("BATTLEFIELD"),
        {"audio": (1, 44, 13), "image": (3, 32, 32)},
        4,
        "generated-battlefield",
        TINYM2NET,
        "one second of sound (MFCC) and an image; unimodal: :audio, :image",
    ),
    "tinym2net-covid": Architecture(
        _tinym2net("COVID"),
        {"cough": (1, 203, 20), "speech": (1, 333, 13)},
        2,
        "cough-speech",
        TINYM2NET,
        "two seconds of cough and of speech (MFCC); unimodal: :cough, :speech",
    ),
    "resnet20": Architecture(
        _resnet20,
        {"image": (3, 32, 32)},
        10,
        "cifar10",
        'He et al., "Deep Residual Learning", CVPR 2016',
        "CIFAR ResNet-20 with option-A shortcuts",
    ),
    "resnet8": Architecture(
        _resnet8,
        {"image": (3, 32, 32)},
        10,
        "cifar10-raw",
        'Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021',
        "MLPerf Tiny image classification, Keras's padding",
    ),
}


def architecture(reference: str) -> Architecture:
    """The architecture `NAME`, or `NAME:MODALITY[,MODALITY]` reduced to those inputs.

    Raises InputError for an unknown name or modality, listing the known ones.
    """
    name, _, chosen = reference.partition(":")
    if name not in ARCHITECTURES:
        close = did_you_mean(name, ARCHITECTURES)
        raise InputError(f"unknown network {name!r}{close}; known: {', '.join(ARCHITECTURES)}")
    found = ARCHITECTURES[name]
    if not chosen:
        return found
    names = chosen.split(",")
    for modality in names:
        if modality not in found.inputs:
            close = did_you_mean(modality, found.inputs)
            there = ", ".join(found.inputs)
            raise InputError(f"{name} has no input {modality!r}{close}; it has {there}")
    inputs = {key: shape for key, shape in found.inputs.items() if key in names}
    return Architecture(
        found.make, inputs, found.classes, found.dataset, found.reference, found.description
    )


def build(
    reference: str,
    *,
    seed: int = 0,
    classes: int | None = None,
    shapes: Mapping[str, Shape] | None = None,
) -> "nn.Module":
    """The network `NAME[:MODALITY]`, fresh weights from `seed`; torch's state stays as it was.

    With `classes` the last layer has that many outputs instead of the paper's; `shapes` gives
    inputs another (channels, height, width) than `mpsearch models` lists, for example
    `{"image": (1, 48, 48)}`. Raises InputError for fewer than two classes, and for a shape of
    which pooling leaves nothing.
    """
    found = architecture(reference)
    outputs = found.classes if classes is None else classes
    if outputs < 2:
        raise InputError(f"got {outputs} classes for {reference}; expected at least 2")
    inputs = {**found.inputs, **(shapes or {})}
    for name, shape in inputs.items():
        if name not in found.inputs:
            raise InputError(f"{reference} has no input {name!r}; it has {', '.join(found.inputs)}")
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(
                f"got the shape {tuple(shape)} for {name}; expected (channels, height, width)"
            )
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return found.make(inputs, outputs)
