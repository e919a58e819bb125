"""Writing a report and its figures where they were asked for.

Drawings as files for papers and slides: PNG, SVG, PDF.

The front of a table as a picture file.

The report as Markdown (GitHub's): the same sections, figures as files or in words.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mpsearch
from mpsearch.errors import InputError, did_you_mean
from mpsearch.files.whole import atomic_path, write_atomic
from mpsearch.pareto.front import Front
from mpsearch.reports.facts import Facts, Point, to_document
from mpsearch.reports.first_screen import title_of
from mpsearch.reports.front_facts import finite, fp32_point, front_facts
from mpsearch.reports.front_figure import front_drawing
from mpsearch.reports.gather import gather
from mpsearch.reports.html import render
from mpsearch.reports.run_folder import Run, read_run
from mpsearch.reports.sections import drawings_of, sections_of
from mpsearch.reports.style import (
    Code,
    Drawing,
    Headlines,
    More,
    Paragraph,
    Part,
    Section,
    Table,
    canvas,
    drawn,
)
from mpsearch.running.streams import json_text, markdown_code, markdown_text, shown

LONG = 200  # rows; the rest of a longer table is only in the HTML and the JSON


def render_markdown(facts: Facts, figures: Mapping[str, str] | None = None) -> str:
    """The whole report. figures: name of a drawing -> its picture's path, relative to the report;
    a drawing without one is given in words."""
    return markdown_of(title_of(facts), sections_of(facts), facts.version, figures)


def markdown_of(
    title: str, sections: tuple[Section, ...], version: str, figures: Mapping[str, str] | None
) -> str:
    """Sections as one document."""
    texts = [f"# {markdown_text(title)}"]
    for section in sections:
        texts.append(f"## {markdown_text(section.title)}")
        texts += [_part(part, figures or {}) for part in section.parts]
    texts.append(f"Written by mpsearch {markdown_text(version)}.")
    return "\n\n".join(texts) + "\n"


def _part(part: Part, figures: Mapping[str, str]) -> str:
    match part:
        case Paragraph():
            text = markdown_text(part.text)
            return f"> {text}" if part.kind == "notice" else text
        case Headlines():
            lines = [f"- **{markdown_text(one.value)}** {markdown_text(one.label)}"
                     for one in part.items]  # fmt: skip
            return "\n".join(lines)
        case Code():
            return markdown_code(part.lines, part.language)
        case More():
            return _table(part.table)
        case Table():
            return _table(part)
        case Drawing():
            return _drawing(part, figures)


def _drawing(drawing: Drawing, figures: Mapping[str, str]) -> str:
    caption = markdown_text(drawing.caption)
    if drawing.name not in figures:
        return f"{markdown_text(drawing.text)} {caption}"
    address = figures[drawing.name].replace("\\", "/")
    address = re.sub(r"[^\w./-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), address)
    return f"![{markdown_text(drawing.text)}]({address})\n\n{caption}"


def _table(table: Table) -> str:
    lines = [f"**{markdown_text(table.caption)}**", ""]
    lines.append(_row(table.header))
    aligned = "---" if table.prose else "---:"
    lines.append(f"| {' | '.join(['---', *[aligned] * (len(table.header) - 1)])} |")
    lines += [_row(row) for row in table.rows[:LONG]]
    if len(table.rows) > LONG:
        lines += ["", f"{len(table.rows) - LONG:,} further rows are left out here."]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"


FORMATS = ("png", "svg", "pdf")
DOTS_PER_INCH = 200


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise InputError where the file's ending is none of .png, .svg and .pdf."""
    if Path(path).suffix.removeprefix(".").lower() not in FORMATS:
        raise InputError(f"cannot draw {path}; name a file that ends in .png, .svg or .pdf")


