"""Every table and line that commands print, on terminals of any width and in a pipe.

On 80 columns tables lost the names of their rows and the verdicts; in a pipe two layers were
printed as the same text.
"""

import ast
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from terminals import Terminal, said
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.commands import table_layout
from mpsearch.commands.table_layout import Layout, lay_out
from mpsearch.reproduction.table import HEADER

COMMANDS = Path(mpsearch.__file__).parent / "commands"
ROOT = Path(__file__).parent.parent
WIDTHS = (60, 80, 100, 200, None)
LONG = "features.blocks.12.attention.output.dense.projection"


@dataclass(frozen=True)
class Table:
    """What one call of print_table asks for, without its rows."""

    site: str
    columns: tuple[str, ...]
    naming: int = 1
    least: tuple[str, ...] = ()


class Block(nn.Module):
    """A layer under a long name; with a product of what comes in, which stays in float."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        together = x.unsqueeze(2) @ x.unsqueeze(1)
        return torch.relu(self.projection(x) + 0.01 * together.mean(1))


def under(name: str, module: nn.Module) -> nn.Module:
    """The module in containers, so that its layers are called `name`.something."""
    for part in reversed(name.split(".")):
        holder = nn.Sequential()
        holder.add_module(part, module)
        module = holder
    return module


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory, coarsest_scales: None
) -> Iterator[tuple[dict[str, Table], list[str]]]:
    """The tables that the usual commands print, by the calls, and all lines on 60 columns."""
    torch.manual_seed(0)
    dense = LONG.removesuffix(".projection")
    model = nn.Sequential(under(dense, Block()), under(dense, Block()), nn.Linear(16, 4)).eval()
    x = torch.randn(48, 16)
    labels = model(x).argmax(1)
    tables: dict[str, Table] = {}

    def record(
        columns: Sequence[str], rows: Any, width: int | None, naming: int, least: Sequence[str]
    ) -> Layout:
        caller = sys._getframe(2)
        site = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
        tables[site] = Table(site, tuple(columns), naming, tuple(least))
        return lay_out(columns, rows, width, naming, least)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("printed"))
        patch.setattr(table_layout, "lay_out", record)
        mpsearch.save(model, "m.pt", example_inputs=(x[:1],), sample={"x0": x, "y": labels})
        terminal = Terminal(60)
        measured = ["--uniform", "w4a4", "--metric", "f1", "--metric", "kl"]
        for words, code in (
            (["profile", "m.pt", "--choices", "w8a8,w4a8,w4a4", "--interactions"], 0),
            (["solve", "--size", "70%", "--refine", "1", "--fp32", "m.pt"], 0),
            (["solve", "--size", "1B"], 1),
            (["allocate", "profile.csv", "--size", "70%", "-o", "allocated.json"], 0),
            (["solve", "--ranges"], 0),
            (["solve", "--size", "100%", "-o", "w8.json"], 0),
            (["diff", "assignment.json", "w8.json"], 0),
            (["explain"], 0),
            (["explain", "--what-if", "2=w4a4"], 0),
            (["front", "-o", "front.csv"], 0),
            (["evaluate", "m.pt", "--assignment", "assignment.json", *measured], 0),
            (["evaluate", "m.pt", "--front", "front.csv", "--points", "2"], 0),
            (["gate", "--max-size", "1KB", "--max-drop", "50"], 0),
            (["predict"], 0),
            (["models"], 0),
            (["solvers"], 0),
            (["doctor"], 0),
        ):
            assert terminal.run(*words) == code, words
        yield tables, terminal.close()


def written_tables() -> Iterator[tuple[str, range, Table | None]]:
    """Every call of print_table: where it is, its lines, and what it asks for where its source
    says it."""
    for path in sorted(COMMANDS.glob("**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print_table":
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                yield path.name, lines, _asked(f"{path.name}:{node.lineno}", node)


def _asked(site: str, call: ast.Call) -> Table | None:
    given = {one.arg: one.value for one in call.keywords}
    columns: list[str] = []
    if isinstance(call.args[0], ast.Name) and call.args[0].id.isupper():
        columns = [*HEADER]  # the widest of those that are written down elsewhere
    elif isinstance(call.args[0], ast.List | ast.Tuple):
        for item in call.args[0].elts:
            if isinstance(item, ast.Constant):
                columns.append(str(item.value))
            else:
                columns += [f"w{bits}a8" for bits in range(2, 8)]
    least = given.get("least", ast.Tuple([]))
    if not columns or not all(isinstance(one, ast.Constant) for one in getattr(least, "elts", [0])):
        return None
    naming = ast.literal_eval(given.get("naming", ast.Constant(1)))
    return Table(site, tuple(columns), naming, tuple(ast.literal_eval(least)))


def names_and_cells(table: Table, rng: random.Random) -> list[list[str]]:
    """Rows as networks have them: long names that differ in one letter, wide ones; numbers."""

    def name(row: int) -> str:
        inside = "".join(rng.choice("abc.层é ") for _ in range(rng.randrange(1, 60))).strip()
        return rng.choice([LONG, "conv", "", inside]) + f".{row}"

    def value() -> str:
        number = f"{10 ** rng.uniform(-6, 9):,.{rng.randrange(6)}f}"
        return rng.choice([number, f"{number} KB", f"{number} [{number}, {number}]", "", "PASS"])

    return [
        [name(row) if column < table.naming else value() for column in range(len(table.columns))]
        for row in range(rng.randrange(1, 6))
    ]


def check(table: Table, rows: list[list[str]], layout: Layout, width: int | None) -> None:
    lines = [line.text for line in layout.lines]
    names = {"  ".join(row[: table.naming]) for row in rows}
    for line in lines:
        assert width is None or cell_len(line) <= width or line.strip() in names, (table, width)
    assert set(layout.left_out) <= set(table.least)
    if width is None:
        assert layout.left_out == ()
        assert len(lines) == len(rows) + 2
    at = 0
    text = "\n".join(lines)
    gone = [table.columns.index(name) for name in layout.left_out]
    for row in rows:  # in order, each whole, and all of its own before the next one begins
        for cell in row[: table.naming]:
            at = text.index(cell, at) + len(cell)
            assert text[at : at + 1] in ("", "\n", " "), (table, width)
        for column, cell in enumerate(row):
            for word in cell.split() if column >= table.naming and column not in gone else ():
                found = re.compile(rf"(?<!\S){re.escape(word)}(?!\S)").search(text, at)
                assert found is not None, (table, width, word)
                at = found.end()


def test_every_table_of_every_command(printed: tuple[dict[str, Table], list[str]]) -> None:
    """A new call of print_table is tested by what it asks for, or has to be run in `printed`."""
    rng = random.Random(1)
    seen_in = printed[0]
    seen = 0
    for file, lines, asked in written_tables():
        recorded = [one for one in seen_in.values() if one.site in {f"{file}:{at}" for at in lines}]
        tables = recorded or ([] if asked is None else [asked])
        assert tables, f"{file}:{lines.start}: run this table in the fixture `printed`"
        for table in tables:
            assert len(set(table.columns)) == len(table.columns), table
            for _ in range(10):
                rows = names_and_cells(table, rng)
                for width in WIDTHS:
                    check(
                        table,
                        rows,
                        lay_out(table.columns, rows, width, table.naming, table.least),
                        width,
                    )
            seen += 1
    assert seen >= 24


@pytest.mark.parametrize("file", ["explain.py", "evaluate.py", "solution_text.py"])
def test_what_may_be_left_out_is_in_the_table(
    file: str, printed: tuple[dict[str, Table], list[str]]
) -> None:
    """Else a heading that was renamed would not go, or would take the row's name with it."""
    tables = [one for one in printed[0].values() if one.site.startswith(file) and one.least]
    assert tables
    for table in tables:
        assert set(table.least) <= set(table.columns[table.naming :]), table


