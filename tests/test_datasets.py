"""Named datasets: what is there, what is not, and that nothing leaks between splits."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpsearch.cli import run
from mpsearch.commands.train import dataset_for
from mpsearch.errors import InputError
from mpsearch.models.datasets import DATASETS, is_dataset, load_dataset, why_unavailable
from mpsearch.models.features import BATTLEFIELD_AUDIO, mfcc, read_image, read_sound
from mpsearch.models.registry import ARCHITECTURES, architecture
from mpsearch.models.samples import Dataset

real = pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA is not set")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(autouse=True)
def _cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(shared_cache))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the real image-audio, with six pairs."""
    soundfile = pytest.importorskip("soundfile")
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "image-audio"
    (folder / "audio").mkdir(parents=True)
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    rows = []
    for index, split in enumerate(("train", "train", "train", "val", "test", "test")):
        sound = random.uniform(-0.5, 0.5, 22_050) * (index + 1) / 6
        soundfile.write(folder / "audio" / f"{index}.flac", sound, 22_050)
        pixels = random.integers(0, 40 * (index + 1), (32, 32, 3)).astype(np.uint8)
        image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        label = index % 2
        cells = (f"images/{index}.png", f"audio/{index}.flac", label, ("cat", "dog")[label], split)
        rows.append(",".join(map(str, cells)))
    header = "image,audio,label,label_name,split"
    (folder / "pairs.csv").write_text("\n".join([header, *rows]) + "\n")
    monkeypatch.setenv("MPSEARCH_DATA", str(tmp_path))
    return folder


def test_without_the_folder_the_error_says_how_to_set_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MPSEARCH_DATA", raising=False)
    with pytest.raises(InputError, match="export MPSEARCH_DATA=FOLDER"):
        load_dataset("image-audio")
    assert "MPSEARCH_DATA" in str(why_unavailable("cifar10"))
    monkeypatch.setenv("MPSEARCH_DATA", str(tmp_path))
    with pytest.raises(InputError, match="has no cough-speech/"):
        load_dataset("cough-speech")


@pytest.mark.usefixtures("tiny")
def test_wrong_names_splits_and_folds() -> None:
    with pytest.raises(InputError, match=r"unknown dataset 'image'; did you mean 'image-audio'"):
        load_dataset("image")
    with pytest.raises(InputError, match=r"no split 'tset'; did you mean 'test'"):
        load_dataset("image-audio:tset")
    with pytest.raises(InputError, match=r"image-audio has no folds"):
        load_dataset("image-audio", fold=1)
    with pytest.raises(InputError, match=r"folds 0 to 4"):
        load_dataset("cough-speech", fold=5)
    with pytest.raises(InputError, match=r"no input 'radar'; it has audio, image"):
        load_dataset("image-audio").only("radar")
    assert is_dataset("image-audio:test")
    assert not is_dataset("data.npz")


@pytest.mark.usefixtures("tiny")
def test_a_reference_with_a_split_holds_that_split_alone() -> None:
    dataset = load_dataset("image-audio:test")
    assert list(dataset.splits) == ["test"]
    assert dataset.classes == ("cat", "dog")
    assert dataset.split("test").arrays()["y"].tolist() == [0, 1]
    image = dataset.only("image")
    assert (image.input_names, image.split("test").inputs[0].shape) == (("image",), (2, 3, 32, 32))


def test_statistics_come_from_the_training_rows_alone(tiny: Path) -> None:
    dataset = load_dataset("image-audio")
    assert not dataset.generated
    pixels = np.stack([read_image(tiny / "images" / f"{i}.png") for i in range(6)]).astype(float)
    sounds = np.stack([read_sound(tiny / "audio" / f"{i}.flac", 22_050) for i in range(6)])
    spectra = mfcc(sounds, BATTLEFIELD_AUDIO).astype(float)
    for raw, index, axes in ((spectra, 0, (0, 1, 2)), (pixels, 1, (0, 2, 3))):
        mean, std = raw[:3].mean(axes, keepdims=True), raw[:3].std(axes, keepdims=True)
        np.testing.assert_allclose(
            dataset.split("test").inputs[index], (raw[4:] - mean) / std, atol=1e-3
        )


def test_a_changed_source_file_is_noticed(tiny: Path) -> None:
    before = load_dataset("image-audio")
    picture = tiny / "images" / "5.png"
    picture.write_bytes((tiny / "images" / "0.png").read_bytes())
    after = load_dataset("image-audio")
    assert before.digest != after.digest
    old, new = (dataset.split("test").inputs[1] for dataset in (before, after))
    assert np.array_equal(old[0], new[0])
    assert not np.array_equal(old[1], new[1])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("label_name", "name", "has no column 'label_name'"),
        ("images/3.png", "images/9.png", "images/9.png"),
        ("1,dog", "7,dog", r"labels are \['0', '7'\]"),
        (",train", ",other", "no training samples"),
    ],
)
def test_tables_that_do_not_fit(tiny: Path, old: str, new: str, complaint: str) -> None:
    table = tiny / "pairs.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(InputError, match=complaint):
        load_dataset("image-audio")


