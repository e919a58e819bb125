"""Videos give a frame and a second of sound for every second, at the right moments."""

from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import write_config, write_picture

from mpsearch.errors import InputError, MissingExtraError
from mpsearch.models.clip_decoding import decode, video_frames, video_sound
from mpsearch.models.dataset_building import build_dataset, list_clips
from mpsearch.models.dataset_config import read_config
from mpsearch.models.features import BATTLEFIELD_AUDIO, mfcc

pytest.importorskip("librosa")
pytest.importorskip("PIL")
needs_av = pytest.mark.skipif(
    find_spec("av") is None,
    reason="PyAV is not installed: python -m pip install '.[video]'",
)
COLOURS = ((220, 30, 30), (30, 220, 30), (30, 30, 220), (200, 200, 40))
TONES = (400, 800, 1200, 1600)  # Hz, one a second
RATE, FPS = 44_100, 10


def write_video(
    path: Path,
    seconds: float = 4,
    sound: bool = True,
    pictures: bool = True,
    codec: str = "pcm_s16le",
    first: int = 0,
    late: int = 0,
    shade: int = 0,
) -> Path:
    """Every second another colour and another tone, which is on the left channel alone.

    The right half of the picture has the grey `shade`, by which videos differ; the sound begins
    `late` seconds after the pictures.
    """
    av: Any = import_module("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if pictures:
            video = container.add_stream("mpeg4", rate=FPS)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
        if sound:
            audio = container.add_stream(codec, rate=RATE, layout="stereo")
        if pictures:
            for number in range(round(seconds * FPS)):
                image = np.empty((64, 64, 3), np.uint8)
                image[:] = COLOURS[(first + number // FPS) % 4]
                image[:, 32:] = shade
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
        if sound:
            time = np.arange(round(seconds * RATE)) / RATE
            hertz = np.array(TONES)[(first + time.astype(int)) % 4]
            left = (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
            both = np.stack([left, np.zeros_like(left)])[:, late * RATE :]
            frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), late * RATE
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


@needs_av
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "pcm_s16le"), ("a.mp4", "aac")])
def test_every_second_has_its_colour_and_its_tone(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, codec=codec)
    frames = video_frames(path, 32)
    assert frames.shape == (4, 3, 32, 32)
    assert frames.dtype == np.uint8
    expected = np.array(COLOURS)[:, :, None, None] * np.ones((1, 1, 32, 14))
    assert np.abs(frames[..., :14] - expected).max() <= 12  # a lossy codec
    sound = video_sound(path, 22_050, 22_050)
    assert sound.shape == (4, 22_050)
    for second, hertz in zip(sound, TONES, strict=True):
        assert np.abs(np.fft.rfft(second)).argmax() == hertz
        # The mean of two channels: half of 0.5. At the edges the codec rings.
        assert np.abs(second[2000:-2000]).max() == pytest.approx(0.25, abs=0.02)


@needs_av
def test_the_last_part_counts_from_half_a_second_on(tmp_path: Path) -> None:
    for seconds, count in ((2.4, 2), (2.7, 3), (0.3, 0)):
        path = write_video(tmp_path / f"{seconds}.mkv", seconds)
        if count:
            sound = video_sound(path, 22_050, 22_050)
            assert len(video_frames(path, 8)) == len(sound) == count
            padding = round((count - seconds) * 22_050)
            if padding > 0:
                assert not sound[-1, -padding:].any()
                assert sound[-1, : -padding - 10].any()
        else:
            with pytest.raises(InputError, match="shorter than half a second"):
                video_frames(path, 8)
            with pytest.raises(InputError, match="less than half a second of sound"):
                video_sound(path, 22_050, 22_050)


@needs_av
@pytest.mark.parametrize("name", ["late.mkv", "late.mov"])
def test_sound_that_begins_late_stays_with_its_picture(tmp_path: Path, name: str) -> None:
    sound = video_sound(write_video(tmp_path / name, late=2), 22_050, 22_050)
    assert len(sound) == 4
    assert not sound[:2].any()
    for second in (2, 3):
        assert np.abs(np.fft.rfft(sound[second])).argmax() == TONES[second]


