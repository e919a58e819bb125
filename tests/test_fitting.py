"""Assignments that fit: memory as a real export has it, answers as exhaustive search finds them."""

import random
from collections.abc import Mapping
from functools import cache, partial
from itertools import product

import pytest
from integer_networks import LARGE, build_random, exported

from mpsearch.data import Data
from mpsearch.exporters.c.families import FAMILIES, PORTABLE, Family
from mpsearch.exporters.c.layouts import arrange
from mpsearch.exporters.c.storage import store
from mpsearch.fitting.fitting import RAM, Fitting
from mpsearch.fitting.limits import cut, step_limits
from mpsearch.fitting.memory import Planned
from mpsearch.fitting.sizes import Sizes
from mpsearch.graph.network import Network
from mpsearch.integer.graph import IntegerGraph
from mpsearch.integer.lowering import lower
from mpsearch.integer.symbolic import lifetimes
from mpsearch.integer.template import Template, template_from_json
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable, Row, TableLayer

SMALL = ("option-a", "pools", "line", "moves", "gate", "input-everywhere", "decoded", "gates")
RANDOM = (0, 2, 4, 5, 10, 12, 14, 18, 22, 38)


@cache
def network(name: str | int) -> tuple[Network, Data]:
    if isinstance(name, str):
        found, inputs = exported(name)
    else:
        model, inputs = build_random(name, 20)
        found = Network.from_module(model, inputs)
    return found, Data("test", tuple(x[:20] for x in inputs), None)


@cache
def template(name: str | int) -> Template:
    """As it is read from profile.json."""
    return template_from_json(lifetimes(*network(name)), "profile.csv")


def placed(graph: IntegerGraph, family: Family) -> tuple[int, dict[str, int]]:
    """What the export takes, and where its tensors lie."""
    arranged = arrange(graph)
    arena = store(graph, arranged, family.kernels(arranged), family).arena
    return arena.peak_bytes, dict(arena.offsets)


@pytest.mark.parametrize("name", [*SMALL, *sorted(LARGE & {"unet", "blocks", "tokens"}), *RANDOM])
def test_memory_is_that_of_a_lowered_network(name: str | int) -> None:
    """To the byte, and every tensor at the same place; at bits that differ from layer to layer."""
    found, data = network(name)
    histograms, rng = calibrate(found, data), random.Random(1)
    for _ in range(2):
        choices = {
            layer.name: Choice(rng.choice([2, 8]), rng.choice([4, 8, 8, 16]))
            for layer in found.layers
        }
        graph = lower(quantize(found, choices, histograms), data)
        for family in FAMILIES.values():
            assert placed(template(name).graph(choices), family) == placed(graph, family)


def layer_table(rng: random.Random, names: tuple[str, ...], choices: list[Choice]) -> LayerTable:
    """Ω falls with the bits; sizes are those of random layers."""
    rows = []
    for name in names:
        height, weights = rng.uniform(1, 10), rng.randint(10, 99)
        for choice in choices:
            omega = height * (4.0**-choice.w_bits + rng.uniform(0.5, 2) * 4.0**-choice.a_bits)
            size = weights * choice.w_bits
            rows.append(Row(name, choice, omega, 0.0, {"size_bytes": size}))
    group = rng.choice(["", "", "", "g"]) if len(names) > 2 else ""
    return LayerTable.from_rows(
        [TableLayer(name, group=group if n < 2 else "") for n, name in enumerate(names)], rows
    )


def every(table: LayerTable) -> list[dict[str, Choice]]:
    """All assignments: layers of a group have one choice."""
    groups = [layer.group or layer.name for layer in table.layers]
    keys = list(dict.fromkeys(groups))
    return [
        {layer.name: dict(zip(keys, one, strict=True))[g]
         for layer, g in zip(table.layers, groups, strict=True)}
        for one in product(table.choices, repeat=len(keys))
    ]  # fmt: skip


CHOICES = [Choice(2, 8), Choice(4, 4), Choice(4, 8), Choice(8, 8), Choice(4, 16)]


@pytest.mark.parametrize("name", [*SMALL, *RANDOM, "unet"])
def test_answers_are_those_of_exhaustive_search(name: str | int) -> None:
    """The least Ω whose memory and size fit; none is cut off or limited that fits."""
    rng = random.Random(f"{name}")
    planned = Planned.of(template(name), PORTABLE)
    count = {2: 5, 3: 5, 4: 4, 5: 3}.get(len(planned.layers), 2)
    table = layer_table(rng, planned.layers, rng.sample(CHOICES, count))
    memory = [(one, planned.lives(one).peak_bytes) for one in every(table)]
    sizes = [table.total(one, "size_bytes") for one, _ in memory]
    fitting = Fitting(table, planned, partial(solve, explain=False), {}, {})
    takes = sorted({taken for _, taken in memory})
    for most in {*rng.sample(takes, min(3, len(takes))), takes[0] - 1}:
        budget = Budget({"size_bytes": rng.choice([max(sizes), sorted(sizes)[len(sizes) // 2]])})
        fits = [
            one for (one, taken), size in zip(memory, sizes, strict=True)
            if taken <= most and size <= budget.limits["size_bytes"]
        ]  # fmt: skip
        found = fitting.fit(budget, most)
        assert bool(fits) == bool(found.solution.choices)
        if fits:
            best = min(table.total(one, "omega") for one in fits)
            assert found.solution.status == "optimal"
            assert table.total(found.solution.choices, "omega") == pytest.approx(best, rel=1e-12)
            assert found.solution.totals[RAM] == planned.lives(found.solution.choices).peak_bytes
        else:
            assert found.solution.status == "infeasible"
            assert found.holding is not None
            assert found.holding.size >= takes[0] >= found.holding.least
            if found.holding.is_proven:
                assert found.holding.size == takes[0]
        _limits_hold(fitting.sizes, memory, most)


def _limits_hold(
    sizes: Sizes, memory: list[tuple[dict[str, Choice], int]], most: int
) -> None:
    limits = step_limits(sizes, most)
    excess = [one for one, taken in memory if taken > most]
    limits += [cut(sizes, one, most, 1) for one in excess[:: max(1, len(excess) // 3)]]
    for one, taken in memory:
        chosen = sizes.chosen(one)
        broken = [
            limit.name for limit in limits
            if limit.constant + sum(c[chosen[name]] for name, c in limit.columns.items())
            > limit.most
        ]  # fmt: skip
        assert taken > most or not broken
    for one in excess[:: max(1, len(excess) // 3)]:
        chosen, own = sizes.chosen(one), cut(sizes, one, most, 1)
        assert sum(column[chosen[name]] for name, column in own.columns.items()) > own.most
