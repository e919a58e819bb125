"""Whether what was found is a dataset: partners, classes in every split, more than one sample.

Random splits in which nobody is twice: whole groups are dealt out, class by class evenly.

Whether something of the test data was seen in training: people, recordings, duplicates.

Which piece of one input goes with which of another: by key, or at random within a class.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpsearch.errors import InputError
from mpsearch.models.dataset_config import DatasetConfig
from mpsearch.models.samples import SPLITS, Skipped


def linked(sets: Sequence[Sequence[str]]) -> list[int]:
    """The number of the group that each set of names is in.

    Sets that share a name are in one group, also through others: `[[a, b], [c], [b, d]]` gives
    `[0, 1, 0]`. (Union-find.)
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for names in sets:
        for name in names:
            parent[root(name)] = root(names[0])
    numbers: dict[str, int] = {}
    return [numbers.setdefault(root(names[0]), len(numbers)) for names in sets]


def deal(
    groups: Sequence[int], cells: Sequence[Hashable], fractions: Mapping[str, float], seed: int
) -> list[str]:
    """The split of each sample; samples of a group stay together.

    `cells[i]` is what is to be spread evenly, such as the class. Groups are dealt out from the
    largest to the smallest, equal ones in random order: each to the split that lacks the largest
    share of what it wants of the group's cells. A cell of three or more small groups is in each of
    three splits. Splits with a fraction of 0 get nothing.
    """
    total = Counter(cells)
    counts: dict[int, Counter[Hashable]] = {}
    for group, cell in zip(groups, cells, strict=True):
        counts.setdefault(group, Counter())[cell] += 1
    random = np.random.default_rng(seed)
    order = [list(counts)[index] for index in random.permutation(len(counts))]
    order.sort(key=lambda group: -counts[group].total())
    have: dict[str, Counter[Hashable]] = {
        split: Counter() for split, fraction in fractions.items() if fraction > 0
    }

    def lack(split: str, group: int) -> float:
        return sum(
            count * (1 - have[split][cell] / (fractions[split] * total[cell]))
            for cell, count in counts[group].items()
        )

    chosen: dict[int, str] = {}
    for group in order:
        split = max(have, key=lambda split: lack(split, group))
        chosen[group] = split
        have[split] += counts[group]
    return [chosen[group] for group in groups]


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


@dataclass(frozen=True)
class Piece:
    """One decoded piece of a file: row `row` of its input's features."""

    file: str
    start: float | None  # seconds; None for a picture, which belongs to any moment
    number: int | None  # which window of its clip; None for a picture or the only one asked for
    label: str
    group: str
    key: str
    split: str | None
    content: str
    row: int


Sample = tuple[Piece, ...]  # one piece per input, in the inputs' order


def pair_by_key(pieces: Mapping[str, Sequence[Piece]]) -> list[Sample]:
    """Pieces of every input with the same split, label, key and number.

    `{"audio": [a/0, a/1], "image": [a]}` gives (a/0, a) and (a/1, a): a picture goes with every
    window of its key. Pieces that lack a partner in some input are in no sample; a single input
    needs none.
    """
    if len(pieces) == 1:
        return [(piece,) for its in pieces.values() for piece in its]
    by_key = [_by_key(its) for its in pieces.values()]
    samples: list[Sample] = []
    for key in by_key[0]:
        found = [its.get(key, {}) for its in by_key]
        if not all(found):
            continue
        timed = [its for its in found if None not in its]
        numbers = (
            [number for number in timed[0] if all(number in its for its in timed)]
            if timed
            else [None]
        )
        samples += [
            tuple(its[None] if None in its else its[number] for its in found) for number in numbers
        ]
    return samples


def _by_key(
    pieces: Sequence[Piece],
) -> dict[tuple[str | None, str, str], dict[int | None, Piece]]:
    """Pieces by number, by split, label and key; a key belongs to the first file that has it."""
    found: dict[tuple[str | None, str, str], dict[int | None, Piece]] = defaultdict(dict)
    for piece in pieces:
        its = found[piece.split, piece.label, piece.key]
        if not its or next(iter(its.values())).file == piece.file:
            its.setdefault(piece.number, piece)
    return found


