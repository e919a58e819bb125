"""The exact instance: a table, limits, pins and excludes as one multiple-choice knapsack.

Layers that share a group are merged, so that "layer" below means one decision. All numbers are
integers in decimal units (mpsearch.tables.exact): what is proven here is true of the table as
printed. Every kind of limit becomes a row "sum <= limit" or a choice that is not allowed, so that
solvers know only those two (mpsearch.tables.budget says what the kinds are). A choice is not
allowed either where another one has more bits for the activations, as many for the weights, and
takes no more of anything that is limited: Ω, which is measured or cannot price activations at all,
has no say there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError, did_you_mean
from mpsearch.tables.budget import PEAK, Minimand, values_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.exact import (
    IntArray,
    as_narrow,
    largest_allowed,
    smallest_allowed,
    to_float,
    to_integers,
    to_number,
)
from mpsearch.tables.table import LayerTable


@dataclass(frozen=True, eq=False)
class Instance:
    """Minimise the sum of omega[l, c(l)] with every sum of resources[r][l, c(l)] <= limits[r].

    A lower limit "total >= b" is the row "most - total <= most - b".
    """

    members: tuple[tuple[str, ...], ...]
    """L tuples of layer names, e.g. 54: the layers of a group decide together."""
    choices: tuple[Choice, ...]
    """C of them, e.g. 4."""
    allowed: NDArray[np.bool_]
    """bool [L, C]."""
    omega: IntArray
    """Ω, or what else is minimised: integers [L, C], zero where not allowed."""
    columns: tuple[str, ...]
    """The R rows' names: limits, extra columns, lower limits."""
    resources: tuple[IntArray, ...]
    """For each of them integers [L, C], zero where not allowed."""
    limits: tuple[int, ...]
    """Its upper limit, in the same units."""
    digits: tuple[int, ...]
    """`digits[0]` is the decimal scale of omega, `digits[1 + r]` that of resource r."""
    mosts: tuple[int | None, ...]
    """`mosts[r]` is the "most" of a lower limit; None for an upper one."""

    @staticmethod
    def build(
        table: LayerTable,
        limits: Mapping[str, int | float],
        pins: Mapping[str, Choice] | None = None,
        exclude: Mapping[str, Collection[Choice]] | None = None,
        extra_columns: Sequence[str] = (),
        at_least: Mapping[str, int | float] | None = None,
        minimize: Minimand | None = None,
        paid: Collection[str] = (),
    ) -> "Instance":
        """Merge groups and fold pins and excludes in; `extra_columns` are carried unlimited, those
        of them in `paid` count as limited where it is asked what lower activation bits buy.

        Rows are ordered: limits, extra columns, lower limits. `exclude` maps a layer name, or `""`
        for every layer, to choices. Raises InputError for unknown layers or columns, a pin to a
        choice that the layer lacks, a choice that some layers have and others lack without being
        excluded (but in a `partial` table), and nothing left to choose. What a peak limit leaves
        may be nothing: `is_empty`.
        """
        if not table.layers:
            raise InputError(f"{table.source} has no layers")
        pins, exclude, at_least = pins or {}, exclude or {}, at_least or {}
        allowed = _allowed(table, pins, exclude)
        unit, members = _merge(table)
        shape = (len(members), len(table.choices))

        merged_allowed = np.ones(shape, dtype=bool)
        np.logical_and.at(merged_allowed, unit, allowed)
        for stuck in np.flatnonzero(~merged_allowed.any(axis=1)):
            raise InputError(
                f"{table.source}: {', '.join(members[stuck])}: no common choice "
                "is left by pins and excludes"
            )
        for key, limit in limits.items():
            if key.startswith(PEAK):
                integers, scale = to_integers(values_of(table, key))
                too_much = np.append(integers > largest_allowed(limit, scale), False)
                np.logical_and.at(merged_allowed, unit, ~too_much[table.row_index])

        def merged(integers: IntArray) -> IntArray:
            padded = np.append(integers, np.zeros(1, dtype=integers.dtype))[table.row_index]
            matrix = np.zeros(shape, dtype=object if padded.dtype == object else np.int64)
            if (
                padded.dtype != object
                and int(np.abs(padded).max(initial=0)) * len(table.layers) >= 1 << 62
            ):
                matrix = matrix.astype(object)
            np.add.at(matrix, unit, np.where(allowed, padded, 0).astype(matrix.dtype))
            return as_narrow(np.where(merged_allowed, matrix, 0))

        minimize = minimize or Minimand()
        integers, scale = minimize.to_integers(table)
        costs, digits = merged(integers), [scale]
        upper = [key for key in limits if not key.startswith(PEAK)]
        extra = [column for column in extra_columns if column not in limits]
        rows, bounds = [], []
        mosts: list[int | None] = []
        for name in (*upper, *extra, *at_least):
            integers, scale = to_integers(values_of(table, name))
            rows.append(merged(integers))
            digits.append(scale)
            mosts.append(None)
            most = sum(rows[-1].max(axis=1).tolist())
            bounds.append(largest_allowed(limits[name], scale) if name in limits else most)
        for position, name in enumerate(at_least, start=len(upper) + len(extra)):
            largest = rows[position].max(axis=1)
            most = sum(largest.tolist())
            rows[position] = np.where(merged_allowed, largest[:, None] - rows[position], 0)
            mosts[position] = most
            bounds[position] = most - smallest_allowed(at_least[name], digits[1 + position])
        columns = (*upper, *extra, *at_least)
        limited = [
            row for name, row in zip(columns, rows, strict=True)
            if name not in extra or name in paid
        ]  # fmt: skip
        minimised = [column for column in minimize.columns if column != "omega"]
        limited += [merged(to_integers(table.column(column))[0]) for column in minimised]
        kept = merged_allowed & ~_buys_nothing(table.choices, merged_allowed, limited)
        return Instance(
            members=members,
            choices=table.choices,
            allowed=kept,
            omega=as_narrow(np.where(kept, costs, 0)),
            columns=columns,
            resources=tuple(as_narrow(np.where(kept, row, 0)) for row in rows),
            limits=tuple(bounds),
            digits=tuple(digits),
            mosts=tuple(mosts),
        )

    @cached_property
    def is_empty(self) -> bool:
        """Whether some layer has no choice left, or a limit is below the least total."""
        hopeless = any(low > most for low, most in zip(self.base[1:], self.limits, strict=True))
        return hopeless or not self.allowed.any(axis=1).all()

    @cached_property
    def base(self) -> tuple[int, ...]:
        """The least total of omega and of each resource, each on its own."""
        return tuple(
            sum(self.row_minimum(matrix).tolist()) for matrix in (self.omega, *self.resources)
        )

    def row_minimum(self, matrix: IntArray) -> IntArray:
        """[L, C] -> the least allowed entry of each row, [L]."""
        highest = matrix.max()
        lowest: IntArray = np.where(self.allowed, matrix, highest).min(axis=1)
        return lowest

    def sum(self, matrix: IntArray, chosen: NDArray[Any]) -> int:
        """The exact total of a matrix for chosen indices [L]."""
        values = matrix[np.arange(len(chosen)), chosen]
        return sum(values.tolist())

    def is_feasible(self, chosen: NDArray[Any]) -> bool:
        """Whether every choice is allowed and every limit is kept, exactly."""
        if not self.allowed[np.arange(len(chosen)), chosen].all():
            return False
        sums = (self.sum(matrix, chosen) for matrix in self.resources)
        return all(total <= limit for total, limit in zip(sums, self.limits, strict=True))

    def by_layer(self, chosen: NDArray[Any]) -> dict[str, Choice]:
        """Chosen indices [L] -> choice by layer name."""
        return {
            name: self.choices[index]
            for group, index in zip(self.members, chosen.tolist(), strict=True)
            for name in group
        }

    def omega_value(self, integer: int) -> float:
        return to_float(integer, self.digits[0])

    def resource_value(self, position: int, integer: int) -> int | float:
        """A row's sum as a total of its column: also for the rows of lower limits."""
        most = self.mosts[position]
        integer = integer if most is None else most - integer
        return to_number(integer, self.digits[1 + position])


