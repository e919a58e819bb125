"""Tables fitted to tools, searched in the tools' own bytes, and written as their files."""

import itertools
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from recipe_bytes import OF_A_MODEL, STORED, stored_bytes

import mpsearch
from mpsearch.cli import run
from mpsearch.recipes.fitted import for_target
from mpsearch.recipes.target import GROUP, Recipe, bytes_column, find_target
from mpsearch.reports.device_facts import price_facts
from mpsearch.running import plugins
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable, Row, TableLayer

PAIRS = 10_000
TABLE = """layer,shape,choice,omega,size_bytes
up,64x256,Q4_K,3,9
up,64x256,w4g32a16,4,9
up,64x256,w8a8,1,17
up,64x256,w2a2,9,5
down,256x64,Q4_K,3,9
down,256x64,w4g32a16,4,9
down,256x64,w8a8,1,17
down,256x64,w2a2,9,5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "profile.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Say = Callable[..., str]


@pytest.fixture
def say(folder: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def call(line: str, code: int = 0) -> str:
        assert run(line.split()) == code, capsys.readouterr()
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    return call


# from the search to the file


def test_a_search_for_a_tool_limits_its_bytes_and_its_recipe_takes_them(say: Say) -> None:
    """Q4_K has blocks of 256, which down's rows of 64 are not: llama.cpp would take another type
    there. Both types have 16,384 / 256 · 144 = 16,384 / 32 · 18 = 9216 bytes."""
    note = "llama.cpp does not take Q4_K in 1 layer (down): rows of 64 are no whole blocks of 256"
    assert note in json.loads(say("solve --for llama.cpp --size 18432B --json"))["notes"]
    assert note in mpsearch.solve("profile.csv", size="100%", recipe="llama.cpp").notes
    assignment = json.loads(Path("assignment.json").read_text())
    assert assignment["search"] == {"for": ["llama.cpp"]}
    assert assignment["limits"] == {"llama_cpp_bytes": 18432}
    assert assignment["totals"] == {"size_bytes": 18, "llama_cpp_bytes": 2 * 9216}
    assert assignment["table_digest"] == LayerTable.read_csv("profile.csv").digest
    printed = say("recipe -o types.txt")
    assert Path("types.txt").read_text() == "^up\\.weight$=q4_k\n^down\\.weight$=q4_0\n"
    assert "llama_cpp_bytes 18.0 KB" in printed
    assert json.loads(say("recipe -o types.txt --json"))["totals"] == {"llama_cpp_bytes": 18432}
    assert "llama_cpp_bytes" in say("explain")
    assert "llama_cpp_bytes" in say("front --for llama.cpp -o front.csv")
    say("solve --for llama.cpp --size 18432B --from-front front.json -o looked_up.json")
    other = json.loads(Path("looked_up.json").read_text())
    assert other["layers"] == assignment["layers"]


def test_python_searches_for_a_tool_and_writes_its_recipe(folder: Path) -> None:
    found = mpsearch.solve("profile.csv", size="100%", recipe="torchao")
    written = mpsearch.recipe(found, output="torchao.json")
    assert written.totals == {"torchao_bytes": found.totals["torchao_bytes"]}
    assert json.loads(Path("torchao.json").read_text())["_type"] == "FqnToConfig"
    found.save("assignment.json")
    again = mpsearch.recipe("assignment.json", table="profile.csv")
    assert (again.content, again.path) == (written.content, "")
    assert mpsearch.front("profile.csv", recipe="torchao").resource == "torchao_bytes"
    assert "torchao_bytes" in mpsearch.ranges("profile.csv", recipe="torchao")
    assert found.explain().status == "optimal"
    prices = price_facts(LayerTable.read_csv("profile.csv"), found.to_assignment())
    assert prices is not None
    assert (prices.reason, prices.column) == ("", "torchao_bytes")
    with pytest.raises(mpsearch.InputError, match="expected a Solution"):
        mpsearch.recipe({"up": "w8a8"}, "torchao")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("solve --for torcha", "unknown target of recipes 'torcha'; did you mean 'torchao'?"),
        ("solve --for torchao --pin up=Q4_K", "no choice Q4_K for torchao; it has"),
        ("recipe uniform.json -o x", "was searched for no tool in particular; name one with --for"),
        (
            "recipe uniform.json --for torchao -o x",
            "torchao does not take layer 'up' at w2a2, 'down' at w2a2: it has weights of 1 to 8 "
            "bits, activations of 8, or 16 and 32 for float\nsearch what it takes with",
        ),
        ("recipe other.json --for torchao -o x", "was solved from another table (sha256:"),
        ("recipe few.json --for torchao -o x", "profile.csv and the assignment differ in layer"),
        ("recipe lost/bare.json --for torchao -o x", "it was searched in; name it: --profile FILE"),
        ("solve --from-front whole.json --for torchao", "the front is of all tools, and --for"),
        ("solve --from-front theirs.json", "the front was made with --for torchao, so it"),
        (
            "solve narrow.csv --for llama.cpp",
            "narrow.csv: llama.cpp takes no choice of layer 'fc': w8a8: it has no such integers; "
            "Q4_K, q6_K: rows of 40 are no whole blocks of 256",
        ),
        ("solve tied.csv --for llama.cpp", "llama.cpp takes no choice of group 'qk': Q4_K: rows"),
        (
            "solve norms.csv --for llama.cpp",
            "takes no choice of layer 'n0_norm': Q4_K: it quantizes tensors of 2 or 3 dimensions\n"
            "nor of 4 more: layer 'n1_norm', layer 'n2_norm', layer 'n3_norm', …; leave these out",
        ),
    ],
)
def test_what_a_tool_does_not_take_is_said_by_name(
    say: Say, folder: Path, line: str, message: str
) -> None:
    one, few = {"up": {"choice": "w2a2"}, "down": {"choice": "w2a2"}}, {"up": {"choice": "w8a8"}}
    base: dict[str, object] = {"format": "mpsearch.assignment", "version": 1}
    (folder / "lost").mkdir()
    files: dict[str, dict[str, object]] = {
        "uniform.json": {"layers": one},
        "other.json": {"layers": one, "table_digest": "sha256:0"},
        "few.json": {"layers": few},
        "lost/bare.json": {"layers": few},
    }
    for name, more in files.items():
        (folder / name).write_text(json.dumps(base | more))
    head = "layer,group,shape,choice,omega,size_bytes\n"
    cells = [f"fc,,8x40,{choice},1,9\n" for choice in ("Q4_K", "q6_K", "w8a8")]
    (folder / "narrow.csv").write_text(head + "".join(cells))
    (folder / "tied.csv").write_text(head + "q,qk,8x256,Q4_K,1,9\nk,qk,8x64,Q4_K,1,9\n")
    norms = "".join(f"n{n}_norm,,256,Q4_K,1,9\n" for n in range(5))
    (folder / "norms.csv").write_text(f"{head}q,,8x256,Q4_K,1,9\n{norms}")
    if "front" in line:
        say("front -o whole.csv")
        say("front --for torchao -o theirs.csv")
    printed = say(line, code=2)
    assert message in printed
    assert "Traceback" not in printed
    assert len(printed.splitlines()) <= 2


def test_every_tool_is_listed_with_what_it_takes(say: Say) -> None:
    printed = say("recipes")
    listed = json.loads(say("recipes --json"))["recipes"]
    assert [one["name"] for one in listed] == [*plugins.installed(GROUP)]
    for name in STORED:
        target = find_target(name)
        assert target.name == name
        assert target.description in printed
        assert f"takes {target.formats}" in printed


NAMES = ["a.b", "a.bc", "a*b", "a[b", "ab", "re:a.*", "qkv", "q\x85: v", "\U0001f600", "a#b", 'u"v']


def _fits(tool: str, content: str, name: str) -> list[str]:
    """What each entry of a tool's file that fits the name says of it, as the tool matches."""
    if tool == "llama.cpp":
        pairs = [entry.rsplit("=", 1) for entry in content.split()]
        return [kind for pattern, kind in pairs if re.search(pattern, f"{name}.weight")]
    if tool == "ai8x":
        yaml = pytest.importorskip("yaml")
        return [yaml.safe_load(content)["overrides"][name]["weight_bits"]]
    if tool == "modelopt":
        entries = pytest.importorskip("yaml").safe_load(content)["quantize"]["quant_cfg"][1:]
        quantizer = f"{name}.weight_quantizer"
        fitting = [one for one in entries if fnmatchcase(quantizer, one["quantizer_name"])]
        return [str(one["cfg"]["num_bits"]) for one in fitting]
    found = json.loads(content)
    if tool == "torchao":
        return [form["_type"] for key, form in found["_data"]["fqn_to_config"].items()
                if name == key or (key[:3] == "re:" and re.fullmatch(key[3:], name))]  # fmt: skip
    return [
        str(group["weights"]["num_bits"])
        for group in found["config_groups"].values() for target in group["targets"]
        if (re.match(target[3:], name) if target[:3] == "re:"
            else name == target or target.lower() in "qkvparallellinear")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "choices", "said"),
    [
        ("torchao", ("w8a32", "w4a32"), ("Int8WeightOnlyConfig", "IntxWeightOnlyConfig")),
        ("compressed-tensors", ("w8a16", "w4a16"), ("8", "4")),
        ("modelopt", ("w8a16", "w4g32a16"), ("8", "4")),
        ("llama.cpp", ("Q8_0", "Q4_0"), ("q8_0", "q4_0")),
        ("ai8x", ("w8a8", "w4a8"), (8, 4)),
    ],
)
def test_each_name_in_a_file_fits_its_own_layer_alone(
    tool: str, choices: tuple[str, str], said: tuple[object, object]
) -> None:
    """Whatever stands in it that means something in YAML, JSON, patterns and expressions."""
    target, layers = find_target(tool), dict[str, tuple[TableLayer, Choice]]()
    for number, name in enumerate(NAMES):
        layer, choice = TableLayer(name, shape=(8, 64)), Choice.called(choices[number % 2])
        if not target.refused(layer, choice):
            layers[name] = (layer, choice)
    assert len(layers) >= len(NAMES) - 1
    content = target.write(Recipe(layers)).decode()
    for number, name in enumerate(NAMES):
        if name in layers:
            assert _fits(tool, content, name) == [said[number % 2]], name


