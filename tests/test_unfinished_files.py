"""Files of unfinished runs, and names of outputs: nobody else's file is read, cut or replaced."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.files.whole import atomic_path, write_atomic
from mpsearch.finetuning.training import State, checkpoint_path, load_state, save_state
from mpsearch.running.journal import Journal

RUN = "sha256:" + "0123456789abcdef" * 4


def kept(output: Path, **values: object) -> Path:
    """The file that a run leaves which is stopped after these pieces."""
    with Journal(output, RUN) as journal:
        for key, value in values.items():
            journal.put(key, value)
    return journal.path


def pieces(output: Path) -> dict[str, object]:
    with Journal(output, RUN) as journal:
        return dict(journal.values())


@pytest.mark.parametrize("kind", ["link", "dangling", "second name", "pipe", "folder", "foreign"])
def test_a_journal_is_a_plain_file_of_ones_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "victim"
    path = kept(tmp_path / "p.csv", a=1)
    if kind == "foreign":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    else:
        path.unlink()
        if kind in ("link", "second name"):
            other.write_bytes(b"precious")
        if kind in ("link", "dangling"):
            path.symlink_to(other)
        elif kind == "second name":
            os.link(other, path)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
    for rank in (0, 1):  # its own file, and that of another process
        with pytest.raises(InputError, match="delete it to begin anew") as error:
            Journal(tmp_path / "p.csv", RUN, rank).__enter__()
        assert str(path) in str(error.value)
    assert not other.exists() or other.read_bytes() == b"precious"
    assert kind != "dangling" or not other.exists()


@pytest.mark.parametrize(
    "line", [b"\n", b"5\n", b"[1, 2, 3]\n", b'["a", null]\n', b"[" * 100_000 + b"\n", b"\0\n"]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_line_that_was_not_written_here_is_refused(
    line: bytes, place: int, tmp_path: Path
) -> None:
    path = kept(tmp_path / "p.csv", a=1, b=[0.1, None])
    assert pieces(tmp_path / "p.csv") == {"a": 1, "b": [0.1, None]}
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:place], line, *lines[place:]]))
    with pytest.raises(InputError, match=rf"line {place + 1} is not as mpsearch wrote it; delete"):
        pieces(tmp_path / "p.csv")


def test_what_a_kill_cut_off_is_forgotten_and_the_rest_kept(tmp_path: Path) -> None:
    path = kept(tmp_path / "p.csv", a=1, b=2)
    whole = path.read_bytes()
    for cut in range(len(whole) - 2, len(whole) // 2, -7):
        path.write_bytes(whole[:cut])
        assert pieces(tmp_path / "p.csv") == {"a": 1}
        with Journal(tmp_path / "p.csv", RUN) as journal:
            journal.put("b", 2)
        assert path.read_bytes() == whole


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1, max_size=60,
) | st.sampled_from(["p[1].csv", "*", "-o", "%s%n", "a\nb", "\x1b[31m", "n" * 255, "…" * 85]
)  # fmt: skip


@given(NAMES.filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_of_an_output_works_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Names that a pattern would expand, that begin like an option, as long as names can be."""
    folder = tmp_path / "names"
    folder.mkdir(exist_ok=True)
    (folder / ".p1.csv.0123456789abcdef.0.partial").write_bytes(b"another's")
    kept(folder / name, a=1)
    write_atomic(folder / name, "content")
    assert (folder / name).read_text() == "content"
    assert pieces(folder / name) == {"a": 1}
    with Journal(folder / name, RUN) as journal:
        journal.discard()
    assert sorted(os.listdir(folder)) == sorted([".p1.csv.0123456789abcdef.0.partial", name])
    (folder / name).unlink()


def state() -> State:
    moments = {"w": dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), torch.ones(2))}
    return State({"w": torch.zeros(2)}, moments, {}, [(0, None, float("inf"), 0.5)])


def test_a_checkpoint_is_what_was_saved_or_refused(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path / "q.pt", RUN)
    assert load_state(path) is None
    save_state(state(), path)
    loaded = load_state(path)
    assert loaded is not None
    assert loaded.history == [(0, None, float("inf"), 0.5)]
    save_file({"parameter w": torch.zeros(3)}, path, {"history": "[[1, 2]]"})
    with pytest.raises(InputError, match="damaged checkpoint"):
        load_state(path)
    path.unlink()
    (tmp_path / "victim").write_bytes(b"precious")
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="delete it to begin anew"):
        load_state(path)
    with pytest.raises(InputError, match="delete it to begin anew"):
        save_state(state(), path)
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_an_error_of_writing_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"
    with pytest.raises(OSError, match="No space left") as error, atomic_path(target):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(target)
    with pytest.raises(FileNotFoundError) as missing:
        write_atomic(tmp_path / "absent" / "out.csv", "")
    assert missing.value.filename == str(tmp_path / "absent" / "out.csv")
    assert os.listdir(tmp_path) == []
    with Journal(target, RUN) as journal:

        def full(number: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            journal.put("a", 1)
        assert error.value.filename == str(journal.path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_an_output_that_is_no_file_is_refused(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/dev/null" if kind == "device" else "out"
    if kind == "folder":
        (folder / path).mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    assert run(["solve", "--size", "90%", "-o", path]) == 2
    assert f"cannot write {path}: it is not a regular file" in capsys.readouterr().err
