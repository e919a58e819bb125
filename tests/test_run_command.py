"""`mpsearch run`: its steps are what it prints, are done again only where they would come out
differently, and end in an answer that its files hold."""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measuring import build
from tables import random_table
from torch import nn

import mpsearch
from mpsearch.cli import cli, run
from mpsearch.commands import demo as demo_command
from mpsearch.commands.run_answer import measured_words, notes
from mpsearch.commands.run_steps import comparable
from mpsearch.evaluation.evaluation import Evaluation, Evaluations, Metric, load_evaluations
from mpsearch.statistics import wilson_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice

pytestmark = pytest.mark.usefixtures("coarsest_scales")

WHOLE = "--size 60% --test test.npz --refine 2 --points 3"
QUICK = "--size 60% --test test.npz --refine 0 --points 0"
OUT = "it's out"  # a folder that a shell takes for one word only where it is quoted
STEPS = ("profile", "solve", "apply", "evaluate", "front", "measure front", "report")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, coarsest_scales: None) -> tuple[Path, str]:
    """A folder after one whole run in it, and what that printed."""
    folder, out = tmp_path_factory.mktemp("run"), io.StringIO()
    model = build()
    x = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    mpsearch.save(model, folder / "model.pt", (x[:1],), {"x0": x[:48], "y": y[:48]})
    np.savez(folder / "test.npz", x0=x[48:].numpy(), y=y[48:].numpy())
    np.savez(folder / "bare.npz", x0=x[48:].numpy())
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        assert run(["run", "model.pt", *WHOLE.split(), "-o", OUT]) == 0
    return folder, out.getvalue()


