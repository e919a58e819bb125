"""The fenced blocks of the Markdown pages, and how the pages say that they are to be run.

An HTML comment in front of a block says what is special about it:

    <!-- not run: REASON -->              only its options are checked (Python: its syntax)
    <!-- tested with: --epochs 1 -->      that option gets another value, to be quick
    <!-- exit code 0 or 1: REASON -->     these exit codes are right
    <!-- file: NAME -->                   the block is that file
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = ("sh", "python")

_FENCE = re.compile(
    r"^(?P<comment><!-- [^\n]* -->\n+)?```(?P<language>[\w{}-]+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` and `value` are the comment's two halves, empty without one."""

    line: int
    language: str
    text: str
    mark: str = ""
    value: str = ""


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order, with the line where each begins."""
    found = []
    for match in _FENCE.finditer(text):
        comment = (match["comment"] or "").strip().removeprefix("<!-- ").removesuffix(" -->")
        mark, _, value = comment.partition(": ")
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(line, match["language"], match["text"], mark, value))
    return found


def indented(text: str) -> list[tuple[int, str]]:
    """The lines of blocks that four spaces make, without these, and where each is."""
    hidden = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    found, before, inside = [], "", False
    for number, line in enumerate(hidden.splitlines(), start=1):
        if line.strip():
            inside = line.startswith("    ") and (inside or not before.strip())
        if inside:
            found.append((number, line[4:]))
        before = line
    return found


def without_code(text: str) -> str:
    """What a page says: no fenced blocks, one space for every line break."""
    return " ".join(_FENCE.sub("", text).split())


def commands(block: Block) -> list[str]:
    """The command lines of an sh block: without comments, continued lines joined."""
    joined = block.text.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def with_option(command: str, option: str) -> str:
    """`option` is "--epochs 1": the command with that value, if it has the option."""
    name, value = option.split()
    return re.sub(rf"{name}[= ]\S+", f"{name} {value}", command)
