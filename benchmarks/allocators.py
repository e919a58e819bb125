"""The allocators of other tools beside proven optima: how often and by how much each is worse.

    MPSEARCH_DATA=… python benchmarks/allocators.py

Every table at 37 budgets of bytes, evenly from the smallest to the largest size. Each rule of
`allocation_rules` answers; its answer is evaluated exactly from the table and held against
`mpsearch.solve`'s, which has to be proven, and agree with a dynamic program over bytes that is
written here. Prints two Markdown tables; `--measure` a third one: where greedy is worst, what its
bits and the proven ones lose as networks.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click
import numpy as np
from allocation_rules import RULES, Ladder, Option, Steps, frontier, omega_of, size_of
from allocation_tables import tables
from assignment_zoo import ENTRIES, FOLDER, load
from numpy.typing import NDArray

import mpsearch
from mpsearch.errors import InputError
from mpsearch.knapsack.instance import Instance
from mpsearch.search.solving import solve
from mpsearch.statistics import paired_drop
from mpsearch.tables.budget import Budget
from mpsearch.tables.table import LayerTable

BUDGETS = 37
MOST_STATES = 2_000_000  # of the dynamic program


@dataclass
class Tally:
    """What one rule did at the budgets of one table."""

    excess: list[float] = field(default_factory=list)
    """Ω above the optimum's, relative to it, of each answer within its budget."""
    spared: list[float] = field(default_factory=list)
    """The part of its bytes without which its Ω was to be had, less the optimum's own."""
    over: list[float] = field(default_factory=list)
    """Bytes above the budget, relative to it, of the answers that break it."""
    none: int = 0
    """Budgets without an answer."""
    seconds: list[float] = field(default_factory=list)

    @property
    def worse(self) -> int:
        return sum(one > 0 for one in self.excess)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.excess + other.excess, self.spared + other.spared, self.over + other.over,
            self.none + other.none, self.seconds + other.seconds,
        )  # fmt: skip


def ladders_of(table: LayerTable) -> tuple[Instance, list[Ladder]]:
    """The decisions of a table (layers of one group agree) in exact integers."""
    instance = Instance.build(table, {"size_bytes": 10**18})
    (sizes,), omegas = instance.resources, instance.omega
    ladders: list[Ladder] = []
    for row, allowed in enumerate(instance.allowed):
        options = [
            Option(choice, int(sizes[row, choice]), int(omegas[row, choice]))
            for choice in np.flatnonzero(allowed).tolist()
        ]
        ladders.append(frontier(options))
    return instance, ladders


