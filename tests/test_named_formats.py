"""Tables with formats of other tools, by name: every command that takes a table carries them.

And tables without are what they were: their files byte for byte.
"""

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from tables import hand_table
from terminals import said

import mpsearch
from mpsearch import Choice, LayerTable, Row, TableLayer
from mpsearch.cli import run
from mpsearch.knapsack.instance import Instance
from mpsearch.reports.gather import gather
from mpsearch.reports.layer_sections import bits_drawing, bits_rows
from mpsearch.reports.node_data import VALUES
from mpsearch.reports.run_folder import read_run
from mpsearch.tables.stored_widths import excludes_for

Format = tuple[str, float, float, float, float]
# name, bits of weights and activations as the table says them, bits that it takes, Ω
FRACTIONS: Sequence[Format] = [
    ("Q2_K", 2.625, 0, 2.625, 2.8), ("Q4_K", 4.5, 0, 4.5, 1.0), ("iq3_s", 3.4375, 0, 3.4375, 1.7),
    ("q8_0", 8.5, 0, 8.5, 0.05), ("F16", 0, 0, 16, 0.001),
]  # fmt: skip
NAMES: Sequence[Format] = [
    ("nvfp4", 0, 0, 4.5, 2.0),
    ("mxfp6", 0, 0, 6.25, 0.5),
    ("int8", 0, 0, 8.125, 0.05),
]
MIXED: Sequence[Format] = [
    ("w4a8", 4, 8, 4.125, 2.0), ("w4g32a16", 4, 16, 4.5, 1.5), ("w8a8", 8, 8, 8.125, 0.04),
    ("nvfp4", 4, 4, 4.5, 1.8), ("int8", 8, 8, 8.0, 0.05), ("F16", 0, 0, 16, 0.0001),
]  # fmt: skip
WEIGHTS = 4096


