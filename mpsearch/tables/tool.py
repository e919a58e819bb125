"""Which tool a table was fitted to, and what that changes in a search."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ForTool:
    """A tool that recipes are written for, as `--for` names it."""

    name: str
    """`torchao`."""
    column: str
    """Its own bytes, which `--size` limits: `torchao_bytes`."""
    limits: Mapping[str, int]
    """Resource column -> the most that it holds, whatever is asked."""
    left_out: tuple[str, ...] = ()
    """Sentences on choices that it takes in some layers and not in others."""


def tool_notes(tool: ForTool | None) -> tuple[str, ...]:
    """What a solution has to say of the tool that its table was fitted to."""
    return () if tool is None else tool.left_out
