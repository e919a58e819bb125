"""The baseline: written, compared with, and refused where it is of something else."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_profiles import PROFILE
from test_gate import CHOSEN, FP32, MODEL, ROW, TABLE, TOTALS, evaluations, measured

from mpsearch.cli import run
from mpsearch.comparing.baseline import load_baseline
from mpsearch.comparing.layers import NetworkLayer
from mpsearch.device.profile import save_device_profile
from mpsearch.evaluation.evaluation import Evaluations, save_evaluations
from mpsearch.statistics import drop_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import network_digest

ON_DEVICE = replace(PROFILE, network=network_digest(CHOSEN), model_digest=MODEL)
FULL = """\
layer,weights,macs,w_bits,a_bits,omega,size_bytes,bops
one,1200,1000,4,4,2.0,600,16000
one,1200,1000,8,8,0.5,1200,64000
two,848,100,4,4,1.0,424,1600
two,848,100,8,8,0.1,848,6400
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, and the baseline main.json of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / "profile.csv").write_text(FULL)
    (tmp_path / "profile.json").write_text(
        f'{{"format": "mpsearch.provenance", "version": 1, "model_digest": "{MODEL}"}}'
    )
    Assignment(CHOSEN, totals=TOTALS).save("assignment.json")
    save_evaluations(evaluations(FP32, ROW), "evaluation.json")
    save_device_profile(ON_DEVICE, "device.json")
    assert run(["gate", "--update-baseline", "main.json"]) == 0
    return tmp_path


def larger() -> None:
    """Another assignment of the same network: 1624 B and 20800 BOPS."""
    chosen = {"one": Choice(8, 8), "two": Choice(4, 4)}
    totals = {"size_bytes": 1624, "bops": 65600}
    Assignment(chosen, totals=totals).save("assignment.json")
    # of the samples that ROW has right 20 are lost, and 5 are won: 86.5 %
    correct = list(ROW.correct)
    for place in (*range(100, 120), *range(5)):
        correct[place] = not correct[place]
    row = measured("assignment", correct, **totals)
    row = replace(row, origin=replace(row.origin, layers=chosen))
    save_evaluations(evaluations(FP32, row), "evaluation.json")
    faster = replace(ON_DEVICE, network=network_digest(chosen))
    save_device_profile(faster, "device.json")


def test_what_is_written_is_what_was_known(folder: Path) -> None:
    baseline = load_baseline("main.json")
    assert baseline.totals == TOTALS
    assert baseline.row is not None
    assert baseline.row.correct == ROW.correct
    assert baseline.data_digest == "sha256:00"
    assert baseline.identity.weights == MODEL
    assert baseline.layers == {
        "one": NetworkLayer(1200, 1000, Choice(4, 4), 600, 16000),
        "two": NetworkLayer(848, 100, Choice(8, 8), 848, 6400),
    }
    assert baseline.identity.assignment == network_digest(CHOSEN)
    assert baseline.device == {
        "steady": 0.0071, "process": 0.012, "cold": 0.0095, "peak_memory_bytes": 2_000_000,
        "energy_j": 0.006,
    }  # fmt: skip
    first = Path("main.json").read_bytes()
    run(["gate", "--update-baseline", "main.json"])
    assert Path("main.json").read_bytes() == first  # no date in it: nothing to commit


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        (["--max-size-growth", "12.2%"], 0),  # 1624 / 1448 is 1.1215…
        (["--max-size-growth", "12.1%"], 1),
        (["--max-bops-growth", "193%"], 0),  # 65600 / 22400 is 2.928…
        (["--max-bops-growth", "192.8%"], 1),
        (["--max-latency-growth", "0%"], 0),
        (["--max-drop-baseline", "1.5"], 0),
        (["--max-drop-baseline", "1.4"], 1),
        (["--max-drop-baseline", "1.5", "--strict"], 1),
        (["--max-drop-baseline", "3", "--strict"], 0),
    ],
)
def test_each_condition_at_its_limit(folder: Path, condition: list[str], code: int) -> None:
    larger()
    assert run(["gate", "--baseline", "main.json", *condition]) == code


def test_smaller_is_no_growth_and_a_slower_device_is(folder: Path) -> None:
    larger()
    assert run(["gate", "--update-baseline", "other.json"]) == 0
    Assignment(CHOSEN, totals=TOTALS).save("assignment.json")
    steady = replace(PROFILE.steady, median_s=0.0072)  # type: ignore[type-var]
    save_device_profile(replace(ON_DEVICE, steady=steady), "device.json")
    words = ["gate", "--baseline", "other.json"]
    assert run([*words, "--max-size-growth", "0%"]) == 0
    assert run([*words, "--max-latency-growth", "1.4%"]) == 1  # 0.0072 / 0.0071 is 1.01408…
    assert run([*words, "--max-latency-growth", "1.41%"]) == 0
    assert run([*words, "--max-latency-growth", "0%", "--latency-mode", "process"]) == 0


