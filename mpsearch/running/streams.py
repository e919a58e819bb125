"""Standard input, output and error as they are found: closed, full, in an old encoding."""

import codecs
import contextlib
import errno
import os
import sys
from typing import TextIO

from mpsearch.errors import InputError
from mpsearch.running.foreign_text import terminal_line

PLAIN = {
    "Ω": "Omega", "×": "x", "·": "*", "²": "^2", "±": "+/-", "≤": "<=", "≥": ">=", "→": "->", 
    "…": "...", "–": "-", "—": "-", "−": "-", "µ": "u", "│": "|", "─": "-",
}  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)  # what is printed has no place
_HANDLER, _ASCII = "mpsearch.plain", "mpsearch_ascii"


def prepare() -> None:
    """Make every stream one that can be written to, whatever the characters.

    A file that is opened while a standard stream is closed takes its number, and would get what is
    printed. Raises InputError where standard output is closed: what is asked for would be lost.
    """
    closed = [number for number in (0, 1, 2) if not _is_open(number)]
    for _ in closed:  # a new file takes the lowest number that is free
        os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if 1 in closed:
        raise InputError(
            "standard output is closed; expected a place for what is printed, such as > /dev/null"
        )
    codecs.register_error(_HANDLER, _in_plain)
    codecs.register(_seven_bits)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            reconfigure(encoding=_ASCII if ascii_only else None, errors=_HANDLER)


def takes_all(stream: TextIO) -> bool:
    """Whether a stream can print every character; one that does not say so can (a string)."""
    name = getattr(stream, "encoding", None) or "utf-8"
    return codecs.lookup(name).name.startswith("utf")


def plain(text: str, stream: TextIO) -> str:
    """The text with what the stream cannot print written out: `Ω` as `Omega`, others as `?`."""
    name = getattr(stream, "encoding", None) or "utf-8"
    codecs.register_error(_HANDLER, _in_plain)
    return text.encode(name, _HANDLER).decode(name)


def say(*lines: str) -> None:
    """Lines on standard error; none where that is closed or full, as nobody could be told."""
    with contextlib.suppress(OSError, ValueError):
        print(*map(terminal_line, lines), sep="\n", file=sys.stderr, flush=True)


def give_up_output() -> None:
    """Nothing more goes to standard output, not even what Python still holds for it."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _seven_bits(name: str) -> codecs.CodecInfo | None:
    """ASCII by another name: click takes a stream in ASCII for a mistake and writes UTF-8."""
    if name != _ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode, known.decode, known.streamreader, known.streamwriter,
        known.incrementalencoder, known.incrementaldecoder, name=_ASCII,
    )  # fmt: skip


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in lost), error.end
