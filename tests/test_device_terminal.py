"""What a person sees who measures on a device: questions of ssh stay on the terminal."""

import os
import pty
import select
import shutil
import sys
import time
from pathlib import Path

import pytest
from exports import small_export

ASK = """#!/bin/sh
printf 'calls\\n' >> {folder}/calls
printf "pi's password: " > /dev/tty
read -r answer < /dev/tty
[ "$answer" = secret ] || exit 255
for command; do :; done
exec sh -c "$command"
"""
RUN = ["device", "run", "net", "--host", "pi", "--flags", "-O0", "--mode", "steady"]


class Terminal:
    """A program that has a terminal of its own, and what it wrote on it."""

    def __init__(self, words: list[str]) -> None:
        self.text = ""
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "mpsearch", *words])

    def read_for(self, seconds: float, until: str = "\0") -> None:
        """Read until `until` has come, the program ends or the time is over."""
        end = time.monotonic() + seconds
        while until not in self.text and time.monotonic() < end:
            if select.select([self._file], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self._file, 4096).decode()
                except OSError:  # nobody holds the other end any more
                    return

    def write(self, text: str) -> None:
        os.write(self._file, text.encode())

    def wait(self) -> int:
        """The exit code."""
        self.read_for(60)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
def test_a_question_of_ssh_is_not_erased_by_the_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bar while ssh waits for an answer; it comes after the device has spoken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    small_export(tmp_path / "net")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(ASK.format(folder=tmp_path))
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    terminal = Terminal([*RUN, "--repeat", "5", "--warm-up", "1"])
    terminal.read_for(60, "password: ")
    terminal.read_for(0.5)  # a bar would be drawn ten times a second
    assert terminal.text == "pi's password: "
    terminal.write("secret\n")
    assert terminal.wait() == 0
    said = terminal.text
    assert "measuring on pi" in said
    assert said.index("measuring on pi") > said.index("password: ")
    assert "wrote device.json" in said
    assert (tmp_path / "calls").read_text() == "calls\n"

    refused = Terminal(RUN)
    refused.read_for(60, "password: ")
    refused.write("wrong\n")
    assert refused.wait() == 2
    assert "measuring" not in refused.text
    assert "cannot reach pi" in refused.text
