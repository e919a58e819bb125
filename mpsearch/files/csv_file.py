"""The one reader of CSV files with a header whose cells are texts, by column."""

import csv
import io
import os
from collections.abc import Iterable

from mpsearch.errors import InputError
from mpsearch.files.writing import read_limited

Rows = list[dict[str, str]]
LARGEST_MIB = 256


def read_rows(path: str | os.PathLike[str], columns: Iterable[str]) -> Rows:
    """The rows of a CSV file by its header; cells that a row lacks are empty.

    Raises InputError for a missing column, for what is no UTF-8 or no CSV, and for a file of more
    than `LARGEST_MIB` MiB.
    """
    try:
        content = read_limited(path, LARGEST_MIB, "a table")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = list(reader.fieldnames or ())
        rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} as CSV: {error}") from None
    for column in columns:
        if column not in header:
            there = ascii(", ".join(header[:20]))[1:-1]
            raise InputError(f"{path} has no column {column!r}; it has {there[:300]}")
    return rows
