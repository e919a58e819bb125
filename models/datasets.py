"""Datasets by name: `generated-battlefield`, the real ones where MPSEARCH_DATA is set, folders.

A built dataset on disk: one .npz per split, samples.csv and dataset.json, written at once.
"""

import contextlib
import csv
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch.errors import InputError, did_you_mean, install_extra
from mpsearch.files.archives import read_npz
from mpsearch.files.json_file import by_name, check_form, flag, list_of, read_document, text
from mpsearch.files.whole import digest, like_file, read_rows
from mpsearch.models import real_data
from mpsearch.models.dataset_checks import Leak, Source, equal_samples, leaks
from mpsearch.models.generated import generated_battlefield
from mpsearch.models.samples import SPLITS, Dataset, Split
from mpsearch.running.streams import json_text

FORMAT, VERSION = "mpsearch.dataset", 1
LARGEST_MIB = 16
DESCRIPTION, SAMPLES = "dataset.json", "samples.csv"
OWN_FILES = {DESCRIPTION, SAMPLES, *(f"{split}.npz" for split in SPLITS)}
COLUMNS = ("split", "row", "label", "input", "file", "start_s", "group", "content")


def is_dataset_folder(path: str | os.PathLike[str]) -> bool:
    """Whether `mpsearch data build` made this folder."""
    return (Path(path) / DESCRIPTION).is_file()


def write_folder(
    folder: str | os.PathLike[str],
    dataset: Dataset,
    sources: Mapping[str, Sequence[Sequence[Source]]],
    description: Mapping[str, Any],
) -> Dataset:
    """Write the folder in one step, in place of one that an earlier build made.

    `sources[split][row]` says where each input of a sample comes from. Gives the dataset with the
    digest under which it is loaded. Raises InputError for a folder that holds other files, which
    would be lost, and OSError as the system gives it.
    """
    target = check_target(folder)
    files = {f"{name}.npz": _npz(split.arrays()) for name, split in dataset.splits.items()}
    key = digest(*(part for name, content in files.items() for part in (name, content)))
    document = {
        "format": FORMAT,
        "version": VERSION,
        "name": dataset.name,
        "source": dataset.source,
        "generated": dataset.generated,
        "classes": list(dataset.classes),
        "splits": {
            name: {
                "samples": len(split),
                "per_class": np.bincount(split.labels, minlength=len(dataset.classes)).tolist(),
                "digest": digest(files[f"{name}.npz"]),
            }
            for name, split in dataset.splits.items()
        },
        "digest": key,
        **description,
    }
    files[SAMPLES] = _table(dataset, sources).encode()
    files[DESCRIPTION] = (json_text(document, indent=2) + "\n").encode()
    _replace(target, files)
    return load_folder(target)


def check_target(folder: str | os.PathLike[str]) -> Path:
    """The folder to write; InputError where something would be lost or nothing can be written."""
    target = Path(folder)
    if not target.absolute().parent.is_dir():
        raise InputError(f"cannot write {folder}: its folder does not exist")
    if target.exists() and not target.is_dir():
        raise InputError(f"cannot write {folder}: it is a file; expected a folder's name")
    if target.is_symlink():
        raise InputError(f"cannot write {folder}: it is a link; name the folder itself")
    if target.resolve() == Path.cwd():
        raise InputError(f"cannot write {folder}: it is the working directory; name a folder in it")
    held = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if held - OWN_FILES or (held and DESCRIPTION not in held):
        other = min(held - OWN_FILES or held)
        raise InputError(
            f"cannot write {folder}: it holds other files ({other}); name a new folder"
        )
    return target