@pytest.mark.parametrize(
    ("tool", "choice", "same"),
    [("torchao", "w8a8", "a.weight"), ("llama.cpp", "Q8_0", "a.weight"), ("ai8x", "w8a8", "a.op")],
)
def test_two_layers_that_are_one_for_a_tool(tool: str, choice: str, same: str) -> None:
    found = Choice.called(choice)
    layers = {name: (TableLayer(name, shape=(8, 64)), found) for name in ("a", same)}
    with pytest.raises(mpsearch.InputError, match=f"layers 'a' and '{same}' are both"):
        find_target(tool).write(Recipe(layers))


@pytest.mark.parametrize(
    ("tool", "choice", "name"),
    [
        ("torchao", "w8a8", "_default"), ("torchao", "w8a8", "re:.*"),
        ("llama.cpp", "Q8_0", "Blk"), ("llama.cpp", "Q8_0", "a=b"), ("ai8x", "w8a8", "\0" * 200),
    ],
)  # fmt: skip
def test_names_that_a_tool_cannot_take(tool: str, choice: str, name: str) -> None:
    layer = TableLayer(name, shape=(8, 64))
    assert find_target(tool).refused(layer, Choice.called(choice))


@pytest.mark.parametrize(
    ("shape", "choice"), [((64, 1, 3, 3), "w5a16"), ((8, 1), "w8a8"), ((8, 64), "w8g1a16")]
)
def test_torchao_has_no_scale_for_each_weight(shape: tuple[int, ...], choice: str) -> None:
    """Its quantize_ ends in an error of shapes there, for depthwise convolutions too."""
    layer = TableLayer("m", shape=shape)
    assert "scale for each weight" in find_target("torchao").refused(layer, Choice.called(choice))


