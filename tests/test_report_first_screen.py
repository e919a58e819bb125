"""What a report says first, the picture of accuracies, and the parts of a front."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_runs import HOSTILE, W4, W8, make_run, row, table, tied
from tables import random_table
from test_report import parse
from test_report_page import CHROMIUM, _dom, data_of
from test_report_pictures import overlaps, texts_of

from mpsearch.evaluation.evaluation import Evaluations
from mpsearch.pareto.front import Front, front
from mpsearch.reports.accuracy_figure import accuracy_drawing, accuracy_picture, lower_edge
from mpsearch.reports.facts import Facts, LimitFacts, MetricFacts, NearFacts
from mpsearch.reports.first_screen import answer_sentence, headlines_of, title_of
from mpsearch.reports.front_figure import front_parts
from mpsearch.reports.gather import gather
from mpsearch.reports.html import render
from mpsearch.reports.run_folder import Run, read_run
from mpsearch.reports.writing import render_markdown
from mpsearch.statistics import drop_interval, wilson_interval
from mpsearch.tables.assignment import Assignment


@pytest.fixture
def measured(tmp_path: Path) -> Run:
    """1624 of 1700 bytes, 88 of 100 right beside FP32's 90 at 7000 bytes; 29 Nov 2026."""
    make_run(tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (1_795_000_000, 1_795_960_000))
    return replace(read_run(tmp_path), folder="digits")