def budgets_of(ladders: Sequence[Ladder], count: int) -> list[int]:
    """From the smallest size to that of the least Ω, in even steps."""
    low, high = (sum(ladder[end].size for ladder in ladders) for end in (0, -1))
    return [low + (high - low) * step // (count - 1) for step in range(count)]


@dataclass(frozen=True)
class Least:
    """The least Ω within any number of bytes, by a dynamic program in doubles."""

    base: int
    unit: int
    omega: NDArray[np.float64]
    """[states], falling: that within base + unit times the position."""

    @staticmethod
    def of(ladders: Sequence[Ladder], most: int) -> "Least | None":
        """None where it takes too many states."""
        base = sum(ladder[0].size for ladder in ladders)
        more = [option.size - ladder[0].size for ladder in ladders for option in ladder]
        unit = math.gcd(*more)
        states = (most - base) // unit + 1
        if states > MOST_STATES:
            return None
        best = np.zeros(states)
        for ladder in ladders:
            found = best + ladder[0].omega
            for option in ladder[1:]:
                shift = (option.size - ladder[0].size) // unit
                rest = best[: max(states - shift, 0)] + option.omega
                np.minimum(found[shift:], rest, out=found[shift:])
            best = found
        return Least(base, unit, best)

    def at(self, budget: int) -> float:
        """The least Ω within a budget."""
        return float(self.omega[(budget - self.base) // self.unit])

    def bytes_for(self, omega: float) -> int:
        """The fewest bytes that have no more Ω."""
        enough = np.flatnonzero(self.omega <= omega * (1 + 1e-12))
        return self.base + self.unit * int(enough[0])


def optimum(table: LayerTable, instance: Instance, budget: int) -> tuple[int, float]:
    """(exact Ω of the proven answer, seconds). Raises InputError where there is no proof."""
    started = time.perf_counter()
    solution = solve(table, Budget({"size_bytes": budget}), explain=False)
    seconds = time.perf_counter() - started
    if solution.status != "optimal":
        raise InputError(f"expected a proof at {budget:,} B, got {solution.status}")
    first = [solution.choices[names[0]] for names in instance.members]
    chosen = np.array([instance.choices.index(choice) for choice in first])
    return instance.sum(instance.omega, chosen), seconds


def compare(table: LayerTable, count: int = BUDGETS) -> tuple[dict[str, Tally], Tally, bool]:
    """(each rule's tally, the exact search's, whether the dynamic program could check it).

    Raises InputError where a rule is better than what was proven, or the dynamic program differs.
    """
    instance, ladders = ladders_of(table)
    budgets = budgets_of(ladders, count)
    least = Least.of(ladders, max(budgets))
    tallies: dict[str, Tally] = defaultdict(Tally)
    ours = Tally()
    for budget in budgets:
        best, seconds = optimum(table, instance, budget)
        ours.seconds.append(seconds)
        ours.excess.append(0.0)
        ours.spared.append(0.0)
        other = best if least is None else least.at(budget)
        if not math.isclose(other, best, rel_tol=1e-9):
            raise InputError(f"{budget:,} B: proven {best}, by dynamic programming {other}")
        for name, rule in RULES.items():
            started = time.perf_counter()
            steps = rule(ladders, budget)
            tally = tallies[name]
            tally.seconds.append(time.perf_counter() - started)
            if steps is None:
                tally.none += 1
            elif size_of(ladders, steps) > budget:
                tally.over.append(size_of(ladders, steps) / budget - 1)
            else:
                omega = omega_of(ladders, steps)
                if omega < best:
                    raise InputError(f"{budget:,} B: {name} has Ω {omega}, proven is {best}")
                tally.excess.append((omega - best) / best if omega > best else 0.0)
                if least is not None:
                    tally.spared.append(1 - least.bytes_for(omega) / least.bytes_for(best))
    return dict(tallies), ours, least is not None


def measured(name: str, count: int = BUDGETS) -> str:
    """A row: greedy and the proven optimum as networks, at the budget where greedy's Ω is worst."""
    table = LayerTable.read_csv(FOLDER / f"{name}.csv")
    instance, ladders = ladders_of(table)
    worst: tuple[float, int, Steps] | None = None
    for budget in budgets_of(ladders, count):
        steps = RULES["greedy"](ladders, budget)
        best, _ = optimum(table, instance, budget)
        if steps is not None and (worst is None or omega_of(ladders, steps) > best * worst[0]):
            worst = omega_of(ladders, steps) / best, budget, steps
    assert worst is not None
    ratio, budget, steps = worst
    found = {
        "greedy": {
            layer: instance.choices[ladder[step].choice]
            for layers, ladder, step in zip(instance.members, ladders, steps, strict=True)
            for layer in layers
        },
        "exact": dict(solve(table, Budget({"size_bytes": budget})).choices),
    }
    network, seen, unseen = load(ENTRIES[name])
    reference = mpsearch.evaluate(network, unseen)
    cells = [ENTRIES[name].title, f"{budget:,}", f"+{percent(ratio - 1)} %"]
    for choices in found.values():
        row = mpsearch.evaluate(mpsearch.apply(network, choices, seen), unseen)
        drop, (low, high) = paired_drop(reference.correct, row.correct)
        cells.append(f"{100 * drop:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    return f"| {' | '.join(cells)} |"


def percent(value: float) -> str:
    return f"{100 * value:.1f}" if value < 1 else f"{100 * value:,.0f}"


def summary(found: Mapping[str, tuple[Mapping[str, Tally], Tally]]) -> str:
    """One row per rule, over all tables."""
    lines = ["| rule | worse | over budget | no answer | Ω, median | largest | bytes, median "]
    lines[0] += "| largest | time |"
    lines.append(f"|---|{8 * '---:|'}")
    exact = sum((ours for _, ours in found.values()), Tally())
    whole = {name: sum((t[name] for t, _ in found.values()), Tally()) for name in RULES}
    for name, tally in {**whole, "exact (mpsearch)": exact}.items():
        tried = len(tally.excess) + len(tally.over) + tally.none
        ratio = statistics.median(
            one / other for one, other in zip(tally.seconds, exact.seconds, strict=True)
        )
        over = f"{len(tally.over)}, +{percent(max(tally.over))} %" if tally.over else "0"
        cells = [name, f"{tally.worse} of {tried}", over, str(tally.none)]
        for sign, values in (("+", tally.excess), ("-", tally.spared)):
            cells += [
                f"{sign}{percent(end(values or [0.0]))} %" for end in (statistics.median, max)
            ]
        lines.append(f"| {' | '.join(cells)} | {ratio:.2g} |")
    return "\n".join(lines)


def by_table(found: Mapping[str, tuple[Mapping[str, Tally], Tally]]) -> str:
    """One row per table: at how many budgets each rule is worse, and by how much at most."""
    lines = [f"| table | {' | '.join(RULES)} |", f"|---|{'---:|' * len(RULES)}"]
    for title, (tallies, _) in found.items():
        cells = []
        for name in RULES:
            tally = tallies[name]
            most = max(tally.excess, default=0.0)
            cells.append(f"{tally.worse}, +{percent(most)} %" if tally.worse else "0")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--budgets", default=BUDGETS, show_default=True, type=click.IntRange(min=2))
@click.option("--measure", is_flag=True, help="Only measure greedy's worst answers.")
def main(budgets: int, measure: bool) -> None:
    """Print the tables."""
    if measure:
        click.echo("| network | bytes | greedy's Ω | greedy loses | the optimum loses |")
        click.echo("|---|---:|---:|---:|---:|")
        for name in ENTRIES:
            click.echo(measured(name, budgets))
        return
    found, checked = {}, []
    try:
        for title, table in tables():
            tallies, ours, was_checked = compare(table, budgets)
            found[title] = tallies, ours
            if was_checked:
                checked.append(title)
            click.echo(f"{title}: exact, median {1e3 * statistics.median(ours.seconds):.1f} ms")
    except InputError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"\nAlso by dynamic programming: {', '.join(checked)}.\n")
    click.echo(f"{summary(found)}\n\n{by_table(found)}")


if __name__ == "__main__":
    main()
