"""Layout `table`: a CSV file says which file has which label, and more where it knows more."""

import csv
import io
from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.models.clips import Clip, Listing, Skipped, relative, split_named
from mpsearch.models.dataset_config import InputConfig

Rows = list[dict[str, str]]


def table_layout(config: InputConfig, given_splits: bool) -> Listing:
    """One clip per row of `folder/TABLE`.

    The options name the columns: `file` (a path below `folder`) and `label`; `start` (seconds: that
    window alone), `group`, `split` and `key` where there are any. The group is the file by default,
    the key the file without suffix, with the start where there is one.
    """
    options = config.layout_options
    path = config.folder / options["table"]
    rows = read_table(path, [name for option, name in options.items() if option != "table"])
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
        start = _seconds(row[options["start"]]) if "start" in options else None
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


def read_table(path: Path, columns: list[str]) -> Rows:
    """The rows of a CSV file with a header. Raises InputError naming a missing column."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig")))
        rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} as CSV: {error}") from None
    for column in columns:
        if column not in (reader.fieldnames or ()):
            raise InputError(
                f"{path} has no column {column!r}; it has {', '.join(reader.fieldnames or ())}"
            )
    return rows


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None
