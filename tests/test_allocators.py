"""The rules of other tools, each by hand; that no rule is better than what is proven."""

from collections.abc import Iterator

import allocators
import pytest
from allocation_rules import RULES, Ladder, Option, Rule, frontier
from allocation_tables import HERE, hawqv3
from allocators import Tally, compare, ladders_of
from assignment_zoo import ENTRIES, FOLDER
from click.testing import CliRunner
from oracles import brute_force
from tables import random_table

from mpsearch.errors import InputError
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable


def ladder(*options: tuple[int, int]) -> Ladder:
    return [Option(choice, size, omega) for choice, (size, omega) in enumerate(options)]


# A byte takes 10 from a, and 20 bytes take 80 from b: 4 a byte.
TWO = [ladder((10, 30), (11, 20)), ladder((10, 100), (30, 20))]
# 5 a byte for the first step and 10 for the second: the middle one is above the line between.
DENT = [ladder((10, 50), (12, 40), (15, 10))]
# 6 and 2 a byte, 3 and 0.5: the steps go a, b, a, b.
LONG = [ladder((10, 100), (20, 40), (30, 20)), ladder((10, 60), (20, 30), (30, 25))]

BY_HAND = {
    # rule: its steps in TWO at 40 and at 39 bytes, and in DENT at 14
    # All with the second choice take 41 bytes.
    "uniform": ([0, 0], [0, 0], [1]),
    # Scores 1 and 8: the cut falls to just above 1, then rises to just below 8, and b takes 40.
    "threshold": ([0, 1], [0, 1], [1]),
    # a is the less sensitive one; at 39 it is not enough that it goes back.
    "sorted": ([0, 1], [0, 0], [1]),
    # a's byte comes first, and then b's 20 do not fit into 19.
    "greedy": ([1, 0], [1, 0], [1]),
    "greedy downwards": ([1, 0], [1, 0], [1]),
    # One of b's bytes is missing, and a has it; at 39 two are.
    "greedy and swaps": ([0, 1], [1, 0], [1]),
    # Below a price of 4 both are large, above it a alone; no price picks the dent.
    "Lagrange": ([1, 0], [1, 0], [0]),
    "Lagrange and repairs": ([0, 1], [1, 0], [1]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    rule = RULES[name]
    first, second, third = BY_HAND[name]
    assert (rule(TWO, 40), rule(TWO, 39), rule(DENT, 14)) == (first, second, third)
    assert rule(DENT, 15) == [2]
    # The last midpoint is always below the largest score, so one layer is large whatever it takes.
    assert rule(TWO, 20) == ([0, 1] if name == "threshold" else [0, 0])
    assert rule(TWO, 19) is None


@pytest.mark.parametrize("name", RULES)
def test_where_all_agree(name: str) -> None:
    """On convex ladders of equal steps every rule but uniform has the optimum, up and down."""
    found = [RULES[name](LONG, budget) for budget in (30, 40, 50)]
    mixed = [[1, 0], [1, 1], [2, 1]]
    if name == "threshold":  # at 40 bytes one layer is large whatever it takes, see above
        assert found[::2] == mixed[::2]
    else:
        assert found == ([[0, 0], [1, 1], [1, 1]] if name == "uniform" else mixed)


def test_every_rule_has_an_example() -> None:
    assert BY_HAND.keys() == RULES.keys()


def test_frontier() -> None:
    """What takes as many bytes or more and is no better goes."""
    options = [Option(0, 10, 5), Option(1, 10, 4), Option(2, 12, 4), Option(3, 13, 1)]
    assert [option.choice for option in frontier(options)] == [1, 3]


def some_tables() -> Iterator[LayerTable]:
    for seed in range(16):
        yield random_table(seed, 3 + seed % 4, 2 + seed % 3, 1.0, groups=seed % 2 == 0)


def test_no_rule_beats_the_proof() -> None:
    """`compare` raises where one does, or where its dynamic program says otherwise."""
    worse = dict.fromkeys(RULES, 0)
    checked = 0
    for table in some_tables():
        tallies, ours, dynamic = compare(table, 5)
        checked += dynamic
        assert not ours.worse
        for name, tally in tallies.items():
            assert len(tally.excess) + len(tally.over) + tally.none == 5
            assert min(tally.excess, default=0.0) >= 0
            assert len(tally.spared) == (len(tally.excess) if dynamic else 0)
            assert min(tally.spared, default=0.0) >= 0
            worse[name] += tally.worse
            assert name == "threshold" or not tally.over
    assert checked > 5
    assert all(worse.values()), worse  # each is caught at something


def test_optimum_is_the_brute_force_one() -> None:
    """The exact numbers that excess is counted from, groups merged."""
    for table in list(some_tables())[:6]:
        instance, ladders = ladders_of(table)
        for budget in allocators.budgets_of(ladders, 4):
            found = brute_force(table, {"size_bytes": budget})
            assert found is not None
            best, _ = allocators.optimum(table, instance, budget)
            assert best == found[0] * 10 ** instance.digits[0]


def test_least_by_hand() -> None:
    """Of TWO: 20, 21, 40 and 41 bytes have 130, 120, 50 and 40."""
    least = allocators.Least.of(TWO, 41)
    assert least is not None
    assert [least.at(budget) for budget in (20, 21, 39, 40, 41)] == [130, 120, 120, 50, 40]
    assert [least.bytes_for(omega) for omega in (130, 120, 119, 50, 40)] == [20, 21, 40, 40, 41]


def cheating(ladders: list[Ladder], budget: int) -> list[int]:
    return [len(one) - 1 for one in ladders]


def test_what_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that breaks the budget, and a proof that is none: by a rule and by the program."""
    table = next(one for one in some_tables() if compare(one, 2)[2])
    rules: dict[str, Rule] = {**RULES, "cheating": cheating}  # type: ignore[dict-item]
    monkeypatch.setattr(allocators, "RULES", rules)
    tallies, _, _ = compare(table, 5)
    assert len(tallies["cheating"].over) == 4  # all but the last budget, which is all bytes
    honest = allocators.optimum

    def wrong(*arguments: object) -> tuple[int, float]:
        best, seconds = honest(*arguments)  # type: ignore[arg-type]
        return 2 * best + 1, seconds

    monkeypatch.setattr(allocators, "optimum", wrong)
    with pytest.raises(InputError, match="by dynamic programming"):
        compare(table, 5)
    monkeypatch.setattr(allocators, "MOST_STATES", 0)
    with pytest.raises(InputError, match="proven is"):
        compare(table, 5)


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(0, 4, 3, 1.0, groups=True)
    monkeypatch.setattr(allocators, "tables", lambda: iter([("tiny", table)]))
    done = CliRunner().invoke(allocators.main, ["--budgets", "3"])
    assert done.exit_code == 0, done.output
    for name in (*RULES, "exact (mpsearch)"):
        assert f"| {name} | " in done.output
    assert "| tiny |" in done.output
    assert Tally([0.5]).worse == 1


def test_page_has_these_figures() -> None:
    """One row of docs/allocators.md, computed anew from the stored table."""
    table = LayerTable.read_csv(FOLDER / "ds-cnn.csv")
    tallies, ours, _ = compare(table)
    title = f"{ENTRIES['ds-cnn'].title}, measured"
    row = allocators.by_table({title: (tallies, ours)}).splitlines()[-1]
    assert row in (FOLDER.parent / "docs" / "allocators.md").read_text().splitlines()


def test_published_resnet50() -> None:
    """HAWQ-V3's `bit_config_resnet50_modelsize_0.25`: all but one layer as proven; with that one at
    8 bits, too, the network is still within the budget."""
    table = hawqv3(HERE / "hawqv3_resnet50.csv")
    published = [*23 * "8", *"8488", *4 * "844", *"444", *"4484", *"444", *"844"]
    low, high = (table.uniform_total("size_bytes", Choice(bits, bits)) for bits in (4, 8))
    budget = int(low + (high - low) / 4)
    found = solve(table, Budget({"size_bytes": budget}))
    bits = [str(found.choices[name].w_bits) for name in table.layer_names]
    different = [n for n, pair in enumerate(zip(bits, published, strict=True)) if len({*pair}) > 1]
    assert (different, bits[39]) == ([39], "8")
    assert found.totals["size_bytes"] <= budget
