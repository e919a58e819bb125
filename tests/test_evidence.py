"""Figures count for the network that they were measured on and for no other.

Two networks of one shape are run through the commands; then one file at a time is of the other
network, of other bits or of other data, and every command that reads it has to refuse it.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_profiles import PROFILE
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.device.exported import read_export
from mpsearch.device.profile import save_device_profile
from mpsearch.evaluation.evaluation import load_evaluations, save_evaluations
from mpsearch.files.whole import digest
from mpsearch.interactions.interactions import load_interactions, save_interactions
from mpsearch.tables.assignment import Assignment

PINS = ["--pin", "0=w8a8", "--pin", "2=w8a8", "--pin", "4=w4a4", "--pin", "6=w8a8"]
SWAPPED = {"2": "4", "4": "2"}  # two layers of one shape: size and BOPS stay
DROP = ["gate", "--max-drop", "100"]
LATENCY = ["gate", "--max-latency", "1s"]


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    sizes = [(6, 8), (8, 8), (8, 8), (8, 3)]
    layers: list[nn.Module] = []
    for width, height in sizes:
        layers += [nn.Linear(width, height), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def make(folder: Path, seed: int) -> None:
    """One run: profile, interactions, assignment, front, evaluation, answer, export, device."""
    random = np.random.default_rng(3)
    x = random.normal(size=(160, 6)).astype(np.float32)
    y = random.integers(0, 3, len(x))
    sample = {"x0": torch.from_numpy(x[:64]), "y": torch.from_numpy(y[:64])}
    mpsearch.save(network(seed), "model.pt", (torch.zeros(1, 6),), sample=sample)
    np.savez("test.npz", x0=x, y=y)
    data = ["--data", "test.npz"]
    for words in (
        ["profile", "model.pt", "--interactions"],
        ["front", "-o", "front.csv"],
        ["solve", "--min-accuracy", "2%", *data, "-o", "answer.json"],
        ["solve", "--size", "70%", "--refine", "1", *data, "-o", "refined.json"],
        ["solve", *PINS],
        ["evaluate", "model.pt", "--assignment", "assignment.json", "--uniform", "w8a8", *data],
        ["evaluate", "model.pt", "--front", "front.csv", "--points", "2", *data],
        ["apply", "model.pt"],
        ["evaluate", "quantized.pt", "--fp32", "model.pt", *data, "-o", "of_file.json"],
        ["export", "quantized.pt", "--fp32", "model.pt", "-o", "export"],
    ):
        assert run(words) == 0, words
    exported = read_export("export")
    ran = replace(
        PROFILE, network=exported.network, model_digest=exported.model_digest,
        quantized_digest=exported.quantized_digest,
    )  # fmt: skip
    save_device_profile(ran, folder / "device.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("evidence")
    with pytest.MonkeyPatch.context() as patch:
        for name, seed in (("this", 1), ("other", 2)):
            (folder / name).mkdir()
            patch.chdir(folder / name)
            make(folder / name, seed)
    return folder / "this", folder / "other"


@pytest.fixture
def here(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A copy of the first run, which is the working directory, and the other run."""
    shutil.copytree(runs[0], tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return tmp_path / "run", runs[1]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said where the exit code is 2, in at most two lines and with a command to run."""
    capsys.readouterr()
    assert run(words) == 2, words
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 2, error
    return error


def edit(name: str, change: Callable[[Any], None]) -> None:
    document = json.loads(Path(name).read_text())
    change(document)
    Path(name).write_text(json.dumps(document))


def swap_bits(name: str) -> None:
    def change(document: Any) -> None:
        layers = document["layers"]
        document["layers"] = {one: layers[SWAPPED.get(one, one)] for one in layers}

    edit(name, change)


def test_every_command_takes_the_evidence_of_its_own_network(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        DROP, LATENCY, ["report"], ["predict"], ["gate", "--update-baseline", "main.json"],
        ["gate", "--evaluation", "of_file.json", "--max-drop", "100", "--max-latency", "1s"],
        ["gate", "--row", "w8a8", "--max-drop", "100"],
        ["gate", "model.pt", "--data", "test.npz", "--max-drop", "100", "--max-latency", "1s"],
        ["gate", "quantized.pt", "--fp32", "model.pt", "--data", "test.npz", "--max-drop", "100"],
        ["report", "--assignment", "answer.json", "--evaluation", "none.json"][:3],
    ):  # fmt: skip
        if "answer.json" in words:  # the evaluation and the device are of the other assignment
            for name in ("evaluation.json", "device.json"):
                Path(name).unlink()
        capsys.readouterr()
        assert run(words) == 0, words
        printed = capsys.readouterr()
        assert "unverified" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["evaluation.json"], DROP),
        (["evaluation.json"], ["gate", "--min", "accuracy=0", "--max", "loss=100"]),
        (["evaluation.json"], ["gate", "--row", "w8a8", "--min-accuracy", "0%"]),
        (["evaluation.json"], ["gate", "--update-baseline", "main.json"]),
        (["evaluation.json"], ["report"]),
        (["profile.csv", "profile.json", "assignment.json"], DROP),
        (["assignment.json"], DROP),
        (["profile.csv", "profile.json"], ["report"]),
        (["device.json"], LATENCY),
        (["device.json"], ["gate", "--update-baseline", "main.json"]),
        (["device.json"], ["report"]),
        (["device.json"], ["gate", "model.pt", "--data", "test.npz", "--max-latency", "1s"]),
        (["front.json", "front.csv", "profile.csv"], ["report"]),
        (["profile.interactions.npz"], ["predict"]),
        (["profile.interactions.npz"], ["solve", "--size", "80%", "--rerank", "3"]),
        (["model.pt"], ["solve", "--min-accuracy", "2%", "--data", "test.npz"]),
    ],
)
def test_evidence_of_other_weights_is_refused_by_whoever_reads_it(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str], files: list[str], words: list[str]
) -> None:
    for name in files:
        shutil.copy(here[1] / name, here[0] / name)
    error = refused(words, capsys)
    assert "of other weights than" in error
    assert error.count("sha256:") == 2


def test_what_a_model_does_now_is_judged_whatever_the_files_say(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(here[1] / "model.pt", "retrained.pt")
    capsys.readouterr()
    words = ["--data", "test.npz", "--max-drop", "100"]
    assert run(["gate", "retrained.pt", *words]) == 0
    assert "solved for other weights than the model's" in capsys.readouterr().out
    error = refused(["gate", "quantized.pt", "--fp32", "retrained.pt", *words], capsys)
    assert "row FP32 is of other weights than the row 'quantized'" in error
    said = "has other weights than the network that quantized.pt was made from"
    evaluate = ["evaluate", "quantized.pt", *words[:2], "-o", "other.json", "--fp32"]
    for model, noted in (("retrained.pt", True), ("model.pt", False)):
        assert run([*evaluate, model]) == 0
        assert (said in capsys.readouterr().out) is noted


@pytest.mark.parametrize("words", [DROP, ["report"]])
def test_bits_that_are_swapped_between_equal_layers_are_named(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    swap_bits("assignment.json")
    Path("device.json").unlink()
    error = refused(words, capsys)
    assert "other bits than the assignment: layers 2 (w8a8, in the assignment w4a4), 4" in error


@pytest.mark.parametrize("words", [LATENCY, ["report"]])
def test_latency_of_another_assignment_is_refused(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    swap_bits("assignment.json")
    Path("evaluation.json").unlink()
    assert "of another assignment than the one judged" in refused(words, capsys)


def test_latency_and_accuracy_of_two_quantized_files_are_not_of_one_network(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Other integers of the same weights and bits, as fine-tuning and repairs give."""
    data = ["--data", "test.npz"]
    assert run(["apply", "model.pt", "--ranges", "minmax", "-o", "repaired.pt"]) == 0
    assert run(["evaluate", "repaired.pt", "--fp32", "model.pt", *data]) == 0
    assert run([*DROP]) == 0
    assert "of another quantized file than the accuracy" in refused([*LATENCY], capsys)


@pytest.mark.parametrize("answer", ["answer.json", "refined.json"])
def test_an_answer_that_was_measured_is_of_the_bits_beside_it(
    answer: str, here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("evaluation.json", "device.json"):
        Path(name).unlink()
    shutil.move(answer, "assignment.json")
    assert run(["report"]) == 0
    assert ("--refine 1" in Path("report.html").read_text()) == (answer == "refined.json")
    edit(
        "assignment.json", lambda d: d["layers"]["0"].update(w_bits=4 + d["layers"]["0"]["w_bits"])
    )
    assert "measured at other bits than its layers have" in refused(["report"], capsys)


def test_interactions_of_other_samples_are_refused(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    stored = load_interactions("profile.interactions.npz")
    save_interactions(replace(stored, data_digest=digest("x")), "profile.interactions.npz")
    words = ["solve", "--size", "80%", "--rerank", "3"]
    assert "is of other data than the table" in refused(words, capsys)


def test_a_new_front_does_not_take_over_what_was_measured_on_other_weights(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def measured() -> Any:
        return json.loads(Path("front.json").read_text())["measured"]

    assert run(["front", "-o", "front.csv"]) == 0
    assert measured()
    for name in ("profile.csv", "profile.json"):
        shutil.copy(here[1] / name, here[0] / name)
    capsys.readouterr()
    assert run(["front", "-o", "front.csv"]) == 0
    assert "measured on other weights than the table's" in capsys.readouterr().err
    assert not measured()


def without_digests(name: str) -> None:
    """The file as older versions wrote it."""
    later = ("model_digest", "data_digest", "assignment_digest", "quantized_digest")

    def strip(document: Any) -> None:
        for row in document.get("rows", [document]):
            for key in (*later, "layers") if "rows" in document else later:
                row.pop(key, None)

    edit(name, strip)


@pytest.mark.parametrize(("name", "words"), [("evaluation.json", DROP), ("device.json", LATENCY)])
def test_what_does_not_say_what_it_is_of_needs_a_flag(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    without_digests(name)
    error = refused(words, capsys)
    assert "not tied to a network" in error
    assert "--unverified" in error
    assert run([*words, "--unverified"]) == 0
    assert "is not tied to a network" in capsys.readouterr().out
    Path("mpsearch.toml").write_text("[gate]\nunverified = true\n")
    assert run(words) == 0
    capsys.readouterr()
    assert run(["report", "--format", "md"]) == 0  # shown, and marked
    assert "unverified: the" in capsys.readouterr().out
    assert "unverified: the" in Path("report.md").read_text()


def test_the_flag_takes_no_evidence_of_something_else(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(here[1] / "evaluation.json", "evaluation.json")
    assert "other weights" in refused([*DROP, "--unverified"], capsys)
    shutil.copy(here[1] / "device.json", "device.json")
    assert "other weights" in refused([*LATENCY, "--unverified"], capsys)


def test_weights_that_nobody_names_are_told(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("profile.json").unlink()
    Assignment(Assignment.load("assignment.json").layers).save("assignment.json")
    capsys.readouterr()
    assert run(DROP) == 0
    assert "which weights are judged is not known" in capsys.readouterr().out


def first_row(document: Any) -> dict[str, Any]:
    row = document["rows"][0]
    assert isinstance(row, dict)
    return row


def metric(value: float, low: float, high: float) -> Mapping[str, Any]:
    return {"value": value, "interval": [low, high], "method": "bootstrap of 1000"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: first_row(d).update(metrics={"f1": metric(2, 1, 3)}), "'f1' is 2"),
        (lambda d: first_row(d).update(metrics={"box.mae": metric(-1, -2, 0)}), "'box.mae' is -1"),
        (lambda d: first_row(d).update(metrics={"r2": metric(1.5, 1, 2)}), "'r2' is 1.5"),
        (lambda d: first_row(d).update(metrics={"top3": metric(-0.1, -1, 1)}), "'top3' is -0.1"),
        (lambda d: first_row(d).update(metrics={"f1": metric(0.5, 0.9, 0.1)}), "[0.9, 0.1]"),
        (lambda d: first_row(d).update(metrics={"f1": metric(0.5, 0.6, 0.7)}), "its value 0.5"),
        (lambda d: first_row(d).update(accuracy_interval=[0.9, 0.1]), "[0.9, 0.1]"),
        (lambda d: first_row(d).update(accuracy_interval=[0.0, 0.0]), "[0, 0]"),
        (lambda d: first_row(d).update(loss_interval=[-2, -1]), "interval of 'loss'"),
        (lambda d: d["rows"].append(first_row(d)), "2 rows called 'FP32'"),
        (lambda d: first_row(d).update(data_digest="sha256:1"), "other data than the file says"),
        (lambda d: d["rows"][1].update(name="w4a4"), "layers of other bits"),
        (lambda d: d["rows"][1]["layers"].update({"0": "w2a2"}), "not those of its assignment"),
        (lambda d: d["rows"][1]["layers"].update({"0": "4 bits"}), "no bits such as w8a8"),
    ],
)
def test_an_evaluation_that_nothing_measures_is_damaged(
    here: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Any], None],
    words: str,
) -> None:
    edit("evaluation.json", change)
    error = refused(DROP, capsys)
    assert words in error
    assert len(error.splitlines()) == 1


def test_what_could_not_be_read_back_is_not_written(here: tuple[Path, Path]) -> None:
    found = load_evaluations("evaluation.json")
    for other in (
        replace(found, data_digest="sha256:0"), replace(found, rows=(found.rows[0], *found.rows)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"other data|2 rows"):
            save_evaluations(other, "new.json")
    assert not Path("new.json").exists()


def set_accuracy(document: Any) -> None:
    values = document["measured"]["accuracy"]
    place = next(i for i, value in enumerate(values) if value is not None)
    values[place] = 2.0


def move_measured(document: Any) -> None:
    document["assignments"][0], document["assignments"][-1] = (
        document["assignments"][-1], document["assignments"][0],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [(set_accuracy, "accuracy is 2"), (move_measured, "not those that were measured")],
)
def test_a_measured_front_that_nothing_measures_is_damaged(
    here: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Any], None],
    words: str,
) -> None:
    edit("front.json", change)
    for command in (["report", "--front", "front.json"], ["solve", "--from-front", "front.json"]):
        assert words in refused(command, capsys)


def test_the_table_of_an_assignment_is_found_by_its_digest(
    here: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Choices that profile.csv lacks: of the same network, not of another one."""
    for name in ("evaluation.json", "device.json", "front.csv", "front.json"):
        Path(name).unlink()
    assert run(["profile", "model.pt", "--bits", "2,8", "-o", "p2.csv"]) == 0
    assert run(["solve", "p2.csv", "--size", "85%"]) == 0
    size = str(json.loads(Path("assignment.json").read_text())["totals"]["size_bytes"]) + "B"
    capsys.readouterr()
    assert run(["gate", "--max-size", size]) == 0
    assert "solved from p2.csv" in capsys.readouterr().out
    assert run(["report", "--format", "md"]) == 0
    assert "Warning" not in capsys.readouterr().out
    assert "p2.csv" in Path("report.md").read_text()
    Path("p2.csv").rename("away")
    error = refused(["gate", "--max-size", size], capsys)
    assert "solved from another table" in error
    assert "--profile" in error
    assert run(["gate", "--max-size", size, "--profile", "away"]) == 0
    capsys.readouterr()
    assert run(["report"]) == 0
    printed = capsys.readouterr().out
    assert "--profile" in printed
    assert "different networks" not in printed
