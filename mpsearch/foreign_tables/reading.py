"""Any table as a layer table: our own CSV, or one of another tool, recognised by its content."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import parse_json
from mpsearch.foreign_tables.delimited import Delimited, is_ours
from mpsearch.foreign_tables.grouping import grouped
from mpsearch.foreign_tables.reader import GROUP, Asked, Reader, Source
from mpsearch.foreign_tables.shapes import read_shapes
from mpsearch.running import plugins
from mpsearch.tables.choice import Choice
from mpsearch.tables.csv_columns import table_text
from mpsearch.tables.provenance import sound_provenance
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    import pandas as pd

LARGEST_JSON_MIB = 64
BUILT_IN = ("exllamav3", "modelopt", "auto_round", "aimet", "mlx_lm", "scores", "imatrix")
"""Modules of this room with a READER, in the order in which they are asked."""

Path = str | os.PathLike[str]
_NO_NUMBER = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|NaN|-?Infinity', re.DOTALL)


def read_table(
    path: "str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | pd.DataFrame",
    columns: Mapping[str, str] | str | None = None,
    groups: Iterable[str] | str = (),
    *,
    shapes: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    choices: Iterable[str | Choice] | str = (),
) -> LayerTable:
    """The layer table of a file: profile.csv, or what another tool measured.

    path: a file, several of a tool that writes one for each choice, or a DataFrame. columns: of a
    CSV or TSV file, or a DataFrame, column of ours -> its own, `{"omega": "kld"}` or
    `"layer=name,omega=kld"`; `"-accuracy"`: larger is better. groups: patterns of names whose
    layers share a choice, `"blocks.*.attn.{q,k,v}"`. shapes: safetensors files or folders, of which
    the shapes of the weights are read. choices: those that a file is of which does not say it
    (docs/foreign-tables.md).

    Raises InputError naming the file and the line, or the place in the JSON, of what is wrong.

    >>> mpsearch.read_table(table.to_pandas(), groups="{0,3}").layers[0].group
    '{0,3}'
    """
    columns = columns_of_text(columns) if isinstance(columns, str) else dict(columns or {})
    asked = Asked(columns, _choices(choices), read_shapes(_listed(shapes)))
    groups = (groups,) if isinstance(groups, str) else groups
    return grouped(_read(path, asked), groups)


def read_again(
    path: Path | Iterable[Path],
    search: Mapping[str, Iterable[str]],
    columns: str | None = None,
    groups: Iterable[str] = (),
    shapes: Iterable[Path] = (),
    choices: str | None = None,
) -> LayerTable:
    """The table that an assignment was searched in, read as its `search` says; the other arguments,
    as typed, come first, and groups on top. What it was searched in may lie there as ours by now
    (`mpsearch table`), without the names that columns had."""
    recorded = ",".join(search.get("columns", ()))
    columns = columns or (recorded if _has_names(path, recorded) else "")
    choices = choices or ",".join(search.get("table-choices", ()))
    groups = (*search.get("group", ()), *groups)
    return read_table(path, columns or None, groups, shapes=shapes, choices=choices or ())


def _has_names(path: Path | Iterable[Path], recorded: str) -> bool:
    """Whether a file is one of another tool, or ours with the columns that were recorded."""
    if not recorded or not isinstance(path, str | os.PathLike):
        return True
    text = table_text(path)
    theirs = {name.removeprefix("-") for name in columns_of_text(recorded).values()}
    return not is_ours(text) or theirs <= set(text.lstrip("\r\n").splitlines()[0].split(","))


def columns_of_text(text: str) -> dict[str, str]:
    """`layer=name,omega=kld` -> {"layer": "name", "omega": "kld"}. Raises InputError."""
    found: dict[str, str] = {}
    for pair in text.split(","):
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not ours or not equals or not theirs or ours in found:
            raise InputError(
                f"got --columns {text[:80]!r}; expected each column of ours once, with its name in "
                "the file: layer=name,choice=type,omega=kld,size_bytes=bytes"
            )
        found[ours] = theirs
    return found


@cache
def readers() -> Mapping[str, Any]:
    """Name -> reader, or the error of a plug-in that cannot be loaded; those of other packages
    first."""
    found: dict[str, Any] = {}
    for name, point in plugins.installed(GROUP).items():
        try:
            found[name] = point.load()
        except Exception as error:  # a third party's import must not hide the other readers
            found[name] = error
    for module in BUILT_IN:
        reader: Reader = import_module(f"mpsearch.foreign_tables.{module}").READER
        found[reader.name] = reader
    return {**found, Delimited.name: Delimited()}


def _read(path: Any, asked: Asked) -> LayerTable:
    frame = hasattr(path, "to_csv") and hasattr(path, "columns")
    paths: list[Any] = [path] if frame else _listed(path)
    if not paths:
        raise InputError("got no file of a table")
    sources: list[Source] = []
    for one in paths:
        text: str = one.to_csv(index=False) if frame else table_text(one)
        name = "the DataFrame" if frame else os.fspath(one)
        if len(paths) == 1 and asked == Asked() and is_ours(text):
            return LayerTable.from_pandas(one) if frame else LayerTable.of_csv(text, one)
        sources.append(Source(name, text, _document(text, name)))
    first, *others = [_reader_of(source) for source in sources]
    if any(other is not first for other in others):
        raise InputError("got files of several tools; expected those of one")
    for given, option in (("columns", "--columns"), ("choices", "--table-choices")):
        if getattr(asked, given) and given not in first.takes:
            raise InputError(
                f"{sources[0].name} is of {first.name}, of which {option} says nothing; leave it "
                "out"
            )
    table = first.read(sources, asked)
    if is_ours(sources[0].text):
        return replace(table, provenance={} if frame else sound_provenance(paths[0]))
    provenance = {"read_as": first.name, **table.provenance}
    return replace(table, provenance=provenance, partial=True)


def _reader_of(source: Source) -> Reader:
    reader: Reader
    for reader in readers().values():
        if not isinstance(reader, Exception) and reader.recognises(source):
            return reader
    raise InputError(
        f"{source.name} is JSON of no form that is read here; `mpsearch tables` lists those that "
        "are"
    )


def _document(text: str, name: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    if len(text) > LARGEST_JSON_MIB << 20:
        raise InputError(f"{name} is too large; expected less than {LARGEST_JSON_MIB} MiB of JSON")
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{name} is no JSON file: {str(error)[:200]}{_where(text)}") from None


def _where(text: str) -> str:
    """The line of the first number that JSON has not; Python writes such."""
    for match in _NO_NUMBER.finditer(text):
        if match[0][0] != '"':
            return f" (line {text.count(chr(10), 0, match.start()) + 1})"
    return ""


def _listed(given: Any) -> list[Path]:
    return [given] if isinstance(given, str | os.PathLike) else [*given]


def _choices(given: Any) -> tuple[Choice, ...]:
    texts = given.split(",") if isinstance(given, str) else list(given)
    try:
        return tuple(one if isinstance(one, Choice) else Choice.called(one) for one in texts)
    except ValueError as error:
        raise InputError(
            f"got --table-choices {','.join(map(str, texts))[:80]!r}: one {error}"
        ) from None
