"""What the program prints to: closed, full, in another encoding; memory and interrupts."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpsearch.cli import INTERNAL_ERROR, INTERRUPTED, run
from mpsearch.errors import InputError, MissingExtraError
from mpsearch.running.streams import plain

SOLVE = ("-m", "mpsearch", "solve", "--size", "90%")
LATIN, ASCII = "latin-1", "ascii"


def shell(folder: Path, redirection: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`mpsearch solve` in a shell, with the streams and the environment given."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {redirection}', sys.executable, *SOLVE],
        cwd=folder, capture_output=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 2, b"mpsearch: error: standard output is closed; expected a place"),
        (">/dev/full", 2, b"mpsearch: error: No space left on device (standard output)"),
        ("<&-", 0, b""),
        ("2>&-", 0, b""),
        ("2>/dev/full", 0, b""),
    ],
)
def test_streams_that_are_closed_or_full(
    redirection: str, code: int, said: bytes, folder: Path
) -> None:
    """What is asked for and cannot be printed is an error; what nobody hears is none."""
    table = (folder / "profile.csv").read_bytes()
    done = shell(folder, redirection)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert done.stderr.count(b"\n") == bool(said)
    assert (folder / "profile.csv").read_bytes() == table
    assert redirection != ">&-" or not (folder / "assignment.json").exists()


@pytest.mark.parametrize(("encoding", "total"), [(ASCII, "Omega total"), (LATIN, "Omega total")])
def test_an_encoding_without_omega_has_it_written_out(
    encoding: str, total: str, folder: Path
) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell(folder, "", PYTHONIOENCODING=encoding, **plain)
    assert (done.returncode, done.stderr) == (0, b"")
    assert total in done.stdout.decode(encoding)
    assert re.search("^  layer +bits +Omega +size", done.stdout.decode(encoding), re.MULTILINE)


def test_an_interrupt_while_the_program_is_imported_is_one_line(folder: Path) -> None:
    """Sent by the program to itself as soon as it runs, before there is a command line."""
    code = (
        "import os, signal, sys, mpsearch.__main__ as program\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "program.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (INTERRUPTED, b"")
    assert done.stderr == b"mpsearch: interrupted\n"


def test_an_interrupt_of_a_command_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fail_with(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
        assert run(["solve", "--size", "90%"]) == INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "mpsearch: interrupted\n"


def fail_with(monkeypatch: pytest.MonkeyPatch, action: object) -> None:
    monkeypatch.setattr("mpsearch.tables.table.LayerTable.of_csv", lambda *_: action())  # type: ignore[operator]


def raising(error: BaseException, cause: BaseException | None = None) -> object:
    def action() -> None:
        raise error from cause

    return action


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), None),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate "
                      "memory: you tried to allocate 4 bytes.\n more"), None),
        (OSError(12, "Cannot allocate memory"), None),
        (RuntimeError("can't start new thread"), None),
        (MissingExtraError("torch", "torch", "this"),
         ImportError("libtorch.so: failed to map segment from shared object")),
    ],
)  # fmt: skip
def test_a_lack_of_memory_is_no_bug_of_ours(
    error: BaseException,
    cause: BaseException | None,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_with(monkeypatch, raising(error, cause))
    assert run(["solve", "--size", "90%"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mpsearch: error: out of memory; allow more")
    assert said.count("\n") == 1


def test_other_errors_are_still_bugs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, raising(RuntimeError("shapes differ")))
    assert run(["solve", "--size", "90%"]) == INTERNAL_ERROR
    assert "shapes differ" in capsys.readouterr().err


def test_a_long_name_in_an_error_is_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, raising(InputError(f"first {'x' * 10**6}", "what to do")))
    assert run(["solve", "--size", "90%"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert len(first) < 5000
    assert first.startswith("mpsearch: error: first xx")
    assert first.endswith(" more characters)")
    assert second == "what to do"


def test_names_that_differ_are_printed_so() -> None:
    """In an encoding without their letters, too: both were `?`."""
    narrow = io.TextIOWrapper(io.BytesIO(), ASCII)
    assert [plain(name, narrow) for name in ("é", "è", "Ω")] == ["\\xe9", "\\xe8", "Omega"]
