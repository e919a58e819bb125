"""What is said to make an infeasible budget feasible, tried on every assignment there is."""

import itertools
import json
import random
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import tables
from oracles import by_layer

from mpsearch.cli import run
from mpsearch.search.remedies import Question, Remedies, remedies
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.remedy import Option, Remedy
from mpsearch.tables.table import Layer, LayerTable, Row

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)


def row(layer: Layer, fixed: int, choice: Choice) -> Row:
    resources = {
        "size_bytes": -(-layer.weights * choice.w_bits // 8) + fixed,
        "bops": layer.macs * choice.w_bits * choice.a_bits,
    }
    return Row(layer.name, choice, 1 / choice.w_bits, 0.0, resources)


def case(seed: int) -> tuple[Question, dict[str, int]]:
    """A question that has often no answer, and the bytes of biases and scales by layer."""
    rng = random.Random(seed)
    layers = [
        Layer(f"conv{n}", rng.choice(["conv2d", "linear"]), "", weights, weights * 10)
        for n, weights in enumerate(rng.choices(range(20, 400), k=rng.randint(2, 3)))
    ]
    fixed = {layer.name: rng.randrange(1, 60) for layer in layers}
    choices = rng.sample([Choice(w, a) for w in (3, 4, 6, 8) for a in (4, 8)], rng.randint(2, 3))
    table = LayerTable.from_rows(
        layers, [row(layer, fixed[layer.name], choice) for layer in layers for choice in choices]
    )
    least = {
        key: sum(min(one.resources[key] for one in rows.values())
                 for rows in by_layer(table).values())
        for key in ("size_bytes", "bops")
    }  # fmt: skip
    options: list[Option] = []
    for layer in layers:
        kind = rng.random()
        if kind < 0.25:
            options.append(("--pin", f"{layer.name}={rng.choice(choices)}"))
        elif kind < 0.4:
            options.append(("--exclude", f"{layer.name}={rng.choice(choices)}"))
        elif kind < 0.5:
            some = ",".join(map(str, rng.sample(choices, 2)))
            options.append(("--allow", f"{layer.name}={some}"))
    if rng.random() < 0.2:
        options.append(("--pin", f"conv*={rng.choice(choices)}"))
    limits: dict[str, int | float] = {}
    for key, share in (("size_bytes", 0.8), ("bops", 0.4)):
        if rng.random() < share:
            limits[key] = int(least[key] * rng.uniform(0.3, 1.3))
    if rng.random() < 0.2:
        limits[f"count:w{choices[0].w_bits}"] = 0
    lower: dict[str, int | float] = {}
    if rng.random() < 0.2:
        lower["count:w8"] = rng.randint(1, len(layers))
    if "count:w8" in lower and 8 not in {one.w_bits for one in choices}:
        lower = {"size_bytes": least["size_bytes"] * 3}
    few = 1 if rng.random() < 0.2 else None
    if seed % 8 == 0:  # two pins that one choice cannot meet
        few, limits, lower = 1, {}, {}
        options = [("--pin", f"conv{n}={one}") for n, one in enumerate(choices[:2])]
    return Question(table, Budget(limits, lower), tuple(options), few), fixed


def allowed(question: Question, name: str) -> list[Choice]:
    """What the options leave of a layer's choices."""
    left = [*by_layer(question.table)[name]]
    pins = [text.split("=") for option, text in question.options if option == "--pin"]
    named = [choice for layer, choice in pins if layer == name]
    fitting = [choice for layer, choice in pins if "*" in layer and fnmatchcase(name, layer)]
    for option, text in question.options:
        layer, choices = text.split("=") if "=" in text else (name, text)
        if option == "--exclude" and layer == name:
            left = [one for one in left if str(one) != choices]
        if option == "--allow" and layer == name:
            left = [one for one in left if str(one) in choices.split(",")]
    for choice in named or fitting:
        left = [one for one in left if str(one) == choice]
    return left


def has_answer(question: Question) -> bool:
    rows, budget = by_layer(question.table), question.budget
    names = [*rows]

    def value(chosen: tuple[Choice, ...], key: str) -> float:
        if key.startswith("count:w"):
            return sum(choice.w_bits == int(key[7:]) for choice in chosen)
        return sum(
            rows[name][choice].resources[key] for name, choice in zip(names, chosen, strict=True)
        )

    return any(
        (question.max_distinct is None or len({*chosen}) <= question.max_distinct)
        and all(value(chosen, key) <= most for key, most in budget.limits.items())
        and all(value(chosen, key) >= least for key, least in budget.at_least.items())
        for chosen in itertools.product(*(allowed(question, name) for name in names))
    )


def widened(question: Question, fixed: dict[str, int], choices: list[Choice]) -> Question:
    table = question.table
    rows = [*table.rows()]
    there = {(one.layer, one.choice) for one in rows}
    rows += [
        row(layer, fixed[layer.name], choice)
        for layer in table.layers for choice in choices if (layer.name, choice) not in there
    ]  # fmt: skip
    more = LayerTable.from_rows(table.layers, rows)
    return Question(more, question.budget, question.options, question.max_distinct)


def applied(question: Question, fixed: dict[str, int], remedy: Remedy) -> Question:
    """The question as a user asks it who does what the remedy says."""
    asked = widened(question, fixed, list(remedy.choices)) if remedy.choices else question
    options = tuple(one for one in asked.options if one not in remedy.left_out)
    budget = asked.budget
    limits, lower = dict(budget.limits), dict(budget.at_least)
    for option, text in remedy.limits:
        key = {"--size": "size_bytes", "--bops-limit": "bops"}.get(option, text.split("=")[0])
        typed = f"{key}={text.split('=')[-1]}"
        if option == "--at-least":
            lower |= Budget.parse(asked.table, at_least=[typed]).at_least
        else:
            limits |= Budget.parse(asked.table, limits=[typed]).limits
    few = asked.max_distinct if remedy.max_distinct is None else remedy.max_distinct
    return Question(asked.table, Budget(limits, lower), options, few)


def is_right(question: Question, fixed: dict[str, int], found: Remedies) -> set[str]:
    """What happened."""
    happened = set()
    for remedy in found.found:
        assert has_answer(applied(question, fixed, remedy)), remedy
        kinds = ("limits", "left_out", "choices", "max_distinct")
        does = [kind for kind in kinds if getattr(remedy, kind)]
        happened.add(" ".join(does) + " of two" * (len(remedy.limits) > 1))
        for fewer in range(len(remedy.left_out)):  # none of it is in vain
            for some in itertools.combinations(remedy.left_out, fewer):
                part = Remedy(left_out=some, choices=remedy.choices)
                assert not has_answer(applied(question, fixed, part))
    bare = Remedy(left_out=question.options)
    lifted = [one for one in found.found if one.left_out and not one.choices]
    assert bool(lifted) == (bool(question.options) and has_answer(applied(question, fixed, bare)))
    if found.nothing:
        happened.add(found.nothing.split(":")[0])
        assert not lifted
        every = [Choice(w, a) for w in WIDTHS for a in WIDTHS]
        if not question.budget.at_least and not any("count" in k for k in question.budget.limits):
            every = [Choice(2, 2)]
        assert not has_answer(widened(applied(question, fixed, bare), fixed, every))
    return happened


def test_each_remedy_is_one_and_where_there_is_none_there_is_none() -> None:
    happened: set[str] = set()
    infeasible = 0
    for seed in range(40):
        question, fixed = case(seed)
        if not has_answer(question):
            infeasible += 1
            happened |= is_right(question, fixed, remedies(question))
    assert infeasible > 20
    assert {
        "limits", "limits of two", "left_out", "choices", "max_distinct", "left_out choices",
        "no choice of bits fits",
    } <= happened  # fmt: skip


def test_what_solve_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tables.hand_table(tmp_path)

    def said(call: str) -> list[str]:
        assert run(["solve", *call.split()]) == 1
        return capsys.readouterr().err.split("\n")

    lines = said("--size 9KB --pin conv1=w8a8 --pin conv*=w8a8")
    assert lines[2:5] == [
        "any one of these makes it feasible:", "  --size 10.3KB",
        "  leave out --pin 'conv*=w8a8'",
    ]  # fmt: skip
    layers = [Layer("a", "conv2d", "", 1000, 1000), Layer("b", "linear", "", 3000, 3000)]
    choices = (Choice(4, 8), Choice(8, 8))
    rows = [row(layer, 100, choice) for layer in layers for choice in choices]
    LayerTable.from_rows(layers, rows).write_csv("profile.csv")
    assert said("--size 1.6KB")[2:5] == [
        "any one of these makes it feasible:", "  --size 2.15KB",
        "  a table with w2a8 too, which gets down to 1.18 KB: mpsearch profile … "
        "--choices w2a8,w4a8,w8a8",
    ]  # fmt: skip
    assert said("--size 1KB")[2].startswith("  no choice of bits fits, not even of those")
    assert said("--size 150B")[2] == "  no choice of bits fits: biases and scales alone take 200 B"
    import mpsearch

    nothing = mpsearch.solve("profile.csv", size="1.6KB", pin={"a": "w8a8"})
    assert [str(one) for one in nothing.remedies] == [
        "--size 2.64KB",
        "leave out --pin a=w8a8, and a table with w2a8 too, which gets down to 1.18 KB: "
        "mpsearch profile … --choices w2a8,w4a8,w8a8",
    ]
    assert 'feasible with size="2.64KB"' in repr(nothing)
    litert = said("--size 1.3KB --format litert")
    assert litert[4].startswith("  leave out --format litert, and a table with w2a8 too, which")
    assert run(["solve", "--size", "150B", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["no_bits_fit"].startswith("no choice of bits fits: biases")
    assert document["remedies"] == [
        {
            "words": "--size 2.15KB", "limits": [["--size", "2.15KB"]], "left_out": [],
            "choices": [], "max_distinct": None,
        }
    ]  # fmt: skip