def named_table(formats: Sequence[Format]) -> LayerTable:
    """Two blocks of q and k, which share a choice, and down, of 64 x 64 weights each."""
    layers, rows = [], []
    for block in range(2):
        for part, harm in (("q", 1.0), ("k", 3.0), ("down", 0.4)):
            name, group = f"blk.{block}.{part}", f"b{block}" if part != "down" else ""
            layers.append(TableLayer(name, "linear", group, WEIGHTS, WEIGHTS, (64, 64)))
            for text, w_bits, a_bits, taken, omega in formats:
                costs = {"size_bytes": int(WEIGHTS * taken) // 8, "bops": int(WEIGHTS * taken * 16)}
                choice = Choice.called(text, w_bits, a_bits)
                rows.append(Row(name, choice, omega * harm * (block + 1), 0.0, costs))
    return LayerTable.from_rows(layers, rows)


@pytest.mark.parametrize(
    ("formats", "small", "large"),
    [(FRACTIONS, "iq3_s", "q8_0"), (NAMES, "mxfp6", "int8"), (MIXED, "nvfp4", "w8a8")],
)
def test_every_command_on_a_table_carries_the_names(
    formats: Sequence[Format],
    small: str,
    large: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A format's name is a limit, a pin and a count like any choice, on 80 columns too; of bits
    that nobody says none are claimed, and nothing of another tool's is said to be ours to make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    table = named_table(formats)
    table.write_csv("profile.csv")
    assert LayerTable.read_csv("profile.csv").digest == table.digest

    def printed(line: str, expected: int = 0) -> str:
        code, lines = said(80, *line.split())
        assert code == expected, (line, code, lines)
        assert not [text for text in lines if len(text) > 80 and text.startswith("  ")], line
        text = "\n".join(lines)
        assert not re.search(r"\b0(\.0)?-? ?bit", text), text
        assert not {"mpsearch profile", "mpsearch evaluate"} & {*re.findall(r"mpsearch \w+", text)}
        return text

    uniform = table.uniform_total("size_bytes", Choice.called(large))
    solved = printed(f"solve --size {large} --limit count:{small}=2 --pin blk.0.q={small}")
    assert re.search(rf"count:{small} +2 +2 +0\b(?! [a-z])", solved)  # iq3_s are no seconds
    chosen = json.loads(Path("assignment.json").read_text())
    assert chosen["limits"] == {"size_bytes": uniform, f"count:{small}": 2}
    assert chosen["totals"][f"count:{small}"] == 2
    wanted = table.choices[table.choices.index(Choice.called(small))]
    assert chosen["layers"]["blk.0.k"] == wanted.to_json()  # with the bits that the table says
    assert f"blk.0.q={small}" in printed(f"explain --what-if blk.0.q={small}")
    printed("explain")
    printed(f"gate --max-size {large} --update-baseline base.json --github")
    marks = re.findall(r"(\w) (\S+) everywhere", Path("summary.md").read_text())
    assert len({mark for mark, _ in marks}) == len(marks) > 1
    assert large in dict(marks).values() or len(marks) == 4
    printed("front -o front.csv")
    assert set(Path("front.csv").read_text().splitlines()[0].split(",")) >= {small, large}
    printed(f"solve --size {large} -o best.json")
    printed(f"solve --size {large} --from-front front.json -o looked-up.json")
    best, looked_up = (json.loads(Path(f).read_text()) for f in ("best.json", "looked-up.json"))
    assert best["layers"] == looked_up["layers"]
    growth = printed("gate --assignment best.json --baseline base.json --max-size-growth 0%", 1)
    assert f"{small} -> " in growth
    assert f"{small} -> " in printed("diff assignment.json best.json")
    largest = max(table.choices, key=lambda one: one.w_bits or 99)
    free = printed("solve --size 1MB -o all.json")
    assert ("every layer has its largest choice" in free) == (not largest.label)
    infeasible = printed("solve --size 100B", 1)
    assert "a table with" not in infeasible
    printed("report --format md --profile profile.csv --assignment best.json")
    report = Path("report.md").read_text()
    assert "Which format should" in report
    assert "mpsearch evaluate" not in report
    ours = not any(choice.label for choice in mpsearch.Assignment.load("best.json").bits.values())
    assert ("bit weights" in report) == ours


def test_what_nobody_says_of_bits_is_not_drawn(tmp_path: Path) -> None:
    table = named_table(FRACTIONS)
    table.write_csv(tmp_path / "profile.csv")
    mixture = {"q": "Q4_K", "k": "Q4_K", "down": "F16"}
    chosen = {name: Choice.called(mixture[name[6:]]) for name in table.layer_names}
    mpsearch.Assignment(chosen).save(tmp_path / "assignment.json")
    facts = gather(read_run(tmp_path))
    rows = bits_rows(facts.layers)
    assert [row.w_bits for row in rows[:2]] == [4.5, 4.5]  # the table's, the file has none
    assert rows[2].w_bits != rows[2].w_bits
    assert [row.format for row in rows[1:3]] == ["Q4_K", "F16"]
    assert {VALUES["bits"](layer) for layer in facts.layers} == {4.5, None}
    drawing = bits_drawing(facts.layers)
    assert drawing is not None
    assert "4 × Q4_K, 2 × F16" in drawing.text


def test_messages_about_formats_of_other_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    named_table(FRACTIONS).write_csv("profile.csv")
    for line, expected in (
        ("--size Q4_0", "profile.csv has no choice 'Q4_0'; did you mean 'q8_0'?; it has Q2_K"),
        ("--limit count:Q4_0=3", "profile.csv has no choice 'Q4_0'; did you mean 'q8_0'?"),
        ("--size w8", "profile.csv has no choice with 8-bit weights; it has Q2_K"),
        ("--size w4g32", "has no choice with 4-bit weights in groups of 32; it has Q2_K"),
        ("--size 1MB --format onnx", "formats of other tools go into their files"),
    ):
        assert run(["solve", *line.split()]) == 2
        assert expected in capsys.readouterr().err
    Path("profile.csv").write_text(
        "layer,weights,choice,w_bits,a_bits,omega,size_bytes\n"
        "fc,80,w8a8,,,1,80\nfc,80,int8,8,8,1,80\n"
    )
    assert run(["solve", "--size", "40B"]) == 1
    assert "a table with" not in capsys.readouterr().err  # int4 is not ours to profile
    mixed = named_table(MIXED)
    assert set(excludes_for("c", mixed)) >= {"nvfp4", "int8", "F16"}


def test_other_tools_formats_are_not_computed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line instead of a network at bits that the format does not have."""
    import torch
    from torch import nn

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    samples = (torch.randn(16, 8), torch.arange(16) % 4)
    mpsearch.save(network, "model.pt", sample=samples)
    mpsearch.profile("model.pt", None, "own.csv", choices="w8a8", metric="weight-mse")
    own = LayerTable.read_csv("own.csv")
    rows = [*own.rows()]
    for layer in own.layer_names:
        for text in ("int8", "nvfp4"):  # better than all of ours, so that fronts have them
            costs = {"size_bytes": 8 if text == "int8" else 4, "bops": 8}
            omega = 0.0 if text == "int8" else 1e-9
            choice, metrics = Choice.called(text, 8, 8), dict.fromkeys(own.metrics, 0.0)
            rows.append(Row(layer, choice, omega, 0.0, costs, metrics))
    LayerTable.from_rows(own.layers, rows).write_csv("profile.csv")
    Path("profile.json").write_text(Path("own.json").read_text())
    assert run(["solve", "--size", "60%"]) == 0
    assert run(["front", "-o", "front.csv"]) == 0
    for line, expected in (
        ("apply model.pt assignment.json", "int8 is a format of another tool, which is not comp"),
        ("evaluate model.pt --assignment assignment.json", "mpsearch recipe assignment.json --for"),
        ("evaluate model.pt --front front.csv", "is a format of another tool"),
        ("finetune model.pt assignment.json --epochs 1", "is a format of another tool"),
        ("gate model.pt --assignment assignment.json --max-drop 1", "is a format of another tool"),
        ("gate --max-ram 1KB", "a format of another tool, which the C export does not have"),
        ("solve --max-drop 1 --fp32 model.pt", "is a format of another tool"),
        ("solve --size 60% --ram 1KB --pin 0=int8", "may only be in another tool's format (int8)"),
        ("device table model.pt --host local", "a format of another tool, which is not exported"),
    ):
        capsys.readouterr()
        assert run(line.split()) == 2, line
        assert expected in capsys.readouterr().err, line


def test_what_activation_bits_buy_is_asked_of_our_own_choices_alone() -> None:
    """nvfp4 and int8 of as many bytes: which is finer their bits do not tell. w4g32a8 is finer
    than w4a16 in its weights."""
    bits = {"nvfp4": (4, 4), "int8": (8, 8)}
    texts = ("nvfp4", "int8", "w4g32a8", "w4a16")
    rows = [
        Row("fc", Choice.called(text, *bits.get(text, (0, 0))), 1.0, 0.0, {"size_bytes": 8})
        for text in texts
    ]
    finest = Row("fc", Choice.called("w4g32a16"), 1.0, 0.0, {"size_bytes": 8})
    for more, gone in (([], set()), ([finest], {"w4g32a8"})):
        table = LayerTable.from_rows([TableLayer("fc", "linear")], [*rows, *more])
        allowed = Instance.build(table, {"size_bytes": 8}).allowed[0]
        left = {str(table.choices[n]) for n in allowed.nonzero()[0].tolist()}
        assert left == {*map(str, table.choices)} - gone


def test_files_of_tables_without_names_are_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests of what mpsearch 0.2 wrote before choices had names."""
    hand_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    LayerTable.read_csv("profile.csv").write_csv("again.csv")
    for line in (
        "solve --size 60% --limit count:w8=2",
        "front -o front.csv",
        "gate --max-size 9KB --update-baseline base.json",
        "solve --size 9KB -o more.json",
    ):
        assert run(line.split()) == 0
    found = {}
    for name in DIGESTS:
        text = re.sub(r'"(seconds|mpsearch)": [0-9.e"-]+', "", Path(name).read_text())
        found[name] = sha256(text.encode()).hexdigest()[:16]
    assert found == DIGESTS


DIGESTS = {
    "again.csv": "0dad89b5a0f98a2e",
    "assignment.json": "2e32598894d82d36",
    "more.json": "39639995fd2daa9b",
    "front.csv": "2665b9ee2f857c89",
    "front.json": "a9496765d7dba18f",
    "base.json": "7d408696518909cd",
}
