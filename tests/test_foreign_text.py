"""Names and words of others: no place where they are shown obeys them."""

import ast
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_runs import make_run, row
from torch import nn

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluations, save_evaluations
from mpsearch.gating.ci_formats import code_quality, commands, junit, markdown
from mpsearch.gating.evidence import Evidence
from mpsearch.gating.report import Report
from mpsearch.gating.words import Verdict
from mpsearch.graph.network_file import save
from mpsearch.reports.style import Drawing, inline_svg
from mpsearch.running.streams import (
    annotation,
    c_comment,
    html_text,
    json_text,
    markdown_code,
    markdown_text,
    shown,
    terminal_line,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
# A piece for each thing that some place would act on.
PIECES = (
    "\x1b]0;owned\x07", "\x1b[2J", "\x00", "\x7f", "\x9b31m", "\r", "\n", "\u2028", "\u202e",
    "\u2066", "\u200b", "\ufeff", "\u3164", "\ufe0f", "\ud800", "\U000e0041", "\n::error::pwned",
    "::set-output name=a::b", "##[error]x", "##vso[task.complete]", "%0A::warning::", "[red]",
    "[link=http://evil.example]x[/]", "| a | b", "`", "```", "<img src=x onerror=alert(1)>",
    "</script><script>", "<!--", "]]>", "&lt;", "[a](http://evil.example)", "www.evil.example",
    "https://evil.example", "# ", "- ", "1. ", "===", "*/", "/*", "??/", "\\", "$x^{$", "'", '"',
    "a", " ", "é",
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=20)
NAME = "".join(piece for piece in PIECES if piece != "\ud800")  # what UTF-8 can hold
COMMAND = re.compile(r"^\s*::|##\w*\[", re.MULTILINE)
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
                 "\ufe00-\ufe0f\ufeff\ud800-\udfff\U000e0000-\U000e0fff]")  # fmt: skip


def assert_inert(text: str) -> None:
    """Nothing that a terminal or the log of a CI system would act on."""
    assert not RAW.search(text), ascii(RAW.findall(text))
    assert not COMMAND.search(text), COMMAND.findall(text)


@given(texts)
@example(NAME)
@example(" \t::error::x")
@example("x" * 5_000)
def test_a_line_is_inert_and_plain_words_stay_as_they_are(text: str) -> None:
    line = terminal_line(text)
    assert_inert(line)
    assert "\n" not in line
    assert len(line) < 10 * 4_100
    assert len(text) > 4_000 or terminal_line(line) == line
    if text.isascii() and text.isprintable() and not COMMAND.search(text) and len(text) < 4_000:
        assert line == text


def test_what_cannot_be_seen_is_shown_as_python_writes_it() -> None:
    assert shown("a\x1b\n\u202e\u200b\ud800\u3164") == r"a\x1b\n\u202e\u200b\ud800\u3164"
    assert shown("conv1.0 (é, Ω, 层)") == "conv1.0 (é, Ω, 层)"
    assert shown("abcdef", 4) == "abcd… (2 more characters)"


@given(texts)
@example(NAME)
def test_json_reads_back_to_the_same_text(text: str) -> None:
    made = json_text({text: [text]}, indent=1)
    assert json.loads(made) == {text: [text]}
    assert_inert(made)


