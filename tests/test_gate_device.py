"""The gate's conditions on a stored device profile, at their limits and where they are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_profiles import ON_BOARD, PROFILE

from mpsearch.cli import run
from mpsearch.device.power import manual
from mpsearch.device.profile import save_device_profile
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import network_digest

CHOSEN = {"one": Choice(4, 4), "two": Choice(8, 8)}
BY_EYE = manual("manual:2700,3498", "2700,3498").energy()
MEASURED = replace(PROFILE, network=network_digest(CHOSEN))
COUNTED = replace(ON_BOARD, network=MEASURED.network)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Assignment(CHOSEN).save("assignment.json")
    save_device_profile(MEASURED, "device.json")
    return tmp_path


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        (["--max-latency", "7.1ms"], 0),
        (["--max-latency", "7.0999ms"], 1),
        (["--max-latency", "0.0071"], 0),
        (["--max-latency", "12ms", "--latency-mode", "process"], 0),
        (["--max-latency", "11.9ms", "--latency-mode", "process"], 1),
        (["--max-latency", "9.6ms", "--latency-mode", "cold"], 0),  # 0.5 and 9 ms
        (["--max-latency", "9.4ms", "--latency-mode", "cold"], 1),
        (["--max-peak-memory", "2000000B"], 0),
        (["--max-peak-memory", "1.9MB"], 1),  # 1,992,294 B
        (["--max-energy", "6mJ"], 0),
        (["--max-energy", "5.99mJ"], 1),
        (["--max-latency", "8ms", "--max-energy", "5mJ"], 1),
    ],
)
def test_each_condition_passes_at_its_limit_and_fails_beyond(
    folder: Path, condition: list[str], code: int
) -> None:
    assert run(["gate", *condition]) == code


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"emulated": True}, ["--max-latency", "1s"], "obtained under emulation"),
        ({"emulated": True}, ["--max-peak-memory", "1GB"], "obtained under emulation"),
        ({"invalid": ("throttled",)}, ["--max-energy", "1J"], "is invalid: throttled"),
        ({"network": "sha256:" + "0" * 64}, ["--max-latency", "1s"], "of another assignment"),
        ({"steady": None}, ["--max-latency", "1s"], "has no steady runs"),
        ({"process": None}, ["--max-peak-memory", "1GB"], "has no peak memory"),
        ({"energy": None}, ["--max-energy", "1J"], "has no energy"),
        ({"energy": BY_EYE}, ["--max-energy", "1J"], "has no joules"),
        (
            {"energy": None, "power_failure": "the meter stopped"},
            ["--max-energy", "1J"],
            "has no energy (the meter stopped)",
        ),
        (
            {},
            ["--max-instructions", "20M"],
            "has no instructions; count them with `mpsearch device",
        ),
        ({}, ["--max-latency", "5"], None),
        ({}, ["--max-latency", "5MB"], "expected a time such as 5ms"),
        ({}, ["--max-latency", "50%"], "relative to a table"),
        ({}, ["--max-peak-memory", "5"], "has no unit"),
        ({}, ["--max-latency", "1s", "--device-file", "none.json"], "no device profile none.json"),
    ],
)
def test_what_no_device_gave_is_an_error(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: list[str],
    message: str | None,
) -> None:
    save_device_profile(replace(MEASURED, **changes), "device.json")
    code = run(["gate", *words])
    printed = capsys.readouterr()
    if message is None:
        assert code == 0
        return
    assert code == 2
    assert message in printed.err
    assert len(printed.err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        (["--max-instructions", "20M"], 0),
        (["--max-instructions", "19.99M"], 1),
        (["--max-latency", "1s"], 2),
        (["--max-peak-memory", "1GB"], 2),
        (["--max-energy", "1J"], 2),
    ],
)
def test_an_emulated_board_gives_instructions_and_nothing_else(
    folder: Path, condition: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    save_device_profile(COUNTED, "device.json")
    assert run(["gate", *condition]) == code
    said = capsys.readouterr()
    assert ("instructions (emulated)" if code < 2 else "refused as device latency") in (
        said.out + said.err
    )


def test_instructions_are_compared_with_the_baseline_to_the_last_one(folder: Path) -> None:
    save_device_profile(COUNTED, "device.json")
    assert run(["gate", "--update-baseline", "main.json"]) == 0
    words = ["gate", "--baseline", "main.json", "--max-instructions-growth", "0%"]
    assert run(words) == 0
    assert COUNTED.board is not None
    more = replace(COUNTED.board, instructions=20_000_001)
    save_device_profile(replace(COUNTED, board=more), "device.json")
    assert run(words) == 1


def test_without_a_profile_the_message_names_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("device.json").unlink()
    assert run(["gate", "--max-latency", "1s"]) == 2
    assert "mpsearch device run" in capsys.readouterr().err


def test_a_profile_whose_network_is_not_checked_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("assignment.json").unlink()
    assert run(["gate", "--max-latency", "8ms", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["conditions"][0]["value"] == 0.0071
    assert any("was not checked" in note for note in document["notes"])


def test_the_order_of_layers_does_not_change_the_digest() -> None:
    assert network_digest(dict(reversed(CHOSEN.items()))) == MEASURED.network
    assert network_digest(CHOSEN | {"one": Choice(4, 8)}) != MEASURED.network
