"""A terminal of some width, for what commands print on one."""

import fcntl
import os
import re
import struct
import sys
import termios
import threading

import pytest

from mpsearch.cli import run

_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """Commands run in this process, with standard output on a terminal of `width` columns."""

    def __init__(self, width: int) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self._stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def run(self, *words: str) -> int:
        """The exit code of `mpsearch` with these words."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("COLUMNS", raising=False)
            patch.setattr(sys, "stdout", self._stream)
            code = run([*words])
            self._stream.flush()
        return code

    def close(self) -> list[str]:
        """The lines that stand on it, without their styles."""
        self._stream.close()
        self._reader.join()
        os.close(self._ours)
        text = b"".join(self._read).decode().replace("\r\n", "\n")
        return _STYLE.sub("", text).split("\n")

    def _follow(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # nobody holds the other end any more
                return
            if not part:
                return
            self._read.append(part)


def said(width: int, *words: str) -> tuple[int, list[str]]:
    """Exit code and lines of one command on a terminal of `width` columns."""
    terminal = Terminal(width)
    code = terminal.run(*words)
    return code, terminal.close()
