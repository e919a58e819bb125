"""The front of a table as a picture file."""

import os
from collections.abc import Sequence

import mpsearch
from mpsearch.errors import InputError
from mpsearch.pareto.front import Front
from mpsearch.reports.facts import Facts, Point
from mpsearch.reports.front_facts import finite, fp32_point, front_facts
from mpsearch.reports.front_figure import front_drawing
from mpsearch.reports.picture_files import check_picture, save_picture


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
