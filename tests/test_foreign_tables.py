"""Tables of any tool: columns by other names, groups by patterns, a place for every complaint."""

import itertools
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import HAND

import mpsearch
from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.foreign_tables.grouping import grouped
from mpsearch.foreign_tables.reading import read_table
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

TSV = (
    "name\ttype\tkld\tbytes\tnote\n"
    "blk.0.q\tQ4_K\t0.1\t100\tx\nblk.0.q\tQ6_K\t0.01\t150\t\n"
    "blk.0.k\tQ4_K\t0.2\t100\tx\nblk.0.k\tQ6_K\t0.02\t140\ty\n"
    "blk.1.q\tQ6_K\t0.5\t30\tz\nblk.1.k\tQ6_K\t0.5\t30\t\n"
)
COLUMNS = "layer=name,choice=type,omega=kld,size_bytes=bytes"


def written(folder: Path, text: str, name: str = "kld.txt") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def of_layers(**choices: str) -> LayerTable:
    """A table of layers with these choices, all of one byte."""
    layers = [Layer(name.replace("_", ".")) for name in choices]
    rows = [
        Row(name.replace("_", "."), Choice.called(one), 1.0, resources={"size_bytes": 1})
        for name, texts in choices.items()
        for one in texts.split()
    ]
    return LayerTable.from_rows(layers, rows)


def test_our_own_table_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    path.write_text(HAND)
    (tmp_path / "profile.json").write_text('{"metric": "sqnr"}')
    ours, same = LayerTable.read_csv(path), read_table(path)
    assert (same.digest, same.provenance) == (ours.digest, ours.provenance)
    assert not same.partial
    with pytest.raises(InputError) as old:
        LayerTable.read_csv(tmp_path / "none.csv")
    with pytest.raises(InputError) as new:
        read_table(tmp_path / "none.csv")
    assert new.value.lines == old.value.lines


@pytest.mark.parametrize("sign", ["\t", ";", "|"])
def test_columns_by_any_names(tmp_path: Path, sign: str) -> None:
    """A layer lacks the choices that it has no row for, and they are written and read again."""
    path = written(tmp_path, TSV.replace("\t", sign))
    table = read_table(path, COLUMNS)
    assert table.columns == ("size_bytes",)
    assert [str(one) for one in table.choices_of("blk.1.k")] == ["Q6_K"]
    least = mpsearch.solve(table, size="300B")
    assert least.bits["blk.0.q"] != least.bits["blk.0.k"]
    frame = pd.read_csv(path, sep=sign)
    named = dict(pair.split("=") for pair in COLUMNS.split(","))
    asked = mpsearch.solve(frame, size="300B", columns=named)
    assert asked.choices == least.choices
    table.write_csv(tmp_path / "profile.csv")
    again = read_table(tmp_path / "profile.csv")
    assert again.digest == table.digest
    assert mpsearch.solve(again, size="300B").choices == least.choices


