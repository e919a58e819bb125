"""Figures as files: formats, fonts, and labels that do not overlap."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_runs import W4, W8, make_run
from tables import random_table

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.pareto.front import front
from mpsearch.reports.compare_facts import ComparedRun, CompareFacts
from mpsearch.reports.compare_sections import compare_drawing
from mpsearch.reports.facts import ConfusionFacts, PredictionFacts
from mpsearch.reports.front_figure import front_drawing
from mpsearch.reports.gather import gather
from mpsearch.reports.heat_figure import confusion_drawing, heat_drawing, prediction_drawing
from mpsearch.reports.labels import Label, place_labels
from mpsearch.reports.layer_sections import bits_drawing
from mpsearch.reports.run_folder import Run, read_run
from mpsearch.reports.sections import drawings_of
from mpsearch.reports.style import Drawing, canvas
from mpsearch.reports.writing import FORMATS, check_picture, plot_front, save_pictures
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

BEGINNINGS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", FORMATS)
def test_the_front_is_drawn_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path)
    assert run(["front", "--plot", f"picture.{kind}"]) == 0
    assert Path(f"picture.{kind}").read_bytes().startswith(BEGINNINGS[kind])


def test_other_endings_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path)
    assert run(["front", "-o", "new.csv", "--plot", "picture.docx"]) == 2
    assert "ends in .png, .svg or .pdf" in capsys.readouterr().err
    assert not Path("new.csv").exists()
    check_picture("A.PNG")
    empty = front(random_table(0, 3, 2, 1.0, groups=False), limits={"size_bytes": 0})
    with pytest.raises(InputError, match="no points to draw"):
        plot_front(empty, tmp_path / "x.png")


def test_figures_are_written_with_embedded_outlines(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert run(["report", str(tmp_path), "--figures", str(tmp_path / "figures")]) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    kinds = ("accuracy", "front", "bits", "sensitivity", "confusion")
    assert names == {f"{name}.{kind}" for name in kinds for kind in FORMATS}
    for path in (tmp_path / "figures").glob("*.pdf"):
        content = path.read_bytes()
        assert b"/Type3" not in content
        assert b"/FontFile2" in content  # a TrueType font, whole or in part
    for path in (tmp_path / "figures").glob("*.svg"):
        assert "<text" not in path.read_text()


def test_the_same_drawing_goes_into_page_and_file(tmp_path: Path) -> None:
    """The words of the front's PDF are those of its page."""
    make_run(tmp_path)
    _, drawing, *_ = drawings_of(gather(read_run(tmp_path)))
    assert drawing.name == "front"
    save_pictures([drawing], tmp_path)
    texts = {text.get_text() for text in texts_of(drawing)}
    assert {"chosen", "w4a4", "w8a8", "limit", "Pareto front, 4 points"} <= texts
    info = (tmp_path / "front.png").read_bytes()
    assert re.search(rb"(tEXt|iTXt|zTXt)Title", info)
    assert "Chosen: Ω 1.5" in (tmp_path / "front.svg").read_text()


