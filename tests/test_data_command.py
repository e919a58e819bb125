"""`mpsearch data`: what it writes, what trains on it, and what it says about faults."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("librosa")
pytest.importorskip("soundfile")

from own_files import PICTURES, SOUNDS, write_classes, write_config, write_picture

from mpsearch.cli import run
from mpsearch.commands.train import dataset_for
from mpsearch.errors import InputError
from mpsearch.files.whole import digest
from mpsearch.graph.network_file import load
from mpsearch.models import clip_decoding
from mpsearch.models.dataset_config import read_config
from mpsearch.models.datasets import is_dataset, load_dataset
from mpsearch.models.features import MfccSettings, mfcc
from mpsearch.models.registry import build


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / ".cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mydata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Three classes of sounds and pictures, built."""
    write_classes(tmp_path)
    write_config(tmp_path)
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    capsys.readouterr()
    return tmp_path / "mydata"


def test_the_folder_says_what_is_in_it(mydata: Path) -> None:
    assert {path.name for path in mydata.iterdir()} == {
        "train.npz", "val.npz", "test.npz", "samples.csv", "dataset.json",
    }  # fmt: skip
    document = json.loads((mydata / "dataset.json").read_text())
    assert document["classes"] == ["bell", "drum", "horn"]
    assert [its["name"] for its in document["inputs"]] == ["audio", "image"]
    assert document["split"] == {"by": "random", "val": 0.15, "test": 0.15}
    total = 0
    for name, its in document["splits"].items():
        with np.load(mydata / f"{name}.npz") as arrays:
            assert set(arrays.files) == {"x0", "x1", "y"}
            assert arrays["x0"].shape == (its["samples"], 1, 44, 13)
            assert arrays["x1"].shape == (its["samples"], 3, 32, 32)
            assert np.bincount(arrays["y"], minlength=3).tolist() == its["per_class"]
        assert digest((mydata / f"{name}.npz").read_bytes()) == its["digest"]
        total += its["samples"]
    assert total == 3 * 4 * 2
    rows = (mydata / "samples.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * total
    assert load_dataset("mydata").digest == document["digest"]


def test_a_build_is_repeatable_and_replaces_the_one_before(mydata: Path) -> None:
    before = {path.name: path.read_bytes() for path in mydata.iterdir()}
    assert run(["data", "build", "data.toml", "-o", "mydata/"]) == 0
    assert {path.name: path.read_bytes() for path in mydata.iterdir()} == before
    write_config(mydata.parent, SOUNDS + "[split]\nval = 0\ntest = 0.3\nseed = 4\n")
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    assert {path.name for path in mydata.iterdir()} == set(before) - {"val.npz"}
    assert load_dataset("mydata").input_names == ("audio",)
    assert [path.name for path in mydata.parent.iterdir() if path.name.startswith(".m")] == []


def test_a_write_that_fails_leaves_what_was_there(
    mydata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in mydata.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mpsearch.models.datasets.os.fsync", full)
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 2
    assert {path.name: path.read_bytes() for path in mydata.iterdir()} == before
    assert sorted(path.name for path in mydata.parent.iterdir()) == [
        ".cache", "data.toml", "mydata", "pictures", "sounds",
    ]  # fmt: skip


def test_an_interrupted_build_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path)  # 12 sounds of two windows
    write_config(tmp_path, SOUNDS)
    calls: list[int] = []

    def interrupted(sounds: np.ndarray, settings: MfccSettings) -> np.ndarray:
        calls.append(len(sounds))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return mfcc(sounds, settings)

    monkeypatch.setattr(clip_decoding, "mfcc", interrupted)
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 130
    assert not (tmp_path / "mydata").exists()
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    assert len(calls) == 6 + 7  # the five files before the interruption are not computed again
    assert sum(len(split) for split in load_dataset("mydata").splits.values()) == 24


def test_training_and_evaluation_take_the_folder(
    mydata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "tinym2net-battlefield", "--data", "mydata/", "--epochs", "1"]
    assert run([*arguments, "-o", "model.pt", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["data_digest"] == load_dataset("mydata").digest
    stored = load(mydata.parent / "model.pt")
    assert stored.network.output_shape == (3,)
    assert set(stored.sample["y"].tolist()) == {0, 1, 2}
    rows = []
    for source in ("mydata/test.npz", "mydata:test", "mydata/:test:audio,image"):
        assert run(["evaluate", "model.pt", "--data", source, "--json", "-o", "e.json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        rows.append((row["n"], row["accuracy"], row["loss"]))
    assert rows[0][:2] == (document["test"]["n"], document["test"]["accuracy"])
    assert rows[0] == rows[1] == rows[2]


def test_networks_get_the_shapes_of_the_data(
    mydata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = SOUNDS + "coefficients = 10" + PICTURES + "size = 12\nchannels = 1\n"
    write_config(mydata.parent, small)
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    arguments = ["train", "tinym2net-battlefield", "--data", "mydata", "--epochs", "1"]
    assert run(arguments) == 0
    stored = load(mydata.parent / "model.pt")
    assert {x.shape[1:] for x in stored.sample.values()} >= {(1, 44, 10), (1, 12, 12)}
    for name in ("resnet20", "resnet8"):
        grey = build(name, shapes={"image": (1, 20, 24)})
        assert grey(torch.zeros(2, 1, 20, 24)).shape == (2, 10)
    write_config(mydata.parent, small.replace("size = 12", "size = 3"))
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    capsys.readouterr()
    assert run(arguments) == 2
    assert "nothing is left of the input image (1, 3, 3) after pooling" in capsys.readouterr().err
    for shapes, complaint in (
        ({"sound": (1, 8, 8)}, "resnet8 has no input 'sound'; it has image"),
        (
            {"image": (8, 8)},
            r"got the shape \(8, 8\) for image; expected \(channels, height, width",
        ),
    ):
        with pytest.raises(InputError, match=complaint):
            build("resnet8", shapes=shapes)


def test_networks_get_as_many_outputs_as_there_are_classes() -> None:
    for name in ("tinym2net-battlefield", "tinym2net-covid:cough", "resnet20", "resnet8"):
        last = [its for its in build(name, classes=7).modules() if hasattr(its, "out_features")][-1]
        assert last.out_features == 7
    with pytest.raises(InputError, match="got 1 classes for resnet8"):
        build("resnet8", classes=1)


def test_faults_are_listed_and_strict_makes_them_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path)
    for number in range(25):
        (tmp_path / "sounds" / "bell" / f"broken{number:02}.wav").write_bytes(b"")
    write_picture(tmp_path / "pictures" / "horn" / "alpha.png", 1, mode="RGBA")
    write_config(tmp_path)
    assert run(["data", "build", "data.toml", "-o", "mydata", "--strict"]) == 2
    error = capsys.readouterr().err
    assert "26 files cannot be used; expected none with --strict" in error
    assert "  sounds/bell/broken00.wav: cannot read the sound: " in error
    assert not (tmp_path / "mydata").exists()
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    text = capsys.readouterr().out
    assert "skipped: 26\n  sounds/bell/broken00.wav: cannot read the sound: " in text
    assert "… and 6 more" in text
    assert run(["data", "build", "data.toml", "-o", "mydata", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    stored = json.loads((tmp_path / "mydata" / "dataset.json").read_text())
    assert document["skipped"] == stored["skipped"]
    assert document["skipped"][-1] == {
        "file": "pictures/horn/alpha.png",
        "reason": "the image has the channels RGBA; expected RGB or grey",
    }
    assert sum(document["splits"].values()) == 24


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[inputs", "is not a TOML file"),
        ("", "data.toml: inputs is missing"),
        ("[inputs]", r"\[inputs\] is empty"),
        ("inputs = 3", "inputs is 3; expected a table"),
        ("[inputs.audio]", "kind is missing"),
        (SOUNDS.replace('"audio"', '"sound"'), "kind is 'sound'; expected audio or"),
        (SOUNDS.replace('"sounds"', '"absent"'), "there is no folder absent"),
        (SOUNDS + "rate = 0", "must be above 0"),
        (PICTURES + "channels = 4", r"got channels 4; expected 1 \(grey\) or 3 \(RGB\)"),
        (SOUNDS + "step = 0", "got step 0; expected seconds above 0"),
        (SOUNDS + "rate = true", "rate is True; expected a whole number"),
        (SOUNDS + "frames = 45", "got frames 45; the window has 1 to 44"),
        (SOUNDS + "coefficients = 200", "200 coefficients of 128 mel bands"),
        (SOUNDS + 'features = "esc"', "features is 'esc'; expected battlefield or"),
        (SOUNDS + 'group = "("', "group is not a regular expression"),
        (SOUNDS + 'group = "a"', "needs one pair of parentheses"),
        (SOUNDS + 'layout = "table"', "table is missing"),
        (SOUNDS + "size = 32", "unknown key 'size'; known here: kind, layout"),
        (PICTURES + "size = 0", "got size 0; expected 1 to 4096 pixels"),
        (SOUNDS + "[split]\nval = 0.5\ntest = 0.5", "expected val \\+ test below 1"),
        (SOUNDS + "[split]\nval = -1", "val is -1.0; expected a number from 0 on"),
        (SOUNDS + "[split]\nby = 'hand'", "by is 'hand'; expected random or given"),
        (SOUNDS + "[pairs]\nwith = 'key'", r"\[pairs\]: unknown key 'with'"),
        ("classes = ['a', 'a']" + SOUNDS, "a class is listed twice"),
    ],
)
def test_faults_in_the_configuration_name_the_key(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("sounds", "pictures"):
        (tmp_path / folder).mkdir()
    write_config(tmp_path, text)
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(complaint, error), error
    assert not (tmp_path / "mydata").exists()


def test_folders_that_hold_something_else_are_left_alone(
    mydata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mydata / "thesis.txt").write_text("years of work")
    (mydata.parent / "link").symlink_to("sounds")
    for target, complaint in (
        ("mydata", "it holds other files (thesis.txt)"),
        ("sounds", "it holds other files"),
        ("data.toml", "it is a file"),
        (".", "it is the working directory"),
        ("link", "it is a link"),
        ("absent/mydata", "its folder does not exist"),
    ):
        assert run(["data", "build", "data.toml", "-o", target]) == 2
        assert complaint in capsys.readouterr().err
    assert (mydata / "thesis.txt").read_text() == "years of work"
    assert run(["data", "build", "absent.toml", "-o", "new"]) == 2
    assert "cannot read absent.toml: No such file" in capsys.readouterr().err


def test_what_does_not_train_is_said_before(mydata: Path) -> None:
    with pytest.raises(InputError, match="has no input 'cough'"):
        dataset_for("tinym2net-covid", "mydata")
    with pytest.raises(InputError, match="training needs all splits"):
        dataset_for("tinym2net-battlefield", "mydata:train")
    with pytest.raises(InputError, match="the dataset mydata has no folds"):
        load_dataset("mydata", fold=1)
    with pytest.raises(InputError, match=r"sounds is no dataset: it has no dataset\.json"):
        load_dataset("sounds")
    with pytest.raises(InputError, match="or a folder made by mpsearch data build"):
        load_dataset("nothing")
    assert is_dataset("mydata/")
    assert not is_dataset("sounds")
    write_config(mydata.parent, PICTURES + SOUNDS)
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    with pytest.raises(InputError, match="in this order"):
        dataset_for("tinym2net-battlefield", "mydata")
    write_config(mydata.parent, SOUNDS + "hop = 441\n" + PICTURES)
    assert run(["data", "build", "data.toml", "-o", "mydata"]) == 0
    assert dataset_for("tinym2net-battlefield", "mydata").shapes["audio"] == (1, 51, 13)


def test_classes_without_training_samples_and_single_samples_do_not_train(
    mydata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from mpsearch.models import datasets

    whole = load_dataset("mydata")
    train = whole.split("train")
    without = replace(whole, splits={"train": train.take(np.flatnonzero(train.labels != 1))})
    one = replace(whole, classes=("bell",), splits={"train": train.take(np.array([0]))})
    for dataset, complaint in (
        (without, "no training samples of the class 'drum'"),
        (one, r"has 1 training sample\(s\) of 1 class\(es\)"),
    ):
        monkeypatch.setattr(datasets, "load_folder", lambda _, its=dataset: its)
        with pytest.raises(InputError, match=complaint):
            dataset_for("tinym2net-battlefield", "mydata")


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        (
            "dataset.json",
            "mpsearch.dataset",
            "other",
            "is not a dataset.json; expected .format.: .mpsearch.dataset",
        ),
        ("dataset.json", '"version": 1', '"version": 9', "has version 9"),
        ("dataset.json", '"classes"', '"klasses"', "is not complete: classes is missing"),
        ("dataset.json", "{", "", "is not a dataset.json"),
        ("train.npz", None, None, "is not the file that the build wrote"),
        ("test.npz", "", None, "cannot read .*test.npz"),
    ],
)
def test_damaged_folders_are_named(
    mydata: Path, name: str, old: str | None, new: str | None, complaint: str
) -> None:
    path = mydata / name
    if new is not None and old is not None:
        path.write_text(path.read_text().replace(old, new, 1))
    elif old is None:
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    with pytest.raises(InputError, match=complaint):
        load_dataset("mydata")


@pytest.mark.parametrize("arguments", ["data --help", "data build --help", "data check --help"])
def test_help_has_an_example_and_imports_nothing_heavy(arguments: str) -> None:
    code = (
        "import sys; from mpsearch.cli import run; run(sys.argv[1:]); "
        "print('IMPORTED', *(m for m in ('torch', 'numpy', 'librosa') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True, check=True
    )
    assert "Example" in done.stdout
    assert "mpsearch data" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "IMPORTED"


def _blocks(language: str) -> list[str]:
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_the_documentation_runs_as_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (python,) = _blocks("python")
    exec(compile(python, "docs/data.md", "exec"), {})
    for folder in ("videos", "image-audio", "ComParE2021-CCS", "ComParE2021-CSS", "Coswara-Data"):
        (tmp_path / folder).mkdir()
    for block in _blocks("toml"):
        name = block.split()[1]  # the first line is a comment with the file's name
        (tmp_path / name).write_text(block)
        assert len(read_config(name).inputs) == 2
    (commands,) = _blocks("sh")
    for command in commands.splitlines():
        assert run(shlex.split(command)[1:]) == 0, command
    output = capsys.readouterr().out
    assert "skipped: 1\n  sounds/bell/damaged.wav: cannot read the sound" in output
    assert "GENERATED" in output
    assert "mydata: nothing is in two splits" in output


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA is not set")
def test_the_documentations_table_is_the_named_dataset(tmp_path: Path) -> None:
    (block,) = (block for block in _blocks("toml") if block.startswith("# table.toml"))
    (tmp_path / "image-audio").symlink_to(Path(os.environ["MPSEARCH_DATA"]) / "image-audio")
    (tmp_path / "table.toml").write_text(block)
    assert run(["data", "build", "table.toml", "-o", "mydata", "--strict"]) == 0
    own, named = load_dataset("mydata"), load_dataset("image-audio")
    assert (own.classes, own.input_names) == (named.classes, named.input_names)
    for name, theirs in named.splits.items():
        ours = own.splits[name]
        assert np.array_equal(ours.labels, theirs.labels)
        for x, expected in zip(ours.inputs, theirs.inputs, strict=True):
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5)