@pytest.mark.parametrize("key", ["totals", "device"])
def test_a_growth_that_is_no_number_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """Growth is exact and then printed as a double, which 384 / 5e-324 is not."""
    document = json.loads(Path("main.json").read_text())
    document[key]["size_bytes" if key == "totals" else "steady"] = 5e-324
    Path("main.json").write_text(json.dumps(document))
    option = "--max-size-growth" if key == "totals" else "--max-latency-growth"
    capsys.readouterr()
    assert run(["gate", "--baseline", "main.json", option, "1%"]) == 2
    assert "main.json" in capsys.readouterr().err


def test_the_drop_is_paired_with_the_baselines_samples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger()
    capsys.readouterr()
    run(["gate", "--baseline", "main.json", "--max-drop-baseline", "1", "--json"])
    (condition,) = json.loads(capsys.readouterr().out)["conditions"]
    assert condition["value"] == 1.5
    assert condition["interval"] == [100 * end for end in drop_interval(20, 5, 1000)]
    assert condition["paired"]["reference"] == "main.json"
    assert (condition["paired"]["lost"], condition["paired"]["won"]) == (20, 5)


def test_the_same_network_loses_nothing_whatever_the_samples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No pull request that leaves the network alone may be stopped, --strict or not."""
    words = ["gate", "--baseline", "main.json", "--max-drop-baseline", "0", "--strict"]
    capsys.readouterr()
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "the weights and bits are those of main.json" in printed
    assert "interval" not in printed
    # the same answers of other weights are luck again, and so are other answers of the same
    Path("profile.json").rename("hidden.json")
    assert run(words) == 1
    Path("hidden.json").rename("profile.json")
    other = measured("assignment", list(reversed(ROW.correct)), **TOTALS)
    save_evaluations(evaluations(FP32, other), "evaluation.json")
    assert run(words) == 1


def test_other_weights_are_told_and_not_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("profile.json").write_text(
        '{"format": "mpsearch.provenance", "version": 1, "model_digest": "sha256:0b"}'
    )
    capsys.readouterr()
    assert run(["gate", "--baseline", "main.json", "--max-size-growth", "0%"]) == 0
    assert f"the baseline's: sha256:0b, there {MODEL}" in capsys.readouterr().out


PLAIN, USUAL = (
    {"ranges": ranges, "rounding": rounding, "correct_bias": rounding == "adaptive", "seed": 0,
     "wide": "auto"}
    for ranges, rounding in (("mse", "nearest"), ("auto", "adaptive"))
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, None, ""),
        (PLAIN, None, ""),
        (USUAL, USUAL, ""),
        (None, USUAL, "main.json does not say how its network was quantized, here with the defa"),
        (None, PLAIN, "with --rounding nearest --no-bias-correction: before version 0.2.0"),
        (PLAIN, USUAL, "quantized with --rounding nearest --no-bias-correction, here with the def"),
        ({**USUAL, "seed": 3, "ranges": "mse"}, USUAL, "with --ranges mse --seed 3, here with"),
        (
            {name: value for name, value in USUAL.items() if name != "wide"},
            USUAL,
            "quantized with --wide 32, here with the defa",  # files of before know no other
        ),
    ],
)
def test_a_baseline_that_was_quantized_otherwise_is_told(
    before: dict[str, Any] | None, now: dict[str, Any] | None, said: str, folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for made in (before, now):
        row = replace(ROW, origin=replace(ROW.origin, post_training=made))
        save_evaluations(evaluations(FP32, row), "evaluation.json")
        if made is before:
            assert run(["gate", "--update-baseline", "main.json"]) == 0
    capsys.readouterr()
    run(["gate", "--baseline", "main.json", "--max-drop-baseline", "1"])
    printed = capsys.readouterr().out
    assert said in printed
    assert ("quantized" in printed) == bool(said)
    run(["gate", "--baseline", "main.json", "--max-size-growth", "1%"])
    assert "quantized" not in capsys.readouterr().out  # of no accuracy, no matter


def grow() -> None:
    """Another architecture: `one` has 30 % more weights, `two` is gone, `three` and `four` new."""
    Path("profile.csv").write_text(FULL.replace("1200,1000,4,4,2.0,600", "1560,1300,4,4,2.0,780")
        .replace("1200,1000,8,8,0.5,1200", "1560,1300,8,8,0.5,1560").replace("two,", "three,")
        + "four,2000,50,8,8,0.1,2000,3200\n")  # fmt: skip
    chosen = {"one": Choice(8, 8), "three": Choice(8, 8), "four": Choice(8, 8)}
    totals = {"size_bytes": 1560 + 848 + 2000, "bops": 64000 + 6400 + 3200}
    Assignment(chosen, totals=totals, model_digest="sha256:0b").save("assignment.json")
    Path("profile.json").unlink()
    origin = replace(ROW.origin, model="sha256:0b", layers=chosen)
    row = replace(measured("assignment", list(ROW.correct), **totals), origin=origin)
    save_evaluations(evaluations(row), "evaluation.json")


def test_another_architecture_is_compared_and_its_layers_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Size, BOPS and, on the same data, accuracy: a pull request that grows can be judged."""
    grow()
    words = ["gate", "--baseline", "main.json", "--max-size-growth", "204.5%"]
    words += ["--max-bops-growth", "228%", "--max-drop-baseline", "2"]
    capsys.readouterr()
    assert run(words) == 1  # 73600 BOPS are 228.57 % more than 22400
    printed = " ".join(capsys.readouterr().out.split())
    assert "size growth: four added (2,000 weights, w8a8), +2.0 KB; one 1,200 -> 1,560 weights, " \
        "w4a4 -> w8a8, +960 B (+160 %); three added (848 weights, w8a8), +848 B; " \
        "and 1 more" in printed  # fmt: skip
    assert "BOPS growth: one 1,200 -> 1,560 weights, w4a4 -> w8a8, +48.000 K BOPS" in printed
    assert "main.json is of another architecture" in printed
    assert "the gate says no: BOPS growth" in printed
    assert run([*words, "--json"]) == 1
    found = {one["quantity"]: one for one in json.loads(capsys.readouterr().out)["conditions"]}
    drop = found["drop_baseline"]
    assert (drop["value"], drop["paired"]["lost"]) == (0.0, 0)
    assert drop["interval"] == [100 * end for end in drop_interval(0, 0, 1000)]  # not the same
    names = [one["name"] for one in found["size_bytes_growth"]["changes"]]
    assert names == ["one", "three", "four", "two"]


