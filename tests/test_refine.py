"""`solve --refine`: what is measured, what is chosen, and what is said of it."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measuring import make_folder
from scipy import stats
from torch.nn import functional

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.subjects import Subject, load_subject
from mpsearch.importers.loading import ModelSource
from mpsearch.losses.labels import Own
from mpsearch.losses.loss import SQUARED, PlainLoss
from mpsearch.post_training.quantizing import Quantizing
from mpsearch.post_training.repairing import PostTraining, quantize_after_training
from mpsearch.refining.candidates import Asked, Candidate
from mpsearch.refining.loop import Refined, choose, refine
from mpsearch.refining.repaired_errors import Trial, growth
from mpsearch.search.solving import solve
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

pytestmark = pytest.mark.usefixtures("coarse_scales")

REPAIRED = PostTraining(rounding="adaptive", correct_bias=True)
QUICK = PostTraining(rounding="nearest", correct_bias=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt, test.npz, and a table with two metrics that disagree with Ω."""
    folder = tmp_path_factory.mktemp("refining")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_folder(folder)
        table = LayerTable.read_csv("profile.csv")
        rng = np.random.default_rng(0)
        metrics = {
            "omega_flat": table.omega * np.exp(rng.normal(size=len(table))),
            "omega_signed": table.omega * np.exp(2 * rng.normal(size=len(table))) - 0.01,
        }
        replace(table, metrics=metrics).write_csv("profile.csv")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def subject_of(settings: PostTraining = QUICK) -> Subject:
    source = ModelSource("model.pt")
    return load_subject(source, "test.npz", None, post_training=settings, need_labels=False)


def asked_of(size: str = "62%") -> tuple[Asked, Mapping[str, Choice]]:
    table = LayerTable.read_csv("profile.csv")
    asked = Asked(table, Budget.parse(table, size=size))
    return asked, solve(table, asked.budget).choices


def error_of(subject: Subject, choices: Mapping[str, Choice]) -> float:
    """Half of what the mean cross-entropy grows by and of the mean KL, from the start and in one
    batch."""
    assert subject.calibration is not None
    network = quantize_after_training(
        subject.network, choices, subject.calibration, subject.post_training
    )
    labels = subject.data.labels
    assert labels is not None
    with torch.no_grad():
        exact = subject.network(*subject.data.inputs).double()
        rough = network(*subject.data.inputs).double()
    grown = functional.cross_entropy(rough, labels) - functional.cross_entropy(exact, labels)
    logarithms = (exact.log_softmax(1), rough.log_softmax(1))
    divergence = functional.kl_div(
        logarithms[1], logarithms[0], log_target=True, reduction="batchmean"
    )
    return float((grown + divergence) / 2)


def test_never_worse_on_these_samples_than_any_metrics_own_optimum(folder: Path) -> None:
    subject = subject_of(REPAIRED)
    asked, best = asked_of()
    found = refine(asked, best, subject, "assignment.json", count=9)
    assert len(found.trials) == 9
    assert len({trial.candidate.key for trial in found.trials}) == 9
    assert found.optima >= 2
    assert found.first.candidate.choices == best
    optima = found.trials[: found.optima]
    assert not any(trial.stopped for trial in optima)
    for trial in (*optima, found.best):  # an oracle: one batch, the samples' own order
        error = error_of(subject, trial.candidate.choices)
        assert trial.error == pytest.approx(error, rel=1e-4, abs=1e-6)
    assert all(found.best.error <= trial.error for trial in optima)
    assert all(not trial.stopped for trial in (found.best, found.first))


def test_a_killed_run_goes_on_and_ends_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, best = asked_of()
    whole = refine(asked, best, subject_of(), "whole.json", count=7)
    made: list[str] = []
    quantized = Subject.quantized

    def counted(self: Subject, choices: Mapping[str, Choice]) -> Any:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(" ".join(map(str, choices.values())))
        return quantized(self, choices)

    monkeypatch.setattr(Subject, "quantized", counted)
    with pytest.raises(KeyboardInterrupt):
        refine(asked, best, subject_of(), "killed.json", count=7)
    before, made[:] = made.copy(), []
    again = refine(asked, best, subject_of(), "killed.json", count=7)
    assert made == [trial.candidate.key for trial in whole.trials[4:]]
    assert before == [trial.candidate.key for trial in whole.trials[:4]]
    for one, other in zip(whole.trials, again.trials, strict=True):
        assert one.candidate == other.candidate
        assert np.array_equal(one.errors, other.errors)
    assert (whole.chosen, whole.gain) == (again.chosen, again.gain)
    assert not list(folder.glob(".*partial"))


