"""A conversation with a device: a command out, JSON lines back, and nothing left behind."""

import contextlib
import io
import os
import selectors
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, NoReturn

from mpsearch.device.transport import (
    ELSEWHERE,
    LOCAL,
    DeviceError,
    clean,
    command_for,
    explain,
    script,
    telling,
)
from mpsearch.files.json_file import from_json, parse_json

CONNECT_SECONDS = 60
ANSWER_SECONDS = 180  # where ssh may ask a person; sshd itself waits 120 s for a login
# What one answer may be: a device that sends more is broken, or means harm.
MOST_BYTES = 1 << 25
MOST_LINES = 1000  # beside what was asked for; what a program said is cut to 200 on the device
LONGEST_TEXT = 2000
FULL_DISK = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class Run:
    """One run of the program, as the launcher saw it. cpu_ns: what it had of the processor;
    `stderr`: its first bytes, in one line."""

    spawned_ns: int
    wall_ns: int
    cpu_ns: int
    peak_kb: int
    exit: int
    signal: int
    timed_out: bool
    stderr: str


@dataclass(frozen=True)
class Reply:
    """What a command gave: its exit status, facts by name, lines of text, runs, output lines."""

    exit: int
    facts: Mapping[str, str]
    texts: tuple[str, ...]
    runs: tuple[Run, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class _Done:
    exit: int


class Session:
    """A temporary folder on a device and a shell in it; use as a context manager.

    folder: where to make it, empty for TMPDIR or /tmp of the device. asking: entered while ssh may
    ask for a password and the like, so that nothing else writes on the terminal. runs: all runs of
    the program so far. The folder is removed when the session ends, and by the device itself when
    the connection breaks. Raises DeviceError for a device that cannot be reached, breaks off, stays
    silent or talks without end.
    """

    def __init__(
        self,
        host: str,
        folder: str = "",
        asking: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.host = host
        self.runs: list[Run] = []
        self._folder, self._asking = folder, asking
        self._doing = ""
        self._buffer = bytearray()
        self._said: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Session":
        self._said = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                command_for(self.host),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0,
            )  # fmt: skip
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            person = self.host != LOCAL and sys.stdin.isatty()
            with self._asking():
                reply = self._exchange(
                    script() + f"{self._folder}\n".encode(),
                    ANSWER_SECONDS if person else CONNECT_SECONDS,
                )
            if reply.exit != 0:
                raise self.failed("cannot make a temporary folder", reply, ELSEWHERE)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if error is None:
            assert self._process is not None
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):  # it may have gone; everything was read
                self._process.stdin.write(b"end\n")
        self._close()

    def ask(
        self,
        command: str,
        payload: bytes = b"",
        seconds: float = 60,
        doing: str = "",
        lines: int = 0,
    ) -> Reply:
        """Send one command and read its answer. `seconds`: the longest silence; `doing`: for the
        message when the connection breaks; `lines`: how many runs or results are asked for."""
        self._doing = doing
        return self._exchange(f"{command}\n".encode() + payload, seconds, lines)

    def unpack(self, files: Mapping[str, bytes], programs: tuple[str, ...] = ()) -> Reply:
        """Replace the content of the folder by these files."""
        packed = pack(files, programs)
        return self.ask(f"unpack {len(packed)}", packed, doing="sending the files")

    def failed(self, what: str, reply: Reply, *remedy: str) -> DeviceError:
        """The error for a reply whose exit status is not 0, and a line with what to do."""
        full = [text for text in reply.texts if any(sign in text for sign in FULL_DISK)]
        if full:
            return DeviceError(
                f"the disk of {self.host} is full: {clean(full[0])}",
                f"Free some space there. {ELSEWHERE}",
            )
        said = telling(reply.texts) or f"exit status {reply.exit}"
        return DeviceError(f"{what} on {self.host}: {said}", *remedy)

    def _exchange(self, out: bytes, seconds: float, expected: int = 0) -> Reply:
        facts: dict[str, str] = {}
        texts: list[str] = []
        runs: list[Run] = []
        outputs: list[str] = []
        for count, line in enumerate(self._lines(out, seconds), start=1):
            if count > MOST_LINES + expected:
                self._flood(f"{MOST_LINES + expected:,} lines")
            try:
                event = parse_json(line)
                kind = event.pop("event")
                if kind == "done":
                    code = from_json(_Done, event, "done").exit
                    self.runs += runs
                    return Reply(code, facts, tuple(texts), tuple(runs), tuple(outputs))
                if kind == "fact":
                    facts[_text(event["name"])] = clean(_text(event["value"]))
                elif kind == "text":
                    texts.append(_text(event["line"]))
                elif kind == "run":
                    runs.append(from_json(Run, event, "run"))
                elif kind == "output":
                    outputs.append(_text(event["line"], MOST_BYTES))
                else:
                    raise ValueError("no event of ours")
            except (ValueError, KeyError, TypeError, AttributeError):
                if self._doing:
                    raise DeviceError(
                        f"{self.host} sent what mpsearch does not understand: {_shown(line)}"
                    ) from None
                # before the first answer: what a login shell prints on its own
        raise self._broken()

    def _flood(self, much: str) -> NoReturn:
        assert self._process is not None
        self._process.kill()  # at once: until it ends, what it says goes to the disk
        raise DeviceError(
            f"{self.host} sent more than {much} while {self._doing or 'connecting'}; the "
            "connection was closed, nothing was stored"
        )

    def _lines(self, out: bytes, seconds: float) -> Iterator[bytes]:
        """Send `out`, yield lines; end where the other side ends. Raises DeviceError on silence and
        on more than MOST_BYTES, on either of its outputs."""
        assert self._process is not None
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        assert self._said is not None
        received = 0
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as ready:
            ready.register(source, selectors.EVENT_READ)
            if out:
                ready.register(sink, selectors.EVENT_WRITE)
            while True:
                events = ready.select(min(1.0, max(0.0, deadline - time.monotonic())))
                if max(received, os.fstat(self._said.fileno()).st_size) > MOST_BYTES:
                    self._flood(f"{MOST_BYTES >> 20} MiB")
                if not events:
                    if time.monotonic() < deadline:
                        continue
                    raise self._silent(seconds)
                deadline = time.monotonic() + seconds
                for key, _ in events:
                    if key.fileobj is sink:
                        try:
                            out = out[os.write(sink.fileno(), out[:65536]) :]
                        except BlockingIOError:
                            continue
                        except OSError:
                            out = b""  # the end comes on the other pipe, with its reason
                        if not out:
                            ready.unregister(sink)
                        continue
                    chunk = os.read(source.fileno(), 65536)
                    received += len(chunk)
                    if not chunk:
                        return
                    *lines, rest = chunk.split(b"\n")
                    if lines:
                        lines[0] = bytes(self._buffer) + lines[0]
                        self._buffer.clear()
                    self._buffer += rest
                    yield from lines

    def _broken(self) -> DeviceError:
        """The error for a connection that ended, told from what was going on."""
        assert self._process is not None
        self._hang_up(5)
        if self._doing:
            return DeviceError(
                f"the connection to {self.host} broke while {self._doing}: {self._last_words()}",
                "Nothing was stored; the device removes its temporary folder by itself.",
            )
        if self.host == LOCAL:
            return DeviceError(f"the shell on this machine ended: {self._last_words()}")
        return DeviceError(*explain(self.host, self._stderr()))

    def _silent(self, seconds: float) -> DeviceError:
        doing = self._doing or "connecting"
        return DeviceError(
            f"{self.host} said nothing for {seconds:.0f} s while {doing}; the connection was "
            "closed, nothing was stored"
        )

    def _stderr(self) -> str:
        assert self._said is not None
        self._said.seek(0)
        return self._said.read(100_000).decode(errors="replace")

    def _last_words(self) -> str:
        lines = [clean(line) for line in self._stderr().splitlines() if line.strip()]
        return lines[-1] if lines else "no reason was given"

    def _hang_up(self, seconds: float) -> None:
        """Close the input, which ends the script on the device, and give it time to clean up."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()

    def _close(self) -> None:
        if self._process is not None:
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._hang_up(10)
        if self._said is not None:
            self._said.close()


def pack(files: Mapping[str, bytes], programs: tuple[str, ...] = ()) -> bytes:
    """A tar of the files, of which `programs` may be executed; names are ours, never the user's."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o700 if name in programs else 0o600
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _text(value: object, longest: int = LONGEST_TEXT) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError("no text, or a long one")
    return value


def _shown(line: bytes) -> str:
    return ascii(line[:100].decode(errors="replace"))
