"""Measured fronts: values recomputed another way, resumed runs, what is refused, the pictures."""

import csv
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from measuring import PLAINLY, make_folder
from scipy import stats
from torch.nn import functional

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation
from mpsearch.evaluation.subjects import Subject, load_subject
from mpsearch.importers.loading import ModelSource
from mpsearch.measured.front import COLUMNS, measure_front, read_front
from mpsearch.pareto.files import points_of, read_json, spread
from mpsearch.post_training.quantizing import Quantizing
from mpsearch.post_training.repairing import PLAIN
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.reports.front_facts import front_facts, point_text, prediction_facts
from mpsearch.reports.gather import gather
from mpsearch.reports.html import render
from mpsearch.reports.run_folder import read_run
from mpsearch.statistics import drop_interval, paired_drop
from mpsearch.tables.choice import Choice

pytestmark = pytest.mark.usefixtures("coarse_scales")

EVALUATE = f"evaluate model.pt {PLAINLY} --wide 32"  # as PLAIN has it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_folder(folder)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _subject() -> Subject:
    return load_subject(ModelSource("model.pt"), "test.npz", None, post_training=PLAIN)


def _rows() -> list[dict[str, str]]:
    with Path("front.csv").open() as file:
        return list(csv.DictReader(file))


def test_points_halve_the_widest_gap_in_log_size() -> None:
    assert spread(np.array([1.0, 2, 4, 8, 16]), 3) == [0, 2, 4]
    assert spread(np.array([0.0, 1, 9, 16]), 3) == [0, 2, 3]  # no logarithm of zero
    assert spread(np.array([7.0]), 12) == [0]
    rng = np.random.default_rng(0)
    for size in (2, 3, 40):
        amounts = np.sort(rng.uniform(1, 1000, size))
        found: list[int] = []
        for count in range(2, size + 3):
            before, found = set(found), spread(amounts, count)
            assert before <= set(found)  # what was measured for fewer points is of use for more
            assert len(set(found)) == min(count, size)
            assert {0, size - 1} <= set(found)
    with pytest.raises(InputError, match="at least 2"):
        spread(np.array([1.0, 2.0]), 1)


def test_layers_quantized_once_are_those_quantized_each_time(place: Path) -> None:
    subject = _subject()
    assert subject.calibration is not None
    histograms = calibrate(subject.network, subject.calibration)
    quantizing = Quantizing(subject.network, subject.calibration, post_training=PLAIN)
    front = read_front("front.csv")
    mixed = dict.fromkeys(front.layers, Choice(4, 8)) | {"2": Choice(32, 32)}
    inputs = subject.data.inputs
    for choices in [mixed, *(front.assignment(point) for point in range(0, len(front), 11)), mixed]:
        expected = quantize(subject.network, choices, histograms)(*inputs)
        assert torch.equal(quantizing(choices)(*inputs), expected)


