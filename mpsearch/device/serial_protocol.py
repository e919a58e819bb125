"""The host's half of the line protocol of `exporters/firmware/protocol.c`, which says what it is.

A line is TEXT*CCCC with a CRC-16. The host asks, the firmware answers a line. What arrives damaged
is asked for once more, which all questions but `run` allow; for it there is `last`.
"""

import binascii
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpsearch.device.serial_port import SerialPort
from mpsearch.device.transport import DeviceError, clean

VERSION = 1
PART = 32  # floats in a line
GREETING_SECONDS, ANSWER_SECONDS = 10.0, 10.0
TRIES = 4
_HELLO = re.compile(r"hello (\d{1,9})(?: ([0-9a-f]{16}) (\d{1,12}))?.*", re.ASCII)
_NUMBERS = re.compile(r"-?\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Inference:
    """One run: the output's integers as a line, ticks of each step less what reading the clock
    takes, bytes of the stack."""

    output: str
    steps: tuple[int, ...]
    stack_bytes: int


def framed(text: str) -> bytes:
    """A line as it goes over the wire."""
    return f"{text}*{_checksum(text):04x}\n".encode("ascii")


def unframed(line: bytes) -> str | None:
    """The text of a line; None where it is damaged or none of ours."""
    text, star, checksum = line.decode("ascii", "replace").rpartition("*")
    whole = star and text.isprintable() and text.isascii() and checksum == f"{_checksum(text):04x}"
    return text if whole else None


def _checksum(text: str) -> int:
    return binascii.crc_hqx(text.encode("ascii", "replace"), 0xFFFF)


@dataclass
class Firmware:
    """A firmware that has answered. `clock_hz`: what it says of its own clock."""

    port: SerialPort
    clock_hz: int
    timeout: float

    def infer(
        self, inputs: Sequence[bytes], outputs: int, steps: int, sent: Callable[[], None]
    ) -> Inference:
        """Send a sample, float32 of each input in bytes, run it and read everything.

        `sent` is called after every line. Raises DeviceError where it does not answer, was reset
        in the middle, or answers something else.
        """
        size = 4 * PART
        for place, data in enumerate(inputs):
            for at in range(0, len(data), size):
                part = data[at : at + size].hex()
                self._expect("ok", f"x {place} {at // 4} {part}", "sending a sample")
                sent()
        reading, stack = self._run()
        ticks = self._numbers("s", steps, "reading the steps")
        values = self._numbers("y", outputs, "reading the output")
        each = reading / READINGS
        return Inference(
            " ".join(map(str, values)), tuple(max(0, round(t - each)) for t in ticks), stack
        )

    def _run(self) -> tuple[int, int]:
        """Ticks of 1000 readings of the clock, and bytes of the stack, of a run of now."""
        before, *_ = self._ran("last", ANSWER_SECONDS)
        count, reading, stack = self._ran("run", self.timeout)
        if count != before + 1:
            raise self._garbles("running the network", f"run {count} after run {before}")
        return reading, stack

    def _ran(self, question: str, seconds: float) -> list[int]:
        head, *words = self._ask(question, "running the network", seconds, again="last")
        if head != "ran" or len(words) != 3:
            raise self._strange([head, *words], "running the network")
        return [int(word) for word in words]

    def _numbers(self, letter: str, count: int, doing: str) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            head, *words = self._ask(f"{letter} {len(found)}", doing)
            if head != letter or len(words) < 2 or words[0] != str(len(found)):
                raise self._strange([head, *words], doing)
            found += map(int, words[1:])
        if len(found) != count:
            raise self._strange([letter, str(len(found))], doing)
        return found

    def _expect(self, answer: str, question: str, doing: str) -> None:
        words = self._ask(question, doing)
        if words != [answer]:
            raise self._strange(words, doing)

    def _ask(
        self, question: str, doing: str, seconds: float = ANSWER_SECONDS, again: str = ""
    ) -> list[str]:
        """The words of the answer. A damaged one, and one to a damaged question, is asked for
        `again`."""
        line: bytes | None = b""
        for _ in range(TRIES):
            self.port.write(framed(question))
            line = self.port.read_line(seconds)
            if line is None:
                raise DeviceError(
                    f"{self.port.path} did not answer within {seconds:g} s while {doing}; if it is "
                    "only slow, raise --timeout"
                )
            text = unframed(line)
            if text is None:
                _synchronize(
                    self.port, doing, self.timeout
                )  # it may have been said beside the answer
                question = again or question
            elif text != "no sum":
                return self._understood(text, doing)
        raise self._garbles(doing, ascii((line or b"").decode("ascii", "replace")))

    def _garbles(self, doing: str, what: str) -> DeviceError:
        return DeviceError(
            f"{self.port.path} garbles what it sends or gets, again and again, while {doing}: "
            f"{clean(what)[:60]}; try a shorter cable or a lower speed"
        )

    def _understood(self, text: str, doing: str) -> list[str]:
        words = text.split(" ")
        if words[0] == "hello" or text == "no order":
            raise DeviceError(
                f"the board at {self.port.path} was reset while {doing}: a watchdog, its power, or "
                "a fault of the processor"
            )
        number_like = words[1:] if words[0] in ("ran", "y", "s") else []
        if not words[0] or not all(map(_NUMBERS.fullmatch, number_like)):
            raise self._strange(words, doing)
        return words

    def _strange(self, words: Sequence[str], doing: str) -> DeviceError:
        return DeviceError(
            f"{self.port.path} answered {clean(' '.join(words))[:60]!a} while {doing}, which this "
            "mpsearch does not understand; flash the firmware of this export"
        )


READINGS = 1000  # of protocol.c


def greet(port: SerialPort, digest: str, timeout: float) -> Firmware:
    """Ask until a firmware of mpsearch says hello: opening the port may have reset the board.

    digest: of the network that it must have. Raises DeviceError for silence, for garbage, for
    another version of the protocol and for another network.
    """
    heard = b""
    seconds = min(timeout, GREETING_SECONDS)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        port.write(b"\n" + framed("hello"))
        while (line := port.read_line(min(1.0, max(0.0, end - time.monotonic())))) is not None:
            match = _HELLO.fullmatch(unframed(line) or "")
            if match:
                firmware = _accepted(port, match, digest, timeout)
                _synchronize(port, "greeting", timeout)
                return firmware
            heard = line or heard
            if time.monotonic() >= end:
                break
    if heard or port.received:
        said = clean(ascii((heard or bytes(port.received)).decode("ascii", "replace")))[:60]
        raise DeviceError(
            f"{port.path} says {said}, which is no line of mpsearch's firmware; is it on the "
            "board, and is the speed right (--serial PORT:SPEED)?"
        )
    raise DeviceError(
        f"{port.path} did not answer within {seconds:g} s; is build/serial.elf of the export on "
        "the board, and is the speed right (--serial PORT:SPEED)?"
    )


def _synchronize(port: SerialPort, doing: str, timeout: float) -> None:
    """Leave out what is still coming: ask for a number that was never asked for, and read until it
    comes. Raises DeviceError where it does not."""
    end = time.monotonic() + min(timeout, ANSWER_SECONDS)
    asked = time.monotonic_ns() // 1000 % 10_000_000
    port.write(framed(f"sync {asked}"))
    while (left := end - time.monotonic()) > 0 and (line := port.read_line(left)) is not None:
        text = unframed(line)
        if text == f"sync {asked}":
            return
        if text == "no sum":  # to this question, or to one before it
            asked += 1
            port.write(framed(f"sync {asked}"))
    raise DeviceError(f"{port.path} stopped to answer while {doing}; reset the board and run again")


def _accepted(port: SerialPort, match: re.Match[str], digest: str, timeout: float) -> Firmware:
    version, found, clock = match.groups()
    if int(version) != VERSION or found is None:
        raise DeviceError(
            f"the firmware at {port.path} speaks version {version} of the protocol, this mpsearch "
            f"{VERSION}; flash the firmware of this export"
        )
    if found != digest:
        raise DeviceError(
            f"the firmware at {port.path} is of another network ({found}; the export is {digest}); "
            "flash build/serial.elf of this export"
        )
    return Firmware(port, int(clock), timeout)