def _buys_nothing(
    choices: Sequence[Choice], allowed: NDArray[np.bool_], limited: Sequence[IntArray]
) -> NDArray[np.bool_]:
    """[L, C]: choices beside another allowed one of the layer that has more bits for activations,
    no fewer for weights, in groups that are no larger, and no larger value in any of the matrices
    `limited` [L, C].

    Some choice of every layer remains: of those with the most bits for activations nothing goes.
    Nothing is said of other tools' formats, whose bits do not tell which of two is finer.
    """
    found = np.zeros_like(allowed)
    for one, choice in enumerate(choices):
        for other, better in enumerate(choices):
            if choice.label or better.label or _fineness(better) < _fineness(choice):
                continue
            if better.a_bits > choice.a_bits and better.w_bits >= choice.w_bits:
                no_more = allowed[:, one] & allowed[:, other]
                for matrix in limited:
                    no_more &= (matrix[:, other] <= matrix[:, one]).astype(bool)
                found[:, one] |= no_more
    return found


def _fineness(choice: Choice) -> float:
    """Scales for each weight, a channel's one for nothing."""
    return 1 / choice.group_size if choice.group_size else 0.0


def _allowed(
    table: LayerTable, pins: Mapping[str, Choice], exclude: Mapping[str, Collection[Choice]]
) -> NDArray[np.bool_]:
    """[layers, C]: what pins and excludes leave, all of which the table must have."""
    wanted = np.ones(table.row_index.shape, dtype=bool)
    position = {name: number for number, name in enumerate(table.layer_names)}
    for name, unwanted in exclude.items():
        if name and name not in position:
            close = did_you_mean(name, position)
            raise InputError(f"cannot exclude: {table.source} has no layer {name!r}{close}")
        for choice in unwanted:
            if choice not in table.choices:
                known = ", ".join(map(str, table.choices))
                raise InputError(
                    f"cannot exclude {choice}: {table.source} has only the choices {known}"
                )
            rows = position[name] if name else slice(None)
            wanted[rows, table.choices.index(choice)] = False
    for name, choice in pins.items():
        table.row_of(name, choice)  # raises for an unknown layer or a choice that it lacks
        column = table.choices.index(choice)
        if not wanted[position[name], column]:
            raise InputError(f"layer {name!r} is pinned to {choice}, which is excluded")
        wanted[position[name]] = False
        wanted[position[name], column] = True
    gaps = np.argwhere(wanted & (table.row_index < 0))
    if table.partial:
        wanted &= table.row_index >= 0
    elif len(gaps):
        layer, choice = table.layer_names[gaps[0][0]], table.choices[gaps[0][1]]
        raise InputError(
            f"{table.source}: layer {layer!r} has no row for {choice}, which other layers have; "
            f"add it, or leave it out with --exclude {choice} (all layers) or --exclude "
            f"{layer}={choice}"
        )
    return wanted


def _merge(table: LayerTable) -> tuple[NDArray[np.int64], tuple[tuple[str, ...], ...]]:
    """The decision that each layer belongs to, and the members of each decision in table order."""
    number: dict[tuple[str, str], int] = {}
    members: list[list[str]] = []
    unit = []
    for layer in table.layers:
        key = ("group", layer.group) if layer.group else ("layer", layer.name)
        position = number.setdefault(key, len(members))
        if position == len(members):
            members.append([])
        members[position].append(layer.name)
        unit.append(position)
    return np.array(unit, dtype=np.int64), tuple(map(tuple, members))