def texts_of(drawing: Drawing) -> list[Text]:
    with canvas(drawing.height) as figure:
        FigureCanvasAgg(figure)
        drawing.draw(figure)
        return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def overlaps(drawing: Drawing) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap by more than half a point, and texts beyond the edge."""
    with canvas(drawing.height) as figure:
        FigureCanvasAgg(figure)
        drawing.draw(figure)
        figure.draw_without_rendering()
        hidden = undrawn(figure)
        boxes = [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(Text)
            if text.get_text().strip() and text.get_visible() and text not in hidden
        ]
        page = figure.bbox
    found = [
        (name, "beyond the edge")
        for name, box in boxes
        if box.x0 < page.x0 - 0.5
        or box.y0 < page.y0 - 0.5
        or box.x1 > page.x1 + 0.5
        or box.y1 > page.y1 + 0.5
    ]
    for place, (name, box) in enumerate(boxes):
        for other, second in boxes[place + 1 :]:
            wide = min(box.x1, second.x1) - max(box.x0, second.x0)
            high = min(box.y1, second.y1) - max(box.y0, second.y0)
            if wide > 0.5 and high > 0.5:
                found.append((name, other))
    return found


def undrawn(figure: Figure) -> set[Text]:
    """Labels of ticks that matplotlib keeps outside of the axes and does not draw."""
    found = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            least, most = sorted(axis.get_view_interval())
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if not least <= tick.get_loc() <= most:
                    found |= {tick.label1, tick.label2}
    return found


def many_layers(count: int, choices: Iterable[Choice]) -> Run:
    rng = np.random.default_rng(0)
    layers = [Layer(f"stage{n // 16 + 1}.unit{n % 16}.quant_convolution") for n in range(count)]
    rows = [
        Row(
            layer.name,
            choice,
            float(10 ** rng.uniform(-6, 0)) / choice.w_bits,
            1e-7,
            {"size_bytes": int(rng.integers(100, 9000)) * choice.w_bits},
        )
        for layer in layers
        for choice in choices
    ]
    made = LayerTable.from_rows(layers, rows)
    given = Assignment({name: W8 if n % 2 else W4 for n, name in enumerate(made.layer_names)})
    return Run(table=made, assignment=given)


TWO = (W4, W8)
FOUR = (Choice(2, 8), W4, Choice(4, 8), W8)
EIGHT = (*(Choice(w, a) for w in (2, 3, 6) for a in (4, 8)), W4, W8)


@pytest.mark.parametrize(
    ("count", "choices"), [(4, TWO), (14, FOUR), (60, TWO), (60, EIGHT), (300, FOUR)]
)
def test_labels_do_not_overlap(count: int, choices: tuple[Choice, ...]) -> None:
    facts = gather(many_layers(count, choices))
    assert facts.front is not None
    drawings = (bits_drawing(facts.layers), heat_drawing(facts.layers), front_drawing(facts))
    for drawing in drawings:
        assert drawing is not None
        assert overlaps(drawing) == []
    if count == 300:
        assert len(facts.front.omega) > 1000


@pytest.mark.parametrize("count", [3, 5000])
def test_the_words_of_predictions_confusions_and_comparisons_fit(count: int) -> None:
    omega = tuple(np.linspace(1.0, 1e-6, count).tolist())
    values = tuple(np.linspace(3.0, 0.25, count).tolist())
    rows = [
        PredictionFacts(measure, omega, values, values, values, -0.987, -0.987)
        for measure in ("loss", "points lost")
    ]
    classes = 5 if count == 3 else 12
    counts = tuple((1000,) * classes for _ in range(classes))
    runs = tuple(
        ComparedRun("quite_a_long_name_of_a_run_" * 2 + str(n), "", "", True,
                    tuple(range(count)), omega, (1, 0.5), None)
        for n in range(12)
    )  # fmt: skip
    compared = CompareFacts("0", "size_bytes", True, runs, (0, 0), (1, 1), (), (), ())
    made = (
        prediction_drawing(rows),
        confusion_drawing([ConfusionFacts("FP32", counts), ConfusionFacts("assignment", counts)]),
        compare_drawing(compared),
    )
    for drawing in made:
        assert drawing is not None
        assert overlaps(drawing) == []


@pytest.mark.parametrize("seed", range(4))
def test_names_of_marked_points_are_apart_and_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [
        Label(f"w{n}a{n}", float(x), float(y), "#000000")
        for n, (x, y) in enumerate(rng.normal(scale=0.1, size=(12, 2)))
    ]
    with canvas(3) as figure:
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot([-1, 1], [-1, 1])
        left_out = place_labels(axes, labels, [np.array([(-1.0, -1.0), (1.0, 1.0)])])
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        marks = axes.transData.transform([(label.x, label.y) for label in labels])
        assert len(boxes) + len(left_out) == 12
        assert len(boxes) >= 8
        for place, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[place + 1 :])
            assert not any(box.contains(x, y) for x, y in marks)
            room = axes.get_window_extent()
            assert room.x0 <= box.x0 <= box.x1 <= room.x1
            assert room.y0 <= box.y0 <= box.y1 <= room.y1
