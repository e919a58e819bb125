"""Writing a report and its figures where they were asked for."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.writing import write_atomic
from mpsearch.reports.drawing import Drawing
from mpsearch.reports.picture_files import save_pictures
from mpsearch.running.foreign_text import json_text

ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


def form_of(form: str | None, output: str | None) -> str:
    """The format that was asked for, or that the file's name ends in; else HTML.

    Raises InputError for a name that ends as another format, which no program would open.
    """
    ending = ENDINGS.get(Path(output).suffix.lower()) if output else None
    if form and ending and form != ending:
        raise InputError(f"got --format {form} and -o {output}; name a file that ends in .{form}")
    return form or ending or "html"


def write_report(
    output: str,
    made: Callable[[Mapping[str, str]], Any],
    drawings: Sequence[Drawing],
    figures: str | os.PathLike[str] | None,
) -> list[str]:
    """Write the figures, then the report; returns what was written, the report first.

    made: the report, given the figures by name (relative to it): text, or a document for JSON.
    """
    pictures: dict[str, str] = {}
    written: list[str] = []
    if figures is not None:
        written += save_pictures(drawings, figures)
        beside = os.path.relpath(figures, Path(output).parent)
        pictures = {one.name: os.path.join(beside, f"{one.name}.svg") for one in drawings}
    content = made(pictures)
    if not isinstance(content, str):
        content = json_text(content, indent=1, allow_nan=False) + "\n"
    write_atomic(output, content)
    return [output, *written]
