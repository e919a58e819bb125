"""A serial port as lines in and out, each within a time: termios alone, no package.

It is opened raw with 8 data bits, no parity and one stop bit, for this process alone. Nothing here
waits without an end.
"""

import errno
import fcntl
import os
import select
import stat
import termios
import time
import tty
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from mpsearch.device.transport import DeviceError
from mpsearch.errors import InputError

SPEED = 115200
SPEEDS = {
    int(name[1:]): value
    for name, value in vars(termios).items()
    if name[0] == "B" and name[1:].isdigit() and int(name[1:]) >= 1200
}
_LONGEST = 1 << 16  # of a line that never ends
_GONE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADF)


def parse_port(text: str) -> tuple[str, int]:
    """`/dev/ttyACM0:115200` -> the path and the bits a second, 115200 where none are given.

    Raises InputError for no path, and for a speed that the system does not have.
    """
    path, colon, speed = text.rpartition(":")
    if not (colon and speed.isascii() and speed.isdigit()):
        path, speed = text, str(SPEED)
    if not path.startswith("/") or not path.isprintable():
        raise InputError(
            f"--serial: got {ascii(text)[:80]}; expected a port such as /dev/ttyACM0 or "
            "/dev/ttyUSB0:9600"
        )
    if len(speed) > 9 or int(speed) not in SPEEDS:
        raise InputError(
            f"--serial: got the speed {speed[:20]}; expected one of "
            f"{', '.join(map(str, sorted(SPEEDS)))}"
        )
    return path, int(speed)


@dataclass
class SerialPort:
    """An open port. `received`: bytes of the line that is not yet whole."""

    path: str
    handle: int
    received: bytearray = field(default_factory=bytearray)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(termios.error):  # closing waits for what was not sent
            termios.tcflush(self.handle, termios.TCIOFLUSH)
        os.close(self.handle)

    def write(self, line: bytes, seconds: float = 5.0) -> None:
        """Send all of it. Raises DeviceError where the port takes nothing, or is gone."""
        end = time.monotonic() + seconds
        while line:
            left = end - time.monotonic()
            if left <= 0 or not select.select([], [self.handle], [], left)[1]:
                raise DeviceError(f"{self.path} took no data for {seconds:g} s")
            try:
                line = line[os.write(self.handle, line) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone(error) from None

    def read_line(self, seconds: float) -> bytes | None:
        """The next line without its end; None where there was none in that time."""
        end = time.monotonic() + seconds
        while (at := self.received.find(b"\n")) < 0:
            if len(self.received) > _LONGEST:
                del self.received[:-1]
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.handle], [], [], left)[0]:
                return None
            try:
                read = os.read(self.handle, 4096)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone(error) from None
            if not read:
                raise self._gone(None)
            self.received += read
        line = bytes(self.received[:at])
        del self.received[: at + 1]
        return line.removesuffix(b"\r")

    def _gone(self, error: OSError | None) -> DeviceError:
        if error is not None and error.errno not in _GONE:
            return DeviceError(f"{self.path} failed: {error.strerror}")
        return DeviceError(
            f"{self.path} is gone: the cable was pulled, or the board lost its power; plug it in "
            "and run again"
        )


def open_port(path: str, speed: int = SPEED) -> SerialPort:
    """Raises DeviceError for a port that is not there, is none, is in use or not allowed."""
    try:
        # Without O_NONBLOCK some ports wait here for a carrier.
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise _cannot_open(path, error) from None
    try:
        if not stat.S_ISCHR(os.fstat(handle).st_mode) or not os.isatty(handle):
            raise DeviceError(f"{path} is no serial port")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceError(f"{path} is in use by another program; end it first") from None
        _configure(handle, speed)
    except termios.error as error:
        os.close(handle)
        raise DeviceError(
            f"{path} cannot be set to {speed} bits a second: {error.args[-1]}"
        ) from None
    except BaseException:
        os.close(handle)
        raise
    return SerialPort(path, handle)


def _configure(handle: int, speed: int) -> None:
    tty.setraw(handle, termios.TCSANOW)
    settings = termios.tcgetattr(handle)
    flags = settings[2] & ~(termios.CSTOPB | termios.PARENB | termios.CRTSCTS | termios.HUPCL)
    settings[2] = flags | termios.CLOCAL | termios.CREAD
    settings[4] = settings[5] = SPEEDS[speed]
    termios.tcsetattr(handle, termios.TCSANOW, settings)
    termios.tcflush(handle, termios.TCIOFLUSH)


def _cannot_open(path: str, error: OSError) -> DeviceError:
    match error.errno:
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            return DeviceError(
                f"there is no serial port {path}; is the board plugged in? It is usually one of "
                "/dev/ttyACM* or /dev/ttyUSB*"
            )
        case errno.EACCES | errno.EPERM:
            return DeviceError(
                f"{path} may not be opened by you; join its group, usually with: sudo usermod -aG "
                "dialout $USER, and log in again"
            )
        case errno.EBUSY:
            return DeviceError(f"{path} is in use by another program; end it first")
    return DeviceError(f"cannot open {path}: {error.strerror}")