def test_without_labels_the_error_is_that_against_float(folder: Path) -> None:
    subject = subject_of()
    plain = replace(subject, data=Data("unlabelled", subject.data.inputs, None))
    asked, best = asked_of()
    found = refine(asked, best, plain, "assignment.json", count=1)
    assert len(found.trials) == found.optima > 1
    assert (found.loss, found.float_right) == ("kl-to-fp32", None)
    assert subject.calibration is not None
    network = quantize_after_training(subject.network, best, subject.calibration, QUICK)
    with torch.no_grad():
        exact = subject.network(*plain.data.inputs).double().log_softmax(1)
        rough = network(*plain.data.inputs).double().log_softmax(1)
    divergence = float((exact.exp() * (exact - rough)).sum(1).mean())
    assert found.first.error == pytest.approx(divergence, rel=1e-4)
    assert found.first.accuracy is None


def test_what_is_clearly_behind_stops_and_what_leads_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, best = asked_of()
    subject = subject_of()
    quantized = Subject.quantized
    spoilt: list[str] = []

    def mostly_noise(self: Subject, choices: Mapping[str, Choice]) -> Any:
        """Assignments after the fourth answer the opposite of what the network says."""
        network = quantized(self, choices)
        spoilt.append(" ".join(map(str, choices.values())))
        return network if len(spoilt) <= 4 else lambda *inputs: -5 * network(*inputs)

    monkeypatch.setattr(Subject, "quantized", mostly_noise)
    found = refine(asked, best, subject, "assignment.json", count=8)
    assert [trial.stopped for trial in found.trials] == [False] * 3 + [found.trials[3].stopped] + [
        True
    ] * 4
    assert all(trial.seen == len(subject.data) // 2 for trial in found.trials[4:])  # 75 of 150
    assert found.chosen < 4


def test_the_error_of_losses_without_classes_and_without_a_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after, target = (torch.randn(5, 3, generator=generator).double() for _ in range(3))
    squares = ((after - target) ** 2 - (before - target) ** 2).mean(1)
    divergence = ((after - before) ** 2).mean(1)
    labelled, free = (PlainLoss("mse", uses, SQUARED) for uses in (True, False))
    assert torch.allclose(growth(labelled, before, after, target), (squares + divergence) / 2)
    assert torch.allclose(growth(free, before, after, None), divergence)
    own = PlainLoss("own", True, Own(name="own", function=lambda z, y: (z - y).abs().sum(1)))
    grown = (after - target).abs().sum(1) - (before - target).abs().sum(1)
    assert torch.allclose(growth(own, before, after, target), grown)


def made_up(errors: list[np.ndarray[Any, Any]]) -> Refined:
    """An answer with these errors: the first is Ω's optimum."""
    trials = tuple(
        Trial(Candidate({"layer": Choice(number, 8)}, ""), one, None, len(one))
        for number, one in enumerate(errors, start=1)
    )
    nothing: Any = None
    return Refined(nothing, 9, trials, 1, choose(trials, 1), "cross-entropy", None, 0.0)


def test_the_gains_interval_by_hand_and_that_luck_is_not_called_better() -> None:
    rng = np.random.default_rng(1)
    first = rng.gamma(1.0, size=50)
    other = first - 0.1 + 0.05 * rng.normal(size=50)
    found = made_up([first, first + 1, other, first + 2])
    assert found.chosen == 2
    half = stats.norm.ppf(1 - 0.05 / 2 / 3) * stats.sem(first - other)
    mean = float((first - other).mean())
    assert found.gain == pytest.approx((mean, mean - half, mean + half))
    assert found.is_surely_better
    assert made_up([first, first + 1]).gain == (0.0, 0.0, 0.0)
    sure = taken = 0
    for _ in range(300):  # twelve assignments that are all alike: the best of them was lucky
        shared = rng.gamma(1.0, size=100)
        found = made_up([shared + rng.normal(size=100) for _ in range(12)])
        assert found.best.error <= found.first.error
        sure += found.is_surely_better
        taken += found.chosen != 0
    assert sure <= 0.05 * 300 + 8  # of the bounds' 15 ± 4 and 150 ± 9
    assert 0 < taken <= 0.5 * 300 + 18


def test_the_best_of_the_optima_is_kept_against_a_lead_that_luck_explains() -> None:
    first = np.tile([0.0, 2.0], 50)
    noise = np.tile([1.0, 1.0, -1.0, -1.0], 25)  # of standard error 0.1005
    better, worse = first - 0.1, first + 0.1
    for lead, expected in ((0.05, 1), (0.3, 2)):
        trials = made_up([first, better, better - lead + noise, worse]).trials
        assert choose(trials, 2) == expected
    assert choose(made_up([first, better]).trials, 2) == 1


@pytest.mark.parametrize("rounding", ["adaptive", "nearest"])
def test_what_assignments_share_changes_no_integer(folder: Path, rounding: Any) -> None:
    subject = subject_of()
    settings = PostTraining(rounding=rounding, correct_bias=True)
    assert subject.calibration is not None
    shared = Quantizing(subject.network, subject.calibration, post_training=settings)
    rng = np.random.default_rng(2)
    names = [layer.name for layer in subject.network.layers]
    chosen = rng.integers(0, 4, len(names))
    for layer in (None, 3, 2, 0, 3):
        if layer is not None:
            chosen[layer] = rng.integers(0, 4)
        choices = {name: Choice((2, 3, 4, 8)[i], 8) for name, i in zip(names, chosen, strict=True)}
        one = shared(choices)
        other = quantize_after_training(subject.network, choices, subject.calibration, settings)
        assert one.undone == other.undone
        for name in names:
            mine, theirs = one.layers[name], other.layers[name]
            assert mine.weight is not None
            assert theirs.weight is not None
            assert torch.equal(mine.weight.codes, theirs.weight.codes)
            assert mine.activation == theirs.activation


def test_the_command_says_what_was_measured_and_keeps_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("solve --size 62% --refine 8 --data test.npz --pin 0=w4a4".split()) == 0
    text = capsys.readouterr().out
    assert "refined: 8 assignments measured as repaired networks on 150 samples of test" in text
    assert max(map(len, text.splitlines())) <= 100
    stored = Assignment.load("assignment.json")
    facts = stored.refined
    assert stored.layers["0"] == Choice(4, 4)
    assert stored.solver == "lagrangian, refined"
    chosen = facts["candidates"][facts["chosen"]]
    assert {name: str(choice) for name, choice in stored.layers.items()} == chosen["layers"]
    optimum = facts["candidates"][0]
    assert optimum["from"].startswith("optimum of omega")
    table = LayerTable.read_csv("profile.csv")
    least = {name: Choice.parse(bits) for name, bits in optimum["layers"].items()}
    same = facts["chosen"] == 0
    assert stored.status == ("optimal" if same else "feasible")
    assert stored.bound == pytest.approx(float(table.total(least, "omega")))
    assert stored.omega == stored.objective == float(table.total(stored.layers, "omega"))
    assert stored.totals["size_bytes"] == table.total(stored.layers, "size_bytes")
    assert stored.totals["size_bytes"] <= stored.limits["size_bytes"]
    assert facts["samples"] == 150
    assert facts["model_digest"] == stored.model_digest == subject_of().network.digest
    assert all(one["layers"]["0"] == "w4a4" for one in facts["candidates"])
    stored.save("again.json")
    assert Assignment.load("again.json") == stored
    assert run(["explain", "assignment.json", "--pin", "0=w4a4"]) == 0
    capsys.readouterr()
    assert run("solve --size 62% --refine 8 --data test.npz --pin 0=w4a4 --json".split()) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["refined"] == facts
    assert document["solver"] == "lagrangian, refined"


def test_a_model_without_a_sample_is_calibrated_on_the_data(folder: Path) -> None:
    from measuring import build

    from mpsearch.graph.network_file import save

    save(build(), "bare.pt", (torch.zeros(1, 6),))
    Path("profile.json").unlink()
    assert run("solve --size 62% --refine 1 --data test.npz --fp32 bare.pt".split()) == 0
    facts = Assignment.load("assignment.json").refined
    assert not facts["held_out"]
    assert facts["data_digest"] == facts["calibration_digest"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--fp32 bare.pt", "bare.pt carries no sample; give data with --data"),
        ("--fp32 other.pt", "other.pt is of other weights than the table"),
        ("--min-accuracy 80", "got --refine with --min-accuracy; expected one"),
        ("--measure 3", "--measure, --tolerance and --confirm-data do not go with --refine"),
        ("--minimize size_bytes", "--refine starts from the least Ω"),
        ("--rerank 4", "leave out --minimize, --from-front and --rerank"),
        ("--fp32 missing.pt", "missing.pt"),
    ],
)
def test_what_cannot_be_refined(
    words: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from measuring import build

    from mpsearch.graph.network_file import save

    save(build(), "bare.pt", (torch.zeros(1, 6),))
    other = build()
    torch.nn.init.ones_(other[0].weight)  # type: ignore[index]
    save(other, "other.pt", (torch.zeros(1, 6),), {"x0": torch.randn(9, 6)})
    assert run(f"solve --size 62% --refine 3 {words}".split()) == 2
    assert said in capsys.readouterr().err
    assert not Path("assignment.json").exists()


def test_no_model_and_another_networks_layers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.pt").rename("elsewhere.pt")
    assert run("solve --size 62% --refine 3".split()) == 2
    assert "assignments are measured, and there is no model.pt here" in capsys.readouterr().err
    assert run("solve --size 62% --data test.npz".split()) == 2
    assert "--min-agreement or --refine; --measure" in capsys.readouterr().err
    with pytest.raises(InputError):
        Assignment.load(_damaged(folder))


def _damaged(folder: Path) -> str:
    document = Assignment.uniform(["a"], Choice(8, 8)).to_document()
    (folder / "wrong.json").write_text(json.dumps(document | {"refined": {"chosen": "x"}}))
    return str(folder / "wrong.json")
