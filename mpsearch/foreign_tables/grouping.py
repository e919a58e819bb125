"""Layers that share a choice, by patterns of their names.

    blocks.*.attn.{q,k,v}      q, k and v of each block
    layers.*.experts.{*}.w1    w1 of all experts of each layer
    {fc1,fc2}                  these two

`*` is any text and `?` one character. What they stand for outside of braces separates groups; what
stands inside of braces is joined: one of several texts with commas between, where `*` and `?` may
stand too.
"""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import groupby, product

from mpsearch.errors import InputError
from mpsearch.tables.table import LayerTable, TableLayer

LONGEST = 1000  # characters of a pattern
MOST_WAYS = 256  # to take its braces


def grouped(table: LayerTable, patterns: Iterable[str]) -> LayerTable:
    """The table where the layers of each group share a choice, beside the groups that it has.

    A layer in two groups joins them. The table keeps its digest: groups are part of the question.
    Raises InputError for a pattern that is none or joins nothing, and for layers without a common
    choice.
    """
    patterns = tuple(patterns)
    if not patterns:
        return table
    head = list(range(len(table.layers)))

    def root(position: int) -> int:
        while head[position] != position:
            head[position] = head[head[position]]
            position = head[position]
        return position

    names: dict[int, str] = {}
    for members, name in [*_in_file(table), *_asked(table, patterns)]:
        first = min(map(root, members))
        before = [names[root(one)] for one in sorted(members) if root(one) in names]
        for one in members:
            head[root(one)] = first
        names[first] = before[0] if before else _new(name, set(names.values()))
    layers = [
        replace(layer, group=names[root(position)]) if root(position) in names else layer
        for position, layer in enumerate(table.layers)
    ]
    known = dict.fromkeys((*table.grouped_by, *patterns))
    found = replace(table, layers=tuple(layers), grouped_by=tuple(known), base_digest=table.digest)
    _check(found)
    return found


def _new(name: str, taken: Collection[str]) -> str:
    """The name, changed where another group has it."""
    while name in taken:
        name += "'"
    return name


def _in_file(table: LayerTable) -> list[tuple[list[int], str]]:
    """Positions of the layers of each group that the table has, and its name."""
    there: dict[str, list[int]] = {}
    for position, layer in enumerate(table.layers):
        if layer.group:
            there.setdefault(layer.group, []).append(position)
    return [(members, name) for name, members in there.items()]


def _asked(table: LayerTable, patterns: Sequence[str]) -> list[tuple[list[int], str]]:
    found: list[tuple[list[int], str]] = []
    for pattern in patterns:
        expressions, shown = _compiled(pattern)
        there: dict[tuple[str, ...], list[int]] = {}
        for position, name in enumerate(table.layer_names):
            matches = (expression.fullmatch(name) for expression in expressions)
            match = next(filter(None, matches), None)
            if match:
                there.setdefault(match.groups(), []).append(position)
        if not there:
            called = ", ".join(name[:40] for name in table.layer_names[-3:])
            raise InputError(
                f"{table.source} has no layer like --group {pattern[:60]!r}",
                f"a pattern is of whole names, such as {called}",
            )
        joined = {key: members for key, members in there.items() if len(members) > 1}
        if not joined:
            raise InputError(
                f"--group {pattern!r} fits {len(there)} layer(s) and joins none of them; what is "
                "to be joined stands in braces: 'blocks.*.attn.{q,k,v}', 'layers.*.experts.{*}'"
            )
        found += [(members, shown.format(*key)) for key, members in joined.items()]
    return found


def _compiled(pattern: str) -> tuple[list[re.Pattern[str]], str]:
    """Expressions, one for each way to take the braces, whose groups are what separates; and the
    name of a group with places for it."""
    wrong = InputError(
        f"got --group {pattern[:60]!r}; expected a pattern of names such as "
        "'blocks.*.attn.{q,k,v}': * and ?, and braces that are closed and not in each other"
    )
    parts = re.split(r"[{]([^{}]*)[}]", pattern)  # outside, inside, outside, …
    if not pattern or len(pattern) > LONGEST or any(set(part) & set("{}") for part in parts):
        raise wrong
    pieces = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
    if math.prod(map(len, pieces)) > MOST_WAYS:
        raise InputError(f"--group {pattern[:60]!r} has more than {MOST_WAYS} ways; use a *")
    shown = "".join(
        f"{{{{{part}}}}}" if number % 2 else re.sub(r"[*?]", "{}", part)
        for number, part in enumerate(parts)
    )
    return [_expression(way) for way in product(*pieces)], shown


def _expression(way: Iterable[str]) -> re.Pattern[str]:
    """Of texts outside and inside of braces by turns. Every `*` but the last takes the shortest
    text that what follows it allows, and keeps it: no pattern takes long."""
    segments, stars = [""], []
    for number, text in enumerate(way):
        for sign in re.split(r"([*?])", text):
            if sign == "*":
                stars.append("(?:" if number % 2 else "(")
                segments.append("")
            elif sign == "?":
                segments[-1] += "." if number % 2 else "(.)"
            else:
                segments[-1] += re.escape(sign)
    expression = segments[0]
    for star, segment in list(zip(stars, segments[1:], strict=True))[:-1]:
        expression += f"(?>{star}.*?){segment})"
    if stars:
        expression += f"{stars[-1]}.*){segments[-1]}"
    return re.compile(expression, re.DOTALL)


def _check(table: LayerTable) -> None:
    """Raise InputError for a group whose layers have no choice in common."""
    by_group = sorted((one for one in table.layers if one.group), key=lambda one: one.group)
    for name, layers in groupby(by_group, key=lambda one: one.group):
        members = list(layers)
        if not set.intersection(*(set(table.choices_of(one.name)) for one in members)):
            raise InputError(
                f"{table.source}: the layers of group {name[:60]!r} share no choice: "
                f"{_having(table, members)}"
            )


def _having(table: LayerTable, members: Sequence[TableLayer]) -> str:
    """`'q' has w4a8, w8a8; 'k' has Q4_K`: the first two that share none, else the first three."""
    first = set(table.choices_of(members[0].name))
    other = [one for one in members if not first & set(table.choices_of(one.name))][:1]
    shown = [members[0], *other] if other else members[:3]
    return "; ".join(
        f"{one.name[:60]!r} has {', '.join(map(str, table.choices_of(one.name)[:9]))}"
        for one in shown
    )
