"""A board at the other end of a pseudo-terminal, written from what protocol.c says."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mpsearch.device.exported import Exported

Bytes = bytes | None


def crc(data: bytes) -> int:
    """CRC-16 CCITT from 0xffff by long division in binary digits."""
    bits = [int(b) for byte in data for b in f"{byte:08b}"] + [0] * 16
    bits[:16] = [1 - b for b in bits[:16]]
    for at in range(len(bits) - 16):
        if bits[at]:
            for place in (0, 4, 11, 16):  # x^16 + x^12 + x^5 + 1
                bits[at + place] ^= 1
    return int("".join(map(str, bits[-16:])), 2)


def line(text: str) -> bytes:
    """As it goes over the wire."""
    return b"%s*%04x\n" % (text.encode(), crc(text.encode()))


class Board:
    """Answers of a firmware; `spoil` gets every question with its answer and may change the latter.

    None instead of an answer: it is silent. It looks its outputs up by the bytes that it was sent.
    """

    def __init__(
        self, exported: Exported, digest: str, spoil: Callable[[str, bytes], Bytes] | None = None
    ) -> None:
        size = len(exported.one)
        self.known = {
            exported.samples[place * size : (place + 1) * size]: row
            for place, row in enumerate(exported.expected)
        }
        self.hello = f"hello 1 {digest} 25000000"
        self.steps = len(exported.steps)
        self.sizes = exported.inputs
        self.spoil = spoil or (lambda question, answer: answer)
        self.sample = b""
        self.output = ""
        self.runs = 0
        self.master = -1

    def answer(self, question: str) -> str:
        head, *words = question.split(" ")
        match head:
            case "hello":
                return self.hello
            case "sync":
                return question
            case "x":
                place, at = int(words[0]), int(words[1])
                start = 4 * (sum(self.sizes[:place]) + at)
                self.sample = self.sample[:start] + bytes.fromhex(words[2])
                return "ok"
            case "run":
                self.output = self.known.get(self.sample, "0")
                self.runs += 1
                return f"ran {self.runs} 2000 512"
            case "last":
                return f"ran {self.runs} 2000 512"
            case "y":
                at = int(words[0])
                return " ".join(["y", words[0], *self.output.split()[at : at + 3]])
            case "s":
                at = int(words[0])
                ticks = range(at, min(self.steps, at + 2))
                return " ".join(["s", words[0], *(str(1002 + place) for place in ticks)])
        return "no form"

    def serve(self, master: int) -> None:
        waiting = b""
        while True:
            try:
                waiting += os.read(master, 4096)
            except OSError:
                return
            *whole, waiting = waiting.split(b"\n")
            for each in whole:
                text, _, checksum = each.decode().rpartition("*")
                good = text and checksum == f"{crc(text.encode()):04x}"
                given = self.spoil(text, line(self.answer(text) if good else "no sum"))
                if given is not None:
                    with contextlib.suppress(OSError):
                        os.write(master, given)


@contextlib.contextmanager
def plugged_in(board: Board) -> Iterator[str]:
    """The path of its port. `board.master` is the board's end."""
    master, slave = os.openpty()
    board.master = master
    thread = threading.Thread(target=board.serve, args=(master,), daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        os.close(slave)
        with contextlib.suppress(OSError):
            os.close(master)
        thread.join(5)


STUB = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "firmware.h"
static uint64_t now;
void uart_start(void) {}
void uart_put(char c) { if (write(1, &c, 1) != 1) exit(0); }
int uart_get(void) { unsigned char c; if (read(0, &c, 1) != 1) exit(0); return c; }
void clock_start(void) {}
uint64_t clock_ticks(void) { return now += 7; }
void stack_paint(void) {}
size_t stack_depth(void) { return 1234; }
"""


def wait_for(file: Path, text: str, seconds: float = 20.0) -> str:
    """The content of a file that somebody writes, when this text is in it."""
    end = time.monotonic() + seconds
    while text not in (content := file.read_text() if file.exists() else ""):
        assert time.monotonic() < end, content
        time.sleep(0.05)
    return content
