"""Which piece of one input goes with which of another: by key, or at random within a class."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


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