class _Broken:
    name = "broken"

    def load(self) -> object:
        raise ImportError("no module named tool")


def test_a_tool_that_fails_to_load_hides_no_other(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = plugins.installed(GROUP)
    monkeypatch.setattr(plugins, "installed", lambda group: {"broken": _Broken()} | known)
    printed = say("recipes")
    assert "cannot be loaded: ImportError: no module named tool" in printed
    assert "torchao" in printed


def test_recipes_need_no_torch(folder: Path) -> None:
    script = "import sys; from mpsearch.cli import run; code = 0\n"
    for name in STORED:
        script += f"code += run('solve --for {name} -o {name}.json'.split())\n"
        if name not in OF_A_MODEL:
            script += f"code += run('recipe {name}.json -o {name}.out'.split())\n"
    script += "assert not code; assert 'torch' not in sys.modules; assert 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


class _Held:
    """A tool with a header, and memory of its own."""

    name, description, formats = "held", "", ""
    limits: Mapping[str, int] = {"held_words": 5}

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        return ""

    def costs(self, layer: TableLayer, choice: Choice) -> dict[str, int]:
        return {"held_bytes": 10 * int(choice.w_bits), "held_words": int(choice.w_bits)}

    def overhead(self, layers: object) -> int:
        return 7

    def write(self, recipe: object) -> bytes:
        return b"held"


def test_overhead_and_what_the_tool_holds_count_whatever_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "load", lambda *_: _Held())
    layers = [TableLayer("a"), TableLayer("b")]
    rows = [Row(one.name, Choice(w, 8), 9 - w) for one in layers for w in (2, 3, 4)]
    table = LayerTable.from_rows(layers, rows)
    found = mpsearch.solve(table, recipe="held")
    assert (found.totals["held_words"], found.limits) == (5, {"held_words": 5})
    assert found.totals["held_bytes"] == 10 * 5 + 7
    assert mpsearch.recipe(found).totals == {"held_bytes": 57, "held_words": 5}
    assert mpsearch.solve(table, size=56, recipe="held").totals["held_bytes"] == 47
    assert mpsearch.solve(table, size="100%", recipe="held").limits["held_bytes"] == 87
    budget = mpsearch.Budget({"held_words": 9})
    assert mpsearch.solve(table, budget, recipe="held").totals["held_words"] == 5
    assert mpsearch.solve(table, limits={"held_words": 4}, recipe="held").totals["held_words"] == 4


