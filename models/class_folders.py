"""Layout `folders`: the folder's name is the class; `train/`, `val/`, `test/` above where given."""

import re
from pathlib import Path

from mpsearch.models.clips import Clip, Listing, Skipped, relative, split_named
from mpsearch.models.dataset_config import InputConfig


def class_folders(config: InputConfig, given_splits: bool) -> Listing:
    """Every file below `folder/CLASS/`, or `folder/SPLIT/CLASS/` with given splits, sorted.

    A file's key is its path below the class without suffix, so that `sounds/dog/a1.wav` and
    `pictures/dog/a1.png` go together. Its group is the file itself, or what the parentheses of the
    option `group` match in that path. Hidden files are ignored.
    """
    pattern = config.layout_options.get("group")
    above = 2 if given_splits else 1  # folders above a file that mean something
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for path in sorted(config.folder.rglob("*")):
        parts = path.relative_to(config.folder).parts
        if path.is_dir() or any(part.startswith(".") for part in parts):
            continue
        name = relative(path, config.base)
        if len(parts) <= above:
            expected = "SPLIT/CLASS/" if given_splits else "CLASS/"
            skipped.append(Skipped(name, f"is not in a folder {expected} of its own"))
            continue
        split = split_named(parts[0]) if given_splits else None
        if given_splits and split is None:
            skipped.append(Skipped(name, f"{parts[0]} is not train, val or test"))
            continue
        key = Path(*parts[above:]).with_suffix("").as_posix()
        group = relative(path.with_suffix(""), config.base)
        if pattern is not None:
            match = re.search(pattern, key)
            if match is None or match[1] is None:
                skipped.append(Skipped(name, f"group {pattern!r} does not match {key!r}"))
                continue
            group = match[1]
        clips.append(Clip(path, parts[above - 1], group, key, split))
    return Listing(tuple(clips), tuple(skipped))
