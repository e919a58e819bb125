"""Standard input, output and error as they are found: closed, full, in an old encoding.

Text of others (names in files, words of a device or an argument) for every place that shows it.

A layer may be called anything. `shown` is the one rule of what a reader gets to see; the others add
what their place would act on. They are called where text leaves mpsearch
(`mpsearch.commands.console`, the reports' text nodes, the gate's outputs, comments in C), so that
no caller has to think of it.
"""

import codecs
import contextlib
import errno
import html
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from mpsearch.errors import InputError
from mpsearch.running.terminal import width_of, wrapped

LONGEST = 20_000  # characters of one piece of text
LONGEST_LINE = 4_000  # of one line or cell on a terminal
NO_BREAK = "\u00a0"  # a space to look at; the reports join numbers to their units with it

# Letters and marks to Unicode that nobody can see; str.isprintable knows the other invisible ones.
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
_INVISIBLE = re.compile(f"[{_UNSEEN}\U000e0100-\U000e01ef]")
# What a runner acts on: `::` at the start of a line (after spaces, too), `##[` and `##vso[`
# anywhere (actions/runner, ActionCommand.cs).
_COMMAND = re.compile(r"^\s*:(?=:)|#(?=#\w*\[)")
# A colon or dot only where it makes an address: `https:`, `::`, `www.`.
_MARKDOWN = re.compile(
    r"[\\`*_{}\[\]<>#|~!&$@]|:(?=\S)|(?<=www)\.|^[-+](?= )|^[-+=](?=[-= ]*$)",
    re.IGNORECASE,
)


def shown(text: str, most: int = LONGEST) -> str:
    r"""What of `text` can be seen, on one line; the rest as escapes of Python: ESC is `\x1b`.

    Controls, line breaks, marks of direction, zero widths, lone surrogates, what Unicode has not
    assigned: `\n`, `\x9b`, `\u202e`, `\ud800`, `\U000e0001`. Longer texts than `most` are cut.
    """
    if len(text) > most:
        text = f"{text[:most]}… ({len(text) - most:,} more characters)"
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == NO_BREAK else _escape(c) for c in text)
    return text if text.isascii() else _INVISIBLE.sub(lambda found: _escape(found[0]), text)


def terminal_line(text: str) -> str:
    r"""One line for a terminal or a log: no command to a CI system starts in it (`\x3a:error`)."""
    return without_commands(shown(text, LONGEST_LINE))


def without_commands(line: str) -> str:
    """A line of shown texts that a table or the like made: it has no command to a CI system."""
    return _COMMAND.sub(lambda found: f"{found[0][:-1]}{_escape(found[0][-1])}", line)


def json_text(document: Any, ascii_only: bool = False, **layout: Any) -> str:
    r"""JSON that reads back to the same and shows as it is: `"\u202e"` for what cannot be seen.

    layout: of json.dumps, such as indent=2.
    """
    text = json.dumps(document, ensure_ascii=ascii_only, **layout)
    lines = text.split("\n")  # of the layout: within a text it is \n already
    return "\n".join(_in_json(line) for line in lines)


def html_text(text: str) -> str:
    """Text inside an element or an attribute in quotes."""
    return html.escape(shown(text))


def markdown_text(text: str) -> str:
    """Text that is only text in GitHub's Markdown, also at the start of a line or in a cell."""
    line = " ".join(shown(text).split())
    line = _MARKDOWN.sub(lambda found: f"\\{found[0]}", line)
    return re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", line)  # an ordered list


def markdown_code(lines: Sequence[str], language: str) -> str:
    """Lines in a fence that none of them closes."""
    text = "\n".join(map(shown, lines))
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def annotation(level: str, title: str, *lines: str) -> str:
    """`error`, `50% of "a"` -> `::error title=mpsearch gate::50%25 of "a"` for GitHub Actions.

    The runner takes everything after `::` up to the end of the line and decodes %25, %0D and %0A
    (actions/toolkit, command.ts): so no text can end the line and start another command.
    """
    data = "%0A".join(shown(line, LONGEST_LINE).replace("%", "%25") for line in lines)
    return f"::{level} title={title}::{data}"


def c_comment(text: str) -> str:
    """A comment of C99 in ASCII, whatever the text holds: it neither ends early nor nests."""
    safe = shown(text).encode("ascii", "backslashreplace").decode()
    for pair in ("*/", "/*", "??"):  # ?? begins a trigraph, and ??/ is a backslash
        safe = safe.replace(pair, " ".join(pair))
    return f"/* {' '.join(safe.split())} */"


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if "!" <= char <= "~" else char.encode("unicode_escape").decode()


def _in_json(line: str) -> str:
    if not (line.isprintable() and line.isascii()):
        line = "".join(c if c.isprintable() else _json_escape(c) for c in line)
        line = _INVISIBLE.sub(lambda found: _json_escape(found[0]), line)
    return re.sub(r"#(?=#\w*\[)", r"\\u0023", line)


def _json_escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if char <= "\uffff" else json.dumps(char)[1:-1]


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
    """The text with what the stream cannot print written out: `Ω` as `Omega`, others as escapes."""
    name = getattr(stream, "encoding", None) or "utf-8"
    codecs.register_error(_HANDLER, _in_plain)
    return text.encode(name, _HANDLER).decode(name)


def say(*lines: str) -> None:
    """Lines on standard error; none where that is closed or full, as nobody could be told."""
    with contextlib.suppress(OSError, ValueError):
        width = width_of(sys.stderr)
        for line in lines:
            print(*wrapped(terminal_line(line), width), sep="\n", file=sys.stderr, flush=True)


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
    return "".join(PLAIN.get(one) or _escape(one) for one in lost), error.end
