"""The gate's conditions on metrics: outcomes from stored intervals, files, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Evaluations, Metric, save_evaluations
from mpsearch.gating.judging import Conditions, Evidence, judge, wanted_metrics
from mpsearch.gating.next_steps import next_steps
from mpsearch.gating.report import GateReport
from mpsearch.gating.words import sentence
from mpsearch.statistics import wilson_interval
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
FP32 = Evaluation("FP32", 100, NAN, (NAN, NAN), 0.0, (0.0, 0.0), (), 4000, 9000, None, {},
                  Origin("sha256:1", None, "sha256:0"))  # fmt: skip
NEAR = {
    "agreement": Metric(0.94, (0.88, 0.97), "wilson"),
    "sqnr": Metric(20.0, (18.0, 23.0), "bootstrap of 1000"),
    "kl": Metric(0.01, (0.004, 0.02), "bootstrap of 1000"),
}


def without_labels(**changed: Metric) -> Evidence:
    """An evaluation beside FP32 on data without labels."""
    row = replace(ROW, metrics={**NEAR, **changed})
    found = Evaluations("plain.npz", "sha256:0", True, (FP32, row), "kl-to-fp32", labelled=False)
    return Evidence(evaluations=found)


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


@pytest.mark.parametrize(
    ("name", "limit", "outcome", "passed"),
    [
        ("min_agreement", "80%", "pass", True),
        ("min_agreement", "94%", "inconclusive", True),
        ("min_agreement", "95", "inconclusive", False),
        ("min_agreement", "99%", "fail", False),
        ("min_sqnr", "17.5dB", "pass", True),
        ("min_sqnr", "19", "inconclusive", True),
        ("min_sqnr", "24", "fail", False),
        ("max_kl", "0.05", "pass", True),
        ("max_kl", "5e-3", "inconclusive", False),
        ("max_kl", "0.001 nats", "fail", False),
    ],
)
def test_nearness_to_fp32_needs_no_labels(
    name: str, limit: str, outcome: str, passed: bool
) -> None:
    (verdict,) = judge(Conditions({name: limit}), without_labels())
    assert (verdict.outcome, verdict.passed) == (outcome, passed)
    assert verdict.samples == 100
    if name == "min_agreement":  # of 100 samples 94: at any confidence, as an accuracy
        assert verdict.interval == wilson_interval(94, 100)
        (surer,) = judge(Conditions({name: limit}), without_labels(), 0.99)
        assert surer.interval == wilson_interval(94, 100, confidence=0.99)


def test_no_noise_meets_any_limit_also_as_json() -> None:
    none = Metric(math.inf, (math.inf, math.inf), "bootstrap of 1000")
    evidence = without_labels(sqnr=none)
    verdicts = judge(Conditions({"min_sqnr": "300"}), evidence)
    assert verdicts[0].outcome == "pass"
    assert "SQNR inf dB meets >= 300 dB" in sentence(verdicts[0])
    (condition,) = GateReport(verdicts, evidence).document()["conditions"]
    assert (condition["value"], condition["interval"]) == (None, [None, None])


def test_solve_is_named_where_it_can_count_the_same_answers() -> None:
    """Not for detectors and embeddings, of which `solve --min-agreement` refuses every network."""
    shares = Metric(0.94, (0.9, 0.96), "bootstrap of 1000")
    for metric, named in ((NEAR["agreement"], True), (shares, False)):
        evidence = without_labels(agreement=metric)
        steps = next_steps(judge(Conditions({"min_agreement": "99%"}), evidence), evidence)
        assert ("solve --min-agreement 99%" in " ".join(steps)) is named
        assert "finetune" in " ".join(steps)


def test_nearness_counts_for_the_network_it_was_measured_on() -> None:
    evaluations = without_labels().evaluations
    assert evaluations is not None
    other = replace(FP32, origin=Origin("sha256:2", None, "sha256:0"))
    evidence = Evidence(evaluations=replace(evaluations, rows=(other, *evaluations.rows[1:])))
    with pytest.raises(InputError, match="the evaluation's row FP32"):
        judge(Conditions({"max_kl": "1"}), evidence)


@pytest.mark.parametrize(
    ("conditions", "confidence", "message"),
    [
        ({"min_accuracy": "80%"}, 0.95, "needs labels, and plain.npz has none\n.*--min-agreement"),
        ({"max_drop": "1"}, 0.95, "compare with FP32 instead: --min-agreement 98%"),
        ({"max_kl": "1"}, 0.9, "stored for 0.95: leave --confidence out"),
        ({"max_rise": ("kl=1",)}, 0.95, "kl is against FP32 already; expected --max kl=NUMBER"),
        ({"max_fall": ("sqnr=1",)}, 0.95, "expected --min sqnr=NUMBER"),
        ({"min_agreement": "0.98"}, 0.95, "expected percent: write 98% or 98"),
        ({"min_sqnr": "20KB"}, 0.95, "got the SQNR '20KB'; expected decibels, such as 20"),
        ({"max_kl": "-1"}, 0.95, "got the KL divergence '-1'; expected nats"),
    ],
)
def test_what_cannot_be_judged_without_labels_is_said(
    conditions: dict[str, str | tuple[str, ...]], confidence: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        judge(Conditions(conditions), without_labels(), confidence)


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
        ({"max_kl": "1"}, 0.95, "no row FP32 on the same 100 samples"),
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
    near = Conditions({"min_agreement": "98%", "min": ("box.sqnr=20",)})
    assert wanted_metrics(near) == ("agreement", "box.sqnr")