def test_a_baseline_of_another_model_or_an_older_version_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grow()
    words = ["gate", "--baseline", "main.json", "--max-size-growth", "300%"]
    document = json.loads(Path("main.json").read_text())
    facts = document.pop("layers")
    Path("main.json").write_text(json.dumps(document))  # as older versions wrote it
    capsys.readouterr()
    assert run(words) == 0
    assert "another architecture; an older version wrote it, without" in capsys.readouterr().out
    document["layers"] = {f"other.{name}": fact for name, fact in facts.items()}
    Path("main.json").write_text(json.dumps(document))
    assert run(words) == 0
    assert "is it of another model?" in capsys.readouterr().out


def test_accuracy_on_other_data_is_refused_with_both_digests(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(row, origin=replace(row.origin, data="sha256:11")) for row in (FP32, ROW)]
    other = Evaluations("other.npz", "sha256:11", True, tuple(rows))
    save_evaluations(other, "evaluation.json")
    capsys.readouterr()
    assert run(["gate", "--baseline", "main.json", "--max-drop-baseline", "1"]) == 2
    error = capsys.readouterr().err
    assert "of another dataset: sha256:00 ('test.npz'), and here it is sha256:11" in error
    assert len(error.splitlines()) == 2
    assert run(["gate", "--baseline", "main.json", "--max-size-growth", "0%"]) == 0


