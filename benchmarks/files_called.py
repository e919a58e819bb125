"""Which files of mpsearch a command runs: how much must be read to follow it.

    python benchmarks/files_called.py evaluate model.pt --assignment assignment.json --data test.npz

A file counts when one of its functions is called, not when it is imported. The command's own
output goes where it always goes; the files are listed on standard error.
"""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import mpsearch
from mpsearch.cli import run

HOME = Path(mpsearch.__file__).parent
PARTS = {part.resolve(): part.name for part in HOME.iterdir() if part.is_symlink()}


def name_of(path: str) -> str | None:
    """`mpsearch/tables/table.py`, `solvers/dual.py`; None for other people's files."""
    file = Path(path)
    for folder, name in {**PARTS, HOME: HOME.name}.items():
        if file.is_relative_to(folder):
            return f"{name}/{file.relative_to(folder)}"
    return None


def main() -> int:
    """Run the command under a profile hook and count."""
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            called.add(frame.f_code.co_filename)

    sys.setprofile(note)
    code = run(sys.argv[1:])
    sys.setprofile(None)
    names = sorted(filter(None, map(name_of, called)))
    print(*names, f"{len(names)} files", sep="\n", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