def test_bits_alone_and_scores_that_are_better_when_larger(tmp_path: Path) -> None:
    """Bytes follow from bits and weights, or shapes; Ω is what is missing to the best score."""
    path = written(tmp_path, "name,bpw,acc,n\na,4.5,0.75,101\na,8,1,101\nb,4,0.5,1000\n")
    table = read_table(path, "layer=name,w_bits=bpw,omega=-acc,weights=n")
    assert [str(one) for one in table.choices] == ["w4a16", "w4.5", "w8a16"]
    assert table.omega.tolist() == [0.25, 0.0, 0.5]
    assert table.resources["size_bytes"].tolist() == [57, 101, 500]  # 101 * 4.5 / 8 = 56.8
    header = json.dumps({"a.weight": {"shape": [101]}, "b.weight": {"shape": [100, 10]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    shaped = read_table(path, "layer=name,w_bits=bpw,omega=-acc", shapes=tmp_path)
    assert shaped.resources["size_bytes"].tolist() == [57, 101, 500]
    assert shaped.layers[1].shape == (100, 10)


def test_a_table_of_markdown_with_bits_that_differ(tmp_path: Path) -> None:
    """Bits that a format has in one layer alone are no bits of the format."""
    text = (
        "\n| tensor | type | bpw | KLD |\n|---|:--|--:|---|\n| a | Q4_K | 4.5 | 0.5 |\n"
        "| a | w8g32a16 | 8.5 | 0.25 |\n| b | Q4_K | 4.56 | 0.5 |\n| b | Q2_K | 2.5 | 1 |\n"
    )
    columns = "layer=tensor,choice=type,w_bits=bpw,omega=KLD,size_bytes=bytes"
    path = written(tmp_path, text)
    with pytest.raises(InputError, match="has no column 'bytes'"):
        read_table(path, columns)
    (tmp_path / "s.json").write_text('{"a": [10, 8], "b": [2, 50]}')
    table = read_table(path, columns.rpartition(",")[0], shapes=tmp_path / "s.json")
    assert table.resources["size_bytes"].tolist() == [45, 85, 57, 32]
    bits = {str(choice): choice.w_bits for choice in table.choices}
    assert bits == {"Q4_K": 0, "w8g32a16": 8, "Q2_K": 2.5}
    written(tmp_path, text.replace("| b | Q2_K | 2.5 | 1", "| b | Q2_K | 2.5 | -1"))
    with pytest.raises(InputError, match="line 7: omega of layer 'b' is -1"):
        read_table(path, columns.rpartition(",")[0], shapes=tmp_path / "s.json")


SHEET = (
    "Tensor;Typ;KLD;Bytes\r\na;Q4_K;4.82 %;86,188,032\r\na;Q8_0;.5%;112\u00a0865\u00a0280\r\n"
    "\r\n;;;\r\nb;Q4_K;0.25;1,024\r\nb;Q8_0;1E-3%;2048\r\n"
)


def test_numbers_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    """Percent and separators of thousands where they can be nothing else, lines of nothing."""
    columns = "layer=Tensor,choice=Typ,omega=KLD,size_bytes=Bytes"
    table = read_table(written(tmp_path, "\ufeff" + SHEET), columns)
    assert table.omega.tolist() == [0.0482, 0.005, 0.25, 1e-5]
    assert table.resources["size_bytes"].tolist() == [86188032, 112865280, 1024, 2048]
    turned = read_table(written(tmp_path, SHEET), columns.replace("=KLD", "=-KLD"))
    assert turned.omega.tolist() == pytest.approx([0.2018, 0.245, 0, 0.24999])
    total = SHEET + "Total;;0.30;200,000,000\r\n"
    for text, said in (
        (total, "line 8: choice is ''; expected one for layer 'Total'\na row of totals"),
        (SHEET.replace("0.25", "0,25"), "line 6: omega is '0,25'; expected a number\nwrite dec"),
        (SHEET.replace("4.82 %", "1,004.82 %"), "line 2: omega is '1,004.82 %'; expected"),
        (SHEET.replace("1,024", "1,02"), "line 6: size_bytes is '1,02'; expected a number"),
        (SHEET.replace("2048", "20%"), "line 7: size_bytes is '20%'; expected a number"),
    ):
        with pytest.raises(InputError) as error:
            read_table(written(tmp_path, text), columns)
        assert said in str(error.value)


def test_options_leave_our_own_table_what_it_is(tmp_path: Path) -> None:
    """Another metric as Ω, and shapes beside it: its provenance stays, and a gap is an error."""
    path = tmp_path / "profile.csv"
    path.write_text("layer,w_bits,a_bits,omega,omega_kl,size_bytes\nfc,4,4,2,3,5\nfc,8,8,1,2,9\n")
    (tmp_path / "profile.json").write_text('{"metric": "sqnr"}')
    (tmp_path / "s.json").write_text('{"fc": [10, 64]}')
    shaped = read_table(path, shapes=tmp_path / "s.json")
    assert shaped.layers[0].shape == (10, 64)
    plain = LayerTable.read_csv(path)
    assert (shaped.digest, shaped.provenance) == (plain.digest, plain.provenance)
    assert not shaped.partial
    assert read_table(path, {"omega": "omega_kl"}).omega.tolist() == [3, 2]


WRONG_CELLS = {
    "\t0.2\t": [
        ("\tnan\t", "line 4"), ("\tinf\t", "line 4"), ("\t-1e-9\t", "line 4"), ("\tx\t", "line 4"),
        ("\t\t", "line 4: omega is ''"), ("\t" + "9" * 400 + "\t", "line 4"),
    ],
    "blk.0.k\tQ6_K": [
        ("blk.0.k\tQ4_K", "line 5: a second row"), ("\tQ6_K", "line 5: the layer has no"),
        ("blk.0.k\t4bit", "line 5: choice is '4bit'"), ("blk.0.k\t", "line 5: choice"),
    ],
    "\t140": [
        ("\t-140", "line 5: size_bytes"), ("\t1e999", "line 5"), ("", "line 5: got 4 cells"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "place"),
    [(good, *one) for good, several in WRONG_CELLS.items() for one in several],
)
def test_a_wrong_cell_is_told_with_its_line(
    tmp_path: Path, good: str, bad: str, place: str
) -> None:
    path = written(tmp_path, TSV.replace(good, bad, 1))
    with pytest.raises(InputError) as error:
        read_table(path, COLUMNS)
    assert f"{path}, {place}" in str(error.value)


def test_what_is_no_answer_to_which_column_is_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, TSV)
    for options, expected in (
        ([], "lacks the column(s) layer, omega, choice"),
        (["--columns", "layer=name,omega=kdl,choice=type"], "no column 'kdl'; did you mean 'kld'?"),
        (["--columns", "layer=name,omega"], "got --columns"),
        (["--columns", "layer=name,choice=type,omega=kld"], "no resource column"),
        (["--columns", "layer=name,w_bits=bytes,omega=kld,macs=bytes"], "line 2: w_bits is '100'"),
        (["--columns", COLUMNS, "--table-choices", "4bit"], "got --table-choices '4bit'"),
        (["--columns", COLUMNS, "--shapes", path], "no safetensors or GGUF file"),
        (["--columns", COLUMNS, "--shapes", str(tmp_path / "no")], "there is no file of shapes"),
        (["--columns", COLUMNS, "--shapes", str(tmp_path)], "has no .safetensors file"),
        (["--columns", COLUMNS, "--group", "blk.*"], "joins none of them"),
        (["--columns", COLUMNS, "--group", "blk.*.{q,w}"], "joins none of them"),
        (["--columns", COLUMNS, "--group", "layers.{q,k}"], "of whole names, such as blk.0.k, b"),
        (["--columns", COLUMNS, "--group", "blk.{q,{k}}"], "not in each other"),
        (["--columns", COLUMNS, "--group", "{0,1}" * 9], "more than 256 ways"),
    ):
        code = run(["table", path, *options])
        said = capsys.readouterr().err
        assert code == 2, options
        assert expected in said, (options, said)
        assert len(said.splitlines()) <= 2


GROUPS: dict[str, tuple[tuple[str, ...], list[set[str]]]] = {
    "q, k, v of each block": (("b.*.{q,k}",), [{"b.0.q", "b.0.k"}, {"b.1.q", "b.1.k"}]),
    "over the blocks": (("b.{*}.q",), [{"b.0.q", "b.1.q"}]),
    "two patterns": (("b.*.{q,k}", "b.{*}.k"), [{"b.0.q", "b.0.k", "b.1.q", "b.1.k"}]),
    "alternatives": (("{fc,b.0.q}",), [{"fc", "b.0.q"}]),
    "one character": (("b.?.{?}",), [{"b.0.q", "b.0.k"}, {"b.1.q", "b.1.k"}]),
    "all": (("{*}",), [{"b.0.q", "b.0.k", "b.1.q", "b.1.k", "fc"}]),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_by_patterns(name: str) -> None:
    patterns, expected = GROUPS[name]
    table = of_layers(b_0_q="A B", b_0_k="A B", b_1_q="A B", b_1_k="A B", fc="A B")
    found = grouped(table, patterns)
    by_group: dict[str, set[str]] = {}
    for layer in found.layers:
        if layer.group:
            by_group.setdefault(layer.group, set()).add(layer.name)
    assert list(by_group.values()) == expected
    assert found.digest == table.digest, "what an assignment of it was searched in"


def test_groups_of_the_file_are_kept_and_joined() -> None:
    plain = of_layers(a="A B", b="A B", c="A B", d="A B", e="A B")
    layers = tuple(
        Layer(one.name, group={"a": "g", "b": "g", "d": "{a,e}"}.get(one.name, ""))
        for one in plain.layers
    )
    table = LayerTable.from_rows(layers, plain.rows())
    groups = [one.group for one in grouped(table, ["{b,c}"]).layers]
    assert groups == ["g", "g", "g", "{a,e}", ""]
    named = [one.group for one in grouped(of_layers(a="A", d="A", e="A"), ["{a,e}"]).layers]
    assert named == ["{a,e}", "", "{a,e}"]
    with pytest.raises(InputError, match="share no choice: 'a' has A; 'b' has B"):
        grouped(of_layers(a="A", b="B"), ["{a,b}"])


@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.integers(0, 40))
def test_a_group_shares_a_choice_at_least_omega(costs: list[int], limit: int) -> None:
    """Against all assignments of 2 x 2 layers where each block's two agree."""
    names = [f"{block}.{part}" for block in "01" for part in "qk"]
    sizes = {"A": 9, "B": 4, "C": 1}
    omega = {
        (name, one): float(cost * place + (3 - cost) * (place > 1))
        for name, cost in zip(names, costs, strict=True)
        for place, one in enumerate("ABC")
    }
    rows = [
        Row(name, Choice.called(one), omega[name, one], resources={"size_bytes": sizes[one]})
        for name in names
        for one in "ABC"
        if (name, one) != ("1.k", "A")  # which it lacks
    ]
    table = LayerTable.from_rows([Layer(name) for name in names], rows)
    found = mpsearch.solve(replace(table, partial=True), limits={"size_bytes": limit},
                           groups="*.{q,k}", explain=False)  # fmt: skip
    possible = [
        sum(omega[name, one] for name, one in zip(names, bits, strict=True))
        for bits in (a * 2 + b * 2 for a, b in itertools.product("ABC", "BC"))
        if sum(sizes[one] for one in bits) <= limit
    ]
    assert bool(found.choices) == bool(possible)
    if possible:
        assert found.objective == pytest.approx(min(possible), abs=1e-12)


def test_solve_front_and_explain_ask_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An assignment records how its table was read: explain and the gate read it so again."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, TSV)
    how = ["--columns", COLUMNS, "--group", "blk.*.{q,k}"]
    assert run(["solve", path, *how, "--size", "300B"]) == 0
    assert run(["explain", "--profile", path, "--json"]) == 0
    said: Any = json.loads(capsys.readouterr().out.partition("wrote assignment.json\n")[2])
    assert said["decisions"][0]["layers"] == ["blk.0.q", "blk.0.k"]
    assert said["status"] == "optimal"
    assert run(["gate", "--profile", path, "--max-size", "300B"]) == 0
    assert run(["report", "--profile", path, "--format", "md", "-o", "r.md"]) == 0
    assert "blk.0.k" in Path("r.md").read_text()
    assert run(["report", "assignment.json"]) == 2
    assert "is a file; expected the folder of a run\nname files by" in capsys.readouterr().err
    assert run(["front", path, *how, "-o", "front.csv"]) == 0
    capsys.readouterr()
    assert run(["table", path, *how, "-o", "profile.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["read_as"] == "CSV"
    assert run(["solve", "--from-front", "front.csv", "--size", "300B", "-o", "x.json"]) == 2
    assert run(["solve", "--size", "300B", "-o", "same.json"]) == 0
    layers = [
        json.loads(Path(name).read_text())["layers"] for name in ("assignment.json", "same.json")
    ]
    assert layers[0] == layers[1]
    # ours and beside the assignment, it has no columns of the names that the assignment records
    assert run(["table", path, "--columns", COLUMNS, "-o", "profile.csv"]) == 0
    assert run(["explain", "--json"]) == 0
    capsys.readouterr()
    assert run(["tables", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tables"][-1]["name"] == "CSV"
