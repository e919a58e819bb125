"""Every sh and python block of the documentation runs, page by page, in the order of the page."""

import ast
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from documentation import (
    PAGES,
    ROOT,
    RUNNABLE,
    Block,
    blocks,
    commands,
    indented,
    with_option,
    without_code,
)
from torch import nn

from mpsearch.cli import COMMANDS, cli, run
from mpsearch.graph.network_file import save
from mpsearch.models import generated

# Pages whose blocks another test runs, because it also checks what comes out.
ELSEWHERE = {
    "README.md": "test_readme.py",
    "boards.md": "test_boards.py",
    "data.md": "test_data_command.py",
    "device.md": "test_device_run.py",
    "explain.md": "test_explain.py",
    "export.md": "test_c_export.py",
    "gate.md": "test_gate_docs.py",
    "integer.md": "test_integer_docs.py",
    "litert.md": "test_litert.py",
    "onnx.md": "test_onnx_export.py",
    "power.md": "test_device_power.py",
    "recipes-edge.md": "test_recipes_edge.py",
    "report.md": "test_report_docs.py",
    "solvers.md": "test_conformance.py",
}
# Pages with lines of more than 80 characters in a block, and why: a narrow window, a phone and a
# printed page cut them.
WIDE = {
    "explain.md": "the tables are what a terminal of 120 columns shows",
    "measured.md": "one table, with every column that the text speaks of",
    "networks.md": "one table of six columns, of which none can go",
    "power.md": "one argument of a command, which no line may break",
}
MARKS = {"", "not run", "tested with", "file", "exit code 0 or 1", "exit code 1"}


def _pages(everywhere: bool = False) -> list[Path]:
    return [
        page
        for page in PAGES
        if (everywhere or page.name not in ELSEWHERE)
        and any(block.language in RUNNABLE for block in blocks(page.read_text()))
    ]


