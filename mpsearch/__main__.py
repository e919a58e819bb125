"""The program `mpsearch`, and `python -m mpsearch`: an interrupt is one line from its first moment.

Importing the command line takes a while, in which nothing is there to catch an exception. Even the
module `signal` would: it defines enumerations.
"""

import _signal  # type: ignore[import-not-found]
import os

INTERRUPTED = 130


def _leave(number: int, frame: object) -> None:
    """Nothing was begun, so that nothing has to be put back."""
    os.write(2, b"mpsearch: interrupted\n")
    os._exit(INTERRUPTED)


def main() -> None:
    """Import the command line and run it; where interrupts are ignored, they stay so."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _leave)
    from mpsearch.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
