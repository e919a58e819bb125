"""Layout `table`: a CSV file says which file has which label, and more where it knows more."""

from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.files.csv_file import read_rows
from mpsearch.models.clips import Clip, Listing, Skipped, relative, split_named
from mpsearch.models.dataset_config import InputConfig


def table_layout(config: InputConfig, given_splits: bool) -> Listing:
    """One clip per row of `folder/TABLE`.

    The options name the columns: `file` (a path below `folder`) and `label`; `start` (seconds: that
    window alone), `group`, `split` and `key` where there are any. The group is the file by default,
    the key the file without suffix, with the start where there is one.
    """
    options = config.layout_options
    path = config.folder / options["table"]
    rows = read_rows(path, [name for option, name in options.items() if option != "table"])
    if given_splits and "split" not in options:
        raise InputError(
            f"[inputs.{config.name}]: given splits need the key split, the column that names them"
        )
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for number, row in enumerate(rows, start=2):
        where = f"{relative(path, config.base)}:{number}"
        file = row[options["file"]]
        split = split_named(row[options["split"]]) if given_splits else None
        start = seconds(row[options["start"]]) if "start" in options else None
        if not file or not row[options["label"]]:
            skipped.append(Skipped(where, "has no file or no label"))
        elif given_splits and split is None:
            skipped.append(Skipped(where, f"{row[options['split']]!r} is not train, val or test"))
        elif "start" in options and start is None:
            skipped.append(Skipped(where, f"{row[options['start']]!r} is no time in seconds"))
        else:
            stem = Path(file).with_suffix("").as_posix()
            default = relative(config.folder / stem, config.base)
            key = stem if start is None else f"{stem} at {start:g} s"
            clips.append(
                Clip(
                    path=config.folder / file,
                    label=row[options["label"]],
                    group=row[options["group"]] if "group" in options else default,
                    key=row[options["key"]] if "key" in options else key,
                    split=split,
                    start=start,
                )
            )
    return Listing(tuple(clips), tuple(skipped))


def seconds(text: str) -> float | None:
    """A time from 0 on; None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