def _id(page: Path) -> str:
    return page.name


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a page finds where it does not make it itself: a small network, data, a table."""
    folder = tmp_path_factory.mktemp("prepared")
    torch.manual_seed(0)
    features = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*features, nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    x, y = torch.randn(96, 3, 8, 8), torch.arange(96) % 10
    save(model, folder / "model.pt", (x[:1],), {"x0": x, "y": y})
    for name in ("train", "val", "test"):
        np.savez(folder / f"{name}.npz", x0=x.numpy(), y=y.numpy())
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run(["profile", "model.pt"]) == 0
        assert run(["solve", "--size", "60%"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(
    coarsest_scales: None, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A copy of it as the working directory, from which Python imports."""
    place = tmp_path / "page"
    shutil.copytree(prepared, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    # Few generated samples, made anew: the pages show commands, their figures are not compared.
    monkeypatch.setenv("MPSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(generated, "SIZES", {"train": 128, "val": 40, "test": 80})
    known = set(sys.modules)
    yield place
    for name in set(sys.modules) - known:  # mynet, my_metric, …: another page may have its own
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(place)):
            del sys.modules[name]


def _run_command(command: str) -> int:
    """In this process where it is a plain call of mpsearch: that saves starting torch each time."""
    words = shlex.split(command)
    if words[0] == "mpsearch" and not re.search(r"[$|<>;&`*]", command):
        return run(words[1:])
    if words[0] == "make" and not (shutil.which("make") and shutil.which("cc")):
        return 0
    if words[0] == "torchrun":  # the script may lie in another folder than python
        command = command.replace("torchrun", f"{sys.executable} -m torch.distributed.run", 1)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    print(done.stdout, done.stderr)
    return done.returncode


def _run_block(block: Block, names: dict[str, Any], where: str) -> None:
    if block.mark == "file":
        Path(block.value).write_text(block.text)
    elif block.language == "python":
        exec(compile(block.text, where, "exec"), names)
    else:
        allowed = {int(code) for code in re.findall(r"\d", block.mark)} if block.mark else {0}
        option = block.value if block.mark == "tested with" else ""
        if option:
            allowed = {0}
        for command in commands(block):
            code = _run_command(with_option(command, option) if option else command)
            assert code in allowed, f"{where}: exit code {code} of: {command}"


@pytest.mark.slow
@pytest.mark.parametrize("page", _pages(), ids=_id)
def test_the_blocks_of_a_page_run_in_order(page: Path, folder: Path) -> None:
    _run_page(page)
    if page.name == "own-model.md":  # its files are those that the CI workflow starts from
        _run_workflow(ROOT / "examples" / "quantization-gate.yml")


def _run_page(page: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        if block.mark != "not run" and (block.language in RUNNABLE or block.mark == "file"):
            _run_block(block, names, f"{page.name}:{block.line}")


def _run_workflow(path: Path) -> None:
    """The steps of a GitHub workflow but the installation; the judging one may say no."""
    steps = re.findall(r"- name: (\S+).*\n(?: +if: .*\n)? +run: (.+)", path.read_text())
    assert [name for name, _ in steps] == ["install", "measure", "judge", "report"]
    for name, command in steps[1:]:
        assert _run_command(command) in ({0, 1} if name == "judge" else {0}), command
    assert Path("report.html").stat().st_size > 0


@pytest.mark.parametrize("page", _pages(everywhere=True), ids=_id)
def test_what_is_not_run_has_a_reason_and_options_that_exist(page: Path) -> None:
    for block in blocks(page.read_text()):
        where = f"{page.name}:{block.line}"
        assert block.mark in MARKS, f"{where}: unknown mark {block.mark!r}"
        if block.mark != "not run":
            continue
        assert len(block.value) > 10, f"{where}: the reason is missing"
        if block.language == "python":
            compile(block.text, where, "exec")
        for command in commands(block) if block.language == "sh" else ():
            if "mpsearch " in command:
                _check_options(command, where)


def _check_options(command: str, where: str) -> None:
    words = shlex.split(command.split("mpsearch ", 1)[1])
    current: click.Command = cli
    context = click.Context(cli)
    options: set[str] = {"--help"}
    for word in words:
        child = current.get_command(context, word) if isinstance(current, click.Group) else None
        if child is not None:
            current = child
            options |= {name for p in child.params for name in (*p.opts, *p.secondary_opts)}
        elif word.startswith("-"):
            assert word.split("=")[0] in options, f"{where}: {command} has no option {word}"
    assert current is not cli, f"{where}: {command} names no command"


def test_the_other_pages_are_run_where_the_list_says() -> None:
    for page in PAGES:
        if page.name in ELSEWHERE:
            test = ROOT / "tests" / ELSEWHERE[page.name]
            assert page.name in test.read_text(), f"{test.name} does not name {page.name}"


OMEGA = (
    "Ω is the estimated harm of few bits, measured for each layer alone and added up: less is "
    "better ([glossary](glossary.md))."
)


@pytest.mark.parametrize("page", PAGES[1:], ids=_id)
def test_omega_is_said_in_one_sentence_where_a_page_first_has_it(page: Path) -> None:
    text = without_code(page.read_text())
    if "Ω" in text and page.name not in ("glossary.md", "power.md"):  # there it is a resistance
        assert OMEGA in text, f"say what Ω is: {OMEGA}"
        assert text.index("Ω") == text.index(OMEGA), f"say it at the first Ω of {page.name}"


def test_the_table_of_commands_has_every_command() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    named = {words.split()[0] for row in rows for words in re.findall("`(.*?)`", row)}
    assert named == set(COMMANDS)


def test_blocks_fit_80_columns() -> None:
    long = []
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text, wide = page.read_text(), page.name in WIDE
        lines = [] if wide else indented(text)
        for block in blocks(text):
            if not wide or block.language != "text":
                lines += enumerate(block.text.splitlines(), start=block.line + 1)
        long += [f"{page.name}:{number}: {line}" for number, line in lines if len(line) > 80]
    assert not long


def test_a_page_shows_the_example_that_it_names() -> None:
    shown = {
        block.value: block.text
        for page in PAGES
        for block in blocks(page.read_text())
        if block.mark == "file" and (ROOT / "examples" / block.value).exists()
    }
    assert shown == {"custom_solver.py": (ROOT / "examples" / "custom_solver.py").read_text()}


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_example_of_the_python_api_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / "end_to_end.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert re.search(r"^Solution\(optimal, proven: Ω \S+; size_bytes", output, re.MULTILINE), output
    fp32, mixed = (float(a) for a in re.findall(r"^\w+: ([\d.]+)% \[", output, re.MULTILINE))
    assert 60 < mixed <= 100, "it learns: chance is 25 %"
    assert 60 < fp32 <= 100


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_notebook_runs_and_every_noun_shows_itself() -> None:
    """Cell by cell, the last expression of each as a notebook would show it."""
    notebook = json.loads((ROOT / "examples" / "tutorial.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names: dict[str, Any] = {}
    shown = []
    with torch.random.fork_rng():
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "no outputs are kept"
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, cell["id"], "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), cell["id"], "eval"), names))
    rich = [one for one in shown if hasattr(one, "_repr_html_") or hasattr(one, "_repr_svg_")]
    assert len(rich) >= 8
    assert max(len(repr(one)) for one in shown) < 600
    assert names["best"].status == "optimal"
    assert len(set(names["best"].bits.values())) > 1, "the budget binds"
    accuracies = [row.accuracy for row in names["evaluations"].rows]
    assert min(accuracies) > 0.6, "it learns: chance is 25 %"
    assert {"assignment.json", "quantized.pt", "network", "report.html"} <= set(os.listdir())


def test_the_parser_of_pages() -> None:
    page = (
        "a\n\n<!-- not run: needs a GPU -->\n\n```sh\nmpsearch x \\\n  -o y  # why\n```\n\n"
        "```python\na#b\n```\n"
    )
    first, second = blocks(page)
    assert (first.line, first.mark, first.value) == (5, "not run", "needs a GPU")
    assert commands(first) == ["mpsearch x    -o y"]
    assert (second.language, second.text, second.mark) == ("python", "a#b\n", "")
    assert with_option("mpsearch train --epochs 8 -o x", "--epochs 1").split()[3] == "1"
    with pytest.raises(AssertionError, match="has no option --nonsense"):
        _check_options("mpsearch solve --nonsense 3", "page:1")
