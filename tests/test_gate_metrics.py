"""The gate's conditions on metrics: outcomes from stored intervals, files, and what is refused."""

import json
from pathlib import Path

import pytest

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Evaluations, Metric, save_evaluations
from mpsearch.gating.judging import Conditions, Evidence, judge, wanted_metrics
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import Origin

NAN = float("nan")
METRICS = {
    "mae": Metric(0.20, (0.15, 0.25), "normal", 0.02, (0.01, 0.03)),
    "box.r2": Metric(0.90, (0.80, 0.95), "bootstrap of 1000", -0.05, (-0.09, -0.01)),
    "alone": Metric(1.0, (0.5, 1.5), "normal"),
}
ROW = Evaluation("assignment", 100, NAN, (NAN, NAN), 0.5, (0.4, 0.6), (), 1000, 2000, None, METRICS,
                 Origin("sha256:1", {"one": Choice(4, 4)}, "sha256:0"))  # fmt: skip
EVIDENCE = Evidence(evaluations=Evaluations("test.npz", "sha256:0", True, (ROW,), "mse"))


@pytest.mark.parametrize(
    ("conditions", "outcome", "value", "limit"),
    [
        ({"max": ("mae=0.3",)}, "pass", 0.2, 0.3),
        ({"max": ("mae=0.22",)}, "inconclusive", 0.2, 0.22),
        ({"max": ("mae=0.1",)}, "fail", 0.2, 0.1),
        ({"min": ("box.r2=0.75",)}, "pass", 0.9, 0.75),
        ({"min": ("box=r2=0.96",)}, "fail", 0.9, 0.96),
        ({"min": ("box.r2=85%",)}, "inconclusive", 0.9, 0.85),
        ({"max": ("loss=1e0",)}, "pass", 0.5, 1.0),
        ({"max_rise": ("mae=0.05",)}, "pass", 0.02, 0.05),
        ({"max_rise": ("mae=20%",)}, "pass", 0.02, 0.036),  # FP32's is 0.18
        ({"max_rise": ("mae=10%",)}, "inconclusive", 0.02, 0.018),
        ({"max_fall": ("box.r2=0.1",)}, "pass", 0.05, 0.1),
        ({"max_fall": ("box.r2=0.005",)}, "fail", 0.05, 0.005),
    ],
)
def test_outcomes_come_from_the_intervals(
    conditions: dict[str, tuple[str, ...]], outcome: str, value: float, limit: float
) -> None:
    (verdict,) = judge(Conditions(conditions), EVIDENCE)
    assert verdict.outcome == outcome
    assert float(verdict.value) == pytest.approx(value)
    assert float(verdict.limit) == pytest.approx(limit)
    assert verdict.samples == 100


def test_how_many_samples_would_decide() -> None:
    """The upper half of the interval is 0.05 wide; at 0.02 it ends after (0.05/0.02)² as many."""
    (verdict,) = judge(Conditions({"max": ("mae=0.22",)}), EVIDENCE)
    assert verdict.needed == pytest.approx(625, abs=1)
    (equal,) = judge(Conditions({"max": ("mae=0.2",)}), EVIDENCE)
    assert equal.passed
    assert equal.needed is None


@pytest.mark.parametrize(
    ("conditions", "confidence", "message"),
    [
        ({"max": ("f1=0.9",)}, 0.95, r"has no metric f1 \(it has: mae, box.r2, alone\)"),
        ({"max_rise": ("alone=1",)}, 0.95, "does not compare alone with FP32"),
        ({"max": ("mae",)}, 0.95, "got --max 'mae'; expected METRIC=NUMBER"),
        ({"max": ("mae=much",)}, 0.95, "expected METRIC=NUMBER"),
        ({"max": ("mae=1",)}, 0.9, "stored for 0.95: leave --confidence out"),
        ({"min_accuracy": "80%"}, 0.95, "a condition on accuracy needs the accuracy of a network"),
        ({"max_drop": "1"}, 0.95, "a condition on accuracy needs"),
    ],
)
def test_what_cannot_be_judged_is_said(
    conditions: dict[str, str | tuple[str, ...]], confidence: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        judge(Conditions(conditions), EVIDENCE, confidence)


def test_the_command_and_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert EVIDENCE.evaluations is not None
    save_evaluations(EVIDENCE.evaluations, "evaluation.json")
    assert run("gate --max mae=0.3 --min box.r2=0.75".split()) == 0
    assert "[0.15, 0.25]" in capsys.readouterr().out
    assert run("gate --max mae=0.1".split()) == 1
    assert "the gate says no: mae" in capsys.readouterr().out
    for limits in ("max = { mae = 0.22 }", 'max = ["mae=0.22"]'):
        Path("mpsearch.toml").write_text(f"[gate]\nstrict = true\n{limits}\n")
        assert run(["gate", "--json"]) == 1
        (condition,) = json.loads(capsys.readouterr().out)["conditions"]
        assert condition["quantity"] == "metric mae"
        assert condition["outcome"] == "inconclusive"
    assert run("gate --max mae=0.3".split()) == 0  # the command line goes before the file
    Path("mpsearch.toml").write_text("[gate]\nmax = 3\n")
    capsys.readouterr()
    assert run(["gate"]) == 2
    assert "expected limits by metric" in capsys.readouterr().err


def test_a_model_that_is_measured_is_measured_by_what_is_asked() -> None:
    conditions = Conditions({"min": ("class=f1=0.9", "loss=1"), "max_rise": ("box.mse=5%",)})
    assert wanted_metrics(conditions) == ("class=f1", "box.mse")