def test_no_line_of_a_command_is_wider_than_the_terminal(
    printed: tuple[dict[str, Table], list[str]],
) -> None:
    """But for what cannot be broken, and for commands, which somebody copies."""
    lines = printed[1]
    wide = [line for line in lines if cell_len(line) > 60]
    assert [line for line in wide if not re.match(r" *(next:|get it:|\S+$)", line)] == []
    text = "\n".join(lines)
    for name in (f"0.{LONG}", f"1.{LONG}"):
        assert text.count(f"  {name}\n") >= 3  # profile, solve, explain
    assert not re.search("[0-9]\n *(%|KB)", text)
    assert "not shown at 60 columns: any other ≥, BOPS" in text


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_what_is_next_runs_as_it_is_printed(
    printed: tuple[dict[str, Table], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With the names that were used, whatever they are, and on a narrow terminal in one piece."""
    shutil.copy("m.pt", tmp_path / "my model.pt")
    shutil.copy("assignment.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    terminal = Terminal(40)
    for words in (
        ["profile", "my model.pt", "-o", "my table.csv", "--choices", "w8a8,w4a8"],
        ["finetune", "my model.pt", "--epochs", "1", "-o", "my tuned.pt"],
        ["export", "my tuned.pt", "--fp32", "my model.pt", "-o", "my net"],
    ):
        assert terminal.run(*words) == 0, words
    lines = [line.removeprefix("next: ") for line in terminal.close() if line.startswith("next: ")]
    assert [shlex.split(line)[:2] for line in lines] == [
        ["mpsearch", "solve"], ["mpsearch", "evaluate"], ["make", "-C"],
    ]  # fmt: skip
    for line in lines:
        program, *words = shlex.split(line)
        if program == "mpsearch":
            assert run(words) == 0, line
        else:
            subprocess.run([program, *words], check=True)
    assert "ok: all 4 samples" in capfd.readouterr().out


def test_what_is_next_stands_in_a_line_of_its_own() -> None:
    """`wrote a.pt; next: mpsearch solve` would be broken between words, and cannot be copied."""
    for path in ROOT.glob("[ms]*/**/*.py"):
        assert "; next: " not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("width", [60, 80])
def test_the_verdict_of_the_gate_is_seen(
    width: int, printed: tuple[dict[str, Table], list[str]]
) -> None:
    code, lines = said(width, "gate", "--max-size", "1KB", "--max-bops", "1K")
    assert code == 1
    rows = [line for line in lines if line.startswith(("  PASS", "  FAIL"))]
    assert [line.split()[:2] for line in rows] == [["PASS", "size"], ["FAIL", "BOPS"]]


def test_a_pipe_gets_whole_lines(
    printed: tuple[dict[str, Table], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever COLUMNS says, and where colours are forced: what reads it looks for names."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(["explain"]) == 0
    out = capsys.readouterr().out
    assert "any other ≥" in out
    assert re.search(rf"^  0\.{re.escape(LONG)} +now +w", out, re.MULTILINE)
    assert "\x1b" not in out
