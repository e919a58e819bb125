"""Whether something of the test data was seen in training: people, recordings, duplicates."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mpsearch.models.clips import SPLITS


@dataclass(frozen=True)
class Source:
    """Where one input of one sample comes from."""

    split: str
    input: str
    file: str
    start: float | None
    group: str
    content: str

    @property
    def place(self) -> str:
        """The file, with the second where a window begins: `sounds/dog/a.wav at 3 s`."""
        return self.file if self.start is None else f"{self.file} at {self.start:g} s"


@dataclass(frozen=True)
class Leak:
    """`what` (group, duplicate) of which the `splits` have something, and one `file` of each."""

    what: str
    name: str
    splits: tuple[str, ...]
    files: tuple[str, ...]

    def __str__(self) -> str:
        where = ", ".join(
            f"{split} ({file})" for split, file in zip(self.splits, self.files, strict=True)
        )
        return f"{self.what} {self.name} is in {where}" if self.name else f"{self.what}: {where}"


def leaks(sources: Iterable[Source]) -> list[Leak]:
    """Groups in two splits, then exact duplicates (of other groups) in two splits.

    A group counts over all inputs: who coughs in train must not speak in test. A duplicate is the
    same decoded sound or picture, whatever its file is called.
    """
    groups: dict[str, dict[str, Source]] = defaultdict(dict)
    contents: dict[str, dict[str, Source]] = defaultdict(dict)
    for source in sources:
        groups[source.group].setdefault(source.split, source)
        contents[source.content].setdefault(source.split, source)
    found = [_leak("group", name, its) for name, its in groups.items() if len(its) > 1]
    found += [
        _leak("the same " + next(iter(its.values())).input, "", its)
        for its in contents.values()
        if len(its) > 1 and len({source.group for source in its.values()}) > 1
    ]
    return found


def equal_samples(splits: Mapping[str, Mapping[str, np.ndarray]]) -> list[Leak]:
    """Rows that two splits share, for data without a record of sources: `{"train": {"x0": …}}`."""
    seen: dict[tuple[str, bytes], dict[str, Source]] = defaultdict(dict)
    for split, arrays in splits.items():
        for name, array in arrays.items():
            for row, values in enumerate(array if name != "y" else ()):
                place = Source(split, name, f"{split}.npz, {name}[{row}]", None, "", "")
                key = np.ascontiguousarray(values).tobytes()
                seen[name, key].setdefault(split, place)
    return [_leak(f"the same {key[0]}", "", its) for key, its in seen.items() if len(its) > 1]


def _leak(what: str, name: str, sources: Mapping[str, Source]) -> Leak:
    splits = tuple(split for split in SPLITS if split in sources)
    return Leak(what, name, splits, tuple(sources[split].place for split in splits))