def test_measured_columns_are_those_computed_another_way(place: Path) -> None:
    assert run(f"{EVALUATE} --front front.csv --points 4 --data test.npz".split()) == 0
    front, rows = read_front("front.csv"), _rows()
    measured = spread(front.totals["size_bytes"].astype(float), 4)
    assert [n for n, row in enumerate(rows) if row["accuracy"]] == measured
    assert all(
        row[name] == "" for n, row in enumerate(rows) if n not in measured for name in COLUMNS
    )
    subject = _subject()
    assert subject.calibration is not None
    histograms = calibrate(subject.network, subject.calibration)
    labels = subject.data.labels
    assert labels is not None
    right = subject.network(*subject.data.inputs).argmax(1) == labels
    assert int(right.sum()) == 135  # one label in ten is wrong
    for point in measured:
        choices = front.assignment(point)
        logits = quantize(subject.network, choices, histograms)(*subject.data.inputs)
        hits = logits.argmax(1) == labels
        row = {name: float(rows[point][name]) for name in COLUMNS}
        assert row["accuracy"] == hits.double().mean().item()
        interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, "wilson")
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(interval)
        assert row["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item())
        differences = right.double() - hits.double()
        assert row["drop"] == pytest.approx(differences.mean().item())
        lost, won = int((differences > 0).sum()), int((differences < 0).sum())
        interval = drop_interval(lost, won, len(hits))
        assert (row["drop_low"], row["drop_high"]) == pytest.approx(interval)
        assert {n: front.measured[n][point] for n in COLUMNS} == row
    assert float(rows[0]["accuracy"]) < float(rows[-1]["accuracy"])  # it is not all the same
    assert front.measurement["samples"] == 150
    assert front.measurement["held_out"]


def test_a_killed_run_goes_on_and_keeps_what_was_measured(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, subject = read_front("front.csv"), _subject()
    points = spread(front.totals["size_bytes"].astype(float), 6)
    measure = Subject.measure
    names: list[int] = []

    def counted(self: Subject, name: str, choices: dict[str, Choice]) -> Evaluation:
        names.append(int(name))
        if len(names) == 4:
            raise KeyboardInterrupt
        return measure(self, name, choices)

    monkeypatch.setattr(Subject, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        measure_front(front, points, subject, "front.csv")
    assert [n for n, row in enumerate(_rows()) if row["accuracy"]] == points[:3]
    measure_front(read_front("front.csv"), points, _subject(), "front.csv")
    assert names == [*points[:4], *points[3:]]
    resumed = read_front("front.csv")
    whole = measure_front(front, points, subject, "whole.csv")
    for name in COLUMNS:
        assert np.array_equal(resumed.measured[name], whole.measured[name], equal_nan=True)
    measure_front(resumed, points, _subject(), "front.csv")
    assert len(names) == 7 + 6  # nothing was left to measure


def test_equal_assignments_are_measured_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(Path("front.json").read_text())
    document["assignments"][1] = document["assignments"][0]
    Path("front.json").write_text(json.dumps(document))
    measure = Subject.measure
    names: list[str] = []

    def counted(self: Subject, name: str, choices: dict[str, Choice]) -> Evaluation:
        names.append(name)
        return measure(self, name, choices)

    monkeypatch.setattr(Subject, "measure", counted)
    front = measure_front(read_front("front.csv"), [0, 1, 2], _subject(), "front.csv")
    assert names == ["0", "2"]
    assert front.measured["accuracy"][0] == front.measured["accuracy"][1]


def test_values_of_other_data_are_refused_or_dropped(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"{EVALUATE} --front front.csv --points 3 --data test.npz".split()) == 0
    other = f"{EVALUATE} --front front.csv --points 2 --data fresh.npz"
    assert run(other.split()) == 2
    error = capsys.readouterr().err
    assert "holds 3 points measured on test.npz" in error
    assert "--remeasure" in error
    assert sum(bool(row["accuracy"]) for row in _rows()) == 3
    assert run([*other.split(), "--remeasure"]) == 0
    assert sum(bool(row["accuracy"]) for row in _rows()) == 2
    assert read_front("front.csv").measurement["data"] == "fresh.npz"


def _other_network() -> str:
    document = json.loads(Path("front.json").read_text())
    document["layers"][2] = "elsewhere"
    Path("front.json").write_text(json.dumps(document))
    return f"{EVALUATE} --front front.csv --data test.npz"


def _no_json() -> str:
    Path("front.json").unlink()
    return f"{EVALUATE} --front front.csv --data test.npz"


def _empty() -> str:
    document = json.loads(Path("front.json").read_text())
    document |= {"omega": [], "assignments": [], "measured": {}}
    document["totals"] = {name: [] for name in document["totals"]}
    Path("front.json").write_text(json.dumps(document))
    return f"{EVALUATE} --front front.csv --data test.npz"


def _damaged() -> str:
    document = json.loads(Path("front.json").read_text())
    subject = _subject()
    measure_front(read_json("front.json"), [0], subject, "front.csv")
    document = json.loads(Path("front.json").read_text())
    del document["measurement"]["fp32"]["correct"]
    Path("front.json").write_text(json.dumps(document))
    return f"{EVALUATE} --front front.csv --data test.npz"


def test_without_labels_points_are_measured_against_fp32(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shares of FP32's classes, counted; labelled data are other data, and the report shows
    agreement in place of accuracy."""
    arrays = dict(np.load("test.npz"))
    del arrays["y"]
    np.savez("bare.npz", **arrays)
    call = f"{EVALUATE} --front front.csv --points 3 --data bare.npz"
    assert run(call.split()) == 0
    assert "no labels: measured against the FP32 network" in capsys.readouterr().out
    front, subject = read_front("front.csv"), _subject()
    assert {"agreement", "agreement_low", "loss_high"} <= set(front.measured)
    assert not {"accuracy", "drop"} & set(front.measured)
    there = np.flatnonzero(~np.isnan(front.measured["agreement"]))
    assert len(there) == 3
    with torch.no_grad():
        expected = subject.network(*subject.data.inputs).argmax(1)
        for point in there.tolist():
            found = subject.quantized(front.assignment(point))(*subject.data.inputs).argmax(1)
            share = float((found == expected).double().mean())
            assert front.measured["agreement"][point] == pytest.approx(share)
    facts = front_facts(front)
    assert facts.measured is not None
    assert facts.measured.score == "agreement"
    assert ", agreement " in point_text(facts, int(there[0]))
    assert [one.measure for one in prediction_facts(front)] == ["divergence"]
    assert run(call.split()) == 0  # nothing is measured twice
    assert run(f"{EVALUATE} --front front.csv --points 3 --data test.npz".split()) == 2
    assert "3 points measured on bare.npz with other data" in capsys.readouterr().err
    remeasured = f"{EVALUATE} --front front.csv --points 3 --data test.npz --remeasure"
    assert run(remeasured.split()) == 0
    assert read_front("front.csv").score == "accuracy"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (_other_network, "a layer 'elsewhere' that the network lacks"),
        (_no_json, "has no front.json beside it"),
        (_damaged, "measurement of FP32 is damaged"),
        (_empty, "the front has no points"),
        (lambda: "evaluate model.pt --front nothing.csv", "there is no front nothing.json"),
        (lambda: f"{EVALUATE} --front front.csv --points few", "a number such as 12, or all"),
        (lambda: f"{EVALUATE} --front front.csv --points 1", "at least 2"),
        (
            lambda: f"{EVALUATE} --front front.csv --point 1B",
            "no point of the front is within",
        ),
        (lambda: f"{EVALUATE} --front front.csv --point 50%", "expected an absolute"),
        (lambda: f"{EVALUATE} --front front.csv --points 3 --point 1KB", "one of the two"),
        (lambda: f"{EVALUATE} --front front.csv --uniform w8a8", "leave out --assignment"),
        (lambda: "evaluate model.pt --points 3", "go with --front"),
        (lambda: f"{EVALUATE} --front front.csv --plot front.xyz", "cannot draw"),
    ],
)
def test_wrong_calls_are_refused_in_a_line(
    command: Callable[[], str], message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command().split()) == 2
    assert message in capsys.readouterr().err


def test_named_sizes_give_the_best_point_within_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    front = read_front("front.csv")
    sizes = front.totals["size_bytes"]
    limit = int(sizes[len(front) // 2])
    point = max(n for n, size in enumerate(sizes) if size <= limit)
    assert points_of(front, "12", [f"{limit}B", f"{limit}B"]) == [point]
    assert points_of(front, "all") == list(range(len(front)))
    command = f"{EVALUATE} --front front.csv --point {limit}B --data test.npz --json"
    capsys.readouterr()
    assert run(command.split()) == 0
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rows"]
    assert (row["point"], row["totals"]["size_bytes"]) == (point, sizes[point])
    assert row["accuracy"] == read_front("front.csv").measured["accuracy"][point]


def test_one_sample_and_a_missing_class_are_measured_with_honest_intervals(place: Path) -> None:
    arrays = {name: array[:1] for name, array in np.load("test.npz").items()}
    np.savez("one.npz", **arrays)
    assert run(f"{EVALUATE} --front front.csv --points 2 --data one.npz".split()) == 0
    row = _rows()[-1]
    assert float(row["accuracy_high"]) - float(row["accuracy_low"]) > 0.7
    assert float(row["drop_high"]) - float(row["drop_low"]) > 0.9
    assert row["loss_low"] == ""  # one loss says nothing of its spread
    assert "nan" not in Path("front.csv").read_text().lower()
    assert "NaN" not in Path("front.json").read_text()
    arrays = dict(np.load("test.npz"))
    keep = arrays["y"] != 2
    np.savez("few.npz", **{name: array[keep] for name, array in arrays.items()})
    command = f"{EVALUATE} --front front.csv --points 2 --data few.npz --remeasure"
    assert run(command.split()) == 0


def test_drops_without_differing_pairs_have_intervals_of_their_own() -> None:
    """Tango's statistic by hand: n d² / (d (1 - d)) = z² where no pair differs, n (1 - d)² /
    (1 - d²) = z² where all are lost."""
    z = stats.norm.ppf(0.975) ** 2
    for n in (1, 30, 1000):
        drop, (low, high) = paired_drop([True] * n, [True] * n)
        assert drop == 0
        assert (-low, high) == pytest.approx((z / (n + z), z / (n + z)))
        drop, (low, high) = paired_drop([True] * n, [False] * n)
        assert (drop, high) == (1, 1)
        assert low == pytest.approx((n - z) / (n + z))
        assert paired_drop([False] * n, [True] * n)[1] == pytest.approx((-1, -low))


def test_pictures_and_report_show_what_was_measured(place: Path) -> None:
    command = f"{EVALUATE} --front front.csv --points 5 --data test.npz --plot front.png"
    assert run(command.split()) == 0
    assert Path("front.png").read_bytes()[:4] == b"\x89PNG"
    facts = gather(read_run("."))
    assert facts.front is not None
    found = facts.front.measured
    assert found is not None
    rows = [row for row in _rows() if row["accuracy"]]
    assert list(found.accuracy) == [float(row["accuracy"]) for row in rows]
    assert list(found.totals) == [int(row["size_bytes"]) for row in rows]
    assert list(found.low) == [float(row["accuracy_low"]) for row in rows]
    assert found.fp32 == 0.9
    page = render(facts)
    assert "Measured at 5 points" in page
    assert "5 points that were measured on 150 samples of test.npz" in page


def first_figure() -> str:
    return Path("report.html").read_text().split("</svg>")[0]


def test_many_measured_points_are_drawn_as_a_band(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(f"{EVALUATE} --front front.csv --points 4 --data test.npz".split()) == 0
    assert run(["report"]) == 0
    bars = first_figure()
    monkeypatch.setattr("mpsearch.reports.accuracy_figure.FEW", 3)
    assert run(["report"]) == 0
    band = first_figure()
    assert ("LineCollection" in bars, "LineCollection" in band) == (True, False)
    assert "FillBetweenPolyCollection" in band


def test_a_front_that_is_made_again_keeps_what_was_measured(place: Path) -> None:
    assert run(f"{EVALUATE} --front front.csv --points 3 --data test.npz".split()) == 0
    before = read_front("front.csv")
    assert run("front -o front.csv --size 300B --plot again.png".split()) == 0
    assert Path("again.png").read_bytes()[:4] == b"\x89PNG"
    after = read_front("front.csv")
    assert 0 < len(after) < len(before)
    for name in COLUMNS:
        kept = before.measured[name][: len(after)]
        assert np.array_equal(after.measured[name], kept, equal_nan=True)
    assert run(f"{EVALUATE} --front front.csv --points 3 --data test.npz".split()) == 0
    text = Path("profile.csv").read_text().replace("\n2,", "\nelsewhere,")
    Path("profile.csv").write_text(text)
    assert run("front -o front.csv".split()) == 0
    assert not read_front("front.csv").measurement


def test_the_report_gives_commands_that_measure_the_same(place: Path) -> None:
    assert run(f"{EVALUATE} --front front.csv --points 3 --data test.npz".split()) == 0
    assert run(f"solve {PLAINLY} --min-accuracy 70 --data test.npz --measure 5".split()) == 0
    before, assignment = (
        Path("front.csv").read_text(),
        json.loads(Path("assignment.json").read_text()),
    )
    commands = gather(read_run(".")).commands
    Path("front.csv").unlink()
    Path("front.json").unlink()
    Path("assignment.json").unlink()
    for command in commands:
        assert run(shlex.split(command)[1:]) == 0
    assert Path("front.csv").read_text() == before
    again = json.loads(Path("assignment.json").read_text())
    assert again["layers"] == assignment["layers"]
    assert again["measured"] == assignment["measured"] | {"seconds": again["measured"]["seconds"]}
