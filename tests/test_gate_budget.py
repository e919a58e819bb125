"""`assert_budget`: the gate inside a test."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest
from test_gate import CHOSEN, FP32, MODEL, ROW, TABLE, TOTALS, evaluations

from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Metric, save_evaluations
from mpsearch.gating.conditions import CONDITIONS, Limits
from mpsearch.gating.words import Verdict
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.table import LayerTable
from mpsearch.testing import assert_budget


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(TABLE)
    Assignment(CHOSEN, totals=TOTALS, model_digest=MODEL).save("chosen.json")
    save_evaluations(evaluations(FP32, ROW), "measured.json")
    return tmp_path


def test_within_the_budget_the_verdicts_come_back(folder: Path) -> None:
    size, bops, accuracy, drop = assert_budget(
        "chosen.json", "table.csv", evaluation="measured.json",
        max_size=1448, max_bops=22400, min_accuracy=88, max_drop=2.0,
    )  # fmt: skip
    assert (size.value, size.limit, bops.value) == (1448, 1448, 22400)
    assert not accuracy.decided
    assert (drop.value, drop.limit) == (2, 2)


def test_over_the_budget_the_message_is_the_gates(folder: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_budget(
            Path("chosen.json"), "table.csv", evaluation="measured.json",
            max_size="1KB", max_drop="2.5",
        )  # fmt: skip
    lines = str(caught.value).splitlines()
    assert lines[0] == "the gate says no: size"
    assert lines[1] == "  FAIL          size 1,448 B (1.4 KB) misses <= 1,024 B (1.0 KB)"
    assert lines[2].startswith("  INCONCLUSIVE  points lost 2 points meets <= 2.5 points, 95 % int")
    assert "6,486 samples would decide" in lines[2]


def test_strict_and_confidence(folder: Path) -> None:
    def budget(strict: bool, confidence: float = 0.95) -> None:
        assert_budget(
            "chosen.json", "table.csv", evaluation="measured.json",
            min_accuracy="86%", strict=strict, confidence=confidence,
        )  # fmt: skip

    budget(strict=False)
    with pytest.raises(AssertionError, match="the gate says no: accuracy"):
        budget(strict=True)
    budget(strict=True, confidence=0.8)


def test_objects_are_taken_as_they_are(folder: Path) -> None:
    table = LayerTable.read_csv("table.csv")
    for name in ("table.csv", "chosen.json"):
        (folder / name).unlink()
    assert_budget(Assignment(CHOSEN), table, max_size="71%")
    with pytest.raises(AssertionError):
        assert_budget(Assignment(CHOSEN), table, max_size="70.7%")


def test_nothing_is_read_but_what_is_named(folder: Path) -> None:
    Path("measured.json").rename("evaluation.json")
    with pytest.raises(InputError, match=r"no evaluation\.json"):
        assert_budget("chosen.json", "table.csv", min_accuracy="10%")
    with pytest.raises(InputError, match="no condition given"):
        assert_budget("chosen.json", "table.csv")


def test_every_condition_is_an_argument(folder: Path) -> None:
    """The types that checkers see are written beside the table: they are its conditions."""
    assert [*get_type_hints(Limits)] == [condition.keyword for condition in CONDITIONS]
    with pytest.raises(TypeError, match="unknown condition 'max_sise'"):
        assert_budget("chosen.json", "table.csv", max_sise="1KB")  # type: ignore[call-arg]


def test_it_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from mpsearch.testing import assert_budget; "
        "assert_budget('chosen.json', 'table.csv', max_size='2KB'); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metrics_have_limits_too(folder: Path) -> None:
    metric = Metric(0.20, (0.15, 0.25), "normal", 0.02, (0.01, 0.03))
    row = replace(ROW, metrics={"mae": metric})
    save_evaluations(evaluations(FP32, row), "measured.json")

    def budget(**limits: Mapping[str, str | float]) -> tuple[Verdict, ...]:
        return assert_budget("chosen.json", "table.csv", evaluation="measured.json", **limits)  # type: ignore[arg-type]

    largest, rise = budget(max_metrics={"mae": 0.3}, max_rise={"mae": "20%"})
    assert (float(largest.value), float(rise.value)) == pytest.approx((0.2, 0.02))
    for wrong in ({"min_metrics": {"mae": 0.3}}, {"max_rise": {"mae": 0.005}}):
        with pytest.raises(AssertionError, match="the gate says no: mae"):
            budget(**wrong)
    budget(max_fall={"mae": 0})