def load_folder(folder: str | os.PathLike[str]) -> Dataset:
    """The dataset in a folder that `mpsearch data build` made.

    Raises InputError for a folder without dataset.json, and for arrays that are damaged or are not
    those that the build wrote.
    """
    path = Path(folder)
    document = _description(path)
    splits: dict[str, Split] = {}
    contents: list[str | bytes] = []
    inputs = [entry["name"] for entry in document["inputs"]]
    for name, entry in document["splits"].items():
        if name not in SPLITS:
            raise InputError(f"{path / DESCRIPTION} has a split {name!a}; expected {SPLITS}")
        content = _read(path / f"{name}.npz")
        if digest(content) != entry["digest"]:
            raise InputError(
                f"{path / name}.npz is not the file that the build wrote; build it again"
            )
        arrays = _arrays(path / f"{name}.npz", content)
        if set(arrays) != {*(f"x{index}" for index in range(len(inputs))), "y"}:
            raise InputError(f"{path / name}.npz does not hold the inputs of {DESCRIPTION}")
        labels = arrays["y"]
        if (
            labels.ndim != 1
            or labels.dtype.kind not in "iu"
            or ((labels < 0) | (labels >= len(document["classes"]))).any()
            or any(array.shape[:1] != labels.shape for array in arrays.values())
        ):
            raise InputError(f"{path / name}.npz: its labels are not those of {DESCRIPTION}")
        splits[name] = Split(
            tuple(arrays[f"x{index}"] for index in range(len(inputs))), arrays["y"]
        )
        contents += [f"{name}.npz", content]
    return Dataset(
        name=document["name"],
        input_names=tuple(inputs),
        classes=tuple(document["classes"]),
        splits=splits,
        generated=document["generated"],
        source=document["source"],
        digest=digest(*contents),
    )


def check_folder(folder: str | os.PathLike[str]) -> list[Leak]:
    """What is in two splits; by samples.csv, or without it by equal arrays alone.

    So a folder of train.npz, val.npz and test.npz from elsewhere can be checked too.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"there is no folder {folder}")
    if is_dataset_folder(path):
        load_folder(path)  # says so where an array file is damaged or another's
    if (path / SAMPLES).is_file():
        return leaks(_sources(path / SAMPLES))
    found = {
        split: _arrays(path / f"{split}.npz", _read(path / f"{split}.npz"))
        for split in SPLITS
        if (path / f"{split}.npz").is_file()
    }
    if len(found) < 2:
        raise InputError(
            f"{folder} has no {SAMPLES} and not two of train.npz, val.npz, test.npz to compare; "
            "expected a folder made by mpsearch data build"
        )
    return equal_samples(found)


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InputError(
            f"{folder} is no dataset: it has no {DESCRIPTION}; "
            f"make one with: mpsearch data build data.toml -o {folder}"
        )
    document = read_document(path, DESCRIPTION, FORMAT, VERSION, LARGEST_MIB, "")
    try:
        check_form(document, _FORM, "")
    except ValueError as error:
        raise InputError(f"{path} is not complete: {error}") from None
    return document


_FORM = {
    **dict.fromkeys(("name", "source"), text),
    "generated": flag,
    "classes": list_of(text),
    "inputs": list_of({"name": text}),
    "splits": by_name({"digest": text}),
}


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _arrays(path: Path, content: bytes) -> dict[str, np.ndarray]:
    return read_npz(content, str(path))


def _table(dataset: Dataset, sources: Mapping[str, Sequence[Sequence[Source]]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for split, rows in sources.items():
        labels = dataset.splits[split].labels
        for row, inputs in enumerate(rows):
            for its in inputs:
                start = "" if its.start is None else f"{its.start:g}"
                label = dataset.classes[labels[row]]
                writer.writerow(
                    (split, row, label, its.input, its.file, start, its.group, its.content)
                )
    return buffer.getvalue()


def _sources(path: Path) -> list[Source]:
    rows = read_rows(path, ("split", "input", "file", "start_s", "group", "content"))
    for row in rows:
        if row["split"] not in SPLITS:
            raise InputError(f"{path} has the split {row['split'][:60]!a}; expected {SPLITS}")
    try:
        return [
            Source(
                split=row["split"],
                input=row["input"],
                file=row["file"],
                start=float(row["start_s"]) if row["start_s"] else None,
                group=row["group"],
                content=row["content"],
            )
            for row in rows
        ]
    except ValueError as error:
        raise InputError(f"{path} is not as the build wrote it: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}{like_file(path)}") from None


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
    """Fill a new folder beside the target, then put it in its place."""
    target = target.absolute()
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, content in files.items():
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        fresh.chmod(0o777 & ~mask)  # mkdtemp makes private folders
        if not target.exists():
            fresh.rename(target)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        target.replace(old)  # a folder may take the place of an empty one
        try:
            fresh.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(fresh)
        raise


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
            f"unknown dataset {name!r}{did_you_mean(name, DATASETS)}; "
            f"known: {', '.join(DATASETS)}, "
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
        return f"needs {', '.join(missing)}: {install_extra('audio')}"
    if source.folder is not None:
        try:
            real_data.data_folder(source.folder)
        except InputError as error:
            return str(error)
    return None
