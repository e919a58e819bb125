"""The smallest assignment whose measured accuracy holds: the search, curtailment, the command."""

import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measuring import PLAINLY, make_folder
from scipy import stats

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.evaluation.subjects import Subject, load_subject
from mpsearch.importers.loading import ModelSource
from mpsearch.measured.answer import Target, decide, hardest_first, needed, smallest_that_holds
from mpsearch.measured.min_accuracy import chances, search, thin
from mpsearch.pareto.files import read_json
from mpsearch.pareto.front import front
from mpsearch.post_training.repairing import PLAIN
from mpsearch.reports.commands import commands_of
from mpsearch.reports.run_folder import read_run
from mpsearch.statistics import wilson_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

pytestmark = pytest.mark.usefixtures("coarse_scales")

SOLVE = f"solve {PLAINLY}"


def _case(seed: int, noise: float) -> tuple[Any, Any, list[bool]]:
    """Amounts, Ω and what holds, which depends on Ω and on luck: not monotone with noise."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 90))
    amounts = np.cumsum(rng.uniform(0.1, 2, size)) + 50
    omega = np.sort(np.exp(rng.uniform(-6, 2, size)))[::-1]
    if seed % 5 == 0:
        omega[-1] = 0
    threshold = np.exp(rng.uniform(-8, 3))
    seeming = omega * np.exp(noise * rng.normal(size=size))
    return amounts, omega, [bool(value < threshold) for value in seeming]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
def test_all_measured_is_brute_force_and_less_claims_no_more(seed: int, noise: float) -> None:
    amounts, omega, truth = _case(seed, noise)
    smallest = next((position for position, holds in enumerate(truth) if holds), None)
    asked: list[int] = []

    def holds(position: int) -> bool:
        asked.append(position)
        return truth[position]

    whole = search(amounts, omega, holds, None)
    assert whole.answer == smallest
    assert whole.unmeasured == 0
    assert len(asked) == (len(truth) if smallest is None else smallest + 1)
    for most in (1, 2, 7, 200):
        asked.clear()
        found = search(amounts, omega, holds, most)
        assert len(asked) == len(set(asked)) == len(found.held) <= most
        assert found.held == {position: truth[position] for position in asked}
        holding = [position for position in asked if truth[position]]
        assert found.answer == min(holding, default=None)
        end = len(truth) if found.answer is None else found.answer
        assert found.failed == len([p for p in asked if p < end and not truth[p]])
        assert found.failed + found.unmeasured == end
        if found.unmeasured == 0:
            assert found.answer == smallest
    if truth[-1]:
        assert search(amounts, omega, holds, 2).answer is not None


def test_a_monotone_front_takes_few_measurements() -> None:
    counts = []
    for place in range(10, 200, 10):
        amounts, omega = 70 * 1.005 ** np.arange(210.0), np.exp(-np.arange(210) / 25)
        found = search(amounts, omega, place.__le__, 40)
        assert found.answer == place
        counts.append(len(found.held))
    assert np.mean(counts) < 25  # of 210; some of them make sure that the neighbours do not hold
    assert max(counts) < 40


def test_the_only_measurement_goes_to_the_likeliest() -> None:
    amounts, omega = np.arange(1.0, 9), np.arange(8.0, 0, -1)
    assert search(amounts, omega, lambda position: True, 1).held == {7: True}


def test_chances_fall_with_omega_and_follow_what_was_measured() -> None:
    omega = np.array([8.0, 4, 2, 1, 0.5, 0])
    before = chances(omega, {})
    assert (np.diff(before) > 0).all()
    assert (chances(omega, {2: True}) > before).all()
    after = chances(omega, {2: False})
    assert (after < before).all()
    assert after[2] > 0  # one more like it could hold
    assert chances(np.array([1.0, 1.0]), {0: True})[1] > 0.5


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 0.1, 0.4])
def test_what_is_left_out_is_little_smaller_than_what_is_kept(tolerance: float) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        amounts = np.unique(rng.integers(100, 1000, int(rng.integers(1, 200)))).astype(float)
        kept = thin(amounts, tolerance)
        assert kept == sorted(set(kept))
        assert {0, len(amounts) - 1} <= set(kept)
        for position, amount in enumerate(amounts):
            above = min(amounts[p] for p in kept if p >= position)
            assert amount >= above * (1 - tolerance)
        for smaller, larger in pairwise(kept[1:]):
            assert amounts[smaller] <= amounts[larger] * (1 - tolerance)
    assert thin(np.array([100.0, 101, 200]), 0.05) == [0, 1, 2]


def _fake(accuracy: float, samples: int, seed: int) -> tuple[Callable[..., Any], Data]:
    """A network that reads its answers off the inputs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (samples,), generator=generator)
    logits = torch.randn(samples, 5, generator=generator)
    right = torch.rand(samples, generator=generator) < accuracy
    logits[torch.arange(samples), labels] += torch.where(right, 20.0, -20.0)
    return lambda x: x, Data("fake", (logits,), labels)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_curtailment_decides_as_all_samples_do_and_stops_in_time(batch: int) -> None:
    for seed in range(6):
        network, data = _fake(0.8, 130, seed)
        assert data.labels is not None
        hits = data.inputs[0].argmax(1) == data.labels
        for least in range(0, 131, 13):
            decision = decide(network, data, least, batch)
            assert decision.holds == (int(hits.sum()) >= least)
            wrong = torch.nonzero(~hits)[:, 0].tolist()
            if len(wrong) > 130 - least:  # the sample at which it is out of reach
                last = wrong[130 - least] + 1
                assert decision.seen == min(130, -(-last // batch) * batch)
            else:
                assert decision.seen == 130
                assert decision.logits is not None
                assert torch.equal(decision.logits, data.inputs[0])
            assert decision.right == int(hits[: decision.seen].sum())


def test_hardest_first_keeps_every_sample_and_finds_errors_early() -> None:
    network, data = _fake(0.7, 90, 1)
    hardest = hardest_first(data, data.inputs[0])
    assert data.labels is not None
    assert hardest.data.labels is not None
    assert torch.equal(hardest.in_old_order(hardest.data.inputs[0]), data.inputs[0])
    assert torch.equal(hardest.in_old_order(hardest.data.labels), data.labels)
    hits = (hardest.data.inputs[0].argmax(1) == hardest.data.labels).tolist()
    assert hits == sorted(hits)  # all wrong ones come before all right ones
    assert decide(network, hardest.data, 80, 1).seen == 11


def test_how_many_have_to_be_right() -> None:
    assert needed(Fraction("0.88"), 1000) == 880
    assert needed(Fraction("0.8801"), 1000) == 881
    assert Target(max_drop=Fraction("0.01")).needed(1000, 915) == 905
    assert Target(max_drop=Fraction("0.0101")).needed(1000, 915) == 905
    assert Target(max_drop=Fraction("0.0099")).needed(1000, 915) == 906


def test_intervals_of_many_comparisons_agree_with_scipy() -> None:
    for many in (1, 10, 300):
        expected = stats.binomtest(880, 1000).proportion_ci(1 - 0.05 / many, method="wilson")
        assert wilson_interval(880, 1000, many) == pytest.approx((expected.low, expected.high))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """The folder, and by brute force how many samples each point of the front has right, and how
    many as FP32 has them."""
    folder = tmp_path_factory.mktemp("solving")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_folder(folder)
        found = read_json("front.json")
        subject = load_subject(ModelSource("model.pt"), "test.npz", None, post_training=PLAIN)
        networks = [subject.quantized(found.assignment(point)) for point in range(len(found))]
        right = {}
        for name in ("test.npz", "fresh.npz"):
            arrays = np.load(name)
            inputs, labels = torch.from_numpy(arrays["x0"]), torch.from_numpy(arrays["y"])
            right[name] = [int((net(inputs).argmax(1) == labels).sum()) for net in networks]
            own = subject.network(inputs).argmax(1)  # FP32's classes
            right[f"{name} as FP32"] = [
                int((net(inputs).argmax(1) == own).sum()) for net in networks
            ]
    finally:
        os.chdir(before)
    return folder, right


@pytest.fixture
def right(
    made: tuple[Path, dict[str, list[int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[int]]:
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return made[1]


def _solve(words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*SOLVE.split(), *words.split(), "--data", "test.npz", "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("percent", ["46", "60", "70%", "76.0", "82"])
def test_all_measured_equals_measuring_the_whole_front(
    percent: str, right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    least = float(percent.rstrip("%")) / 100 * 150
    found = read_json("front.json")
    expected = next(p for p, hits in enumerate(right["test.npz"]) if hits >= least - 1e-9)
    # Accuracy is not monotone here: a search by halves would not be sure to find it.
    document = _solve(f"--min-accuracy {percent} --measure all --tolerance 0", capsys)
    facts = document["measured"]
    assert document["totals"]["size_bytes"] == found.totals["size_bytes"][expected]
    assert (facts["smaller_failed"], facts["smaller_unmeasured"]) == (expected, 0)
    assert facts["accuracy"] == right["test.npz"][expected] / 150
    assert facts["evaluated"] == expected + 1
    assert facts["passes"] <= 150 * (expected + 1)
    stored = Assignment.load("assignment.json")
    assert stored.layers == found.assignment(expected)
    assert stored.measured == facts
    assert (stored.status, stored.minimize, stored.bound) == ("feasible", "size_bytes", None)
    assert not list(Path().glob(".assignment*.partial"))


def test_the_front_of_the_test_is_not_monotone(right: dict[str, list[int]]) -> None:
    assert any(later < hits for hits, later in pairwise(right["test.npz"]))


def test_a_small_budget_says_what_it_did_not_measure(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"{SOLVE} --min-accuracy 70 --data test.npz --measure 3 --tolerance 0"
    assert run(command.split()) == 0
    text = capsys.readouterr().out
    facts = Assignment.load("assignment.json").measured
    hits = right["test.npz"]
    sizes = read_json("front.json").totals["size_bytes"].tolist()
    point = sizes.index(Assignment.load("assignment.json").totals["size_bytes"])
    assert hits[point] >= 105
    assert facts["evaluated"] <= 3
    assert facts["smaller_failed"] + facts["smaller_unmeasured"] == point
    assert facts["smaller_unmeasured"] > 0
    assert f"{facts['smaller_unmeasured']} were not measured" in text
    assert f"{len(sizes)} candidates that was measured to hold" in text
    assert "all points of the exact front" in text
    assert "it was chosen on these samples, which favours it" in text


def test_none_that_holds_is_exit_code_one_with_the_best(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = _solve("--min-accuracy 95 --measure all", capsys, code=1)["measured"]
    assert not facts["holds"]
    assert facts["accuracy"] in [hits / 150 for hits in right["test.npz"]]
    assert facts["smaller_unmeasured"] == 0
    assert not Path("assignment.json").exists()
    assert run(f"{SOLVE} --min-accuracy 95 --data test.npz --measure 2".split()) == 1
    captured = capsys.readouterr()
    assert "none that was measured holds: 2 of" in captured.out
    assert "no measured assignment has an accuracy of at least 95 %" in captured.err


def test_limits_pins_and_another_column_go_with_it(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    table = LayerTable.read_csv("profile.csv")
    words = "--min-accuracy 60 --measure all --tolerance 0 --pin 0=w8a8"
    document = _solve(f"{words} --bops-limit 14K", capsys)
    assert document["layers"]["0"] == {"w_bits": 8, "a_bits": 8}
    assert document["totals"]["bops"] <= 14_000
    found = front(table, "size_bytes", {"bops": 14_000}, {"0": Choice(8, 8)})
    subject = load_subject(ModelSource("model.pt"), "test.npz", None, post_training=PLAIN)
    accuracies = [
        subject.measure("", found.assignment(point)).accuracy for point in range(len(found))
    ]
    expected = next(point for point, accuracy in enumerate(accuracies) if accuracy >= 0.6)
    assert document["totals"]["size_bytes"] == found.totals["size_bytes"][expected]
    assert Assignment.load("assignment.json").search == {"pin": ("0=w8a8",)}
    least = _solve("--min-accuracy 60 --minimize bops --measure all", capsys)
    assert least["minimize"] == "bops"
    assert least["totals"]["bops"] <= document["totals"]["bops"]
    assert run(f"{SOLVE} --min-accuracy 60 --data test.npz --size 1B".split()) == 1
    assert "infeasible" in capsys.readouterr().err


def test_a_stored_front_gives_the_same_answer(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--min-accuracy 70 --measure all --size 300B"
    direct = _solve(words, capsys)
    stored = _solve(f"{words} --from-front front.json", capsys)
    assert stored["layers"] == direct["layers"]
    assert stored["measured"]["candidates"] == direct["measured"]["candidates"]
    command = f"{SOLVE} --min-accuracy 70 --data test.npz --minimize bops --from-front front.json"
    assert run(command.split()) == 2
    assert "expected one against bops" in capsys.readouterr().err


def test_a_drop_is_against_float_and_fresh_data_confirm(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--max-drop 8.0 --measure all --tolerance 0 --confirm-data fresh.npz"
    facts = _solve(words, capsys)["measured"]
    expected = next(p for p, hits in enumerate(right["test.npz"]) if hits >= 135 - 12)
    assert facts["smaller_failed"] == expected
    assert facts["drop"] == pytest.approx(0.9 - right["test.npz"][expected] / 150)
    assert facts["lower_end_holds"] == (facts["drop_interval"][1] <= 0.08)
    fresh = facts["confirmed"]
    assert fresh["accuracy"] == right["fresh.npz"][expected] / 150
    assert fresh["holds"] == (right["fresh.npz"][expected] >= 135 - 12)
    low, high = facts["interval_of_all_candidates"]
    assert low < facts["accuracy_interval"][0] < facts["accuracy_interval"][1] < high
    assert run(f"{SOLVE} {words} --data test.npz".split()) == 0
    assert "confirmed: accuracy" in capsys.readouterr().out


def test_an_agreement_needs_no_labels_and_does_not_look_at_them(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("test", "fresh"):
        np.savez(f"bare-{name}.npz", x0=np.load(f"{name}.npz")["x0"])
    counts, again = right["test.npz as FP32"], right["fresh.npz as FP32"]
    assert counts != right["test.npz"]
    least = sorted(counts)[len(counts) // 2]
    expected = next(p for p, count in enumerate(counts) if count >= least)
    share = (least - 0.5) / 150  # so that no rounding decides
    words = f"--min-agreement {100 * share:.6f}% --measure all --tolerance 0".split()
    found = []
    for prefix in ("bare-", ""):
        fresh = ["--confirm-data", f"{prefix}fresh.npz"]
        call = [*SOLVE.split(), *words, "--data", f"{prefix}test.npz", *fresh]
        capsys.readouterr()
        assert run(call) == 0
        text = capsys.readouterr().out
        assert f"measured: agreement with FP32 {100 * counts[expected] / 150:.2f} %" in text
        assert "accuracy" not in text
        stored = Assignment.load("assignment.json")
        assert stored.layers == read_json("front.json").assignment(expected)
        facts = dict(stored.measured)
        assert facts["min_agreement"] == pytest.approx(share)
        assert facts["accuracy"] == counts[expected] / 150
        assert facts["confirmed"]["accuracy"] == again[expected] / 150
        assert facts["held_out"]
        (line,) = (one for one in commands_of(read_run(".")) if " solve " in one)
        assert "--min-agreement" in line
        found.append((facts["accuracy"], facts["passes"], facts["smaller_failed"]))
    assert found[0] == found[1]


def test_a_killed_search_does_not_measure_again(
    right: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_json("front.json")
    subject = load_subject(ModelSource("model.pt"), "test.npz", None, post_training=PLAIN)
    quantized = Subject.quantized
    names: list[tuple[str, ...]] = []

    def counted(self: Subject, choices: Any) -> Any:
        names.append(tuple(map(str, choices.values())))
        if len(names) == 4:
            raise KeyboardInterrupt
        return quantized(self, choices)

    monkeypatch.setattr(Subject, "quantized", counted)
    target = Target(min_accuracy=Fraction(7, 10))
    with pytest.raises(KeyboardInterrupt):
        smallest_that_holds(found, subject, target, "a.json")
    resumed = smallest_that_holds(found, subject, target, "a.json")
    assert names[3] == names[4]
    assert len(set(names)) == len(names) - 1 == len(resumed.search.held)
    names[:] = [("kept",)] * 5
    whole = smallest_that_holds(found, subject, target, "b.json")
    assert whole.search == resumed.search
    assert whole.row == resumed.row
    assert whole.passes == resumed.passes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--min-accuracy 0.88", "expected percent: write 88% or 88 (0.88%, with its sign"),
        ("--min-accuracy 1", "expected percent: write 100% or 100 (1%, with its sign"),
        ("--min-accuracy 101", "more than 100 %"),
        ("--min-accuracy high", "expected percent, such as 88% or 88"),
        ("--max-drop 1%", "expected percentage points"),
        ("--min-accuracy 80 --max-drop 1", "got --min-accuracy and --max-drop; expected one of"),
        ("--min-agreement 0.9", "got the agreement '0.9'; expected percent: write 90%"),
        (
            "--min-agreement 90 --refine 4",
            "got --refine with --min-agreement; expected one of them",
        ),
        ("--min-accuracy 80 --measure 0", "a number such as 32, or all"),
        ("--min-accuracy 80 --tolerance 60", "expected percent below 50"),
        ("--min-accuracy 80 --tolerance much", "expected percent below 50"),
        ("--min-accuracy 80 --solver pulp", "take the exact front"),
        ("--min-accuracy 80 --rerank 4", "take the exact front"),
        ("--min-accuracy 80 --minimize omega+2*bops", "expected one resource column"),
        ("--min-accuracy 80 --fp32 nothing.pt", "nothing.pt: no such file"),
        ("--min-accuracy 80 --confirm-data test.npz", "test.npz, which took part"),
        ("--size 300B", "go with --min-accuracy, --max-drop, --min-agreement or --refine"),
    ],
)
def test_wrong_calls_are_refused_in_a_line(
    words: str, message: str, right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["solve", *words.split(), "--data", "test.npz"]) == 2
    assert message in capsys.readouterr().err


def test_the_model_is_named_where_there_is_no_usual_one(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.pt").rename("mine.pt")
    command = f"{SOLVE} --min-accuracy 70 --data test.npz --measure 4"
    assert run(command.split()) == 2
    assert "name the float model's file with --fp32" in capsys.readouterr().err
    assert run([*command.split(), "--fp32", "mine.pt"]) == 0
    arrays = dict(np.load("test.npz"))
    np.savez("bare.npz", x0=arrays["x0"])
    command = f"{SOLVE} --min-accuracy 70 --data bare.npz --fp32 mine.pt"
    assert run(command.split()) == 2
    assert "has no labels (array y); accuracy needs them\n" in (error := capsys.readouterr().err)
    assert "without labels: --min-agreement 98%" in error
    text = Path("profile.csv").read_text().replace("\n2,", "\nelsewhere,")
    Path("profile.csv").write_text(text)
    assert run(f"{SOLVE} --min-accuracy 70 --data test.npz --fp32 mine.pt".split()) == 2
    assert "a layer 'elsewhere' that the network lacks" in capsys.readouterr().err


def test_damaged_facts_in_an_assignment_are_refused(
    right: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["solve", "--size", "300B"]) == 0
    document = json.loads(Path("assignment.json").read_text())
    assert "measured" not in document
    document["measured"] = [1]
    Path("assignment.json").write_text(json.dumps(document))
    assert run("evaluate model.pt --assignment assignment.json".split()) == 2
    assert "measured: got [1]; expected an object" in capsys.readouterr().err