@pytest.mark.parametrize("file", ["audio/1.flac", "images/1.png", "pairs.csv"])
def test_damaged_files_are_named(tiny: Path, file: str) -> None:
    (tiny / file).write_bytes(b"\xff\xfe not what it says")
    with pytest.raises(InputError, match=file):
        load_dataset("image-audio")
    (tiny / file).write_bytes(b"")
    with pytest.raises(InputError, match=file):
        load_dataset("image-audio")


def test_damaged_cifar_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar10").mkdir()
    monkeypatch.setenv("MPSEARCH_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"cifar10_train5000\.npz"):
        load_dataset("cifar10")
    (tmp_path / "cifar10" / "cifar10_train5000.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"cifar10_train5000\.npz"):
        load_dataset("cifar10")


@pytest.mark.usefixtures("tiny")
def test_networks_get_the_inputs_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def cough() -> Dataset:
        return replace(load_dataset("image-audio"), input_names=("cough", "speech"))

    with pytest.raises(InputError, match="has no input 'cough'"):
        dataset_for("tinym2net-covid", "image-audio")
    assert dataset_for("tinym2net-battlefield", "image-audio").classes == ("cat", "dog")
    monkeypatch.setitem(DATASETS, "cough-speech", replace(DATASETS["image-audio"], load=cough))
    assert dataset_for("tinym2net-covid", "cough-speech").shapes["speech"] == (3, 32, 32)
    with pytest.raises(InputError, match="training needs all splits"):
        dataset_for("tinym2net-battlefield", "image-audio:train")


def test_the_registries_agree() -> None:
    for name in ARCHITECTURES:
        its = architecture(name)
        assert DATASETS[its.dataset].inputs == tuple(its.inputs)


def test_the_models_command_lists_networks_and_datasets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPSEARCH_DATA", raising=False)
    assert run(["models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    counts = {its["name"]: its["parameters"] for its in document["networks"]}
    assert counts["tinym2net-battlefield"] == 419_012
    assert counts["tinym2net-covid"] == 119_458
    available = {its["name"]: its["available"] for its in document["datasets"]}
    assert not available["image-audio"]
    assert run(["models"]) == 0
    text = capsys.readouterr().out
    assert "419,012" in text
    assert "export MPSEARCH_DATA" in text


@pytest.mark.data
@pytest.mark.slow
@real
def test_real_image_audio() -> None:
    dataset = load_dataset("image-audio")
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 2000,
        "val": 274,
        "test": 286,
    }
    assert dataset.classes == ("aircraft", "dog", "bird", "ship")
    audio, image = dataset.split("train").inputs
    assert (audio.shape, image.shape) == ((2000, 1, 44, 13), (2000, 3, 32, 32))
    np.testing.assert_allclose(audio.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(image.std((0, 2, 3)), 1, atol=1e-3)


@pytest.mark.data
@pytest.mark.slow
@real
def test_real_cough_speech_never_has_a_person_in_two_splits() -> None:
    table = Path(os.environ["MPSEARCH_DATA"]) / "cough-speech" / "pairs.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole = load_dataset("cough-speech")
    assert [len(split) for split in whole.splits.values()] == [494, 130, 192]
    assert whole.split("train").inputs[0].shape[1:] == (1, 203, 20)
    assert whole.split("train").inputs[1].shape[1:] == (1, 333, 13)
    tested = []
    for fold in range(5):
        dataset = load_dataset("cough-speech", fold=fold)
        people = []
        for name in ("train", "val", "test"):
            inside = [row for row in rows if _is_in(row, fold, name)]
            labels = dataset.split(name).labels.tolist()
            assert labels == [int(row["label"]) for row in inside]  # in the table's order
            people.append({row["participant"] for row in inside})
        assert not people[0] & people[1]
        assert not people[0] & people[2]
        assert not people[1] & people[2]
        tested.append(len(dataset.split("test")))
    assert sum(tested) == len(rows)  # every pair is tested in exactly one fold


def _is_in(row: dict[str, str], fold: int, split: str) -> bool:
    own = int(row["fold"])
    return {"test": own == fold, "val": own == (fold + 1) % 5}.get(
        split, own not in (fold, (fold + 1) % 5)
    )
