"""The networks of the ranking benchmark, with the samples to profile on and those to measure on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mpsearch.commands.train import dataset_for
from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.files.whole import digest
from mpsearch.graph import network_file
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.models.registry import build
from mpsearch.models.training import train

EPOCHS = 12  # as `mpsearch train` has it


@dataclass(frozen=True)
class Subject:
    """`profiling` are training samples, which metrics and calibration see; `unseen` are test
    samples."""

    name: str
    network: Network
    profiling: Data
    unseen: Data


@dataclass(frozen=True)
class Source:
    """A bundled network: its data set, and its published weights below MPSEARCH_DATA.

    Without weights it is trained once and kept in the cache.
    """

    dataset: str
    weights: str | None = None


SOURCES: Mapping[str, Source] = {
    "tinym2net-battlefield": Source("image-audio"),
    "resnet20": Source("cifar10", "pretrained/resnet20.safetensors"),
    "resnet8": Source("cifar10-raw", "pretrained/resnet8_from_h5.safetensors"),
}


def load_subject(name: str, cache: Path, samples: int, seed: int, trained_with: int = 0) -> Subject:
    """The named network with `samples` training samples, drawn by `seed`, and its test split.

    trained_with: the seed of a network that is trained here. Raises InputError for an unknown name
    and for data that are not there.
    """
    if name not in SOURCES:
        raise InputError(f"unknown network {name!r}; expected one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if source.weights is None:
        network = _trained(name, source.dataset, cache, trained_with)
    else:
        path = Path(os.environ.get("MPSEARCH_DATA", ""), source.weights)
        network = load_network(ModelSource(str(path), model=name)).network
    profiling = bind(read_arrays(f"{source.dataset}:train"), network).take(samples, seed)
    return Subject(name, network, profiling, bind(read_arrays(f"{source.dataset}:test"), network))


def _trained(name: str, dataset: str, cache: Path, seed: int) -> Network:
    """Train with the settings of `mpsearch train NAME --data DATASET`, or read the cached file."""
    data = dataset_for(name, dataset)
    key = digest(data.digest, f"epochs {EPOCHS} seed {seed}").removeprefix("sha256:")[:16]
    path = cache / f"{name}-{dataset}-{key}.pt"
    if not path.exists():
        model = train(build(name), data, epochs=EPOCHS, seed=seed).model
        examples = tuple(torch.from_numpy(x[:2]) for x in data.split("train").inputs)
        network_file.save(model, path, example_inputs=examples)
    return network_file.load(path).network