def save_picture(drawing: Drawing, path: str | os.PathLike[str]) -> None:
    """Write the drawing in one step, on white. PDFs embed TrueType fonts (Type 42, which journals
    accept, not Type 3); SVG files hold outlines and look alike everywhere."""
    check_picture(path)
    kind = Path(path).suffix.removeprefix(".").lower()
    settings = {
        "pdf__fonttype": 42, "svg__fonttype": "path", "svg__hashsalt": "mpsearch",
        "savefig__facecolor": "white",
    }  # fmt: skip
    with canvas(drawing.height, **settings) as figure:
        drawn(drawing, figure)
        title, text = shown(drawing.title), shown(drawing.text)
        described = {
            "png": {"Title": title, "Description": text},
            "svg": {"Title": title, "Description": text, "Date": None},
            "pdf": {"Title": title, "Subject": text, "CreationDate": None},
        }
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DOTS_PER_INCH, format=kind, metadata=described[kind])


def save_pictures(drawings: Sequence[Drawing], folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Every drawing as NAME.svg, NAME.pdf and NAME.png in `folder`, made where it is not there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [
        os.path.join(folder, f"{drawing.name}.{kind}") for drawing in drawings for kind in FORMATS
    ]
    for drawing in drawings:
        for kind in FORMATS:
            save_picture(drawing, os.path.join(folder, f"{drawing.name}.{kind}"))
    return tuple(paths)


ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


@dataclass(frozen=True)
class Reported:
    """What `report` wrote, and what it says."""

    written: tuple[str, ...]
    """Paths: the report, then the figures."""
    facts: Facts = field(repr=False)
    """Everything that the report says."""

    def __repr__(self) -> str:
        return f"Reported({', '.join(self.written)})"


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
    run: Run | str | os.PathLike[str] = ".",
    output: str | os.PathLike[str] | None = None,
    form: str | None = None,
    figures: str | os.PathLike[str] | None = None,
    files: Mapping[str, str | None] | None = None,
) -> Reported:
    """Write one self-contained page about a run, or the files in its folder.

    output: default `report.html` (`.md`, `.json`) in `run`, or in this folder; form: `html`, `md`
    or `json`, default: as `output` ends. figures: a folder that gets every figure as .svg, .pdf and
    .png. files: others than the usual ones, by piece: profile, assignment, front, evaluation,
    device. Raises InputError where there is nothing to report, and for a named file that is damaged
    or not there.
    """
    folder = "." if isinstance(run, Run) else run
    facts = gather(run if isinstance(run, Run) else read_run(run, files))
    named = None if output is None else os.fspath(output)
    form = form_of(form, named)
    made: Mapping[str, Callable[[Mapping[str, str]], Any]] = {
        "html": lambda pictures: render(facts),
        "md": lambda pictures: render_markdown(facts, pictures),
        "json": lambda pictures: to_document(facts),
    }
    if form not in made:
        close = did_you_mean(form, made)
        raise InputError(f"got the format {form!r}{close}; expected {', '.join(made)}")
    drawings = drawings_of(facts) if figures is not None else ()
    path = named or os.path.join(folder, f"report.{form}")
    return Reported(tuple(write_report(path, made[form], drawings, figures)), facts)


def plot_front(
    front: Front,
    path: str | os.PathLike[str],
    uniform: Sequence[Point] = (),
    fp32: Point | None = None,
) -> None:
    """Draw Ω against the front's resource, and its measured accuracies above, as in the report.

    uniform: one choice everywhere; fp32: the float network, where the front does not know it.
    Writes `path` (.png, .svg or .pdf) in one step; another ending is an InputError.
    """
    check_picture(path)
    front = finite(front)
    if not len(front):
        raise InputError("the front has no points to draw; are its limits infeasible?")
    facts = Facts(
        version=mpsearch.__version__,
        generated=False,
        uniform=tuple(uniform),
        front=front_facts(front),
        fp32=fp32 or fp32_point(front, None, None),
    )
    save_picture(front_drawing(facts), path)