def dense() -> Facts:
    """A front of more points than stand apart, and one of its points chosen."""
    made = random_table(3, 12, 4, 1.0, groups=False)
    points = front(made)
    assert len(points) > 100
    chosen = points.assignment(len(points) // 2)
    return gather(Run(table=made, assignment=Assignment(chosen), front=points))


def with_points(run: Run) -> Front:
    """Its front with two measured points, on 50 samples of other data."""
    assert run.front is not None
    nothing = np.nan
    values = {
        "accuracy": np.array([0.4, nothing, nothing, 0.9]),
        "accuracy_low": np.array([0.3, nothing, nothing, 0.8]),
        "accuracy_high": np.array([0.5, nothing, nothing, 0.95]),
    }
    return replace(run.front, measured=values,
                   measurement={"samples": 50, "data": "other.npz"})  # fmt: skip


def test_title_numbers_and_sentence_by_hand(measured: Run) -> None:
    facts = gather(measured)
    assert title_of(facts) == "my model in 1.7 KB · 29 Nov 2026"
    numbers = headlines_of(facts)
    assert numbers is not None
    low, high = (100 * end for end in wilson_interval(88, 100))
    size, accuracy, smaller = numbers.items
    assert (size.value, size.label) == ("1.6 of 1.7\u00a0KB", "size, 76\u00a0B below the limit")
    assert accuracy.value == "88.00\u00a0%"
    assert f"95 % interval {low:.2f} to {high:.2f} %; 2.00 points less than" in accuracy.label
    lost, won = drop_interval(3, 1, 100)
    assert accuracy.label.endswith(f"({100 * lost:.2f} to {100 * won:.2f})")
    (reference, chosen) = facts.accuracies
    better = replace(chosen, lost=-1.0, lost_interval=(-2.0, 0.5))
    gained = headlines_of(replace(facts, accuracies=(reference, better)))
    assert gained is not None
    assert gained.items[1].label.endswith("1.00 points more than FP32 (-0.50 to 2.00)")
    assert (smaller.value, smaller.label) == ("4.3×", "smaller than FP32, which takes 6.8 KB")
    assert answer_sentence(facts) == (
        "my model takes 1.6 of 1.7\u00a0KB, 4.3 times less than FP32, and is right on 88.00 % of "
        "100 unseen samples, 2.00 points less than FP32; its 2 layers have 4- to 8-bit "
        "weights, of least Ω, proven."
    )
    usual = {"data": "the sample in runs/model.pt"}  # a name that says nothing
    assert gather(replace(measured, provenance=usual)).name == "digits"
    named = gather(replace(measured, provenance={"data": "x.npz", "model_file": "nets/kws.tflite"}))
    assert named.name == "kws"
    assert named.commands[0].startswith("mpsearch profile nets/kws.tflite --data x.npz")
    assert measured.assignment is not None
    memory = {"ram_bytes": 3 * 1024, "ram_limit": 4 * 1024}
    both = headlines_of(gather(replace(measured, assignment=replace(measured.assignment,
                                                                    memory=memory))))  # fmt: skip
    assert both is not None
    assert both.items[0].label.endswith("below the limit; RAM 3.0 of 4.0\u00a0KB")
    board = replace(measured.assignment, memory=memory, limits={})
    facts_of_board = gather(replace(measured, assignment=board))
    assert title_of(facts_of_board).startswith("my model with 4 KB RAM · ")
    assert (
        "takes 3.0 of 4.0\u00a0KB RAM, is 4.3 times smaller than FP32, and is"
        in answer_sentence(facts_of_board)
    )
    over = replace(facts.limits[0], limit=1500, slack=-124)
    assert headlines_of(replace(facts, limits=(over,))) is not None
    assert "OVER the limit" in render(replace(facts, limits=(over,)))
    for text in (render(facts), render_markdown(facts)):
        assert text.index("1.6 of 1.7") < text.index("88.00") < text.index("4.3×")


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    given = gather(Run(assignment=Assignment({"one": W4})))
    assert title_of(given) == "model"
    assert answer_sentence(given) == "model has an assignment; its layer has 4-bit weights."
    alone = gather(Run(table=table(), folder="x", date="2026-01-02"))
    assert title_of(alone) == "x · 2 Jan 2026"
    assert headlines_of(alone) is None
    assert "There is no assignment" in answer_sentence(alone)


def test_without_labels_it_says_how_often_the_answers_are_those_of_fp32(measured: Run) -> None:
    agreement = MetricFacts("assignment", "agreement", 0.97, (0.9, 0.99), None, None, "wilson")
    near = NearFacts("assignment", 1624, 65600, 4.3, agreement, None, None)
    whole = gather(measured)
    limit = LimitFacts("bops", 70_000, 65_600, 4_400, None)
    facts = replace(whole, accuracies=(), near=(near,), measured_samples=50, limits=(limit,))
    numbers = headlines_of(facts)
    assert numbers is not None
    assert numbers.items[1].value == "97.00\u00a0%"
    assert "answers as FP32 on 97.00 % of 50 samples" in answer_sentence(facts)
    shares = replace(near, agreement=replace(agreement, method="bootstrap of 1000"))
    of_boxes = answer_sentence(replace(facts, near=(shares,)))
    assert "on 97.00 % of the numbers that it gives for 50 samples" in of_boxes
    picture = accuracy_picture(facts)
    assert picture is not None
    assert (picture.score, picture.column, picture.limit) == ("agreement", "bops", 70_000)
    assert "<h2>Agreement and the Pareto front</h2>" in render(facts)


def test_without_measurements_the_front_is_first_and_the_command_is_there(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "evaluation.json").unlink()
    facts = gather(read_run(tmp_path))
    assert facts.measure == (
        f"mpsearch evaluate 'my model.pt' --assignment {tmp_path}/assignment.json --uniform w8a8 "
        "--data test.npz",
        f"mpsearch evaluate 'my model.pt' --front {tmp_path}/front.csv --points 8 --data test.npz",
    )
    page = render(facts)
    assert "not measured" in page
    assert "evaluate &#x27;my model.pt&#x27; --assignment" in page
    assert accuracy_drawing(facts) is None
    titles = re.findall(r"<title id=\"(\w+)-title\"", page)
    assert titles[0] == "front"


def test_the_picture_of_accuracies_by_hand(measured: Run) -> None:
    facts = gather(measured)
    picture = accuracy_picture(facts)
    assert picture is not None
    assert (picture.column, picture.score, picture.limit) == ("size_bytes", "accuracy", 1700)
    assert picture.chosen is not None
    assert (picture.chosen.total, picture.chosen.value) == (1624, 88)
    assert picture.fp32 is not None
    ends = [100 * end for end in wilson_interval(90, 100)]
    assert [picture.fp32.value, picture.fp32.low, picture.fp32.high] == [90, *ends]
    assert (picture.uniform, picture.front, lower_edge(picture)) == ((), (), None)
    titles = re.findall(r"<title id=\"(\w+)-title\"", render(facts))
    assert titles[:2] == ["accuracy", "front"]


def test_uniform_and_measured_points_are_in_it_and_what_is_far_below_is_named(
    measured: Run,
) -> None:
    assert measured.evaluations is not None
    assert measured.assignment is not None
    rows = measured.evaluations.rows
    four = row("w4a4", [True] * 41 + [False] * 59, None, None)
    (four,) = tied((four,), {"one": W4, "two": W4})
    run = replace(
        measured,
        evaluations=Evaluations("test.npz", "sha256:00", True, (*rows, four)),
        front=with_points(measured),
    )
    picture = accuracy_picture(gather(run))
    assert picture is not None
    (uniform,) = picture.uniform
    assert (uniform.name, uniform.total, uniform.value) == ("w4a4", 1024, 41)  # of the table
    assert [(mark.total, mark.value) for mark in picture.front] == [(1024, 40), (2048, 90)]
    assert picture.front_where == "50 samples of other.npz"
    edge = lower_edge(picture)
    assert edge == 100 * wilson_interval(88, 100)[0] - 20
    drawing = accuracy_drawing(gather(run))
    assert drawing is not None
    texts = {text.get_text() for text in texts_of(drawing)}
    assert {
        "chosen",
        "w4a4: 41.0 %",
        "FP32",
        "limit",
        "front, 2 points measured",
        "FP32: 90.00 % at 6.8 KB →",
    } <= texts
    assert overlaps(drawing) == []
    assert "other.npz" in drawing.caption
    alone = accuracy_picture(gather(replace(run, evaluations=None)))  # front.json alone is enough
    assert alone is not None
    assert (alone.chosen, alone.where) == (None, "50 samples of other.npz")
    at_end = replace(measured.assignment, layers={"one": W8, "two": W8}, totals={}, limits={})
    found = accuracy_picture(gather(replace(run, evaluations=None, assignment=at_end)))
    assert found is not None
    assert found.chosen == found.front[1]


def test_the_parts_of_a_front_have_every_point_and_can_be_chosen_without_the_script() -> None:
    facts = dense()
    assert facts.front is not None
    whole = list(zip(facts.front.totals, facts.front.omega, strict=True))
    joined: list[tuple[float, float]] = []
    for part in front_parts(facts):
        assert part.front is not None
        points = list(zip(part.front.totals, part.front.omega, strict=True))
        assert len(points) >= 20
        assert joined[-1:] in ([], points[:1])  # neighbours share a point
        joined += points[1:] if joined else points
        for point in (*part.uniform, *([part.answer.point] if part.answer else [])):
            assert points[0][0] <= point.totals[facts.front.resource] <= points[-1][0]
    assert joined == whole
    assert sum(part.answer is not None for part in front_parts(facts)) in (1, 2)
    page = render(facts)
    tags = parse(page).tags
    radios = [attrs for tag, attrs in tags if tag == "input" and attrs["type"] == "radio"]
    assert len(radios) == len(front_parts(facts)) + 1
    assert ["checked" in attrs for attrs in radios] == [True] + [False] * (len(radios) - 1)
    for attrs in radios:
        assert f"#{attrs['id']}:checked ~ .views" in page
    every = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(every) == len(set(every))
    document = json.loads(data_of(page))
    (_, all_points), *views = document["views"]
    assert len(all_points) == len(document["points"])
    assert all(0 <= first < first + len(places) <= len(all_points) for first, places in views)
    covered = {place for first, places in views for place in range(first, first + len(places))}
    assert covered == set(range(len(all_points)))


def test_a_hostile_name_in_the_title_stays_text(measured: Run) -> None:
    facts = replace(gather(measured), name=HOSTILE)
    assert not {tag for tag, _ in parse(render(facts)).tags} & {"img", "iframe"}
    assert not re.findall(r"(?<!\\)[<`\[]", render_markdown(facts).split("\n")[0])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, which is not installed")
def test_in_a_browser_a_limit_finds_its_point_and_arrows_leave_a_part(tmp_path: Path) -> None:
    facts = dense()
    assert facts.front is not None
    page = render(facts)
    document = json.loads(data_of(page))
    last = document["views"][1][0] + len(document["views"][1][1]) - 1
    limit = document["points"][last][2] / document["unit"]
    steps = (
        "<script>{ const box = document.getElementById('front-limit');"
        "document.getElementById('front-part-1').checked = true;"
        f"box.value = '{limit!r}'; box.dispatchEvent(new Event('input'));"
        "const read = document.getElementById('front-reading');"
        "document.title = read.firstChild.textContent + '|';"
        "document.querySelector('.views').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'ArrowRight'}));"
        "document.title += read.firstChild.textContent + '|'"
        " + document.querySelector('.views').parentNode.querySelector(':checked').id; }</script>"
        "</body>"
    )
    free = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    (tmp_path / "page.html").write_text(free.replace("</body>", steps))
    (title,) = re.findall(r"<title>(.*?)</title>", _dom(tmp_path / "page.html"))
    found, after, part = title.split("|")
    assert found == document["points"][last][0]
    assert after == document["points"][last + 1][0]
    assert part == "front-part-2"
