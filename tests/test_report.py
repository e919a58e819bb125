"""The report: facts computed by hand, missing pieces, a page that is safe and self-contained."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from device_profiles import ON_BOARD, PROFILE
from report_runs import HOSTILE, W4, W8, make_run, table

from mpsearch.cli import run
from mpsearch.device.power import manual
from mpsearch.device.profile import save_device_profile
from mpsearch.errors import InputError
from mpsearch.reports.facts import LayerFacts, to_document
from mpsearch.reports.gather import gather
from mpsearch.reports.heat_figure import heat_drawing
from mpsearch.reports.html import render
from mpsearch.reports.layer_sections import bits_drawing
from mpsearch.reports.run_folder import Run, read_run
from mpsearch.reports.style import inline_svg, shorten
from mpsearch.reports.writing import render_markdown
from mpsearch.statistics import drop_interval, wilson_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.provenance import Origin, network_digest
from mpsearch.tables.table import Layer, LayerTable, Row


def test_the_facts_of_a_run_are_those_computed_by_hand(tmp_path: Path) -> None:
    make_run(tmp_path)
    facts = gather(read_run(tmp_path))
    assert facts.missing == facts.warnings == ()
    assert facts.answer is not None
    # Within 1700 bytes: one=w8a8 (1200) and two=w4a4 (424); Ω 0.5 + 1.0.
    assert facts.answer.layers_by_choice == {"w4a4": 1, "w8a8": 1}
    assert facts.answer.point.omega == 1.5
    assert facts.answer.point.totals == {"size_bytes": 1624, "bops": 65600}
    assert (facts.answer.status, facts.answer.gap) == ("optimal", 0.0)
    (limit,) = facts.limits
    assert (limit.limit, limit.total, limit.slack) == (1700, 1624, 76)
    assert limit.share_of_w8 == 1700 / 2048
    assert [(p.name, p.omega, p.totals["size_bytes"]) for p in facts.uniform] == [
        ("w4a4", 3.0, 1024),
        ("w8a8", 0.75, 2048),
    ]
    assert facts.front is not None
    assert list(zip(facts.front.totals, facts.front.omega, strict=True)) == [
        (1024, 3.0), (1448, 2.25), (1624, 1.5), (2048, 0.75)
    ]  # fmt: skip
    one, two = facts.layers
    assert (one.choice, one.omega, one.omega_stderr) == (W8, 0.5, 0.1)
    assert one.shares == {"omega": 0.5 / 1.5, "size_bytes": 1200 / 1624, "bops": 64000 / 65600}
    assert two.choices == {W4: (1.0, 0.0), W8: (0.25, 0.0)}
    reference, chosen = facts.accuracies
    assert (reference.accuracy, reference.lost, reference.times_smaller) == (0.9, None, None)
    assert chosen.lost == pytest.approx(2.0)  # 3 lost, 1 won of 100
    assert chosen.lost_interval is not None
    assert chosen.lost_interval == pytest.approx([100 * end for end in drop_interval(3, 1, 100)])
    assert chosen.times_smaller == 7000 / 1624
    assert chosen.interval == wilson_interval(88, 100)


def test_the_commands_repeat_the_run(tmp_path: Path) -> None:
    make_run(tmp_path)
    profile, solved, swept, measured = gather(read_run(tmp_path)).commands
    where = tmp_path
    assert profile == (
        "mpsearch profile 'my model.pt' --metric hessian --choices w4a4,w8a8 --samples 64 --seed 3 "
        f"-o {where}/profile.csv"
    )
    assert solved == f"mpsearch solve {where}/profile.csv --size 1700B -o {where}/assignment.json"
    assert swept.endswith(f"--resource size_bytes -o {where}/front.csv")
    assert "--data test.npz" in measured
    assert f"--assignment {where}/assignment.json" in measured


def test_the_solve_command_gives_the_same_assignment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = Assignment.load("assignment.json")
    command = gather(read_run()).commands[1]
    Path("assignment.json").unlink()
    assert run(command.split()[1:]) == 0
    again = Assignment.load("assignment.json")
    assert (again.layers, again.limits) == (before.layers, before.limits)


@pytest.mark.parametrize(
    "kept", [["profile.csv"], ["assignment.json"], ["front.json"], ["evaluation.json"]]
)
def test_one_piece_is_enough_and_the_others_are_listed(tmp_path: Path, kept: list[str]) -> None:
    make_run(tmp_path)
    for path in list(tmp_path.iterdir()):
        if path.name not in kept:
            path.unlink()
    facts = gather(read_run(tmp_path))
    listed = [text.split()[0] for text in facts.missing]
    for name in ("profile.csv", "assignment.json", "evaluation.json"):
        assert (name in listed) == (name not in kept)
    page = render(facts)
    assert "<svg" in page
    assert "Not in this run" in page


def test_without_front_json_the_front_is_that_of_the_table(tmp_path: Path) -> None:
    make_run(tmp_path)
    with_file = gather(read_run(tmp_path))
    (tmp_path / "front.json").unlink()
    without = gather(read_run(tmp_path))
    assert without.front == with_file.front
    assert without.missing == ()


def test_nothing_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 2
    assert "has none of profile.csv" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
    assert run(["report", str(tmp_path / "nowhere")]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(InputError, match="no assignment"):
        read_run(tmp_path, {"assignment": str(tmp_path / "other.json")})


def test_named_files_replace_the_usual_ones(tmp_path: Path) -> None:
    make_run(tmp_path)
    other = tmp_path / "other.json"
    Assignment({"one": W4, "two": W4}).save(other)
    (tmp_path / "evaluation.json").unlink()  # it is of the usual assignment
    facts = gather(read_run(tmp_path, {"assignment": str(other)}))
    assert facts.answer is not None
    assert facts.answer.status == "given"
    assert facts.answer.point.omega == 3.0


def test_a_given_assignment_alone_is_shown_without_numbers_that_nobody_knows() -> None:
    page = render(gather(Run(assignment=Assignment({"one": W4}))))
    assert "given, not searched for" in page
    assert "nan" not in page


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("profile.csv", "layer,w_bits,a_bits,omega,size_bytes,bops\na,4,4,nan,1,1\n", "finite"),
        ("profile.json", "{", "not a profile.json"),
        ("assignment.json", "[]", "not an assignment.json"),
        ("front.json", '{"format": "mpsearch.front", "version": 1}', "damaged front.json"),
        ("evaluation.json", "{}", "not an evaluation.json"),
        ("device.json", "{}", "device.json"),
    ],
)
def test_a_damaged_piece_is_named_and_the_rest_is_shown(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    make_run(tmp_path)
    (tmp_path / name).write_text(content)
    facts = gather(read_run(tmp_path))
    (said,) = [text for text in facts.missing if "cannot be read" in text]
    assert words in said
    assert (facts.answer is None) == (name == "assignment.json")
    assert bool(facts.accuracies) == (name != "evaluation.json")
    page = render(facts)
    assert "Pareto front" in page
    assert "cannot be read" in page


def test_a_folder_of_damaged_pieces_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "assignment.json").write_text("[]")
    with pytest.raises(InputError, match=r"not an assignment\.json"):
        read_run(tmp_path)


def test_a_damaged_piece_that_is_named_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path)
    other = tmp_path / "other.json"
    other.write_text("[]")
    with pytest.raises(InputError, match=r"not an assignment\.json"):
        read_run(tmp_path, {"assignment": str(other)})


def test_what_does_not_fit_together_is_a_warning(tmp_path: Path) -> None:
    make_run(tmp_path)
    whole = read_run(tmp_path)
    assert whole.assignment is not None
    assert whole.front is not None
    assert whole.evaluations is not None

    other = replace(whole.assignment, totals={"size_bytes": 1}, table_digest="sha256:1")
    stated, chosen = gather(replace(whole, assignment=other)).warnings
    assert "size_bytes is 1 in the assignment and 1624 from the table" in stated
    assert "solved from another table (sha256:1) than" in chosen
    assert "--profile" in chosen

    stranger = replace(whole.assignment, layers={"three": W8})
    facts = gather(replace(whole, assignment=stranger, evaluations=None))
    assert "different networks" in facts.warnings[0]
    assert facts.layers[0].choice is None

    stale = replace(whole.front, table_digest="sha256:1", omega=whole.front.omega * 2)
    facts = gather(replace(whole, front=stale))
    assert "front.json is of another table" in facts.warnings[0]
    assert facts.front == gather(whole).front

    moved = replace(whole.assignment, layers={"one": W4, "two": W4}, totals={})
    loose = replace(whole.evaluations, rows=tuple(
        replace(row, origin=Origin()) for row in whole.evaluations.rows
    ))  # fmt: skip
    facts = gather(replace(whole, assignment=moved, evaluations=loose))
    assert "rows FP32, assignment does not say which weights" in facts.warnings[0]
    assert "may be of another assignment" in facts.warnings[1]


def test_generated_data_are_called_so(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert "generated by a program" not in render(gather(read_run(tmp_path)))
    make_run(tmp_path, data="generated-battlefield:test")
    assert "generated by a program" in render(gather(read_run(tmp_path)))


def svg_of(layers: tuple[LayerFacts, ...]) -> str:
    """The bars, where there is an assignment, and the heat map."""
    drawings = (bits_drawing(layers), heat_drawing(layers))
    return "".join(inline_svg(drawing).svg for drawing in drawings if drawing is not None)


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> Page:
    parsed = Page()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def test_a_layer_name_full_of_html_stays_text(tmp_path: Path) -> None:
    make_run(tmp_path, second=HOSTILE, data=HOSTILE)
    page = render(gather(read_run(tmp_path)))
    parsed = parse(page)
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"img", "iframe", "link", "object"}
    scripts = [attrs for tag, attrs in parsed.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "front-data"}, {}]
    assert not [a for _, attrs in parsed.tags for a in attrs if a.startswith("on")]
    assert HOSTILE in parsed.text  # the table shows the name as it is
    assert any(shorten(HOSTILE) in text for text in parsed.text)  # and the figure its ends


def test_nothing_is_fetched(tmp_path: Path) -> None:
    make_run(tmp_path)
    page = render(gather(read_run(tmp_path)))
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    parsed = parse(page)
    for _, attributes in parsed.tags:
        assert not {"src", "srcset", "data", "action"} & set(attributes)
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)", page))


def test_ids_are_unique_and_references_resolve(tmp_path: Path) -> None:
    """Two figures on one page must not share ids, or one clips the other's lines."""
    make_run(tmp_path)
    page = render(gather(read_run(tmp_path)))
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:url\(#|href="#)([^")]*)', page)
    assert referred
    assert set(referred) <= set(ids)
    every = [attrs["id"] for _, attrs in parse(page).tags if "id" in attrs]
    assert len(every) == len(set(every))


def test_the_page_reads_in_order_and_figures_have_alternatives(tmp_path: Path) -> None:
    make_run(tmp_path)
    page = render(gather(read_run(tmp_path)))
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Answer", "Accuracy and the Pareto front", "What was asked", "Bits per layer",
        "Sensitivity of each layer", "Measured accuracy", "Confusion matrix",
        "What another KB buys", "Provenance",
    ]  # fmt: skip
    figures = [attrs for tag, attrs in parse(page).tags if tag == "svg"]
    assert [attrs["role"] for attrs in figures] == ["img"] * 5
    linked = [str(attrs["href"])[1:] for tag, attrs in parse(page).tags if tag == "a"]
    assert linked == [attrs["id"] for tag, attrs in parse(page).tags if tag == "section"]
    ids = {attrs.get("id"): tag for tag, attrs in parse(page).tags}
    for attrs in figures:
        named = str(attrs["aria-labelledby"]).split()
        assert [ids[name] for name in named] == ["title", "desc"]
    assert "Chosen: Ω 1.5 at 1.6 KB" in page
    text = " ".join("".join(parse(page).text).split())
    assert "size at most 1.7 KB (83 % of uniform w8a8)" in text
    assert "proven optimal" in text
    low, high = (100 * end for end in wilson_interval(88, 100))
    assert f"Measured accuracy: 88.00 % (95 % interval {low:.2f} to {high:.2f} %), 2.00" in text
    assert "2.00 points less than FP32" in text


