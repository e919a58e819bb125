"""Whether what was found is a dataset: partners, classes in every split, more than one sample."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mpsearch.errors import InputError
from mpsearch.models.clips import Skipped
from mpsearch.models.dataset_config import DatasetConfig
from mpsearch.models.pairing import Piece, Sample


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
