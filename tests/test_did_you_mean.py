"""A misspelt name is answered with the one that was meant, whatever it is the name of."""

from pathlib import Path

import pytest
import tables

from mpsearch.cli import run
from mpsearch.errors import did_you_mean


def test_the_nearest_word_is_named_and_nothing_where_none_is_near() -> None:
    words = ["conv1", "Conv2", "head"]
    assert did_you_mean("convv1", words) == "; did you mean 'conv1'?"
    assert did_you_mean("CONV2x", words) == "; did you mean 'Conv2'?"
    assert did_you_mean("zzz", words) == did_you_mean("conv1", []) == ""
    assert did_you_mean("conv1" * 10**6, words) == did_you_mean("c", ["c" * 10**6]) == ""


CASES = {
    "command": ("sovle", "solve"),
    "command of a group": ("data biuld", "build"),
    "option": ("solve --sise 5KB", "--size"),
    "choice of an option": ("apply model.pt --rounding adaptve", "adaptive"),
    "choice of a command in a group": ("device run x --compile devise", "device"),
    "layer of a pin": ("solve --pin comv1=w8a8", "conv1"),
    "layer of an exclude": ("solve --exclude comv1=w8a8", "conv1"),
    "layer of an allow": ("solve --allow comv1=w8a8", "conv1"),
    "layer of what-if": ("explain --what-if comv1=w8a8", "conv1"),
    "column": ("solve --limit size_byte=5KB", "size_bytes"),
    "column of a peak": ("solve --limit max:bop=5", "bops"),
    "column to minimise": ("solve --minimize size_byte", "size_bytes"),
    "column of a front": ("front --resource bop", "bops"),
    "solver": ("solve --solver lagrangan", "lagrangian"),
    "table": ("solve profle.csv", "profile.csv"),
    "table in a folder": ("solve runs/profle.csv", "runs/profile.csv"),
    "assignment": ("explain asignment.json", "assignment.json"),
    "model": ("convert modle.pt -o x.pt", "model.pt"),
    "data": ("train resnet8 --data cifar1", "cifar10"),
    "bundled network": ("train resnet08", "resnet8"),
    "dataset's config": ("data build dta.toml -o x", "data.toml"),
    "target": ("solve --ram 5KB --target cortex-m04", "cortex-m4"),
}


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_of_name(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tables.hand_table(tmp_path)
    (tmp_path / "runs").mkdir()
    tables.hand_table(tmp_path / "runs")
    for name in ("model.pt", "data.toml"):
        (tmp_path / name).touch()
    assert run(["solve"]) == 0
    capsys.readouterr()
    call, meant = CASES[kind]
    assert run(call.split()) == 2
    said = capsys.readouterr().err
    assert f"did you mean '{meant}'?" in said.lower()
