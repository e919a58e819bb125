"""What can go wrong at the border, and the exit code that says so."""

from collections.abc import Iterable


class MpsearchError(Exception):
    r"""An error that the user can act on: one or two lines, got / expected / what to do.

    Every argument is a line. A line break inside of one came from elsewhere, and is shown as `\n`.
    """

    exit_code = 2

    @property
    def lines(self) -> tuple[str, ...]:
        """The message, one line each."""
        return tuple(map(str, self.args)) or ("",)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def lines_after(self, start: str) -> tuple[str, ...]:
        """The lines, the first of them behind `start`, such as a file's name and a colon."""
        first, *others = self.lines
        return (f"{start}{first}", *others)


class InputError(MpsearchError):
    """The input or the call is wrong (exit code 2)."""


class MissingExtraError(MpsearchError):
    """An optional package is not installed (exit code 2)."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed; "
            f"install it with: {install_extra(extra)} (in a clone of mpsearch)"
        )


def install_extra(extra: str) -> str:
    """How to install what an extra names, in a clone of the repository.

    Not `mpsearch[extra]`: the name is not ours on package indexes.
    """
    return f"python -m pip install '.[{extra}]'"


_LONGEST = 200  # of a word: the comparison takes its square
_MOST = 20_000  # words


def closest(word: str, words: Iterable[str]) -> str | None:
    """The word that was probably meant, None where none is like it. Case makes no difference."""
    from difflib import get_close_matches  # of errors alone
    from itertools import islice

    known = {one.lower(): one for one in islice(words, _MOST) if len(one) <= _LONGEST}
    close = [] if len(word) > _LONGEST else get_close_matches(word.lower(), known, n=1)
    return known[close[0]] if close else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`"; did you mean 'conv1'?"`, which ends a message about a word that is none of `words`;
    empty where none is like it."""
    close = closest(word, words)
    return "" if close is None else f"; did you mean {close!r}?"


def first_line(error: Exception) -> str:
    """Type and first line of another library's error, for one line of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


_NO_MEMORY = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc",
    "bad allocation", "failed to map segment", "can't start new thread", "out of memory",
)  # fmt: skip


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, or the one behind it, says that the system gave no memory.

    torch says so with RuntimeError, a library that cannot be loaded with ImportError.
    """
    behind: BaseException | None = error
    for _ in range(10):
        if behind is None:
            return False
        if isinstance(behind, MemoryError):
            return True
        if isinstance(behind, RuntimeError | ImportError | OSError):
            text = str(behind).lower()
            if any(words in text for words in _NO_MEMORY):
                return True
        behind = behind.__cause__ or behind.__context__
    return False