def test_a_network_that_is_stopped_becomes_no_baseline(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("main.json").read_bytes()
    larger()
    capsys.readouterr()
    assert run(["gate", "--max-size", "1448B", "--update-baseline", "main.json"]) == 1
    assert "main.json was left as it is" in capsys.readouterr().out
    assert Path("main.json").read_bytes() == before
    assert run(["gate", "--max-size", "2KB", "--update-baseline", "main.json"]) == 0
    assert load_baseline("main.json").totals["size_bytes"] == 1624


def test_the_baseline_that_is_written_again_is_not_compared_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else neither the first one nor one of a new model could ever be written."""
    Path("mpsearch.toml").write_text('[gate]\nbaseline = "main.json"\nmax-size-growth = "0%"\n')
    larger()
    assert run(["gate"]) == 1
    capsys.readouterr()
    assert run(["gate", "--update-baseline", "./main.json"]) == 0
    assert "nothing was compared with it" in capsys.readouterr().out
    assert run(["gate"]) == 0


def test_what_is_not_known_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("evaluation.json", "device.json"):
        Path(name).unlink()
    assert run(["gate", "--update-baseline", "small.json"]) == 0
    stored = json.loads(Path("small.json").read_text())
    assert (stored["accuracy"], stored["device"]) == (None, None)
    save_evaluations(evaluations(FP32, ROW), "evaluation.json")
    save_device_profile(ON_DEVICE, "device.json")
    words = ["gate", "--baseline", "small.json"]
    for condition, message in [
        (["--max-drop-baseline", "1"], "has no accuracy to compare with"),
        (["--max-latency-growth", "1%"], "has no steady latency to compare with"),
    ]:
        capsys.readouterr()
        assert run([*words, *condition]) == 2
        assert message in capsys.readouterr().err


def test_an_emulated_device_leaves_no_figures(folder: Path) -> None:
    save_device_profile(replace(ON_DEVICE, emulated=True), "device.json")
    assert run(["gate", "--update-baseline", "main.json"]) == 0
    assert load_baseline("main.json").device == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-size-growth", "1"], "got the growth '1'"),
        (["--max-size-growth", "-1%"], "got the growth '-1%'"),
        (["--max-drop-baseline", "1%"], "percentage points"),
        (["--max-size-growth", "1%", "--baseline", "none.json"], "there is no baseline none.json"),
        (["--max-size-growth", "1%", "--baseline", "profile.csv"], "is not a baseline"),
        (["--max-size-growth", "1%", "--baseline", "assignment.json"], "mpsearch.baseline"),
        (["--max-size-growth", "1%", "--baseline", "."], "is not a baseline"),
    ],
)
def test_what_is_no_comparison(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    capsys.readouterr()
    assert run(["gate", "--baseline", "main.json", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2


def changed(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("version", value=2), "has version 2"),
        (changed("version", value="\x1b[31m"), "has version '\\x1b[31m'"),
        (changed("totals", value=None), "damaged"),
        (changed("totals", "size_bytes", value="big"), "totals['size_bytes']: got 'big'"),
        (changed("totals", "size_bytes", value=float("nan")), "no number of JSON"),
        (changed("totals", "size_bytes", value=-1), "expected a number from 0 to"),
        (changed("totals", "bops", value=True), "expected a finite number"),
        (changed("totals", "bops", value=float("inf")), "no number of JSON"),
        (changed("device", "steady", value=float("nan")), "no number of JSON"),
        (changed("digests", value=[]), "damaged"),
        (changed("layers", value=[]), "damaged"),
        (changed("layers", "one", "bits", value="w4"), "damaged"),
        (changed("layers", "one", "weights", value=-1), "layers['one'].weights: got -1"),
        (changed("digests", "layers", value=3), "damaged"),
        (changed("accuracy", "row", "n", value=10**9), "damaged"),
        (changed("accuracy", "row", "n", value=-1), "damaged"),
        (changed("accuracy", "row", "accuracy", value=float("nan")), "no number of JSON"),
        (changed("accuracy", "row", "correct", value="!"), "damaged"),
        (changed("accuracy", "row", "correct", value=base64.b64encode(b"\0" * 125).decode()),
         "is not that of its samples"),
        (changed("accuracy", "data", value=None), "damaged"),
    ],
)  # fmt: skip
def test_a_damaged_baseline_is_an_error(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    document = json.loads(Path("main.json").read_text())
    change(document)
    Path("main.json").write_text(json.dumps(document))
    capsys.readouterr()
    assert run(["gate", "--baseline", "main.json", "--max-drop-baseline", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2
    assert "internal" not in error


def test_a_baseline_needs_something_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["gate", "--update-baseline", "main.json"]) == 2
    assert "nothing to write a baseline from" in capsys.readouterr().err
    assert not Path("main.json").exists()


def test_a_contradiction_becomes_no_baseline(folder: Path) -> None:
    Assignment(CHOSEN, totals={"size_bytes": 1, "bops": 1}).save("assignment.json")
    assert run(["gate", "--update-baseline", "new.json"]) == 2
    assert not Path("new.json").exists()


def test_a_table_without_weights_is_compared_by_names(folder: Path) -> None:
    Path("profile.csv").write_text(TABLE)
    assert run(["gate", "--baseline", "main.json", "--max-size-growth", "0%"]) == 0
