"""What a dataset is: named inputs and labels as arrays, in splits.

What a layout finds on the disk: labelled clips, what was passed over and why.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpsearch.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Split:
    """Some samples of a dataset."""

    inputs: tuple[np.ndarray, ...]
    """float32 [N, …], one array for each input of the network."""
    labels: np.ndarray
    """int64 [N]."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """The samples at `indices`, in that order."""
        return Split(tuple(array[indices] for array in self.inputs), self.labels[indices])

    def arrays(self) -> dict[str, np.ndarray]:
        """`{"x0": ..., "x1": ..., "y": ...}`: the layout of `--data` files and of samples."""
        return {**{f"x{i}": array for i, array in enumerate(self.inputs)}, "y": self.labels}

    def balanced(self, count: int, classes: int, seed: int = 0) -> "Split":
        """At most `count` random samples, as evenly from all classes as there are enough."""
        random = np.random.default_rng(seed)
        order = random.permutation(len(self))
        rank = np.empty(len(self), np.int64)  # how many of its class come before it
        for label in range(classes):
            of_class = order[self.labels[order] == label]
            rank[of_class] = np.arange(len(of_class))
        first = order[np.argsort(rank[order], kind="stable")][:count]
        return self.take(random.permutation(first))


@dataclass(frozen=True)
class Dataset:
    """Samples in splits, already normalised, with where they come from."""

    name: str
    """What it is called."""
    input_names: tuple[str, ...]
    """One for each input, in order."""
    classes: tuple[str, ...]
    """What each label is called: label 0 is the first."""
    splits: Mapping[str, Split]
    """By name: `train`, `val`, `test`."""
    generated: bool
    """Whether a program made the data, which then say nothing about the world."""
    source: str
    """Where they come from."""
    digest: str
    """Changes whenever a source file, a setting or the split does."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one training sample by input, for example `{"image": (3, 32, 32)}`."""
        inputs = self.split("train").inputs
        return {name: x.shape[1:] for name, x in zip(self.input_names, inputs, strict=True)}

    def split(self, name: str) -> Split:
        """The named split; an unknown name is an InputError listing the known ones."""
        if name not in self.splits:
            raise InputError(
                f"the dataset {self.name} has no split {name!r}{did_you_mean(name, self.splits)}; "
                f"it has {', '.join(self.splits)}"
            )
        return self.splits[name]

    def only(self, *names: str) -> "Dataset":
        """The same samples with the named inputs alone, in the dataset's order."""
        for name in names:
            if name not in self.input_names:
                raise InputError(
                    f"the dataset {self.name} has no input {name!r}"
                    f"{did_you_mean(name, self.input_names)}; "
                    f"it has {', '.join(self.input_names)}"
                )
        kept = [i for i, name in enumerate(self.input_names) if name in names]
        splits = {
            name: Split(tuple(split.inputs[i] for i in kept), split.labels)
            for name, split in self.splits.items()
        }
        return replace(self, input_names=tuple(self.input_names[i] for i in kept), splits=splits)


@dataclass(frozen=True)
class Clip:
    """A file, or the window of it that begins at `start` seconds, with what is known about it.

    `group` is what must not be in two splits (a participant, a recording, a video); clips of
    different inputs with the same label and `key` belong together. `split` is given or None.
    """

    path: Path
    label: str
    group: str
    key: str
    split: str | None = None
    start: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, named as in the listing, with a one-line reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """Clips in a fixed order; `skipped` files are faults, `notes` are not."""

    clips: tuple[Clip, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("valid", "validation", "dev", "devel"), "val"),
}


def split_named(text: str) -> str | None:
    """`train`, `val` or `test` for the names in use (`devel`, `validation`, …), else None."""
    return _SPLIT_NAMES.get(text.lower())


def relative(path: Path, base: Path) -> str:
    """The path as it is shown and stored: from the config file's folder, with slashes."""
    return Path(os.path.relpath(path, base)).as_posix()
