"""What is in two splits is found, whatever its file is called, and nothing else."""

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("librosa")
pytest.importorskip("soundfile")

from own_files import PICTURES, SOUNDS, tone, write_config, write_picture, write_sound

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.models.dataset_checks import Source, equal_samples, leaks
from mpsearch.models.datasets import check_folder

GIVEN = '[split]\nby = "given"\n'


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / ".cache"))


def source(split: str, file: str, group: str, content: str, kind: str = "audio") -> Source:
    return Source(split, kind, file, None, group, content)


def write_splits(folder: Path, label_count: int = 2) -> None:
    for index, split in enumerate(("train", "val", "test")):
        for label in ("bell", "horn")[:label_count]:
            for number in range(2):
                seed = 10 * index + number + (100 if label == "horn" else 0)
                sound = tone(300 + 7 * seed, 1, seed)
                write_sound(folder / "sounds" / split / label / f"p{seed}-a.wav", sound)
                write_picture(folder / "pictures" / split / label / f"p{seed}-a.png", seed)


def test_groups_and_duplicates_in_two_splits_are_named() -> None:
    found = leaks(
        [
            source("train", "a.wav", "anna", "1"),
            source("train", "b.wav", "bert", "2"),
            source("train", "b2.wav", "bert", "2"),  # twice in one split: no leak
            source("val", "c.wav", "carl", "3"),
            source("test", "a2.wav", "anna", "4"),
            source("test", "copy.wav", "dora", "2"),
            source("val", "copy2.wav", "emil", "2"),
            source("test", "d.png", "carl", "9", kind="image"),  # heard in val, seen in test
        ]
    )
    assert [str(leak) for leak in found] == [
        "group anna is in train (a.wav), test (a2.wav)",
        "group carl is in val (c.wav), test (d.png)",
        "the same audio: train (b.wav), val (copy2.wav), test (copy.wav)",
    ]
    assert leaks([source("train", "a", "x", "1"), source("test", "b", "y", "2")]) == []


def test_equal_rows_of_arrays_from_elsewhere() -> None:
    random = np.random.default_rng(0)
    train, test = random.normal(size=(5, 2, 3)), random.normal(size=(4, 2, 3))
    splits = {"train": {"x0": train, "y": np.zeros(5)}, "test": {"x0": test, "y": np.zeros(4)}}
    assert equal_samples(splits) == []
    test[3] = train[1]
    assert [str(leak) for leak in equal_samples(splits)] == [
        "the same x0: train (train.npz, x0[1]), test (test.npz, x0[3])"
    ]


def test_a_clean_build_is_clean_and_a_planted_copy_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_splits(tmp_path)
    config = write_config(tmp_path, SOUNDS + PICTURES + GIVEN)
    folder = tmp_path / "mydata"
    build = ["data", "build", str(config), "-o", str(folder)]
    assert run(build) == 0
    assert run(["data", "check", str(folder)]) == 0
    assert "nothing is in two splits" in capsys.readouterr().out
    # The same samples in another format and under another name.
    import soundfile

    sounds = tmp_path / "sounds"
    samples, rate = soundfile.read(sounds / "train" / "bell" / "p1-a.wav")
    write_sound(sounds / "test" / "bell" / "new.flac", samples, rate)
    write_picture(tmp_path / "pictures" / "test" / "bell" / "new.png", 777)
    assert run(build) == 1
    line = (
        "the same audio: train (sounds/train/bell/p1-a.wav at 0 s), "
        "test (sounds/test/bell/new.flac at 0 s)"
    )
    text = capsys.readouterr().out
    assert f"leaks: 1\n  {line}" in text
    assert run(["data", "check", str(folder)]) == 1
    assert line in capsys.readouterr().out
    assert run(["data", "check", str(folder), "--json"]) == 1
    assert '"what": "the same audio"' in capsys.readouterr().out


def test_a_participant_in_two_given_splits(tmp_path: Path) -> None:
    write_splits(tmp_path)
    write_picture(tmp_path / "pictures" / "test" / "horn" / "p100-b.png", 5555)
    grouped = 'group = "^(p[0-9]+)-"\n'
    config = write_config(tmp_path, PICTURES + grouped + GIVEN)
    folder = tmp_path / "mydata"
    assert run(["data", "build", str(config), "-o", str(folder)]) == 1
    assert [str(leak) for leak in check_folder(folder)] == [
        "group p100 is in train (pictures/train/horn/p100-a.png), "
        "test (pictures/test/horn/p100-b.png)"
    ]
    # A random split keeps everybody in one.
    for split in ("train", "val", "test"):
        for path in (tmp_path / "pictures" / split).rglob("*.png"):
            target = tmp_path / "all" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    config = write_config(tmp_path, PICTURES.replace("pictures", "all") + grouped)
    assert run(["data", "build", str(config), "-o", str(folder)]) == 0
    assert check_folder(folder) == []


def test_a_row_moved_in_the_record_is_found(tmp_path: Path) -> None:
    write_splits(tmp_path)
    folder = tmp_path / "mydata"
    config = write_config(tmp_path, SOUNDS + GIVEN)
    assert run(["data", "build", str(config), "-o", str(folder)]) == 0
    with (folder / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    planted = {**rows[0], "split": "test"}
    with (folder / "samples.csv").open("a", newline="") as file:
        csv.DictWriter(file, list(planted)).writerow(planted)
    (leak,) = check_folder(folder)
    assert (leak.what, leak.name, leak.splits) == ("group", rows[0]["group"], ("train", "test"))
    (folder / "samples.csv").write_text("split,file\ntrain,a\n")
    with pytest.raises(InputError, match="has no column 'input'"):
        check_folder(folder)


def test_folders_from_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        check_folder(tmp_path / "absent")
    with pytest.raises(InputError, match=r"has no samples\.csv and not two of train\.npz"):
        check_folder(tmp_path)
    x = np.arange(12.0).reshape(4, 3)
    np.savez(tmp_path / "train.npz", x0=x, y=np.arange(4))
    np.savez(tmp_path / "test.npz", x0=x[2:3], y=np.arange(1))
    (leak,) = check_folder(tmp_path)
    assert leak.files == ("train.npz, x0[2]", "test.npz, x0[0]")
    (tmp_path / "test.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"test\.npz: damaged archive"):
        check_folder(tmp_path)