# the budget


def _table(rng: random.Random, tool: str) -> LayerTable:
    """One to three layers of few weights, at two to four of the tool's choices."""
    names = [*STORED[tool][0]]
    several = rng.sample(names, rng.randint(2, min(4, len(names))))
    choices = [Choice.called(name) for name in several]
    shapes = [(8, 64), (3, 40), (5, 128), (4, 256), (2, 33), (6, 4, 3, 3), (7, 512), (16, 96)]
    layers = [
        TableLayer(f"l{n}", rng.choice(["", "", "embedding"]), shape=rng.choice(shapes))
        for n in range(rng.randint(1, 3))
    ]
    rows = [Row(one.name, choice, rng.random()) for one in layers for choice in choices]
    return LayerTable.from_rows(layers, rows)


def test_no_budget_is_exceeded_in_the_bytes_that_tools_store() -> None:
    """The best within a limit, by trying all, of 10,000 tables and tools: what is stored, counted
    as arrays, is never above; and what is counted is at most what is stored."""
    rng, kept, refused = random.Random(0), 0, 0
    targets = {tool: find_target(tool) for tool in STORED}
    stored: dict[tuple[str, TableLayer, Choice], int] = {}
    while kept < PAIRS:
        tool = rng.choice([*STORED])
        table = _table(rng, tool)
        try:
            fitted = for_target(table, targets[tool])
        except mpsearch.InputError:
            refused += 1
            continue
        kept += 1
        column = fitted.resources[bytes_column(tool)].tolist()
        by_layer: list[list[int]] = [[] for _ in fitted.layers]
        for row, position in enumerate(fitted.layer_index.tolist()):
            by_layer[position].append(row)
        least, most = (sum(end(column[n] for n in rows) for rows in by_layer) for end in (min, max))
        size = rng.randint(least, most)
        limit = mpsearch.Budget.parse(fitted, f"{size}B").limits[bytes_column(tool)]
        omega = fitted.omega.tolist()
        within = [
            rows for rows in itertools.product(*by_layer) if sum(column[n] for n in rows) <= limit
        ]
        best = min(within, key=lambda rows: sum(omega[n] for n in rows))
        taken = 0
        for row, layer in zip(best, fitted.layers, strict=True):
            key = (tool, layer, fitted.choices[fitted.choice_index[row]])
            if key not in stored:
                stored[key] = stored_bytes(*key)
            assert stored[key] == column[row], key
            taken += stored[key]
        assert taken <= size, (tool, best)
    assert refused < PAIRS
    assert len(stored) > 400


def test_the_solver_keeps_them_too() -> None:
    rng = random.Random(1)
    for _ in range(60):
        tool = rng.choice([*STORED])
        table = _table(rng, tool)
        try:
            found = mpsearch.solve(table, size=f"{rng.randint(40, 100)}%", recipe=tool)
        except mpsearch.InputError:
            continue
        if found.choices:
            layers = {layer.name: layer for layer in table.layers}
            taken = sum(stored_bytes(tool, layers[n], c) for n, c in found.choices.items())
            assert taken == found.totals[bytes_column(tool)] <= found.limits[bytes_column(tool)]


def test_shapes_come_from_the_profile_output_channels_first(tmp_path: Path) -> None:
    from torch import nn

    network = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ConvTranspose2d(6, 4, (2, 3), groups=2),
        nn.Flatten(),
        nn.Linear(168, 2),
    )
    x = np.random.default_rng(0).normal(size=(8, 1, 8, 6)).astype(np.float32)
    table = mpsearch.profile(network, (x, np.arange(8) % 2), tmp_path / "profile.csv")
    shapes = {"0": [6, 1, 3, 3], "1": [4, 3, 2, 3], "3": [2, 168]}
    assert table.provenance["shapes"] == shapes
    fitted = for_target(LayerTable.read_csv(tmp_path / "profile.csv"), _Held())
    assert {layer.name: [*layer.shape] for layer in fitted.layers} == shapes


def test_tensors_that_llama_cpp_keeps_count_and_get_no_line(say: Say, folder: Path) -> None:
    rows = "q,8x256,Q4_K,1\nq_norm,8,F32,0\nffn_gate_inp,8x256,F32,0\n"
    (folder / "kept.csv").write_text(f"layer,shape,choice,omega\n{rows}")
    say("allocate kept.csv --for llama.cpp --size 100% -o types.txt")
    assert (folder / "types.txt").read_text() == "^q\\.weight$=q4_k\n"
    found = mpsearch.solve("kept.csv", recipe="llama.cpp")
    assert found.totals == {"llama_cpp_bytes": 8 * 144 + 8 * 4 + 8 * 256 * 4}
