"""`mpsearch diff`: layers, totals and accuracy of two networks, whatever they are read from."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_gate import measured
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.comparing.layers import LayerChange, NetworkLayer, changes_between, named
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluations, save_evaluations
from mpsearch.statistics import drop_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import Origin
from mpsearch.tables.table import LayerTable, Row, TableLayer

W4, W8 = Choice(4, 4), Choice(8, 8)


def table_of(layers: dict[str, int], omega: float = 1.0) -> LayerTable:
    """A table with 4 and 8 bits; a weight is used 10 times and has no other cost."""
    return LayerTable.from_rows(
        [TableLayer(name, weights=count, macs=10 * count) for name, count in layers.items()],
        [
            Row(name, choice, omega * count / choice.w_bits, resources={
                "size_bytes": count * choice.w_bits // 8,
                "bops": 10 * count * choice.w_bits * choice.a_bits,
            })
            for name, count in layers.items() for choice in (W4, W8)
        ],
    )  # fmt: skip


def write_run(
    folder: Path, layers: dict[str, int], chosen: dict[str, Choice], correct: list[bool],
    model: str, metric: str = "hessian", data: str = "sha256:00",
) -> None:  # fmt: skip
    folder.mkdir()
    table = table_of(layers)
    table.write_csv(folder / "profile.csv")
    (folder / "profile.json").write_text(json.dumps({
        "format": "mpsearch.provenance", "version": 1, "model_digest": model, "metric": metric,
    }))  # fmt: skip
    Assignment(chosen, table_digest=table.digest, model_digest=model).save(
        folder / "assignment.json"
    )
    row = replace(measured("assignment", correct), origin=Origin(model, chosen, data))
    save_evaluations(Evaluations("test.npz", data, True, (row,)), folder / "evaluation.json")


RIGHT = [True] * 90 + [False] * 10
OTHER = [False] * 4 + [True] * 87 + [False] * 9  # 4 lost, 1 won


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    before = {"fc1": 8192, "fc2": 4096, "fc3": 1024, "fc4": 512}
    after = {"fc1": 8704, "fc2": 4096, "fc4": 512, "new": 2048}
    write_run(tmp_path / "main", before, dict.fromkeys(before, W4), RIGHT, "sha256:0a")
    chosen = dict.fromkeys(after, W4) | {"fc2": W8}
    write_run(tmp_path / "wider", after, chosen, OTHER, "sha256:0b")
    return tmp_path


def test_layers_totals_and_accuracy_of_two_runs(runs: Path) -> None:
    found = mpsearch.diff(runs / "main", "wider")
    assert {change.name: change.sentence() for change in found.layers} == {
        "fc1": "fc1 8,192 -> 8,704 weights, +0.2 KB (+6 %)",
        "fc2": "fc2 w4a4 -> w8a8, +2.0 KB (+100 %)",
        "fc3": "fc3 removed (1,024 weights, w4a4), -512 B",
        "new": "new added (2,048 weights, w4a4), +1.0 KB",
    }
    assert (found.unchanged, found.same) == (1, False)
    totals = {total.column: (total.before, total.after) for total in found.totals}
    sizes = (sum((4096, 2048, 512, 256)), sum((4352, 4096, 256, 1024)))
    assert totals["size_bytes"] == sizes
    assert totals["bops"] == (160 * 13824, 160 * (8704 + 4 * 4096 + 512 + 2048))
    assert totals["omega"] == (13824 / 4, (8704 + 512 + 2048) / 4 + 4096 / 8)
    assert found.accuracy is not None
    assert (found.accuracy.lost, found.accuracy.won) == (4, 1)
    assert found.accuracy.drop == pytest.approx(0.9 - 0.87)
    assert found.accuracy.drop_interval == drop_interval(4, 1, 100)


def test_the_command_prints_it_within_80_columns_and_as_json(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["diff", "main", "wider"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    printed = [" ".join(line.split()) for line in lines]
    assert "fc1 8,192 -> 8,704 w4a4 +0.2 KB (+6 %) +81.920 K" in printed
    assert "new added: 2,048 w4a4 +1.0 KB +327.680 K" in printed
    low, high = (-100 * end for end in reversed(drop_interval(4, 1, 100)))
    assert f"accuracy 90.00 % 87.00 % -3.00 [{low:+.2f}, {high:+.2f}] points" in printed
    assert printed[-1].startswith("layers: 2 changed, 1 added, 1 removed, 1 as before; size +2.8")
    assert run(["diff", "main", "wider", "--json", "--exit-code"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document == mpsearch.diff("main", "wider").to_document()
    assert document["layers"][0]["after"] == {
        "weights": 8704, "macs": 87040, "bits": "w4a4", "size_bytes": 4352, "bops": 1392640,
    }  # fmt: skip
    assert run(["diff", "main", "main/assignment.json", "--exit-code"]) == 0
    assert "no difference in 4 layers" in capsys.readouterr().out
    assert run(["diff", "main", "wider", "--json", "--markdown"]) == 2


def test_two_tables_are_compared_at_the_choices_of_both(runs: Path) -> None:
    one, other = (LayerTable.read_csv(f"{name}/profile.csv") for name in ("main", "wider"))
    found = mpsearch.diff(one, other)
    sizes = {total.at: (total.before, total.after) for total in found.totals
             if total.column == "size_bytes"}  # fmt: skip
    assert sizes == {"w4a4": (6912, 7680), "w8a8": (13824, 15360)}
    assert {change.name for change in found.layers} == {"fc1", "fc3", "new"}
    assert mpsearch.diff("main/profile.csv", one).same


def test_what_cannot_be_compared_is_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {"fc1": W4, "fc2": W4}
    sizes = {"fc1": 8192, "fc2": 4096}
    write_run(runs / "else", sizes, chosen, RIGHT, "sha256:0c", "sqnr", "sha256:11")
    found = mpsearch.diff("main", "else")
    assert found.accuracy is None
    assert "omega" not in {total.column for total in found.totals}
    assert any("the samples differ: test.npz (sha256:00) and test.npz (sha256:11" in note
               for note in found.notes)  # fmt: skip
    assert "Ω is by hessian and by sqnr, and not compared" in found.notes
    # an evaluation of other bits is of another network; a table of another network is no table
    Assignment(dict.fromkeys(chosen, W8), table_digest="sha256:77").save("else/assignment.json")
    found = mpsearch.diff("main", "else")
    assert [note.split(":")[0] for note in found.notes] == ["else/assignment.json", "left out"]
    renamed = {f"body.{name}": layer for name, layer in {"fc1": W4}.items()}
    Assignment(renamed).save("else/assignment.json")
    assert run(["diff", "main", "else/assignment.json"]) == 0
    assert "no layer has the same name in both" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none", "no such file or folder"),
        ("main/evaluation.json", "neither an assignment nor a baseline"),
        ("main/profile.json", "neither an assignment nor a baseline"),
        ("empty", "has neither assignment.json nor profile.csv"),
        ("text.txt", "an unknown format"),
    ],
)
def test_what_is_no_side(
    runs: Path, capsys: pytest.CaptureFixture[str], path: str, message: str
) -> None:
    Path("empty").mkdir()
    Path("text.txt").write_text("nothing")
    assert run(["diff", "main", path]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2
    with pytest.raises(InputError, match="got int"):
        mpsearch.diff(3, "main")


def test_a_comment_takes_names_as_text_and_stays_short(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A layer may be called anything, and a comment of GitHub has 65,536 characters."""
    evil = "x|y<b>`@org`\n::error::[a](http://b)"
    for folder, bits in (("one", W4), ("two", W8)):
        Path(folder).mkdir()
        names = [evil, *(f"layer{n}" * 100 for n in range(300))]
        Assignment(dict.fromkeys(names, bits)).save(f"{folder}/assignment.json")
    assert run(["diff", "one", "two", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert len(printed) < 20_000
    assert "and 281 more layers" in printed
    (line,) = (line for line in printed.splitlines() if "org" in line)
    assert "\n::" not in printed
    for sign in ("|y", "<b>", "@org", "[a]"):
        assert f"\\{sign[0]}" in line
        assert f" {sign}" not in line
    assert line.count(" | ") == 1  # its own bar is none of the table's


def test_every_kind_of_file_says_the_same_of_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quantized file's own bytes, the table's and the baseline's are one network's."""
    monkeypatch.chdir(tmp_path)
    for folder, width in (("old", 8), ("new", 9)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)).eval()
        x = torch.randn(16, 4)
        mpsearch.save(net, "model.pt", (x[:1],), sample={"x0": x, "y": torch.arange(16) % 3})
        for line in (
            "profile model.pt --metric weight-mse", "solve --size 90%",
            "apply model.pt -o quantized.pt --rounding nearest",
            "gate --max-size 1MB --update-baseline base.json",
        ):  # fmt: skip
            assert run(line.split()) == 0
    monkeypatch.chdir(tmp_path)
    wanted = mpsearch.diff("old/assignment.json", "new/assignment.json")
    assert [change.name for change in wanted.layers] == ["0", "2"]
    for before in ("old/base.json", "old/quantized.pt", "old"):
        for after in ("new/base.json", "new/quantized.pt"):
            found = mpsearch.diff(before, after)
            assert found.layers == wanted.layers
            assert found.totals[:2] == wanted.totals[:2]
    shapes = mpsearch.diff("old/model.pt", "new/model.pt").layers
    assert [change.sentence() for change in shapes] == [
        "0 32 -> 36 weights", "2 24 -> 27 weights"
    ]  # fmt: skip


def test_sentences_of_layers() -> None:
    big = NetworkLayer(10**6, 10**7, W8, 10**6, 64 * 10**7)
    pairs = {
        "a 10 -> 20 MACs": (NetworkLayer(5, 10), NetworkLayer(5, 20)),
        "a w8a8 -> w4a4, -512.0 KB (-52 %)": (big, replace(big, choice=W4, size_bytes=475712)),
        "a added": (None, NetworkLayer()),
        "a removed (w4a4)": (NetworkLayer(choice=W4), None),
    }
    for text, (before, after) in pairs.items():
        assert LayerChange("a", before, after).sentence() == text
    many = {f"l{n}": replace(big, size_bytes=10**6 + n) for n in range(6)}
    wider = {name: replace(one, weights=1, size_bytes=2 * 10**6) for name, one in many.items()}
    text = named(changes_between(many, wider))
    assert text.startswith("l0 1,000,000 -> 1 weights, +976.6 KB (+100 %); l1 ")
    assert text.endswith("; and 3 more")
    # what one side does not know is no difference
    assert changes_between({"a": NetworkLayer(choice=W4)}, {"a": NetworkLayer(5, 10)}) == ()


def test_tables_and_assignments_need_no_torch(runs: Path) -> None:
    code = (
        "import sys; from mpsearch.cli import run; run(['diff', 'main', 'wider']); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