class Page(HTMLParser):
    """Tags and texts of a page, outside of its own scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(text: str) -> Page:
    """As GitHub does it: CommonMark with tables; links of bare addresses are looked for besides."""
    return Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


@given(texts)
@example(NAME)
@example("- a")
@example("12) a")
@example("---")
@example("    code")
def test_markdown_and_html_hold_the_text_and_no_element(text: str) -> None:
    line = " ".join(shown(text).split())
    for made, tags in (
        (rendered(markdown_text(text)), ["p"] if line else []),
        (Page(f"<p title='{html_text(text)}'>{html_text(text)}</p>"), ["p"]),
    ):
        assert made.tags == tags
        assert " ".join(made.text.split()) == line
    assert not re.search(r"(?<!\\)://|www\.|^::", markdown_text(text))
    table = rendered(f"| h |\n|---|\n| {markdown_text(text)} |")
    assert table.tags == ["table", "thead", "tr", "th", "tbody", "tr", "td"]
    assert rendered(markdown_code([text], "sh")).tags == ["pre", "code"]


@given(texts)
@example(NAME)
def test_an_annotation_and_a_comment_in_c_end_where_they_should(text: str) -> None:
    line = annotation("error", "gate", text, text)
    assert not RAW.search(line)
    assert "\n" not in line
    data = line.removeprefix("::error title=gate::").replace("%0A", "\n").replace("%25", "%")
    assert data == f"{shown(text)}\n{shown(text)}"
    comment = c_comment(text)
    assert comment.isascii()
    assert comment.isprintable()
    assert "*/" not in comment[2:-2]
    assert "/*" not in comment[2:]
    assert "??" not in comment


def test_lines_of_an_error_are_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputError("first\nno line of its own", "second")
    assert error.lines_after("file: ") == ("file: first\nno line of its own", "second")
    assert str(error) == "first\nno line of its own\nsecond"
    assert run(["solve", "a\n::error::b\x1b.csv"]) == 2
    assert run(["solve", "a", "b\n::error::c\x1b"]) == 2
    assert run(["\x1b[31m\n::error::"]) == 2
    printed = capsys.readouterr().err
    assert_inert(printed)
    assert r"a\n::error::b\x1b.csv" in printed
    assert "\nTry 'mpsearch solve -h' for help.\n\nError: Got unexpected extra argument" in printed


def test_a_figure_and_a_verdict_of_any_name() -> None:
    """Texts of every kind that matplotlib draws, in SVG that is XML; a metric in every report."""
    name = NAME.replace("\n", "")  # a line break is one in a picture

    def draw(figure: "Figure") -> None:
        figure.set_size_inches(40, 40)
        axes = figure.add_subplot(title=name, xlabel=name, ylabel=name)
        axes.plot([0, 1], [0, 1], label=name)
        axes.set_xticks([0, 1], [name, "two\nlines"])
        axes.annotate(name, (0, 0))
        figure.legend()

    svg = inline_svg(Drawing("one", name, name, name, 2.0, draw)).svg
    assert not RAW.search(svg)
    root = ElementTree.fromstring(svg.replace("xlink:", ""))
    assert [text.text for text in root.iter() if text.text].count(shown(name)) >= 7
    verdict = Verdict(f"metric {NAME}", 0.5, 0.9, False, (0.4, 0.6), 10)
    report = Report((verdict,), Evidence(), config=NAME)
    assert_inert(code_quality(report))
    assert not RAW.search("".join([*commands(report), markdown(report)]))
    assert rendered(markdown(report)).tags.count("td") == 6
    cases = ElementTree.fromstring(junit(report)).iter("testcase")
    assert [case.get("name") for case in cases] == [f"{shown(NAME)} <= 0.9"]
    assert not RAW.search(junit(report).decode())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose layers, data and rows are called what nobody would call them."""
    name = NAME.replace("/", "_")[:40]
    place = tmp_path / f"run{name}"[:60].replace("\x00", "")
    place.mkdir()
    make_run(place, second=NAME, data=NAME)
    shutil.copytree(place, place / "other")
    rows = (row("FP32", [True] * 90 + [False] * 10, 7000, None),
            row("assignment", [True] * 88 + [False] * 12, 1624, 65600),
            row(NAME, [True] * 80 + [False] * 20, 1624, 65600))  # fmt: skip
    save_evaluations(Evaluations(NAME, "sha256:00", True, rows), place / "evaluation.json")
    document = json.loads((place / "assignment.json").read_text())
    document |= {"solver": NAME, "search": {"pin": [f"{NAME}=w4a4"]}}
    (place / "assignment.json").write_text(json.dumps(document))
    monkeypatch.chdir(place)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
    return place


def calls() -> Iterator[tuple[int, list[str]]]:
    """Exit code and words of commands that print names."""
    yield 0, ["solve", "--size", "90%", "-o", "other.json"]
    yield 0, ["solve", "--size", "90%", "--json", "-o", f"{NAME[:9]}.json".replace("\x00", "")]
    yield 1, ["solve", "--size", "1B"]
    yield 2, ["solve", "--pin", f"{NAME}=w2a2", "--size", "90%"]
    yield 2, ["solve", "--limit", f"{NAME}=1"]
    yield 0, ["explain"]
    yield 0, ["explain", "--json"]
    yield 0, ["explain", "--what-if", "one=w4a4"]
    yield 0, ["front", "-o", "new.csv", "--plot", "front.svg"]
    yield 0, ["report", "-o", "report.html"]
    yield 0, ["report", "-o", "report.md"]
    yield 0, ["report", "--json", "-o", "facts.json"]
    yield 0, ["report", ".", "other", "-o", "compare.html"]
    gate = ["gate", "--max-size", "2KB", "--junit", "gate.xml", "--gitlab", "gate.json"]
    yield 0, gate
    yield 0, [*gate, "--json"]
    yield 1, ["gate", "--row", NAME, "--min-accuracy", "99%", "--github", "--unverified"]
    yield 2, ["gate", "--row", f"no {NAME}", "--min-accuracy", "50%", "--no-github"]


