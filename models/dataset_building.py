"""From data.toml to a dataset: list, decode, pair, split, normalise, and look for leaks."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.models.clip_decoding import Decoded, decode
from mpsearch.models.dataset_checks import (
    Leak,
    Piece,
    Sample,
    Source,
    check_samples,
    deal,
    leaks,
    linked,
    list_unused,
    missing_classes,
    pair_by_class,
    pair_by_key,
)
from mpsearch.models.dataset_config import DatasetConfig, InputConfig
from mpsearch.models.features import Normalisation
from mpsearch.models.layouts import class_folders, compare_layout, coswara_layout, table_layout
from mpsearch.models.samples import SPLITS, Clip, Dataset, Listing, Skipped, Split, relative

# Given (the input, whether its splits are given), every layout lists labelled clips.
LAYOUTS: dict[str, Callable[[InputConfig, bool], Listing]] = {
    "folders": class_folders,
    "table": table_layout,
    "compare": compare_layout,
    "coswara": coswara_layout,
}


@dataclass(frozen=True)
class Built:
    """The dataset, where every sample comes from, what was passed over, and what leaks."""

    dataset: Dataset
    sources: Mapping[str, Sequence[Sequence[Source]]]  # by split, row and input
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    leaks: tuple[Leak, ...]
    description: Mapping[str, Any]  # what dataset.json says beside the dataset itself


def list_clips(config: DatasetConfig) -> dict[str, Listing]:
    """What is there of each input, before any file is decoded."""
    given = config.split_by == "given"
    return {its.name: LAYOUTS[its.layout](its, given) for its in config.inputs}


def file_count(listings: Mapping[str, Listing]) -> int:
    """How many files `build_dataset` will decode."""
    return sum(len({clip.path for clip in its.clips}) for its in listings.values())


def build_dataset(
    config: DatasetConfig,
    listings: Mapping[str, Listing],
    on_file: Callable[[], None] = lambda: None,
) -> Built:
    """Decode what `list_clips` found and make the dataset of it.

    A file that cannot be used is skipped with its reason and the rest goes on. Pictures and MFCC
    are normalised per channel and coefficient by the training samples. Raises InputError when
    nothing is left, there is one class only, or a class has no training samples.
    """
    skipped = [skip for its in listings.values() for skip in its.skipped]
    notes = [note for its in listings.values() for note in its.notes]
    pieces: dict[str, list[Piece]] = {}
    features: dict[str, np.ndarray] = {}
    for its in config.inputs:
        clips = _of_classes(its, listings[its.name].clips, config.classes, notes)
        pieces[its.name], features[its.name] = _decoded(its, clips, skipped, notes, on_file)
    samples, splits = _samples(config, pieces, notes)
    list_unused(config, pieces, samples, skipped)
    classes = config.classes or tuple(sorted({sample[0].label for sample in samples}))
    check_samples(config, samples, splits, classes, skipped)
    notes += missing_classes(config, samples, splits, classes)
    order = {
        split: [index for index, its in enumerate(splits) if its == split]
        for split in SPLITS
        if split in splits
    }
    labels = np.array([classes.index(sample[0].label) for sample in samples], np.int64)
    normalised, inputs = [], []
    for index, its in enumerate(config.inputs):
        rows = np.array([sample[index].row for sample in samples])
        array, scale = _normalised(its, features[its.name], rows, rows[order["train"]])
        normalised.append(array)
        inputs.append({"name": its.name, "kind": its.kind, "shape": list(array.shape[1:]), **scale})
    dataset = Dataset(
        name=config.name,
        input_names=tuple(its.name for its in config.inputs),
        classes=classes,
        splits={
            split: Split(tuple(array[rows] for array in normalised), labels[rows])
            for split, rows in order.items()
        },
        generated=config.generated,
        source=config.source,
        digest="",  # of the files, once they are written
    )
    sources = {
        split: [_sources(config, split, samples[row]) for row in rows]
        for split, rows in order.items()
    }
    found = leaks(source for rows in sources.values() for row in rows for source in row)
    description = {
        "inputs": inputs,
        "pairs": config.pair_by,
        "split": {"by": config.split_by, "val": config.val, "test": config.test}
        if config.split_by == "random"
        else {"by": config.split_by},
        "seed": config.seed,
        "skipped": [vars(skip) for skip in skipped],
        "notes": notes,
        "leaks": [str(leak) for leak in found],
    }
    return Built(dataset, sources, tuple(skipped), tuple(notes), tuple(found), description)


def _of_classes(
    its: InputConfig, clips: Sequence[Clip], classes: tuple[str, ...], notes: list[str]
) -> list[Clip]:
    """The clips of the wanted classes; the others are counted in a note."""
    if not classes:
        return list(clips)
    other = Counter(clip.label for clip in clips if clip.label not in classes)
    notes += [
        f"{its.name}: {count} clips of {label!r}, which is not in classes, were left out"
        for label, count in sorted(other.items())
    ]
    return [clip for clip in clips if clip.label in classes]


def _decoded(
    its: InputConfig,
    clips: Sequence[Clip],
    skipped: list[Skipped],
    notes: list[str],
    on_file: Callable[[], None],
) -> tuple[list[Piece], np.ndarray]:
    """The pieces of all clips, in the clips' order, and the features `[rows, …]` of all files."""
    starts: dict[Path, tuple[float, ...]] = defaultdict(tuple)
    for clip in clips:
        if clip.start is not None and clip.start not in starts[clip.path]:
            starts[clip.path] += (clip.start,)
    pieces: list[Piece] = []
    features: list[np.ndarray] = []
    files: dict[Path, tuple[int, Decoded] | None] = {}  # with its first row; None: skipped
    empty = rows = 0
    for clip in clips:
        name = relative(clip.path, its.base)
        if clip.path not in files:
            try:
                found = decode(clip.path, its, starts.get(clip.path))
            except InputError as error:
                skipped.append(Skipped(name, _reason(str(error), str(clip.path))))
                files[clip.path] = None
            else:
                files[clip.path] = rows, found
                features.append(found.features)
                rows += len(found.features)
                empty += found.empty
            on_file()
        known = files[clip.path]
        if known is not None:
            cut = _pieces(clip, known[1], its, name, first=known[0])
            if not cut:
                skipped.append(Skipped(name, f"has no window at {clip.start:g} s"))
            pieces += cut
    if empty:
        what = "windows of digital silence" if its.mfcc is not None else "frames of a single colour"
        notes.append(f"{its.name}: {what}, left out: {empty}")
    return pieces, np.concatenate(features) if features else np.empty(0, np.float32)