@needs_av
def test_unreadable_videos_and_missing_tracks_are_named(tmp_path: Path) -> None:
    mute = write_video(tmp_path / "mute.mp4", sound=False)
    blind = write_video(tmp_path / "blind.mkv", pictures=False)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 20)
    with pytest.raises(InputError, match=r"mute\.mp4 has no audio track"):
        video_sound(mute, 22_050, 22_050)
    with pytest.raises(InputError, match=r"blind\.mkv has no pictures"):
        video_frames(blind, 32)
    (tmp_path / "about.txt").write_text("these videos were made\n" * 200)
    write_picture(tmp_path / "cover.png", 1)
    for name, complaint in (
        ("about.txt", r"about\.txt is no video but text or a picture"),
        ("cover.png", r"cover\.png is no video but text or a picture"),
        ("broken.mp4", "cannot read the video .*broken.mp4: "),
        ("gone.mp4", "there is no video file .*gone.mp4"),
    ):
        with pytest.raises(InputError, match=complaint):
            video_frames(tmp_path / name, 32)
        with pytest.raises(InputError, match=complaint):
            video_sound(tmp_path / name, 8000, 8000)


TWO_INPUTS = "".join(
    f'[inputs.{name}]\nkind = "{kind}"\nfolder = "videos"\n'
    for name, kind in (("audio", "video-sound"), ("image", "video-frame"))
)


@needs_av
def test_folders_of_videos_become_pairs_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / "cache"))
    for index, label in enumerate(("tank", "truck")):
        for number in range(3):
            path = tmp_path / "videos" / label / f"{number}.mkv"
            write_video(path, 4, first=number + index, shade=100 * index + 40 * number)
    write_video(tmp_path / "videos" / "tank" / "mute.mp4", sound=False)
    (tmp_path / "videos" / "truck" / "broken.mkv").write_bytes(b"nothing")
    config = read_config(write_config(tmp_path, TWO_INPUTS + "[split]\ntest = 0.3\nval = 0\n"))
    result = build_dataset(config, list_clips(config))
    moments = 0
    for split, rows in result.sources.items():
        for row, (sound, picture) in enumerate(rows):
            assert (sound.file, sound.start) == (picture.file, picture.start)
            moments += 1
            number = int(Path(sound.file).stem) + ("truck" in sound.file)
            assert sound.start is not None
            which = (number + int(sound.start)) % 4
            audio, image = (x[row] for x in result.dataset.splits[split].inputs)
            mean, std = (
                np.array(result.description["inputs"][1][key])[:, None, None]
                for key in ("mean", "std")
            )
            colour = (image * std + mean)[..., :14].mean((1, 2))
            np.testing.assert_allclose(colour, COLOURS[which], atol=12)
            window = video_sound(tmp_path / sound.file, 22_050, 22_050)[int(sound.start)]
            mean, std = (np.array(result.description["inputs"][0][key]) for key in ("mean", "std"))
            by_hand = mfcc(window[None], BATTLEFIELD_AUDIO)[0]
            np.testing.assert_allclose(audio * std + mean, by_hand, atol=1e-2)
    assert moments == 2 * 3 * 4
    assert {split: len({row[0].group for row in rows}) for split, rows in result.sources.items()} \
        == {"train": 4, "test": 2}  # fmt: skip
    skipped = {(skip.file, skip.reason.split(":")[0]) for skip in result.skipped}
    assert skipped == {
        ("videos/tank/mute.mp4", "the video has no audio track"),
        ("videos/tank/mute.mp4", "has no audio of the same key to go with"),
        ("videos/truck/broken.mkv", "cannot read the video"),
    }


@needs_av
def test_frames_of_a_single_colour_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("test_video.COLOURS", (COLOURS[0], (0, 0, 0), *COLOURS[2:]))
    path = write_video(tmp_path / "videos" / "tank" / "fade.mkv", shade=0)
    image = read_config(write_config(tmp_path, TWO_INPUTS)).inputs[1]
    found = decode(path, image, None)
    assert found.starts.tolist() == [0, 2, 3]
    assert len(found.features) == len(found.contents) == 3
    assert found.empty == 1


def test_without_pyav_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("mpsearch.models.clip_decoding.import_module", without)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[video\]'"):
        video_frames(tmp_path / "a.mp4", 32)