def test_an_assignment_above_the_front_is_explained(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert "lies above this front" not in render(gather(read_run(tmp_path)))
    # Eight bits everywhere are both larger and worse here than four, so they lie above the front.
    worse = LayerTable.from_rows(
        [Layer("one"), Layer("two")],
        [
            Row(layer, choice, omega, 0.0, {"size_bytes": 100 * choice.w_bits})
            for layer in ("one", "two")
            for choice, omega in ((W4, 1.0), (W8, 2.0))
        ],
    )
    given = Assignment({"one": W8, "two": W8})
    assert "lies above this front" in render(gather(Run(table=worse, assignment=given)))


@pytest.mark.parametrize("count", [1, 81])
def test_layers_are_drawn_with_zero_omega_and_without_names(count: int) -> None:
    """Ω = 0 has no logarithm; more than 80 names are numbers; neither may stop the report."""
    layers = [Layer(f"layer{n}") for n in range(count)]
    rows = [
        Row(layer.name, choice, omega * (n % 3), 5.0, {"size_bytes": choice.w_bits})
        for n, layer in enumerate(layers)
        for choice, omega in ((W4, 100.0), (W8, 1.0))
    ]
    made = LayerTable.from_rows(layers, rows)
    given = Assignment(dict.fromkeys(made.layer_names, W4))
    layers_shown = gather(Run(table=made, assignment=given)).layers
    svg = svg_of(layers_shown)
    bars = bits_drawing(layers_shown)
    assert bars is not None
    drawn = inline_svg(bars).svg
    assert ("layer0" in drawn) == (count == 1)
    assert ("80 to 81" in drawn) == (count == 81)
    assert "weight bits" in svg
    assert "nan" not in svg


def test_a_layer_name_is_no_formula() -> None:
    """Matplotlib reads $…$ as mathematics and fails on what is none."""
    assert "$x^{$" in svg_of(gather(Run(table=table("$x^{$"))).layers)


def test_the_figure_of_a_table_alone_has_no_bits() -> None:
    svg = svg_of(gather(Run(table=table())).layers)
    assert "weight bits" not in svg
    assert "1 ±" not in svg  # two's Ω of 1.0 is exact, one's 2.0 has an error of 10 %
    assert "2 ±10%" in svg


def test_drawing_changes_no_settings_of_matplotlib() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    svg_of(gather(Run(table=table())).layers)
    assert dict(matplotlib.rcParams) == before


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert render(gather(read_run(tmp_path))) == render(gather(read_run(tmp_path)))


def test_json_has_the_facts_and_is_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    assert run(["report", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(tmp_path / "report.html")
    facts = document["facts"]
    assert facts["layers"][0]["choice"] == "w8a8"
    assert facts["layers"][1]["choices"]["w4a4"] == [1.0, 0.0]
    assert facts["answer"]["point"]["totals"] == {"size_bytes": 1624, "bops": 65600}
    assert to_document({"loss": (float("inf"), float("nan"))}) == {"loss": [None, None]}


def test_the_command_writes_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    output = tmp_path / "page.html"
    assert run(["report", str(tmp_path), "-o", str(output)]) == 0
    assert f"wrote {output}" in capsys.readouterr().out
    assert output.read_text().startswith("<!DOCTYPE html>")
    assert not (tmp_path / "report.html").exists()


def _with_device(folder: Path, **changes: Any) -> None:
    chosen = Assignment.load(folder / "assignment.json")
    known = {"network": network_digest(chosen.layers), **changes}
    save_device_profile(replace(PROFILE, **known), folder / "device.json")


def test_a_measured_device_stands_beside_the_papers_table_5(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert gather(read_run(tmp_path)).device is None
    _with_device(tmp_path, notes=("other work ran on the device",))
    facts = gather(read_run(tmp_path))
    assert facts.device is not None
    ours, *paper = facts.device.rows
    assert (ours.process_s, ours.steady_s, ours.peak_memory_bytes) == (0.012, 0.0071, 2_000_000)
    assert ours.cold_s == pytest.approx(0.0095)  # 0.5 and 9 ms
    assert ours.mean_minus_idle_mw == pytest.approx(800)
    assert [(row.process_s, row.peak_minus_idle_mw) for row in paper] == [(1.2, 798), (1.7, 959)]
    page = render(facts)
    for text in (
        "On the device", "7.1 ms", "1.9 MB", "959 mW", "6 mJ", "Cortex-A72", "never merged",
        "Python and its framework included", "times an inference", "other work ran on the device",
    ):  # fmt: skip
        assert text in page
        assert text in render_markdown(facts)


def test_an_emulated_board_shows_counts_and_no_paper(tmp_path: Path) -> None:
    make_run(tmp_path)
    chosen = Assignment.load(tmp_path / "assignment.json")
    counted = replace(ON_BOARD, network=network_digest(chosen.layers))
    save_device_profile(counted, tmp_path / "device.json")
    facts = gather(read_run(tmp_path))
    for page in (render(facts), render_markdown(facts)):
        for text in ("On an emulated board", "20.000 M", "64.0 KB", "instructions, not time"):
            assert text in page
        assert "Table 5" not in page
    assert not any("emulation" in warning for warning in facts.warnings)


def test_power_read_by_eye_is_a_peak_and_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path)
    _with_device(tmp_path, energy=manual("manual:2700,3600", "2700,3600").energy())
    facts = gather(read_run(tmp_path))
    assert facts.device is not None
    ours = facts.device.rows[0]
    assert (ours.peak_minus_idle_mw, ours.mean_minus_idle_mw, ours.energy_j) == (900, None, None)
    assert "900 mW" in render(facts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"emulated": True}, "obtained under emulation"),
        ({"invalid": ("throttled afterwards",)}, "is invalid: throttled afterwards"),
    ],
)
def test_figures_that_are_not_the_networks_are_not_shown(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    make_run(tmp_path)
    _with_device(tmp_path, **changes)
    facts = gather(read_run(tmp_path))
    assert facts.device is not None
    assert len(facts.device.rows) == 2
    assert any(words in warning for warning in facts.warnings)
    assert "7.1 ms" not in render(facts)