@pytest.fixture
def place(whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder as the working directory."""
    shutil.copytree(whole[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def _again(options: str = WHOLE, model: str = "model.pt") -> int:
    return run(["run", model, *options.split(), "-o", OUT])


def _commands(printed: str) -> list[str]:
    return [line.removeprefix("$ ") for line in printed.splitlines() if line.startswith("$ ")]


def _skipped(printed: str) -> list[str]:
    return re.findall(r"^(.+): as before$", printed, re.MULTILINE)


def _without_times(path: Path) -> Any:
    """A file's content, but for how long something took."""
    if path.suffix != ".json":
        return path.read_bytes()
    document = json.loads(path.read_text())
    for key in ("seconds", "solver", "peak_memory_bytes"):
        document.pop(key, None)
    return document


def test_the_printed_commands_repeat_the_run(whole: tuple[Path, str], place: Path) -> None:
    commands = _commands(whole[1])
    assert [command.split()[1] for command in commands] == [
        "profile", "solve", "apply", "evaluate", "front", "evaluate", "report",
    ]  # fmt: skip
    shutil.rmtree(OUT)
    Path(OUT).mkdir()
    for command in commands:
        in_shell = f"mpsearch() {{ printf '%s\\0' \"$@\"; }}; {command}"
        said = subprocess.run(["bash", "-c", in_shell], capture_output=True, text=True, check=True)
        words = said.stdout.split("\0")[:-1]
        assert ["mpsearch", *words] == shlex.split(command)
        assert run(words) == 0, command
    names = {path.name for path in (whole[0] / OUT).iterdir()} - {"run.json"}
    assert names == {path.name for path in Path(OUT).iterdir()}
    for name in names - {"profile.json", "report.html", "front.png"}:  # hold times, or dates
        assert _without_times(place / OUT / name) == _without_times(whole[0] / OUT / name), name


def test_a_run_says_no_command_that_it_does_itself(whole: tuple[Path, str]) -> None:
    assert "next: mpsearch solve" not in whole[1]


def test_the_last_line_is_what_the_files_say(whole: tuple[Path, str]) -> None:
    folder, printed = whole
    chosen = Assignment.load(folder / OUT / "assignment.json")
    kilobytes = [n / 1024 for n in (chosen.totals["size_bytes"], chosen.limits["size_bytes"])]
    sizes = [f"{n * 1024:g}" if n < 1 else f"{n:.1f}" for n in kilobytes]
    row = load_evaluations(folder / OUT / "evaluation.json").named("assignment")
    assert row is not None
    right = sum(row.correct)
    low, high = wilson_interval(right, 48)
    start = f"model.pt in {sizes[0]} of {sizes[1]} B: {100 * right / 48:.1f} % "
    last = printed.splitlines()[-1]
    assert last.startswith(f"{start}[{100 * low:.1f}, {100 * high:.1f}] on 48 samples of test.npz")
    assert last.endswith(f" FP32; report: {OUT}/report.html")
    page = (folder / OUT / "report.html").read_text()
    assert "is not here" not in page
    assert "assignment.json" in page


def test_what_would_come_out_the_same_is_not_done_again(
    whole: tuple[Path, str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _again() == 0
    out = capsys.readouterr().out
    assert (_skipped(out), _commands(out)) == ([*STEPS], [])
    assert out.splitlines()[-1] == whole[1].splitlines()[-1]

    Path(OUT, "quantized.pt").unlink()
    Path(OUT, "front.csv").write_text("changed by hand")
    assert _again() == 0
    assert _skipped(capsys.readouterr().out) == ["profile", "solve", "evaluate", "report"]

    assert _again("--size 70% --test bare.npz --refine 0 --points 2") == 0
    out = capsys.readouterr().out
    assert _skipped(out) == ["profile", "front"]  # other limits, and other samples to measure on
    assert re.search(
        r": decides as FP32 does in \d+\.\d % \[.+\] of 48 samples of bare", out.splitlines()[-1]
    )

    x = torch.zeros(2, 6)
    mpsearch.save(build(), "model.pt", (x,), {"x0": torch.randn(32, 6), "y": torch.arange(32) % 4})
    assert _again("--size 70% --refine 0 --points 0") == 0
    out = capsys.readouterr().out
    assert _skipped(out) == []
    assert "on the 32 samples that it was calibrated on (--test names unseen" in out


def test_an_interrupted_run_goes_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    shutil.rmtree(OUT)
    with monkeypatch.context() as patch:
        patch.setattr("mpsearch.evaluation.subjects.run", interrupt)
        assert _again(QUICK) == 130
    assert _skipped(capsys.readouterr().out) == []
    assert _again(QUICK) == 0
    assert _skipped(capsys.readouterr().out) == ["profile", "solve", "apply"]


def test_json_is_one_document_and_the_steps_are_told_on_standard_error(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _again(f"{WHOLE} --json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert _skipped(said.err) == [*STEPS]
    assert [step["name"] for step in document["steps"]] == [*STEPS]
    assert not any(step["ran"] for step in document["steps"])
    assert [row["name"] for row in document["rows"]] == ["FP32", "assignment"]
    assert document["totals"]["size_bytes"] <= document["limits"]["size_bytes"]
    assert document["answer"].startswith(f"{document['model']} in ")


def test_a_device_s_memory_is_searched_measured_and_exported(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(OUT)
    limits = "--flash 64KB --ram 4KB --target cortex-m4 --points 0 --pin 0=w8a8"
    assert _again(f"{limits} --data test.npz") == 0
    said = capsys.readouterr()
    commands = {command.split()[1]: command for command in _commands(said.out)}
    convert, _, solve, _, evaluate, front, _, export = commands.values()
    assert convert.startswith("mpsearch convert model.pt --data test.npz -o ")
    assert "--target cortex-m4" in solve
    assert "--refine" not in solve
    assert "--pin 0=w8a8" in front
    assert "--wide 8" in evaluate
    assert "--format c --target cortex-m4" in export
    assert json.loads(Path(OUT, "c", "export.json").read_text())["target"] == "cortex-m4"
    assert re.search(r" of 4\.0 KB of RAM and .+ of 64\.0 KB of flash: ", said.out.splitlines()[-1])
    assert said.out.splitlines()[-1].endswith(f"; export: {OUT}/c")
    assert "note: nothing was refined: with --ram or --flash" in said.out
    assert "not found in time" not in said.out
    assert "flash_bytes is a forecast, at most: " in said.out
    assert re.search(r"flash with code +at most .+ \(not linked: an upper bound of this ", said.out)


def test_a_foreign_network_with_several_numbers_as_answer(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    state = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).state_dict()
    torch.save(state, "weights.pt")
    Path("own_network.py").write_text(
        "from torch import nn\n\n\ndef make() -> nn.Module:\n"
        "    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))\n"
    )
    np.savez("numbers.npz", x0=np.random.default_rng(0).normal(size=(40, 4)).astype("f4"),
             y=np.zeros((40, 2), "f4"))  # fmt: skip
    options = "--data numbers.npz --architecture own_network:make --format onnx --choices w4a8,w8a8"
    assert _again(f"{options} --size 90% --refine 0", "weights.pt") == 0
    out = capsys.readouterr().out
    assert "evaluate --front" not in out  # it has no accuracy to measure
    assert re.search(r": ma?e \d.* on the 40 samples .+, FP32 \d", out.replace("mse", "me"))
    assert out.splitlines()[-1].endswith(f"export: {OUT}/network.onnx")
    Path("own_network.py").write_text(Path("own_network.py").read_text() + "\n# changed\n")
    assert _again(f"{options} --size 90% --refine 0", "weights.pt") == 0
    assert _skipped(capsys.readouterr().out)[0] == "profile"  # converted anew, and the same


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("model.pt --size 1B", 1, "infeasible: no assignment is within the limits"),
        ("model.pt", 2, "no limit is given; sizes are useful from "),
        ("model.pt --size 5", 2, "the size '5' has no unit"),
        ("model.pt --bops-limit 5Q", 2, "got the unit 'Q'"),
        ("model.pt --ram 50%", 2, "expected a size such as 512MB"),
        ("model.pt --flash 64KB", 2, "--flash counts code, which differs"),
        ("model.pt --size 60% --target z80", 2, "got the target 'z80'"),
        ("model.pt --size 60% --target cortex-m4 --format onnx", 2, "are about the C export"),
        ("nothing.pt --size 60%", 2, "nothing.pt: no such file"),
        ("model.pt --size 60% --test nothing.npz", 2, "no data 'nothing.npz'"),
        ("it's out/quantized.pt --size 60%", 2, "is quantized already"),
        ("weights.pt --size 60%", 2, "weights.pt carries no sample of data; give --data"),
        ("model.pt --size 60% -o test.npz", 2, "File exists"),
        ("it's out/model.pt --data test.npz --size 60%", 2, "choose another folder with -o"),
    ],
)
def test_what_stops_a_run(
    arguments: str, code: int, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build().state_dict(), "weights.pt")
    shutil.copy("model.pt", Path(OUT, "model.pt"))
    words = shlex.split(arguments.replace("it's", "it\\'s\\"))
    before = Path(OUT, "profile.csv").stat().st_mtime_ns
    assert run(["run", *words, *([] if "-o" in words else ["-o", OUT]), "--refine", "0"]) == code
    assert message in capsys.readouterr().err
    assert Path(OUT, "profile.csv").stat().st_mtime_ns == before


def test_a_record_that_is_none_is_an_error_and_stays(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ('{"format": "mpsearch.run", "version": 1}', "{", '{"format": "mpsearch.steps"'):
        Path(OUT, "run.json").write_text(content)
        assert _again() == 2
        assert "run.json: not the record of a run: " in capsys.readouterr().err
        assert Path(OUT, "run.json").read_text() == content


def test_another_version_does_all_again(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _again("--size 1B") == 1
    assert _skipped(capsys.readouterr().out) == ["profile"]
    monkeypatch.setattr("mpsearch.commands.run.__version__", "9.9")
    assert _again("--size 1B") == 1
    assert _skipped(capsys.readouterr().out) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_uniform_choice_beside_the_answer_is_the_largest_within_the_limits(seed: int) -> None:
    table = random_table(seed, 4, 3, 1.0, groups=False)
    sizes: dict[Choice, float] = dict.fromkeys(table.choices, 0)
    for row in table.rows():
        sizes[row.choice] += row.resources["size_bytes"]
    for limit in sorted(sizes.values()):
        for most in (limit - 1, limit):
            inside = [choice for choice, size in sizes.items() if size <= most]
            largest = [max(inside, key=lambda choice: sizes[choice])] if inside else []
            found = comparable(table, Budget({"size_bytes": most}))
            assert found[0] == Choice(8, 8)
            assert [sizes[one] for one in found[1:]] == [
                sizes[one] for one in largest if one != Choice(8, 8)
            ]


def _rows(right: int, reference: int, metrics: dict[str, Metric] | None = None) -> Evaluations:
    def row(name: str, correct: int) -> Evaluation:
        hits = tuple(n < correct for n in range(200)) if metrics is None else ()
        ends = wilson_interval(correct, 200)
        return Evaluation(
            name, 200, correct / 200, ends, 0.5, (0.4, 0.6), hits, metrics=metrics or {}
        )

    rows = (row("FP32", reference), row("assignment", right))
    return Evaluations("data/test.npz", "d", True, rows, labelled=metrics is None)


def test_the_words_for_what_was_measured() -> None:
    low, high = (100 * end for end in wilson_interval(180, 200))
    start = f"90.0 % [{low:.1f}, {high:.1f}] on 200 samples of test.npz, "
    assert measured_words(_rows(180, 190)).startswith(f"{start}5.0 points [")
    assert measured_words(_rows(180, 190)).endswith("] below FP32")
    above = re.search(r"5\.0 points \[(\S+), (\S+)\] above FP32", measured_words(_rows(180, 170)))
    assert above is not None
    assert 0 < float(above[1]) < 5 < float(above[2])
    assert "0.0 points [-" in measured_words(_rows(180, 180))
    near = {"agreement": Metric(0.975, (0.94, 0.99), "wilson")}
    assert (
        measured_words(_rows(0, 0, near))
        == "decides as FP32 does in 97.5 % [94.0, 99.0] of 200 samples of test.npz"
    )
    words = measured_words(_rows(0, 0, {}))
    assert words == "loss 0.5 [0.4, 0.6] on 200 samples of test.npz, FP32 0.5"


def _sized(name: str, right: int, size: int) -> Evaluation:
    hits = tuple(n < right for n in range(200))
    ends = wilson_interval(right, 200)
    return Evaluation(name, 200, right / 200, ends, 0.5, (0.4, 0.6), hits, size_bytes=size)


@pytest.mark.parametrize(
    ("right", "size", "said"),
    [
        (181, 999, "no less accurate (the difference may be luck)"),
        (180, 999, "no less accurate (the difference may be luck)"),
        (195, 999, "surely more accurate"),
        (179, 999, None),
        (195, 1000, None),
    ],
)
def test_a_smaller_uniform_choice_that_is_no_worse_is_told(
    right: int, size: int, said: str | None
) -> None:
    rows = (_sized("FP32", 190, 9000), _sized("assignment", 180, 1000), _sized("w4a8", right, size))
    found = notes(Evaluations("data/test.npz", "d", True, rows), fits_memory=False)
    if said is None:
        assert found == []
    else:
        assert found[0].startswith("w4a8 in every layer is smaller, 999 B, and was measured ")
        assert said in found[0]
        assert found[0].endswith("the same command with --allow '*=w4a8' takes it")


def test_the_demo_is_training_and_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    called: list[list[str]] = []
    monkeypatch.setattr(demo_command, "_run", lambda ctx, words: called.append(words))
    assert run(["demo", "a b", "--data", "generated-battlefield"]) == 0
    assert "GENERATED" in capsys.readouterr().out
    assert [words[0] for words in called] == ["train", "run"]
    model = str(Path("a b", "model.pt"))
    assert called[0][-1] == called[1][1] == model
    for name, *words in called:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        command.make_context(name, words)  # all options exist