def _pieces(clip: Clip, found: Decoded, its: InputConfig, name: str, first: int) -> list[Piece]:
    pieces = []
    for index, start in enumerate(found.starts.tolist()):
        timeless = np.isnan(start)
        if clip.start is not None and not timeless and start != clip.start:
            continue
        alone = timeless or clip.start is not None
        pieces.append(
            Piece(
                file=name,
                start=None if timeless else start,
                number=None if alone else round(start / its.step),
                label=clip.label,
                group=clip.group,
                key=clip.key,
                split=clip.split,
                content=str(found.contents[index]),
                row=first + index,
            )
        )
    return pieces


def _samples(
    config: DatasetConfig, pieces: Mapping[str, Sequence[Piece]], notes: list[str]
) -> tuple[list[Sample], list[str]]:
    """Samples and the split of each."""
    if config.pair_by == "key":
        samples = pair_by_key(pieces)
        return samples, _splits(config, samples, notes)
    alone: list[Sample] = [(piece,) for its in pieces.values() for piece in its]
    cells = [name for name, its in pieces.items() for _ in its]
    split_of = {
        sample[0]: split
        for sample, split in zip(alone, _splits(config, alone, notes, cells), strict=True)
    }
    samples = pair_by_class(pieces, split_of, config.seed)
    return samples, [split_of[sample[0]] for sample in samples]


def _splits(
    config: DatasetConfig,
    samples: Sequence[Sample],
    notes: list[str],
    inputs: Sequence[str] | None = None,
) -> list[str]:
    """The given split of each sample, or a random one by group.

    What has the same content counts as one group, so that a copy under another name cannot leak.
    """
    if config.split_by == "given":
        return [str(sample[0].split) for sample in samples]
    names = [[f"group {piece.group}" for piece in sample] for sample in samples]
    apart = len(set(linked(names)))
    contents = [[f"content {piece.content}" for piece in sample] for sample in samples]
    groups = linked([a + b for a, b in zip(names, contents, strict=True)])
    if len(set(groups)) < apart:
        notes.append(
            f"{apart} groups count as {len(set(groups))}, because files of different groups have "
            "the same content; copies stay in one split"
        )
    labels = [sample[0].label for sample in samples]
    cells = list(zip(inputs, labels, strict=True)) if inputs is not None else labels
    # The order decides who gets the first group of a class: training, then what is measured.
    fractions = {"train": 1 - config.val - config.test, "test": config.test, "val": config.val}
    return deal(groups, cells, fractions, config.seed)


def _normalised(
    its: InputConfig, features: np.ndarray, rows: np.ndarray, training: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """The input of every sample as float32, and the mean and deviation that were used."""
    if not its.normalise:
        return features[rows].astype(np.float32), {"mean": None, "std": None}
    fit = Normalisation.of_mfcc if its.mfcc is not None else Normalisation.of_images
    scale = fit(features[training])
    return scale(features[rows]), {
        "mean": scale.mean.ravel().tolist(),
        "std": scale.std.ravel().tolist(),
    }


def _sources(config: DatasetConfig, split: str, sample: Sample) -> list[Source]:
    return [
        Source(split, its.name, piece.file, piece.start, piece.group, piece.content)
        for its, piece in zip(config.inputs, sample, strict=True)
    ]


def _reason(message: str, path: str) -> str:
    """The message in one line, without the path, which is listed before it."""
    for words in (f"Error opening {path!r}: ", f" {path}"):
        message = message.replace(words, "")
    return " ".join(message.split())
