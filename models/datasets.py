"""Datasets by name: `generated-battlefield`, the real ones where MPSEARCH_DATA is set, folders."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.models import real_data
from mpsearch.models.dataset_folder import is_dataset_folder, load_folder
from mpsearch.models.generated import generated_battlefield
from mpsearch.models.samples import Dataset


@dataclass(frozen=True)
class DatasetSource:
    """How to load a dataset, and what it needs: a folder in MPSEARCH_DATA, the audio extra."""

    load: Callable[[], Dataset]
    inputs: tuple[str, ...]
    description: str
    folder: str | None = None
    packages: tuple[str, ...] = ()


AUDIO = ("librosa", "soundfile", "PIL")
DATASETS = {
    "generated-battlefield": DatasetSource(
        generated_battlefield,
        ("audio", "image"),
        "GENERATED images and sounds of four vehicles; the default of the demo",
        packages=("librosa",),
    ),
    "image-audio": DatasetSource(
        real_data.image_audio,
        ("audio", "image"),
        "CIFAR-10 images and ESC-10 sounds, four classes",
        folder="image-audio",
        packages=AUDIO,
    ),
    "cough-speech": DatasetSource(
        real_data.cough_speech,
        ("cough", "speech"),
        "Coswara coughs and speech, calm or effort, split by person",
        folder="cough-speech",
        packages=AUDIO,
    ),
    "cifar10": DatasetSource(
        real_data.cifar10,
        ("image",),
        "CIFAR-10 images, normalised for ResNet-20",
        folder="cifar10",
    ),
    "cifar10-raw": DatasetSource(
        lambda: real_data.cifar10(raw=True),
        ("image",),
        "CIFAR-10 images as 0..255, for ResNet-8",
        folder="cifar10",
    ),
}


def load_dataset(reference: str, *, fold: int | None = None) -> Dataset:
    """The dataset `NAME`, or with `NAME:SPLIT` that split of it alone.

    NAME is one of DATASETS, or else a folder that `mpsearch data build` made. `fold` (0..4) chooses
    a cross-validation fold of cough-speech. Raises InputError for an unknown name or split and for
    data that are not there.
    """
    name, _, split = reference.partition(":")
    if name not in DATASETS and not Path(name).is_dir():
        raise InputError(
            f"unknown dataset {name!r}; known: {', '.join(DATASETS)}, "
            "or a folder made by mpsearch data build"
        )
    if fold is not None and name != "cough-speech":
        raise InputError(f"the dataset {name} has no folds; cough-speech has")
    if name not in DATASETS:
        dataset = load_folder(name)
    elif fold is None:
        dataset = DATASETS[name].load()
    else:
        dataset = real_data.cough_speech(fold)
    return replace(dataset, splits={split: dataset.split(split)}) if split else dataset


def is_dataset(reference: str) -> bool:
    """Whether `reference` names a bundled dataset or a built folder, with or without a split."""
    name = reference.partition(":")[0]
    return name in DATASETS or is_dataset_folder(name)


def why_unavailable(name: str) -> str | None:
    """The reason why a dataset cannot be loaded here, or None; nothing is loaded to find out."""
    source = DATASETS[name]
    missing = [package for package in source.packages if find_spec(package) is None]
    if missing:
        return f"needs pip install 'mpsearch[audio]' ({', '.join(missing)})"
    if source.folder is not None:
        try:
            real_data.data_folder(source.folder)
        except InputError as error:
            return str(error)
    return None
