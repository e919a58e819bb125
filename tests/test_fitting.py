"""Assignments that fit: memory as a real export has it, answers as exhaustive search finds them."""

import json
import random
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from integer_networks import build_random, exported
from torch import nn

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.c.families import FAMILIES, PORTABLE, Family
from mpsearch.exporters.c.layouts import arrange
from mpsearch.exporters.c.storage import store
from mpsearch.fitting.fitting import RAM, Fitting
from mpsearch.fitting.limits import cut, step_limits
from mpsearch.fitting.memory import Planned
from mpsearch.fitting.sizes import Sizes
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.integer.graph import IntegerGraph
from mpsearch.integer.lowering import lower
from mpsearch.integer.template import Template, refused, template_from_json
from mpsearch.post_training.repairing import PostTraining, quantize_after_training
from mpsearch.profiling.lifetimes import lifetimes
from mpsearch.search.lacking_choices import with_choices
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable, Row, TableLayer

SMALL = ("option-a", "line", "moves", "input-everywhere")
RANDOM = (2, 14)


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


@pytest.mark.parametrize("name", [*SMALL, "gates", "unet", "tokens", *RANDOM])
def test_memory_is_that_of_a_lowered_network(name: str | int) -> None:
    """To the byte, and every tensor at the same place; at bits that differ from layer to layer."""
    found, data = network(name)
    settings = PostTraining("auto", correct_bias=False, rounding="nearest", wide="8")
    rng = random.Random(1)
    for _ in range(2):
        choices = {
            layer.name: Choice(rng.choice([2, 8]), rng.choice([4, 8, 8, 16]))
            for layer in found.layers
        }
        graph = lower(quantize_after_training(found, choices, data, settings), data)
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
    fitting = Fitting(table, planned, solve, {}, {})
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


def _limits_hold(sizes: Sizes, memory: list[tuple[dict[str, Choice], int]], most: int) -> None:
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose memory depends on its bits, profiled."""
    folder = tmp_path_factory.mktemp("fitting")
    torch.manual_seed(0)
    first, second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    x = torch.randn(24, 2, 6, 6)
    save(model, folder / "model.pt", (x[:1],), {"x0": x, "y": torch.arange(24) % 3})
    choices = ["--choices", "w2a8,w4a8,w8a8,w4a16,w8a16", "--metric", "weight-mse"]
    table = ["profile", str(folder / "model.pt"), "-o", str(folder / "profile.csv")]
    assert run([*table, *choices, "--rounding", "nearest"]) == 0
    return folder


def solved(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and what --json prints."""
    with redirect_stdout(StringIO()) as out:
        table, output = str(folder / "profile.csv"), str(folder / "fits.json")
        code = run(["solve", table, "--json", "-o", output, *options])
    return code, json.loads(out.getvalue() or "null")


def test_an_export_takes_what_the_assignment_says(folder: Path) -> None:
    """From the command line to export.json; torch is not loaded on the way to the assignment."""
    code, free = solved(folder, "--ram", "64KB")
    assert code == 0
    most = free["totals"]["ram_bytes"]
    code, found = solved(folder, "--ram", f"{most - 1}B", "--target", "cortex-m4")
    assert code == 0
    assert found["status"] == "optimal"
    predicted = found["totals"]["ram_bytes"]
    assert predicted < most
    assert found["memory"]["fullest"]["bytes"] <= predicted
    document = json.loads((folder / "fits.json").read_text())
    memory = {"ram_bytes": predicted, "ram_limit": most - 1, "target": "cortex-m4"}
    assert document["memory"] == memory == Assignment.load(folder / "fits.json").memory
    assert "ram_bytes" not in document["limits"]
    model, quantized = str(folder / "model.pt"), str(folder / "quantized.pt")
    fits = ["apply", model, str(folder / "fits.json"), "-o", quantized, "--rounding", "nearest"]
    assert run(fits) == 0
    written = folder / "network"
    export = ["export", quantized, "--fp32", model, "-o", str(written), "--no-check"]
    assert run([*export, "--target", "cortex-m4"]) == 0
    assert json.loads((written / "export.json").read_text())["arena"]["peak_bytes"] == predicted
    script = (
        "import sys; from mpsearch.cli import run;"
        "assert run(sys.argv[1:]) == 0; gate = ['gate', '--profile', sys.argv[2], '--max-ram'];"
        "assert run([*gate, '64KB', '--assignment', sys.argv[-1]]) == 0;"
        "assert 'torch' not in sys.modules"
    )
    command = ["solve", str(folder / "profile.csv"), "--ram", "64KB", "-o", str(folder / "a.json")]
    subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True)


