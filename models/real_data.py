"""The real datasets that the folder named by MPSEARCH_DATA holds; its READMEs say what they are."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from mpsearch.errors import InputError
from mpsearch.files.archives import read_npz
from mpsearch.files.whole import Rows, digest, read_rows
from mpsearch.models.features import (
    BATTLEFIELD_AUDIO,
    COVID_COUGH,
    COVID_SPEECH,
    RECIPE,
    MfccSettings,
    Normalisation,
    cached,
    mfcc,
    read_image,
    read_sound,
    window,
)
from mpsearch.models.samples import Dataset, Split

FOLDS = 5
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def data_folder(name: str) -> Path:
    """The folder of a real dataset; an InputError says how to set MPSEARCH_DATA where it is not."""
    root = os.environ.get("MPSEARCH_DATA")
    if not root:
        raise InputError(
            f"the dataset {name} is read from the folder that MPSEARCH_DATA names, which is not "
            f"set; set it: export MPSEARCH_DATA=FOLDER (with {name}/ in it)"
        )
    folder = Path(root) / name
    if not folder.is_dir():
        raise InputError(f"the dataset {name} is not there: MPSEARCH_DATA={root} has no {name}/")
    return folder


def image_audio() -> Dataset:
    """CIFAR-10 images paired by class with ESC-10 sounds: `audio` 1x44x13 and `image` 3x32x32."""
    folder = data_folder("image-audio")
    rows = _rows(folder / "pairs.csv", ("image", "audio", "label", "label_name", "split"))
    key = _digest_of(folder, "pairs.csv", _files(rows, "image", "audio"), BATTLEFIELD_AUDIO)

    def build() -> dict[str, np.ndarray]:
        return {
            "audio": _mfcc_of(folder, [(row["audio"], 0.0) for row in rows], BATTLEFIELD_AUDIO),
            "image": np.stack([read_image(folder / row["image"]) for row in rows]),
        }

    raw = cached("image-audio", key, build)
    labels, classes = _labels(rows, folder)
    return _assemble(
        "image-audio",
        {
            "audio": (raw["audio"], Normalisation.of_mfcc),
            "image": (raw["image"], Normalisation.of_images),
        },
        labels,
        classes,
        np.array([row["split"] for row in rows]),
        "CIFAR-10 images and ESC-10 sounds (CC BY 3.0), paired by class",
        key,
    )


def cough_speech(fold: int | None = None) -> Dataset:
    """Two seconds of cough (1x203x20) and of speech (1x333x13) of one person; calm or effort.

    The folder's own split, or with `fold` k in 0..4: test is fold k, val is fold k+1 (of 0 after
    4), train is the rest. Nobody is in two splits either way.
    """
    if fold is not None and not 0 <= fold < FOLDS:
        raise InputError(f"got fold {fold}; cough-speech has the folds 0 to {FOLDS - 1}")
    folder = data_folder("cough-speech")
    columns = ("cough_file", "cough_start_s", "speech_file", "speech_start_s")
    rows = _rows(folder / "pairs.csv", (*columns, "label", "label_name", "split", "fold"))
    settings = {"cough": COVID_COUGH, "speech": COVID_SPEECH}
    files = _files(rows, "cough_file", "speech_file")
    key = _digest_of(folder, "pairs.csv", files, *settings.values())

    def build() -> dict[str, np.ndarray]:
        return {
            name: _mfcc_of(
                folder, [(row[f"{name}_file"], float(row[f"{name}_start_s"])) for row in rows], its
            )
            for name, its in settings.items()
        }

    raw = cached("cough-speech", key, build)
    labels, classes = _labels(rows, folder)
    splits = np.array([row["split"] for row in rows])
    if fold is not None:
        folds = np.array([int(row["fold"]) for row in rows])
        splits = np.where(folds == (fold + 1) % FOLDS, "val", "train")
        splits[folds == fold] = "test"
    return _assemble(
        "cough-speech",
        {name: (raw[name], Normalisation.of_mfcc) for name in settings},
        labels,
        classes,
        splits,
        "Coswara 2020-04-13, LEAP Lab, Indian Institute of Science (CC BY 4.0)",
        digest(key, f"fold {fold}"),
    )


def cifar10(raw: bool = False) -> Dataset:
    """CIFAR-10, 5,000 training and 1,000 test images, 3x32x32.

    Normalised as ResNet-20 was trained, or with `raw` as 0..255, which ResNet-8 takes.
    """
    folder = data_folder("cifar10")
    mean = np.array(CIFAR_MEAN, np.float32).reshape(1, 3, 1, 1)
    std = np.array(CIFAR_STD, np.float32).reshape(1, 3, 1, 1)
    splits: dict[str, Split] = {}
    classes: tuple[str, ...] = ()
    sources: list[bytes] = []
    for name, file in (("train", "cifar10_train5000.npz"), ("test", "cifar10_test1000.npz")):
        content = _read(folder / file)
        arrays = read_npz(content, str(folder / file), kinds="fiubU")
        try:
            images, labels = arrays["images"], arrays["labels"].astype(np.int64)
            classes = tuple(str(label) for label in arrays["classes"])
        except (KeyError, ValueError) as error:
            raise InputError(f"cannot read {folder / file}: {error}") from None
        x = images.transpose(0, 3, 1, 2).astype(np.float32)
        splits[name] = Split((np.ascontiguousarray(x if raw else (x / 255 - mean) / std),), labels)
        sources.append(content)
    return Dataset(
        name="cifar10-raw" if raw else "cifar10",
        input_names=("image",),
        classes=classes,
        splits=splits,
        generated=False,
        source="CIFAR-10 (A. Krizhevsky, 2009)",
        digest=digest(*sources, f"raw {raw}"),
    )


def _assemble(
    name: str,
    inputs: Mapping[str, tuple[np.ndarray, Callable[[np.ndarray], Normalisation]]],
    labels: np.ndarray,
    classes: tuple[str, ...],
    split_of: np.ndarray,
    source: str,
    key: str,
) -> Dataset:
    """Normalise by what `train` shows and cut into splits."""
    train = split_of == "train"
    if not train.any():
        raise InputError(f"the dataset {name} has no training samples")
    normalised = [fit(array[train])(array) for array, fit in inputs.values()]
    splits = {
        split: Split(tuple(x[split_of == split] for x in normalised), labels[split_of == split])
        for split in ("train", "val", "test")
        if (split_of == split).any()
    }
    return Dataset(name, tuple(inputs), classes, splits, generated=False, source=source, digest=key)


def _mfcc_of(folder: Path, windows: list[tuple[str, float]], settings: MfccSettings) -> np.ndarray:
    """MFCC of (file, start in seconds) windows; what several pairs share is computed once."""
    distinct = {place: index for index, place in enumerate(dict.fromkeys(windows))}
    sounds: dict[str, np.ndarray] = {}
    cut = []
    for file, start in distinct:
        if file not in sounds:
            sounds[file] = read_sound(folder / file, settings.rate)
        try:
            cut.append(window(sounds[file], settings, start))
        except InputError as error:
            raise InputError(*error.lines_after(f"{folder / file}: ")) from None
    return mfcc(np.stack(cut), settings)[[distinct[place] for place in windows]]


def _labels(rows: Rows, folder: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels `[N]` and class names, which must number the classes 0, 1, 2, ..."""
    names = {row["label"]: row["label_name"] for row in rows}
    known = [str(index) for index in range(len(names))]
    if sorted(names) != sorted(known):
        raise InputError(f"{folder / 'pairs.csv'}: labels are {sorted(names)}, expected {known}")
    return np.array([int(row["label"]) for row in rows]), tuple(names[label] for label in known)


def _rows(path: Path, columns: Iterable[str]) -> Rows:
    rows = read_rows(path, columns)
    if not rows:
        raise InputError(f"{path} has no rows")
    for column in columns:
        if any(not row[column] for row in rows):
            raise InputError(f"{path}: the column {column} has empty cells")
    return rows


def _files(rows: Rows, *columns: str) -> list[str]:
    return sorted({row[column] for row in rows for column in columns})


def _digest_of(folder: Path, table: str, files: list[str], *settings: object) -> str:
    """Changes with any byte of the sources and with any setting."""
    contents = (_read(folder / file) for file in files)
    return digest(_read(folder / table), *map(repr, (RECIPE, *settings)), *files, *contents)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