def test_no_command_passes_on_what_a_run_is_called(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for code, words in calls():
        assert run(words) == code, words
        printed = capsys.readouterr()
        if "--github" in words:  # one command of ours per line, and none of theirs
            lines = [line for line in printed.out.split("\n") if line.startswith("::")]
            assert [line.partition("::accuracy")[0] for line in lines] == [
                "::error title=mpsearch gate"
            ]
            printed = printed._replace(out=re.sub("(?m)^::.*$", "", printed.out))
        if "--json" in words:
            assert NAME in json.dumps(json.loads(printed.out), ensure_ascii=False) or (
                json.dumps(NAME)[1:-1] in json.dumps(json.loads(printed.out)) or "gate" in words
            )
        assert_inert(printed.out)
        assert_inert(printed.err)
        assert "\npwned" not in printed.out + printed.err
    made = [path for path in folder.rglob("*") if path.suffix in (".md", ".html", ".xml", ".svg")]
    assert len(made) > 5
    for path in made:
        text = path.read_text()
        assert not RAW.search(text), path
        if path.suffix in (".xml", ".svg"):
            tags = {
                element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()
            }
            assert not {"script", "img", "a"} & tags
    for page in (Page(Path("report.html").read_text()), Page(Path("compare.html").read_text())):
        assert "img" not in page.tags
        # our table of contents, and no link of anybody else
        assert set(page.links) <= {f"#{name}" for name in page.ids}
        assert page.tags.count("script") in (0, 2)
    for name in ("report.md", "summary.md"):
        text = Path(name).read_text()
        assert not {"img", "script", "a"} & set(rendered(text).tags)
    document = json.loads(Path("assignment.json").read_text())
    assert NAME in document["layers"]  # files for machines keep the name


def test_what_a_models_file_calls_its_modules_and_data_stays_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a file whose graph says any name of a module to a program in C that compiles."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.randn(8, 6)
    save(model.eval(), "model.pt", (x,), {"x0": x, "y": torch.arange(8) % 3})
    with zipfile.ZipFile("model.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(entries["mpsearch.json"])
    for node in header["graph"]:
        node["module"] = NAME
    entries["mpsearch.json"] = json.dumps(header).encode()
    with zipfile.ZipFile("model.pt", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    data = NAME.replace("/", "").replace("\x00", "")[:50] + ".npz"
    np.savez(data, x0=x.numpy(), y=np.arange(8) % 3)
    assert run(["profile", "model.pt", "--metric", "weight-mse", "--choices", "w4a8,w8a8"]) == 0
    assert run(["solve", "--size", "90%"]) == 0
    assert run(["apply", "model.pt", "assignment.json", "-o", "quantized.pt"]) == 0
    assert run(["evaluate", "model.pt", "--assignment", "assignment.json", "--data", data]) == 0
    assert run(["export", "quantized.pt", "--calibration", data, "-o", "network"]) == 0
    assert run(["profile", f"no{data}"]) == 2
    printed = capsys.readouterr()
    assert_inert(printed.out + printed.err)
    assert json.loads(Path("evaluation.json").read_text())["data"]["name"] == data
    for path in Path("network").iterdir():
        if path.suffix in (".c", ".h", ".md"):
            assert not RAW.search(path.read_text().replace("\t", "")), path
    if shutil.which("cc"):
        source = Path("network", "network.c")
        source.write_text(f"{c_comment(NAME)}\n{source.read_text()}{c_comment(NAME)}\n")
        words = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-trigraphs", "-c", "network.c"]
        subprocess.run([*words, "-o", "network.o"], cwd="network", check=True, timeout=60)


def sources() -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in mpsearch, with the dotted name of what is called."""
    for folder in ("mpsearch", "models", "reports", "sensitivity", "solvers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT), node, ast.unparse(node.func)


def test_everything_is_printed_in_one_place_and_says_its_lines() -> None:
    """What is printed elsewhere would be raw; a line break within a message would be escaped."""
    for path, call, name in sources():
        if name in ("click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"):
            prints = path.name in ("console.py", "streams.py")  # the latter errors
            assert prints, f"{path}:{call.lineno}: use mpsearch.commands.console.echo"
        if name == "echo" or (name.endswith("Error") and name[0].isupper()):
            pieces = [node for word in call.args for node in ast.walk(word)]
            broken = [p for p in pieces if isinstance(p, ast.Constant) and "\n" in str(p.value)]
            known = ast.unparse(call).count(".split('\\n')") or name == "AssertionError"
            assert not broken or known, f"{path}:{call.lineno}: give every line as an argument"
