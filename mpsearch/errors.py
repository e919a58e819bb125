"""What can go wrong at the border, and the exit code that says so."""


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
            f"install it with: pip install 'mpsearch[{extra}]'"
        )


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
