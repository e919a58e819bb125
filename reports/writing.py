"""Writing a report and its figures where they were asked for."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.writing import write_atomic
from mpsearch.reports.drawing import Drawing
from mpsearch.reports.facts import Facts, to_document
from mpsearch.reports.gather import gather
from mpsearch.reports.html import render
from mpsearch.reports.markdown import render_markdown
from mpsearch.reports.picture_files import save_pictures
from mpsearch.reports.run_folder import read_run
from mpsearch.reports.sections import drawings_of
from mpsearch.running.foreign_text import json_text

ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


@dataclass(frozen=True)
class Reported:
    """What `report` wrote, and what it says."""

    written: tuple[str, ...]
    """Paths: the report, then the figures."""
    facts: Facts
    """Everything on the page, as plain data."""


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


def report(
    run: str | os.PathLike[str] = ".",
    output: str | os.PathLike[str] | None = None,
    form: str | None = None,
    figures: str | os.PathLike[str] | None = None,
    files: Mapping[str, str | None] | None = None,
) -> Reported:
    """Write one self-contained page about the files in the folder `run`, as `mpsearch report` does.

    output: default `report.html` (`.md`, `.json`) in `run`; form: `html`, `md` or `json`, default:
    as `output` ends. figures: a folder that gets every figure as .svg, .pdf and .png. files: others
    than the usual ones, by piece: profile, assignment, front, evaluation, device. Raises InputError
    where there is nothing to report, and for a named file that is damaged or not there.

    >>> mpsearch.Assignment.from_solution(solution, table.digest).save("assignment.json")
    >>> mpsearch.report(output="report.md").written
    ('report.md',)
    """
    facts = gather(read_run(run, files))
    named = None if output is None else os.fspath(output)
    form = form_of(form, named)
    made: Mapping[str, Callable[[Mapping[str, str]], Any]] = {
        "html": lambda pictures: render(facts),
        "md": lambda pictures: render_markdown(facts, pictures),
        "json": lambda pictures: to_document(facts),
    }
    if form not in made:
        raise InputError(f"got the format {form!r}; expected {', '.join(made)}")
    drawings = drawings_of(facts) if figures is not None else ()
    path = named or os.path.join(run, f"report.{form}")
    return Reported(tuple(write_report(path, made[form], drawings, figures)), facts)
