"""What a layout finds on the disk: labelled clips, what was passed over and why."""

import os
from dataclasses import dataclass
from pathlib import Path


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