def pair_by_class(
    pieces: Mapping[str, Sequence[Piece]], split_of: Mapping[Piece, str], seed: int
) -> list[Sample]:
    """Random pairs of one class within one split, so that no piece is in two splits.

    Of the input with most pieces each is used once; the others are gone through again and again in
    a new random order each time, as often as needed: 400 sounds and 2,000 pictures give 2,000
    pairs. A class that an input lacks in a split gives none there.
    """
    random = np.random.default_rng(seed)
    cells: dict[tuple[str, str], list[list[Piece]]] = {}
    for index, its in enumerate(pieces.values()):
        for piece in its:
            cell = cells.setdefault((split_of[piece], piece.label), [[] for _ in pieces])
            cell[index].append(piece)
    samples: list[Sample] = []
    for _, cell in sorted(cells.items()):
        count = max(map(len, cell)) if all(cell) else 0
        columns = [_repeated(its, count, random) for its in cell]
        samples += zip(*columns, strict=True)
    return samples


def _repeated(pieces: Sequence[Piece], count: int, random: np.random.Generator) -> list[Piece]:
    chosen: list[Piece] = []
    while len(chosen) < count:
        chosen += [pieces[index] for index in random.permutation(len(pieces))]
    return chosen[:count]


def list_unused(
    config: DatasetConfig,
    pieces: Mapping[str, Sequence[Piece]],
    samples: Sequence[Sample],
    skipped: list[Skipped],
) -> None:
    """Add to `skipped` what has no partner: a file of which nothing is in any sample."""
    want = "class" if config.pair_by == "class" else "key"
    for index, (name, its) in enumerate(pieces.items()):
        used = {sample[index].file for sample in samples}
        keys = {(sample[index].label, sample[index].key) for sample in samples}
        others = " or ".join(other for other in pieces if other != name)
        for piece in {piece.file: piece for piece in its if piece.file not in used}.values():
            same = want == "key" and (piece.label, piece.key) in keys
            reason = (
                f"has the key {piece.key!r} of another file, which is taken"
                if same
                else f"has no {others} of the same {want} to go with"
            )
            skipped.append(Skipped(piece.file, reason))


def check_samples(
    config: DatasetConfig,
    samples: Sequence[Sample],
    splits: Sequence[str],
    classes: tuple[str, ...],
    skipped: Sequence[Skipped],
) -> None:
    """Raise InputError for what nothing can be learned from; it names the class or a file."""
    if not samples:
        first = f"; the first: {skipped[0].file} {skipped[0].reason}" if skipped else ""
        raise InputError(
            f"nothing is left of the dataset {config.name}: {len(skipped)} files were skipped"
            f"{first}"
        )
    for label in classes:
        inside = Counter(
            split for sample, split in zip(samples, splits, strict=True) if sample[0].label == label
        )
        if not inside["train"]:
            where = ", ".join(f"{count} in {split}" for split, count in inside.items())
            raise InputError(
                f"the class {label!r} has no training samples ({where or 'none anywhere'}); "
                "a network cannot learn it: add files, change [split] or list classes without it"
            )
    found = {sample[0].label for sample in samples}
    if len(samples) == 1 or len(found) == 1:
        raise InputError(
            f"the dataset {config.name} has {len(samples)} sample(s) of "
            f"{', '.join(sorted(found))} alone; expected several samples of at least two classes"
        )


def missing_classes(
    config: DatasetConfig,
    samples: Sequence[Sample],
    splits: Sequence[str],
    classes: tuple[str, ...],
) -> list[str]:
    """Notes on classes that val or test lack, and on splits that are empty though asked for."""
    notes = []
    for split in ("val", "test"):
        inside = {
            sample[0].label for sample, its in zip(samples, splits, strict=True) if its == split
        }
        wanted = config.split_by == "given" or {"val": config.val, "test": config.test}[split] > 0
        if not inside and wanted:
            notes.append(f"the split {split} is empty")
        elif inside:
            notes += [
                f"the split {split} has no samples of the class {label!r}"
                for label in classes
                if label not in inside
            ]
    return notes
