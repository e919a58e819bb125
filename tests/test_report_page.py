"""The page: what its policy allows, hostile names, phones, size; and the report as Markdown."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_runs import HOSTILE, W4, W8, make_run, table

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.reports.front_facts import ALPHABET
from mpsearch.reports.gather import gather
from mpsearch.reports.html import css_text, label_css, render
from mpsearch.reports.run_folder import Run, read_run
from mpsearch.reports.writing import form_of, render_markdown
from mpsearch.running.streams import markdown_text, shown
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.table import Layer, LayerTable, Row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def script_of(page: str) -> str:
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    return str(script)


def data_of(page: str) -> str:
    (data,) = re.findall(r"<script type='application/json' id='front-data'>(.*?)</script>", page)
    return str(data)


def test_the_policy_allows_the_one_script_and_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path)
    page = render(gather(read_run(tmp_path)))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(script_of(page).encode()).digest()).decode()
    assert rules.pop("script-src") == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'", "style-src": "'unsafe-inline'", "base-uri": "'none'",
        "form-action": "'none'",
    }  # fmt: skip
    assert "innerHTML" not in script_of(page)


def test_a_page_without_a_front_has_no_script(tmp_path: Path) -> None:
    page = render(gather(Run(assignment=Assignment({"one": W4}))))
    assert "<script" not in page
    assert "script-src" not in page


def test_hostile_names_in_the_scripts_data_stay_data(tmp_path: Path) -> None:
    hostile = f"</script><script>alert(1)</script><!--\u2028{HOSTILE}"
    make_run(tmp_path, second=hostile)
    page = render(gather(read_run(tmp_path)))
    data = data_of(page)
    assert not set("<>&\u2028") & set(data)
    assert json.loads(data)["layers"] == ["one", shown(hostile)]
    assert len(re.findall(r"<script\b", page)) == 2


def test_the_scripts_data_say_what_each_point_chooses(tmp_path: Path) -> None:
    make_run(tmp_path)
    document = json.loads(data_of(render(gather(read_run(tmp_path)))))
    assert document["letters"] == ALPHABET
    assert [point[0] for point in document["points"]] == [
        "Ω 3, size 1.0 KB", "Ω 2.25, size 1.4 KB", "Ω 1.5, size 1.6 KB", "Ω 0.75, size 2.0 KB"
    ]  # fmt: skip
    # w4a4 and w8a8 are 0 and 1; only `two` is larger at the second point, only `one` at the third.
    assert [point[1] for point in document["points"]] == ["00", "01", "10", "11"]
    assert [point[2] for point in document["points"]] == [1024, 1448, 1624, 2048]
    assert (document["start"], document["unit"]) == (2, 1024)  # the chosen one
    ((first, places),) = document["views"]
    assert first == 0
    xs, ys = ([place[end] for place in places] for end in (0, 1))
    assert xs == sorted(xs)
    assert ys == sorted(ys)  # downwards on the page, as Ω falls


def test_the_words_of_a_phones_cards_cannot_leave_their_style() -> None:
    assert css_text('a<b"\\') == "a\\3c b\\22 \\5c "
    rules, name = label_css(["layer", "bits", '</style><b>"'])
    assert "<" not in rules
    assert rules.count('"') == 4
    assert f'.{name} td:nth-child(2)::before{{content:"bits"}}' in rules
    assert label_css(["layer", "other"])[1] != name


def test_a_column_full_of_html_stays_text() -> None:
    made = LayerTable.from_rows(
        [Layer("a")], [Row("a", W8, 1.0, 0.0, {"</style><script>x_bytes": 5})]
    )
    page = render(gather(Run(table=made)))
    assert "</style><script>" not in page


def test_every_value_of_a_card_has_a_word(tmp_path: Path) -> None:
    make_run(tmp_path)
    page = render(gather(read_run(tmp_path)))
    (styles,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "</head>" in page.split("</style>")[1]
    tables = re.findall(r"<table[^>]* class='\w+ (?:pairs )?(\w+)'>(.*?)</table>", page, re.DOTALL)
    assert len(tables) == page.count("<table") >= 8
    for name, body in tables:
        columns = len(re.findall(r"<th[^>]*scope='col'", body))
        assert len(re.findall(rf"\.{name} td:nth-child", styles)) == columns - 1
        for line in re.findall(r"<tr[^>]*>(.*?)</tr>", body.split("</thead>")[1]):
            assert len(re.findall(r"<td", line)) == columns - 1


def test_names_in_markdown_are_text(tmp_path: Path) -> None:
    make_run(tmp_path, second=f"a|b\n# x [y](http://evil) `z` {HOSTILE}")
    text = render_markdown(gather(read_run(tmp_path)))
    outside = re.sub(r"(`{3,})sh\n.*?\n\1", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?<!\\)[<`\[]", outside)
    assert not re.findall(r"^\\?# x", outside, flags=re.MULTILINE)
    assert "a\\|b\\\\n\\# x \\[y\\](http\\://evil) \\`z\\`" in outside
    assert markdown_text("a_b*c\n|d") == "a\\_b\\*c\\\\n\\|d"


def test_markdown_has_the_sections_and_numbers_of_the_page(tmp_path: Path) -> None:
    make_run(tmp_path)
    facts = gather(read_run(tmp_path))
    text = render_markdown(facts, {"front": "my figures/front.svg"})
    titles = re.findall(r"<h2>(.*?)</h2>", render(facts))
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == titles
    assert "| one | conv2d | 1,000 | w8a8 | 0.5 ± 0.1 (33.3%) | 1.2 KB (73.9%) |" in text
    assert "](my%20figures/front.svg)" in text
    assert "mpsearch solve" in text
    for line in (line for line in text.split("\n") if line.startswith("| ")):
        assert line.endswith(" |")


def test_the_command_writes_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["report", "--format", "md"]) == 0
    assert Path("report.md").read_text().startswith("# ")
    assert run(["report", "-o", "facts.json"]) == 0
    assert json.loads(Path("facts.json").read_text())["answer"]["point"]["omega"] == 1.5
    assert not Path("report.html").exists()
    capsys.readouterr()
    assert run(["report", "--format", "md", "-o", "page.html"]) == 2
    assert "name a file that ends in .md" in capsys.readouterr().err
    assert run(["report", "nowhere"]) == 2
    assert form_of(None, "x.htm") == "html"
    with pytest.raises(InputError):
        form_of("json", "x.md")


@pytest.mark.slow
def test_five_thousand_layers_make_a_page_of_a_few_megabytes() -> None:
    layers = [Layer(f"stage{n // 50}.block{n % 50}.conv", "conv2d") for n in range(5000)]
    rows = [
        Row(layer.name, choice, (n % 97 + 1) / choice.w_bits, 0.1, {"size_bytes": size})
        for n, layer in enumerate(layers)
        for choice, size in ((W4, 50 + n % 31), (W8, 100 + 2 * (n % 31)))
    ]
    made = LayerTable.from_rows(layers, rows)
    given = Assignment({name: W8 if n % 3 else W4 for n, name in enumerate(made.layer_names)})
    page = render(gather(Run(table=made, assignment=given)))
    assert len(page) < 4_000_000
    assert page.count("stage99.block49.conv") >= 3  # the last layer is in both whole tables
    assert page.count("<svg") == 3 + 6  # the whole front and its parts
    assert "The 40 layers with the largest Ω, of 5,000" in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, which is not installed")
def test_the_script_runs_in_a_browser_and_reads_points(tmp_path: Path) -> None:
    make_run(tmp_path, second="<b>two</b>")
    page = render(gather(read_run(tmp_path)))
    (tmp_path / "page.html").write_text(page)
    reading = r'<div id="front-reading"[^>]*>(.*?)</div>'
    (chosen,) = re.findall(reading, _dom(tmp_path / "page.html"))
    assert chosen.startswith("<strong>chosen: Ω 1.5, size 1.6 KB</strong><p>w4a4 (1): &lt;b&gt;two")
    keys = (
        "<script>{ const p = document.querySelector('.views'); p.focus();"
        "for (const key of ['Home', 'ArrowRight'])"
        " p.dispatchEvent(new KeyboardEvent('keydown', {key})); }</script></body>"
    )
    free = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    (tmp_path / "pressed.html").write_text(free.replace("</body>", keys))
    dom = _dom(tmp_path / "pressed.html")
    (read,) = re.findall(reading, dom)
    assert read == (
        "<strong>Ω 2.25, size 1.4 KB</strong><p>w4a4 (1): one</p>"
        "<p>w8a8 (1): &lt;b&gt;two&lt;/b&gt;</p>"
    )
    # The policy stops what is not the page's own script.
    (tmp_path / "stopped.html").write_text(page.replace("</body>", keys))
    assert re.findall(reading, _dom(tmp_path / "stopped.html")) == [chosen]


def _dom(path: Path) -> str:
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=1000",
         "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_the_front_of_a_table_alone_can_be_read() -> None:
    assert "front-data" in render(gather(Run(table=table())))
