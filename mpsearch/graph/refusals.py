"""What a format cannot take of a network: all of it at once, by operator and node."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import packet

_NAMED = 3  # nodes of each operator


@dataclass(frozen=True)
class Refusal:
    """One node that a format cannot take."""

    operator: str
    """The aten operator, `cumsum`; empty where it is not about a single node."""
    node: str
    """Its name in the graph; empty where it is not about a single node."""
    why: str
    """The reason, as the export says it."""

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return {"operator": self.operator, "node": self.node, "why": self.why}


class Refused(InputError):
    """Raised with everything that is refused; `hint` says what is known instead."""

    def __init__(self, refusals: Iterable[Refusal], hint: str = "") -> None:
        self.refusals, self.hint = tuple(refusals), hint
        end = f"; {hint}" if hint else ""
        if len(self.refusals) == 1:
            (only,) = self.refusals
            super().__init__(f"{_of_one(only)}{end}")
        else:
            nodes = sum(bool(each.node) for each in self.refusals)
            super().__init__(
                f"{nodes} nodes are refused{end}" if nodes else f"refused{end}",
                *(f"  {line}" for line in grouped(self.refusals)),
            )


def _of_one(refusal: Refusal) -> str:
    if not refusal.node:
        return refusal.why
    return f"{refusal.operator} (node {refusal.node!r}) {refusal.why}"


def grouped(refusals: Iterable[Refusal]) -> list[str]:
    """A line for each operator and reason: `cumsum (4: cumsum, cumsum_1, cumsum_2, …) …`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.operator, refusal.why), []).append(refusal.node)
    lines = []
    for (operator, why), nodes in groups.items():
        named = ", ".join(nodes[:_NAMED]) + (", …" if len(nodes) > _NAMED else "")
        lines.append(f"{operator} ({len(nodes)}: {named}) {why}" if operator else why)
    return lines


@dataclass
class Refusals:
    """Collects them while a graph is walked; `check` raises."""

    hint: str = ""
    found: list[Refusal] = field(default_factory=list)

    @contextmanager
    def of(
        self, node: fx.Node, instead: Callable[[fx.Node], object] | None = None
    ) -> Iterator[None]:
        """What is refused inside is kept, as being about `node`, and the walk goes on, after
        `instead` of it."""
        try:
            yield
            return
        except Refused as error:
            self.hint = self.hint or error.hint
            reasons = [each.why for each in error.refusals]
        except InputError as error:
            reasons = [error.lines[0]]
        operator = packet(node) or node.op
        self.found += [Refusal(operator, node.name, why) for why in reasons]
        if instead is not None:
            instead(node)

    @contextmanager
    def of_layer(self) -> Iterator[None]:
        """What is refused inside is kept as it is said; it names its layer."""
        try:
            yield
        except InputError as error:
            self.network(" ".join(error.lines))

    def network(self, why: str) -> None:
        """Keep what is about the network as a whole, or about a layer."""
        self.found.append(Refusal("", "", why))

    def check(self) -> None:
        """Raise Refused where anything was found."""
        if self.found:
            raise Refused(self.found, self.hint)


def refused(node: fx.Node, why: str, hint: str = "") -> Refused:
    """The error for one node."""
    return Refused([Refusal(packet(node) or node.op, node.name, why)], hint)
