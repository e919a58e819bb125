"""What the gate names as the next step: commands that exist, and that give what is said."""

import re
import shlex
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
from test_docs_commands import _check_options
from test_gate import CHOSEN, MODEL, TOTALS, with_evidence

from mpsearch.cli import run
from mpsearch.gating.conditions import CONDITIONS
from mpsearch.gating.evidence import Evidence
from mpsearch.gating.next_steps import next_steps
from mpsearch.gating.words import Verdict
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

folder = pytest.fixture(with_evidence, name="folder")


def steps_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    assert run(["gate", *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("the gate says no")
    return [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]


def commands(steps: list[str]) -> list[str]:
    return [command for step in steps for command in re.findall(r"`(mpsearch [^`]*)`", step)]


@pytest.mark.parametrize(
    ("words", "column", "limit", "over"),
    [
        (["--max-size", "1.2KB"], "size_bytes", 1228, "size is 220 B over"),
        (["--max-size", "1224B"], "size_bytes", 1224, "size is 224 B over"),
        (["--max-bops", "17.6K"], "bops", 17600, "BOPS is 4.800 K over"),
    ],
)
def test_what_is_too_large_names_the_search_and_what_it_gives(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], column: str, limit: int,
    over: str,
) -> None:  # fmt: skip
    table = LayerTable.read_csv("profile.csv")
    every = [
        dict(zip(table.layer_names, pair, strict=True))
        for pair in product((Choice(4, 4), Choice(8, 8)), repeat=2)
    ]
    best = min(
        (c for c in every if table.total(c, column) <= limit), key=lambda c: table.total(c, "omega")
    )
    (step,) = steps_of(capsys, *words)
    assert step.startswith(over)
    assert f"Ω {table.total(best, 'omega'):.3g} (now {table.total(CHOSEN, 'omega'):.3g})" in step
    assert f"{table.total(best, column)}" in step
    (command,) = commands([step])
    assert run(shlex.split(command)[1:]) == 0
    assert Assignment.load("assignment.json").layers == best
    assert run(["gate", *words]) == 0


def test_where_nothing_is_small_enough_the_smallest_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (step,) = steps_of(capsys, "--max-size", "1000B")
    assert "no assignment below 1.0 KB (1024 B)" in step
    Assignment(CHOSEN, totals=TOTALS, search={"pin": ("two=w8a8",)}).save("assignment.json")
    (step,) = steps_of(capsys, "--max-size", "1224B")
    assert "no assignment below 1.4 KB (1448 B): `mpsearch solve --max-size 1224B --pin " in step
    Path("profile.csv").unlink()
    (step,) = steps_of(capsys, "--max-size", "1KB")
    assert step == "size is 424 B over: `mpsearch solve --max-size 1KB --pin two=w8a8` on its " \
        "profile.csv"  # fmt: skip


def test_growth_names_the_difference_and_doubt_the_samples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", "--update-baseline", "main.json"]) == 0
    chosen = dict.fromkeys(CHOSEN, Choice(8, 8))
    Assignment(chosen, model_digest=MODEL).save("wider.json")
    found = steps_of(
        capsys, "--baseline", "main.json", "--max-size-growth", "1%", "--assignment", "wider.json"
    )
    assert found[0] == "size growth: `mpsearch diff main.json wider.json` says what changed"
    assert run(shlex.split(commands(found)[0])[1:]) == 0
    assert found[1].startswith("size is 586 B over: `mpsearch solve --max-size 1462B` gives ")
    (first, second) = steps_of(capsys, "--max-drop", "2.5", "--strict")
    assert re.match(r"points lost: `mpsearch evaluate` on at least [\d,]+ samples would", first)
    assert "`mpsearch solve --max-drop 2.5`" in second
    assert run(["gate", "--max-drop", "2.5"]) == 0
    assert "next: " not in capsys.readouterr().out


def test_every_condition_has_a_next_step_with_options_that_exist() -> None:
    found = []
    for condition in CONDITIONS:
        quantity = condition.quantity or "metric f1"
        before = (
            100 if "baseline" in condition.needs and "accuracy" not in condition.needs else None
        )
        value, limit = (Fraction(0), Fraction(1)) if condition.at_least else (2, Fraction(1))
        verdict = Verdict(quantity, value, limit, False, baseline=before)
        steps = next_steps([verdict], Evidence())
        assert steps, condition.name
        found += commands(steps)
    assert len(set(found)) > 8
    for command in found:
        _check_options(command, "a next step")
