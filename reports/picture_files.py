"""Drawings as files for papers and slides: PNG, SVG, PDF."""

import os
from collections.abc import Sequence
from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.files.writing import atomic_path
from mpsearch.reports.drawing import Drawing
from mpsearch.reports.style import canvas, drawn
from mpsearch.running.foreign_text import shown

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
