"""The gate: every condition both ways and at its boundary, through the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mpsearch.cli import run
from mpsearch.evaluation.evaluation import Evaluation, Evaluations, save_evaluations
from mpsearch.gating.judging import Verdict
from mpsearch.statistics import drop_interval, wilson_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import Origin

TABLE = """\
layer,w_bits,a_bits,omega,size_bytes,bops
one,4,4,2.0,600,16000
one,8,8,0.5,1200,64000
two,4,4,1.0,424,1600
two,8,8,0.1,848,6400
"""
CHOSEN = {"one": Choice(4, 4), "two": Choice(8, 8)}
MODEL, DATA = "sha256:" + "1" * 64, "sha256:00"
TOTALS = {"size_bytes": 1448, "bops": 22400}  # 600 + 848 and 16000 + 6400


def measured(name: str, correct: list[bool], **costs: Any) -> Evaluation:
    hits, n = sum(correct), len(correct)
    interval = wilson_interval(hits, n) if n else (0.0, 1.0)
    origin = Origin(MODEL, None if name == "FP32" else CHOSEN, DATA)
    row = Evaluation(name, n, hits / max(n, 1), interval, 0.3, (0.2, 0.4), tuple(correct), **costs)
    return replace(row, origin=origin)


def evaluations(*rows: Evaluation, held_out: bool = True) -> Evaluations:
    return Evaluations("test.npz", DATA, held_out, rows)


FP32 = measured("FP32", [True] * 900 + [False] * 100, size_bytes=6000, bops=2 * 10**6)
# Of 900 right samples 30 are lost, of 100 wrong ones 10 are won: 88 %, 2 points lost.
ROW = measured("assignment", [False] * 30 + [True] * 880 + [False] * 90, **TOTALS)


def with_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a table, an assignment and an evaluation; no CI system."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / "profile.csv").write_text(TABLE)
    Assignment(CHOSEN, totals=TOTALS, model_digest=MODEL).save("assignment.json")
    save_evaluations(evaluations(FP32, ROW), "evaluation.json")
    return tmp_path


folder = pytest.fixture(with_evidence, name="folder")


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        (["--max-size", "1448B"], 0),
        (["--max-size", "1447B"], 1),
        (["--max-size", "1.42KB"], 0),  # 1454.08 B
        (["--max-size", "1.41KB"], 1),  # 1443.84 B
        (["--max-size", "w8"], 0),  # 2048 B
        (["--max-size", "w4"], 1),  # 1024 B
        (["--max-size", "71%"], 0),  # 1454 B of 2048 B
        (["--max-size", "70.7%"], 1),  # 1447.9 B
        (["--max-bops", "22400"], 0),
        (["--max-bops", "22.399K"], 1),
        (["--min-accuracy", "88%"], 0),
        (["--min-accuracy", "88"], 0),
        (["--min-accuracy", "88.001%"], 1),
        (["--min-accuracy", "89"], 1),
        (["--max-drop", "2"], 0),
        (["--max-drop", "1.999"], 1),
        (["--max-size", "1448B", "--max-bops", "1G", "--min-accuracy", "85%"], 0),
        (["--max-size", "1448B", "--max-bops", "1G", "--min-accuracy", "95%"], 1),
    ],
)
def test_each_condition_passes_at_its_limit_and_fails_beyond(
    folder: Path, condition: list[str], code: int
) -> None:
    assert run(["gate", *condition]) == code


def test_one_line_per_condition_with_value_limit_and_interval(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", "--max-size", "1KB", "--min-accuracy", "50", "--max-drop", "2.5"]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    size, accuracy, drop = (
        next(line for line in lines if word in line) for word in ("size", "accuracy", "lost")
    )
    low, high = wilson_interval(880, 1000)
    assert " ".join(size) == "FAIL size 1,448 B (1.4 KB) <= 1,024 B (1.0 KB)"
    assert " ".join(accuracy) == (
        f"PASS accuracy 88 % >= 50 % [{100 * low:.2f}, {100 * high:.2f}] 1000"
    )
    assert " ".join(drop).startswith("INCONCLUSIVE points lost 2 points <= 2.5 points [")
    # The limit 0.5 is far outside the interval of the accuracy, 2.5 is inside that of the drop.
    notes = [" ".join(line) for line in lines if line[:1] == ["note:"]]
    assert notes[0].startswith("note: points lost: the limit lies inside the 95 % interval")
    assert "30 samples became wrong and 10 right; exact McNemar p = 0.00111" in notes[1]
    assert len(notes) == 2
    assert lines[-1] == "the gate says no: size".split()


def test_json_says_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", "--max-bops", "22400", "--min-accuracy", "89%", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    bops, accuracy = document["conditions"]
    assert (bops["quantity"], bops["value"], bops["limit"]) == ("bops", 22400, 22400)
    assert (bops["passed"], accuracy["passed"]) == (True, False)
    assert (accuracy["value"], accuracy["decided"]) == (0.88, False)


def verdict(
    quantity: str, value: int | Fraction, limit: int | Fraction, interval: tuple[float, float]
) -> Verdict:
    met = value >= limit if quantity == "accuracy" else value <= limit
    return Verdict(quantity, value, limit, met, interval, 10)


@pytest.mark.parametrize(
    ("made", "outcome", "stops"),  # under measured, strict, lenient
    [
        (verdict("drop", 1, 3, (0.0, 2.5)), "pass", (False, False, False)),
        (verdict("drop", 1, Fraction(5, 2), (0.0, 2.5)), "pass", (False, False, False)),
        (verdict("drop", 1, 2, (0.0, 2.5)), "inconclusive", (False, True, False)),
        (verdict("drop", 1, 1, (0.0, 2.5)), "inconclusive", (False, True, False)),
        (verdict("drop", 2, 1, (0.0, 2.5)), "inconclusive", (True, True, False)),
        (verdict("drop", 2, 0, (0.0, 2.5)), "fail", (True, True, True)),
        (verdict("drop", 2, 0, (0.5, 2.5)), "fail", (True, True, True)),
        (verdict("accuracy", Fraction(9, 10), Fraction(8, 10), (0.85, 0.95)), "pass",
         (False, False, False)),
        (verdict("accuracy", Fraction(9, 10), Fraction(9, 10), (0.85, 0.95)), "inconclusive",
         (False, True, False)),
        (verdict("accuracy", Fraction(9, 10), Fraction(92, 100), (0.85, 0.95)), "inconclusive",
         (True, True, False)),
        (verdict("accuracy", Fraction(9, 10), Fraction(96, 100), (0.85, 0.95)), "fail",
         (True, True, True)),
        # all samples right: the true share may still be below 1
        (verdict("accuracy", 1, 1, (0.99, 1.0)), "inconclusive", (False, True, False)),
        (verdict("accuracy", Fraction(9, 10), 1, (0.85, 1.0)), "fail", (True, True, True)),
    ],
)  # fmt: skip
def test_three_outcomes_and_what_each_policy_makes_of_them(
    made: Verdict, outcome: str, stops: tuple[bool, bool, bool]
) -> None:
    assert made.outcome == outcome
    assert made.decided == (outcome != "inconclusive")
    assert (made.stops("measured"), made.stops("strict"), made.stops("lenient")) == stops


@pytest.mark.parametrize(
    ("words", "codes"),  # the exit codes without an option, with --strict and with --lenient
    [
        (["--min-accuracy", "85%"], (0, 0, 0)),
        (["--min-accuracy", "88%"], (0, 1, 0)),
        (["--min-accuracy", "89%"], (1, 1, 0)),
        (["--min-accuracy", "90%"], (1, 1, 1)),
        (["--max-drop", "3.5"], (0, 0, 0)),
        (["--max-drop", "2"], (0, 1, 0)),
        (["--max-drop", "1.5"], (1, 1, 0)),
        (["--max-drop", "0.5"], (1, 1, 1)),
        (["--max-size", "1448B"], (0, 0, 0)),
        (["--max-size", "1447B"], (1, 1, 1)),
        # 90 % of 88 % is inside the interval at 99 %: [85.1, 90.4]
        (["--min-accuracy", "90%", "--confidence", "0.99"], (1, 1, 0)),
        (["--min-accuracy", "90%", "--confidence", "95%"], (1, 1, 1)),
    ],
)
def test_strict_and_lenient(folder: Path, words: list[str], codes: tuple[int, int, int]) -> None:
    assert tuple(run(["gate", *words, *more]) for more in ([], ["--strict"], ["--lenient"])) == (
        codes
    )


def test_how_many_samples_would_decide_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["gate", "--min-accuracy", "89%"])
    assert "at these rates 3,761 samples would decide" in capsys.readouterr().out
    run(["gate", "--min-accuracy", "88%"])
    assert "no number of samples decides" in capsys.readouterr().out


def test_the_drop_is_paired(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """30 lost and 10 won of 1000: the interval is that of 40 discordant pairs, not of 880 hits."""
    run(["gate", "--max-drop", "3", "--json"])
    low, high = json.loads(capsys.readouterr().out)["conditions"][0]["interval"]
    assert (low, high) == tuple(pytest.approx(100 * end) for end in drop_interval(30, 10, 1000))
    assert high - low < 2.6  # unpaired it would be 5.5


def test_calibration_data_are_noted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_evaluations(evaluations(FP32, ROW, held_out=False), "evaluation.json")
    run(["gate", "--min-accuracy", "50%"])
    assert "not unseen data" in capsys.readouterr().out


def test_without_a_table_the_stated_size_is_judged_and_said_to_be(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "profile.csv").unlink()
    assert run(["gate", "--max-size", "1448B"]) == 0
    assert "were not recomputed" in capsys.readouterr().out
    assert run(["gate", "--max-size", "w8"]) == 2
    assert "relative to a table" in capsys.readouterr().err


def test_network_judges_that_row_with_its_own_size(folder: Path) -> None:
    assert run(["gate", "--row", "FP32", "--max-size", "6000B", "--min-accuracy", "90%"]) == 0
    assert run(["gate", "--row", "FP32", "--max-size", "1448B"]) == 1


def test_network_beside_a_named_assignment_is_its_measurement(folder: Path) -> None:
    mixed = measured("mixed", list(ROW.correct), **TOTALS)
    save_evaluations(evaluations(FP32, mixed), "evaluation.json")
    words = ["gate", "--assignment", "assignment.json", "--row", "mixed"]
    assert run([*words, "--max-size", "1448B", "--min-accuracy", "88%"]) == 0


def without_evaluation(folder: Path) -> None:
    (folder / "evaluation.json").unlink()


def without_all(folder: Path) -> None:
    for name in ("evaluation.json", "assignment.json"):
        (folder / name).unlink()


def with_wrong_totals(folder: Path) -> None:
    Assignment(CHOSEN, totals={"size_bytes": 1000, "bops": 22400}).save("assignment.json")


def with_another_network(folder: Path) -> None:
    Assignment({"three": Choice(4, 4)}, totals=TOTALS).save("assignment.json")


def measured_on_another(folder: Path) -> None:
    other = measured("assignment", list(ROW.correct), size_bytes=2048, bops=70400)
    save_evaluations(evaluations(FP32, other), "evaluation.json")


def without_reference(folder: Path) -> None:
    save_evaluations(evaluations(ROW), "evaluation.json")


def with_shorter_reference(folder: Path) -> None:
    save_evaluations(evaluations(measured("FP32", [True] * 10), ROW), "evaluation.json")


def without_samples(folder: Path) -> None:
    save_evaluations(evaluations(FP32, measured("assignment", [])), "evaluation.json")


def with_damaged_evaluation(folder: Path) -> None:
    text = (folder / "evaluation.json").read_text()
    (folder / "evaluation.json").write_text(text[: len(text) // 2])


def with_damaged_assignment(folder: Path) -> None:
    (folder / "assignment.json").write_text("[]")


def unchanged(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (unchanged, [], "no condition given"),
        (unchanged, ["--max-drop", "1", "--strict", "--lenient"], "got strict and lenient"),
        (unchanged, ["--max-drop", "1", "--confidence", "1"], "expected 0.5 to 0.9999"),
        (unchanged, ["--max-drop", "1", "--confidence", "high"], "got the confidence 'high'"),
        (unchanged, ["--max-size-growth", "1%"], "there is no baseline to compare with"),
        (unchanged, ["--max-size", "1KB", "--data", "d.npz"], "there is nothing to measure"),
        (unchanged, ["model.pt", "--max-drop", "1", "--evaluation", "e.json"], "got MODEL and"),
        (unchanged, ["--max-size", "145"], "has no unit"),
        (unchanged, ["--max-bops", "-1"], "got '-1'"),
        (unchanged, ["--min-accuracy", "0.88"], "write 88% or 88 (0.88%, with its sign"),
        (unchanged, ["--min-accuracy", "nan"], "got the accuracy 'nan'"),
        (unchanged, ["--min-accuracy", "101%"], "more than 100 %"),
        (unchanged, ["--max-drop", "1%"], "percentage points"),
        (unchanged, ["--max-drop", "101"], "percentage points"),
        (unchanged, ["--max-size", "1KB", "--row", "none"], "has no row none"),
        (unchanged, ["--max-size", "1KB", "--assignment", "none.json"], "no assignment none.json"),
        (unchanged, ["--max-size", "1KB", "--profile", "none.csv"], "no table none.csv"),
        (unchanged, ["--max-drop", "1", "--evaluation", "none.json"], "no such file"),
        (without_evaluation, ["--min-accuracy", "50%"], "there is no evaluation.json"),
        (without_evaluation, ["--max-drop", "1"], "there is no evaluation.json"),
        (without_all, ["--max-size", "1KB"], "size_bytes is not known"),
        (with_wrong_totals, ["--max-size", "1KB"], "size_bytes is 1000 in the assignment and 1448"),
        (with_wrong_totals, ["--min-accuracy", "50%"], "does not fit profile.csv"),
        (with_another_network, ["--max-size", "1KB"], "layer"),
        (measured_on_another, ["--min-accuracy", "50%"], "2048 for the network that was measured"),
        (without_reference, ["--max-drop", "1"], "no row FP32"),
        (with_shorter_reference, ["--max-drop", "1"], "no row FP32 on the same 1000 samples"),
        (without_samples, ["--min-accuracy", "50%"], "has no samples"),
        (with_damaged_evaluation, ["--min-accuracy", "50%"], "not an evaluation.json"),
        (with_damaged_assignment, ["--max-size", "1KB"], "not an assignment.json"),
    ],
)
def test_what_cannot_be_judged_is_an_error(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    words: list[str],
    message: str,
) -> None:
    """Exit code 2 in at most two lines: neither a pass nor a fail."""
    change(folder)
    assert run(["gate", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert len(printed.err.splitlines()) <= 2


def test_a_stale_evaluation_does_not_matter_where_accuracy_is_not_asked(folder: Path) -> None:
    measured_on_another(folder)
    assert run(["gate", "--max-size", "1448B"]) == 0


def test_the_gate_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from mpsearch.cli import run; "
        "code = run(['gate', '--max-size', '2KB', '--min-accuracy', '50%', '--github', "
        "'--junit', 'j.xml', '--gitlab', 'g.json', '--update-baseline', 'b.json']); "
        "sys.exit(code or bool({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "· front" in (folder / "summary.md").read_text()  # the picture is drawn without it
