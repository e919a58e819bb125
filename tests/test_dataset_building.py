"""Files become samples: cut, computed, paired, split and normalised as data.toml says."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("librosa")

from hypothesis import given, settings
from hypothesis import strategies as st
from own_files import (
    PICTURES,
    RATE,
    SOUNDS,
    tone,
    write_classes,
    write_config,
    write_picture,
    write_sound,
)

from mpsearch.errors import InputError
from mpsearch.models import clip_decoding
from mpsearch.models.dataset_building import Built, build_dataset, list_clips
from mpsearch.models.dataset_checks import deal, linked
from mpsearch.models.dataset_config import read_config
from mpsearch.models.datasets import load_dataset
from mpsearch.models.features import MfccSettings, mfcc

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / ".cache"))


def built(folder: Path, text: str) -> Built:
    config = read_config(write_config(folder, text))
    return build_dataset(config, list_clips(config))


def places(result: Built, split: str, index: int = 0) -> list[tuple[str, float | None]]:
    return [(row[index].file, row[index].start) for row in result.sources[split]]


def reasons(result: Built) -> dict[str, str]:
    return {skip.file: skip.reason for skip in result.skipped}


def test_sounds_are_cut_computed_and_normalised_as_by_hand(tmp_path: Path) -> None:
    write_classes(tmp_path, classes=2, files=5, seconds=1.3)
    text = SOUNDS + "rate = 8000\nseconds = 0.5\nstep = 0.25\nhop = 200\ncoefficients = 7\n"
    result = built(tmp_path, text + "[split]\ntest = 0.2\nval = 0.2\n")
    by_hand = {}
    chosen = MfccSettings(rate=8000, seconds=0.5, hop=200, coefficients=7, frames=21)
    for path in sorted((tmp_path / "sounds").rglob("*.wav")):
        import librosa

        samples, rate = soundfile.read(path, dtype="float32")
        sound = librosa.resample(samples, orig_sr=rate, target_sr=8000)
        name = path.relative_to(tmp_path).as_posix()
        for start in (0, 2000, 4000, 6000):  # 1.3 s = 10,400 samples: 6000 + 4000 still fits
            by_hand[name, start / 8000] = mfcc(sound[None, start : start + 4000], chosen)[0]
    train = np.stack([by_hand[place] for place in places(result, "train")])  # type: ignore[index]
    assert train.shape[1:] == (1, 21, 7)
    mean, std = train.mean((0, 1, 2)), train.std((0, 1, 2))
    seen = 0
    for split, samples in result.dataset.splits.items():
        expected = [(by_hand[place] - mean) / std for place in places(result, split)]  # type: ignore[index]
        np.testing.assert_allclose(samples.inputs[0], expected, atol=2e-3)
        labels = [file.split("/")[1] for file, _ in places(result, split)]
        assert [result.dataset.classes[label] for label in samples.labels] == labels
        seen += len(samples)
    assert seen == len(by_hand) == 40
    assert result.description["inputs"][0]["mean"] == pytest.approx(mean.tolist(), abs=1e-2)


def test_a_short_sound_is_one_padded_window_and_silence_is_left_out(tmp_path: Path) -> None:
    write_classes(tmp_path, classes=2, files=3)
    write_sound(tmp_path / "sounds" / "bell" / "short.wav", tone(500, 0.3))
    pause = np.concatenate([tone(600, 1), np.zeros(RATE, np.float32), tone(610, 1.9)])
    write_sound(tmp_path / "sounds" / "bell" / "pause.wav", pause)
    write_sound(tmp_path / "sounds" / "horn" / "silent.wav", np.zeros(RATE))
    result = built(tmp_path, SOUNDS)
    found = [place for split in result.sources for place in places(result, split)]
    assert ("sounds/bell/short.wav", 0.0) in found
    starts = [start for file, start in found if file.endswith("pause.wav")]
    assert starts == [0.0, 2.0]  # 1 s is silent, 3 s does not fit whole
    assert reasons(result) == {"sounds/horn/silent.wav": "the sound is nothing but silence"}
    assert result.notes == ("audio: windows of digital silence, left out: 1",)


def test_a_picture_goes_with_every_window_of_its_stem(tmp_path: Path) -> None:
    write_classes(tmp_path, classes=2, files=3, seconds=2)
    write_sound(tmp_path / "sounds" / "bell" / "alone.wav", tone(500, 1))
    write_sound(tmp_path / "sounds" / "bell" / "1.flac", tone(510, 1))
    result = built(tmp_path, SOUNDS + PICTURES)
    rows = [row for its in result.sources.values() for row in its]
    assert len(rows) == 11  # 2 classes, 3 files, 2 windows; 1.flac has one
    for sound, picture in rows:
        assert Path(sound.file).stem == Path(picture.file).stem
        assert Path(sound.file).parent.name == Path(picture.file).parent.name
    assert reasons(result) == {
        "sounds/bell/1.wav": "has the key '1' of another file, which is taken",
        "sounds/bell/alone.wav": "has no image of the same key to go with",
    }
    assert sum(map(len, built(tmp_path, SOUNDS).sources.values())) == 12 + 2


def test_pairs_by_class_use_every_piece_and_keep_it_in_one_split(tmp_path: Path) -> None:
    write_classes(tmp_path, classes=2, files=6, seconds=1)
    for number in range(6, 20):  # more pictures than sounds: sounds are used again
        write_picture(tmp_path / "pictures" / "bell" / f"{number}.png", 1000 + number)
    result = built(tmp_path, SOUNDS + PICTURES + '[pairs]\nby = "class"\n')
    where: dict[str, set[str]] = {}
    for split, rows in result.sources.items():
        for sound, picture in rows:
            assert Path(sound.file).parent.name == Path(picture.file).parent.name
            for file in (sound.file, picture.file):
                where.setdefault(file, set()).add(split)
    assert len(where) == 12 + 26
    assert all(len(splits) == 1 for splits in where.values())
    for rows in result.sources.values():
        bells = [row for row in rows if "/bell/" in row[0].file]
        pictures = Counter(row[1].file for row in bells)
        assert set(pictures.values()) == {1}
        sounds = Counter(row[0].file for row in bells)
        assert max(sounds.values()) - min(sounds.values()) <= 1
    again = built(tmp_path, SOUNDS + PICTURES + '[pairs]\nby = "class"\n')
    assert again.sources == result.sources
    other = built(tmp_path, SOUNDS + PICTURES + '[pairs]\nby = "class"\n[split]\nseed = 1\n')
    assert other.sources != result.sources


def test_a_copy_under_another_name_never_leaves_its_split(tmp_path: Path) -> None:
    write_classes(tmp_path, classes=2, files=8, seconds=1)
    for number in range(4):  # the same samples as FLAC
        samples, rate = soundfile.read(tmp_path / "sounds" / "bell" / f"{number}.wav")
        write_sound(tmp_path / "sounds" / "bell" / f"copy{number}.flac", samples, rate)
    for seed in range(5):
        result = built(tmp_path, SOUNDS + f"[split]\nval = 0.25\ntest = 0.25\nseed = {seed}\n")
        split_of = {file: split for split in result.sources for file, _ in places(result, split)}
        for number in range(4):
            copy = split_of[f"sounds/bell/copy{number}.flac"]
            assert copy == split_of[f"sounds/bell/{number}.wav"]
        assert not result.leaks
        assert result.notes == (
            "20 groups count as 16, because files of different groups have the same content; "
            "copies stay in one split",
        )


def test_groups_from_the_files_names_stay_together(tmp_path: Path) -> None:
    for label in ("bell", "horn"):
        for person in "abcdef":
            for take in range(3):
                seed = ord(person) * 10 + take + (500 if label == "bell" else 0)
                write_picture(tmp_path / "pictures" / label / f"{person}-{take}.png", seed)
    write_picture(tmp_path / "pictures" / "horn" / "nobody.png", 1)
    result = built(tmp_path, PICTURES + 'group = "^([a-f])-"\n')
    people = {split: {row[0].group for row in rows} for split, rows in result.sources.items()}
    assert sum(map(len, people.values())) == 6
    assert set().union(*people.values()) == set("abcdef")
    assert reasons(result) == {
        "pictures/horn/nobody.png": "group '^([a-f])-' does not match 'nobody'"
    }


def test_given_splits_are_the_folders_above_the_classes(tmp_path: Path) -> None:
    seed = 0
    for split in ("train", "valid", "test"):
        for label in ("bell", "horn"):
            for number in range(2):
                seed += 1
                write_picture(tmp_path / "pictures" / split / label / f"{number}.png", seed)
    write_picture(tmp_path / "pictures" / "spare" / "bell" / "1.png", 99)
    write_picture(tmp_path / "pictures" / "train" / "loose.png", 98)
    result = built(tmp_path, PICTURES + '[split]\nby = "given"\n')
    assert {split: len(rows) for split, rows in result.sources.items()} == {
        "train": 4,
        "val": 4,
        "test": 4,
    }
    assert all("/valid/" in file for file, _ in places(result, "val"))
    assert reasons(result) == {
        "pictures/spare/bell/1.png": "spare is not train, val or test",
        "pictures/train/loose.png": "is not in a folder SPLIT/CLASS/ of its own",
    }


def test_faulty_files_are_skipped_with_their_reason(tmp_path: Path) -> None:
    write_classes(tmp_path, classes=2, files=3)
    bell, horn = tmp_path / "sounds" / "bell", tmp_path / "pictures" / "horn"
    (bell / "broken.wav").write_bytes(b"RIFF and then nothing of the kind")
    (bell / "empty.wav").write_bytes(b"")
    write_picture(horn.parent / "drum" / "alpha.png", 1, mode="RGBA")
    (horn.parent / "drum" / "cut.png").write_bytes(
        (horn.parent / "drum" / "0.png").read_bytes()[:60]
    )
    (tmp_path / "sounds" / "readme.txt").write_text("about these sounds")
    (tmp_path / "sounds" / "bell" / ".hidden").write_text("")
    result = built(tmp_path, SOUNDS + PICTURES)
    found = reasons(result)
    assert found["pictures/drum/alpha.png"] == (
        "the image has the channels RGBA; expected RGB or grey"
    )
    assert found["sounds/readme.txt"] == "is not in a folder CLASS/ of its own"
    assert found["sounds/bell/broken.wav"].startswith("cannot read the sound:")
    assert found["sounds/bell/empty.wav"].startswith("cannot read the sound:")
    assert found["pictures/drum/cut.png"].startswith("cannot read the image:")
    assert len(found) == 5
    assert not any(str(tmp_path) in reason for reason in found.values())
    assert sum(map(len, result.sources.values())) == 12  # everything else is there
    assert result.description["skipped"] == [vars(skip) for skip in result.skipped]


@pytest.mark.parametrize(
    ("classes", "files", "text", "complaint"),
    [
        (1, 1, SOUNDS, r"has 1 sample\(s\) of bell alone; expected several"),
        (1, 3, SOUNDS, r"has 3 sample\(s\) of bell alone"),
        (0, 0, SOUNDS, "nothing is left of the dataset data: 1 files were skipped; the first: "),
        (2, 3, 'classes = ["bell", "gong"]' + SOUNDS, "'gong' has no training samples"),
        (2, 2, SOUNDS + PICTURES.replace('"pictures"', '"sounds"'), "nothing is left"),
    ],
)
def test_what_is_no_dataset_is_an_error(
    classes: int, files: int, text: str, complaint: str, tmp_path: Path
) -> None:
    write_classes(tmp_path, classes, files, seconds=1)
    (tmp_path / "sounds" / "bell").mkdir(parents=True, exist_ok=True)
    (tmp_path / "sounds" / "bell" / "broken.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=complaint):
        built(tmp_path, text)


def test_a_class_without_training_samples_and_one_that_test_lacks(tmp_path: Path) -> None:
    for seed, place in enumerate(
        ("train/bell/1", "train/horn/2", "train/horn/3", "test/bell/4", "test/gong/5")
    ):
        write_picture(tmp_path / "pictures" / f"{place}.png", seed)
    text = PICTURES + '[split]\nby = "given"\n'
    with pytest.raises(InputError, match=r"'gong' has no training samples \(1 in test\)"):
        built(tmp_path, text)
    result = built(tmp_path, 'classes = ["horn", "bell"]\n' + text)
    assert result.dataset.classes == ("horn", "bell")
    assert result.notes == (
        "image: 1 clips of 'gong', which is not in classes, were left out",
        "the split val is empty",
        "the split test has no samples of the class 'horn'",
    )


def test_a_second_build_computes_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path, classes=2, files=3)
    first = built(tmp_path, SOUNDS)
    computed: list[int] = []

    def counted(sounds: np.ndarray, chosen: MfccSettings) -> np.ndarray:
        computed.append(len(sounds))
        return mfcc(sounds, chosen)

    monkeypatch.setattr(clip_decoding, "mfcc", counted)
    again = built(tmp_path, SOUNDS)
    assert computed == []
    for split, its in first.dataset.splits.items():
        assert np.array_equal(its.inputs[0], again.dataset.splits[split].inputs[0])
    write_sound(tmp_path / "sounds" / "bell" / "1.wav", tone(77, 2))
    built(tmp_path, SOUNDS)
    assert computed == [2]  # the changed file alone
    built(tmp_path, SOUNDS + "coefficients = 5\n")
    assert sum(computed) == 2 + 12


def test_a_table_rebuilds_a_named_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "image-audio"
    rows = ["pair,image,audio,label,label_name,split"]
    for index, split in enumerate(("train", "train", "train", "val", "test", "test")):
        write_sound(folder / "audio" / f"{index}.flac", tone(200 + 90 * index, 1, index))
        write_picture(folder / "images" / f"{index}.png", index)
        label = index % 2
        audio = f"audio/{index}.flac" if index else "audio/2.flac"  # one sound in two pairs
        rows.append(f"p{index},images/{index}.png,{audio},{label},{('dog', 'cat')[label]},{split}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("MPSEARCH_DATA", str(tmp_path))
    named = load_dataset("image-audio")
    shared = 'layout = "table"\nfolder = "image-audio"\ntable = "pairs.csv"\n'
    shared += 'label = "label_name"\nsplit = "split"\nkey = "pair"\n'
    text = 'classes = ["dog", "cat"]\n[split]\nby = "given"\n'
    text += f'[inputs.audio]\nkind = "audio"\nfile = "audio"\n{shared}'
    text += f'[inputs.image]\nkind = "image"\nfile = "image"\n{shared}'
    own = built(tmp_path, text).dataset
    assert own.input_names == named.input_names
    assert own.classes == named.classes
    for name, theirs in named.splits.items():
        ours = own.splits[name]
        assert np.array_equal(ours.labels, theirs.labels)
        for x, expected in zip(ours.inputs, theirs.inputs, strict=True):
            np.testing.assert_allclose(x, expected, atol=1e-4)


def test_a_tables_faulty_rows_are_skipped(tmp_path: Path) -> None:
    for number in range(4):
        write_sound(tmp_path / "all" / f"{number}.wav", tone(300 * (number + 1), 3, number))
    (tmp_path / "all" / "list.csv").write_text(
        "file,what,begin\n0.wav,bell,0\n0.wav,bell,1.5\n1.wav,horn,0.25\n2.wav,horn,x\n"
        "3.wav,,0\n3.wav,bell,9\n1.wav,horn,7\ngone.wav,bell,0\n"
    )
    text = SOUNDS.replace('"sounds"', '"all"')
    text += 'layout = "table"\ntable = "list.csv"\nfile = "file"\nlabel = "what"\nstart = "begin"\n'
    result = built(tmp_path, text + "[split]\ntest = 0\nval = 0\n")
    assert places(result, "train") == [("all/0.wav", 0.0), ("all/0.wav", 1.5), ("all/1.wav", 0.25)]
    assert [(skip.file, skip.reason) for skip in result.skipped] == [
        ("all/list.csv:5", "'x' is no time in seconds"),
        ("all/list.csv:6", "has no file or no label"),
        ("all/3.wav", "the sound of 3.00 s ends before its windows"),
        ("all/1.wav", "has no window at 7 s"),
        ("all/gone.wav", "there is no file"),
    ]
    with pytest.raises(InputError, match="need the key split"):
        built(tmp_path, text + '[split]\nby = "given"\n')
    with pytest.raises(InputError, match="has no column 'when'; it has file, what, begin"):
        built(tmp_path, text.replace('"begin"', '"when"'))


def test_compares_own_splits_and_unlabelled_recordings(tmp_path: Path) -> None:
    for part, hertz in (("CCS", 300), ("CSS", 900)):
        for table, count in (("train", 4), ("devel", 2), ("test", 2)):
            rows = ["filename,label"]
            for number in range(count):
                name = f"{table}_{number:03}.wav"
                sound = tone(hertz + 20 * number, 1, len(rows) + count * hertz)
                write_sound(tmp_path / part / "wav" / name, sound)
                label = "?" if table == "test" else ("positive", "negative")[number % 2]
                rows.append(f"{name},{label}")
            (tmp_path / part / "lab").mkdir(exist_ok=True)
            (tmp_path / part / "lab" / f"{table}.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "CSS" / "wav" / "devel_001.wav").unlink()
    text = '[split]\nby = "given"\n[pairs]\nby = "class"\n'
    for name, part in (("cough", "CCS"), ("speech", "CSS")):
        text += f'[inputs.{name}]\nkind = "audio"\nlayout = "compare"\nfolder = "{part}"\n'
    result = built(tmp_path, text)
    assert {split: len(its) for split, its in result.dataset.splits.items()} == {
        "train": 4,
        "val": 1,  # the negative recording of CSS is gone
    }
    assert result.dataset.classes == ("negative", "positive")
    assert all("/devel_" in file for file, _ in places(result, "val"))
    assert reasons(result) == {
        "CSS/wav/devel_001.wav": "there is no file",
        "CCS/wav/devel_001.wav": "has no speech of the same class to go with",
    }
    assert "CCS/lab/test.csv: 2 of 2 recordings have no label and were left out" in result.notes
    assert "the split test is empty" in result.notes
    with pytest.raises(InputError, match="only its own splits keep them apart"):
        built(tmp_path, text.replace('"given"', '"random"'))
    (tmp_path / "CCS" / "lab" / "train.csv").unlink()
    with pytest.raises(InputError, match=r"has no lab/train\.csv"):
        built(tmp_path, text)


COSWARA = "".join(
    f'[inputs.{name}]\nkind = "audio"\nlayout = "coswara"\nfolder = "Coswara"\n'
    f'recording = "{recording}"\n'
    for name, recording in (("cough", "cough-heavy"), ("speech", "counting-fast"))
)


def test_coswaras_participants_are_never_in_two_splits(tmp_path: Path) -> None:
    root = tmp_path / "Coswara"
    listed = ["id,covid_status"]
    for number in range(14):
        person = root / ("20200413", "20200502")[number % 2] / f"person{number:02}"
        write_sound(person / "cough-heavy.wav", tone(300 + number, 2, number))
        if number != 3:
            write_sound(person / "counting-fast.wav", tone(700 + number, 3, 50 + number))
        status = ("healthy", "positive_mild")[number // 6] if number < 12 else "recovered_full"
        if number % 4 == 1:  # in no table, but in the participant's own file
            (person / "metadata.json").write_text(json.dumps({"a": 30, "covid_status": status}))
        else:
            listed.append(f"person{number:02},{status}")
    lost = root / "20200413" / "lost"
    write_sound(lost / "cough-heavy.wav", tone(10, 1))
    (root / "combined_data.csv").write_text("\n".join(listed) + "\n")
    result = built(tmp_path, COSWARA)
    people = {split: {row[0].group for row in rows} for split, rows in result.sources.items()}
    assert sum(map(len, people.values())) == len(set().union(*people.values())) == 11
    for split, rows in result.sources.items():
        for (cough, speech), label in zip(rows, result.dataset.splits[split].labels, strict=True):
            assert cough.group == speech.group
            assert cough.start == speech.start
            expected = "negative" if int(cough.group[-2:]) < 6 else "positive"
            assert result.dataset.classes[label] == expected
    assert sum(map(len, result.sources.values())) == 11 * 2  # both have at least two windows
    assert reasons(result) == {
        "Coswara/20200413/lost": "is in no table and has no metadata.json",
        "Coswara/20200502/person03/cough-heavy.wav": "has no speech of the same key to go with",
    }
    assert result.notes[:1] == (
        "cough: 2 participants have the status 'recovered_full', which is no class",
    )
    with pytest.raises(InputError, match="Coswara has no splits of its own"):
        built(tmp_path, COSWARA + '[split]\nby = "given"\n')
    table = COSWARA.replace("[inputs.speech]", 'statuses = {recovered_full = "x"}\n[inputs.speech]')
    with pytest.raises(InputError, match="nothing is left"):
        built(tmp_path, table)


def test_linked_sets_are_one_group() -> None:
    assert linked([["a", "b"], ["c"], ["b", "d"], ["e", "d"], ["c", "f"]]) == [0, 1, 0, 0, 1]
    assert linked([["a"], ["b"], ["a", "b"]]) == [0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=6, max_size=40),
    classes=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_groups_are_dealt_whole_and_every_class_evenly(
    sizes: list[int], classes: int, seed: int
) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    cells = [group % classes for group in groups]
    fractions = {"train": 0.6, "test": 0.2, "val": 0.2}
    splits = deal(groups, cells, fractions, seed)
    assert splits == deal(groups, cells, fractions, seed)
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1
               for group in set(groups))  # fmt: skip
    for cell in set(cells):
        inside = Counter(s for s, c in zip(splits, cells, strict=True) if c == cell)
        if len({g for g, c in zip(groups, cells, strict=True) if c == cell}) >= 3:
            assert set(inside) == set(fractions)
        for split, fraction in fractions.items():
            # A greedy deal overshoots by less than one group, and one is always allowed.
            assert inside[split] <= fraction * inside.total() + max(sizes)


def test_a_split_of_fraction_zero_gets_nothing() -> None:
    assert set(deal([0, 1, 2, 3], ["a"] * 4, {"train": 1.0, "test": 0.0, "val": 0.0}, 0)) == {
        "train"
    }