def test_the_gate_judges_ram_and_its_growth(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the planner whose answer the export takes to the byte, from files or a quantized one."""
    monkeypatch.chdir(folder)
    taken = {}
    for bits in ("w8a8", "w8a16"):  # whose kernels work in less
        pins = [word for name in ("0", "2", "5") for word in ("--pin", f"{name}={bits}")]
        code, found = solved(folder, "--ram", "64KB", "--target", "cortex-m4", *pins)
        assert code == 0
        taken[bits] = found["totals"]["ram_bytes"]
        Path(f"{bits}.json").write_bytes(Path("fits.json").read_bytes())
    small = taken["w8a16"]
    assert small < taken["w8a8"]
    assert run(["apply", "model.pt", "fits.json", "-o", "q.pt", "--rounding", "nearest"]) == 0
    judge = ["gate", "--target", "cortex-m4", "--profile", "profile.csv", "--assignment"]
    for words in ([*judge, "fits.json"], [*judge, "fits.json", "q.pt"]):
        assert run([*words, "--max-ram", f"{small}B", "--update-baseline", "main.json"]) == 0
        assert run([*words, "--max-ram", f"{small - 1}B"]) == 1
        assert f"`mpsearch solve --ram {small - 1}B`" in capsys.readouterr().out
    assert json.loads(Path("main.json").read_text())["totals"]["ram_bytes"] == small
    grown = ["--baseline", "main.json", "--max-ram-growth"]
    assert run([*judge, "fits.json", *grown, "0%"]) == 0
    assert run([*judge, "w8a8.json", *grown, "0%"]) == 1
    assert "of the C export, with 8 bits" in capsys.readouterr().out
    assert run(["gate", "--assignment", "fits.json", *grown, "0%"]) == 2  # of another processor
    assert "of cortex-m4, and here of any processor" in capsys.readouterr().err
    assert run([*judge, "fits.json", "--max-ram", "1KB", "--target", "z80"]) == 2
    document = json.loads(Path("profile.json").read_text())
    document.pop("lifetimes")
    Path("old.json").write_text(json.dumps(document))
    Path("old.csv").write_bytes(Path("profile.csv").read_bytes())
    old = ["gate", "--assignment", "fits.json", "--profile", "old.csv"]
    capsys.readouterr()
    assert run([*old, "--max-ram", "1KB"]) == 2
    assert "old.csv" in capsys.readouterr().err


def test_choices_that_a_table_lacks_take_what_profile_counts(folder: Path) -> None:
    whole = LayerTable.read_csv(folder / "profile.csv")
    lacking = [choice for choice in whole.choices if choice.w_bits != 4]
    few = LayerTable.from_rows(whole.layers, [r for r in whole.rows() if r.choice.w_bits == 4])
    wider = with_choices(few, lacking, ["size_bytes", "bops"])
    assert wider is not None
    for row in whole.rows():
        position = wider.row_of(row.layer, row.choice)
        for column, value in row.resources.items():
            assert wider.resources[column][position] == value


def test_memory_that_does_not_bind_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where 8 bits of weights come with 16 of activations, less memory costs something. Nothing is
    said of what is not proven in time."""
    monkeypatch.setattr("mpsearch.fitting.fitting._IDLE", 0.0)
    assert solved(folder, "--ram", "64KB", "--exclude", "w8a8")[1]["not_binding"] == {}
    monkeypatch.setattr("mpsearch.fitting.fitting._IDLE", 60.0)
    bits = ["--exclude", "w8a8"]
    free = solved(folder, "--ram", "64KB", *bits)[1]
    idle = free["not_binding"]["ram_bytes"]
    assert idle["tightest"] < idle["free"] <= free["totals"]["ram_bytes"]
    assert solved(folder, "--ram", f"{idle['free']}B", *bits)[1]["omega"] == free["omega"]
    found = solved(folder, "--ram", f"{idle['free'] - 1}B", *bits)[1]
    assert found["omega"] > free["omega"]
    assert found["not_binding"] == {}
    assert solved(folder, "--ram", f"{idle['tightest']}B", *bits)[0] == 0
    assert solved(folder, "--ram", f"{idle['tightest'] - 1}B", *bits)[0] == 1


def test_what_holds_the_smallest_memory_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["solve", str(folder / "profile.csv"), "-o", str(folder / "none.json")]
    assert run([*command, "--ram", "100B"]) == 1
    error = capsys.readouterr().err
    code, found = solved(folder, "--ram", "100B")
    least = found["memory"]["smallest"]
    assert code == 1
    assert least["proven"]
    assert f"ram_bytes: limit 100 B; smallest feasible {least['ram_bytes']} B" in error
    words = f"{least['ram_bytes']} B of RAM is needed (no assignment takes less), by "
    assert words + least["fullest"]["step"] in error
    assert sum(part["bytes"] for part in least["fullest"]["parts"]) == least["fullest"]["bytes"]
    assert run([*command, "--ram", f"{least['ram_bytes']}B"]) == 0
    capsys.readouterr()
    assert run([*command, "--ram", f"{least['ram_bytes']}B", "--size", "1B"]) == 1
    assert "the other limits are infeasible without it" in capsys.readouterr().err
    most = f"{least['ram_bytes']}B"
    wide = [["--exclude", text] for text in ("w2a8", "w4a8", "w8a8")]
    code, found = solved(folder, "--ram", most, *(word for pair in wide for word in pair))
    assert code == 1
    assert [one["left_out"] for one in found["remedies"]] == [[], *([pair] for pair in wide)]
    for one in found["remedies"]:
        ram = one["limits"][0][1] if one["limits"] else most
        left = [word for pair in wide if pair not in one["left_out"] for word in pair]
        assert solved(folder, "--ram", ram, *left)[0] == 0


def test_wrong_calls_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --ram cannot be asked for, and profiles that do not have what it takes."""
    table = str(folder / "profile.csv")
    for options, said in (
        (["--ram", "50%"], "got '50%'; expected a size such as 512MB"),
        (["--ram", "64"], "has no unit; did you mean 64KB or 64B?"),
        (["--ram", "64KB", "--target", "cortex-m9"], "got the target 'cortex-m9'"),
        (["--target", "cortex-m4"], "--target says which processor --ram and --flash are of"),
        (["--ram", "64KB", "--format", "litert"], "--ram is about the C export"),
        (["--ram", "64KB", "--rerank", "3"], "--ram is searched with the table alone"),
    ):
        assert run(["solve", table, "-o", str(folder / "x.json"), *options]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") <= 2
    document = json.loads((folder / "profile.json").read_text())
    lines = ["cumsum (node 'cumsum') has no integer form"]
    for lifetimes_of, said in (
        (None, "does not say which tensors live at the same time; profile the model again"),
        ({**document["lifetimes"], "version": 0}, "has lifetimes of version 0; expected 1"),
        ({**document["lifetimes"], "quantizers": {}}, "its lifetimes are damaged"),
        (refused(InputError(*lines)), f"the network has no integer form for C: {lines[0]}"),
    ):
        (folder / "other.csv").write_bytes((folder / "profile.csv").read_bytes())
        other = {**document, "lifetimes": lifetimes_of}
        (folder / "other.json").write_text(json.dumps(other))
        options = ["--ram", "64KB", "-o", str(folder / "x.json")]
        assert run(["solve", str(folder / "other.csv"), *options]) == 2
        assert said in capsys.readouterr().err
    rows = (folder / "profile.csv").read_text().splitlines()
    fewer = [row for row in rows if not row.startswith("0,")]
    (folder / "other.csv").write_text("\n".join(fewer) + "\n")
    (folder / "other.json").write_text(json.dumps(document))
    assert run(["solve", str(folder / "other.csv"), "--ram", "64KB"]) == 2
    assert "has no layer '0', which the lifetimes beside it know" in capsys.readouterr().err
