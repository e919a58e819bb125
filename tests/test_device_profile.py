"""device.json: what is saved is loaded, and what could not have been measured is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_profiles import ON_BOARD, PROFILE
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.device.profile import (
    DeviceProfile,
    Mode,
    State,
    device_latency,
    load_device_profile,
    save_device_profile,
    to_document,
)
from mpsearch.errors import InputError

NOTHING = replace(
    PROFILE, process=None, cold=None, energy=None, before=State(None, None, None, None)
)


@pytest.mark.parametrize("profile", [PROFILE, NOTHING, ON_BOARD])
def test_a_profile_is_loaded_as_it_was_saved(profile: DeviceProfile, tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    save_device_profile(profile, path)
    assert load_device_profile(path) == profile
    document = json.loads(path.read_text())
    assert (document["format"], document["version"]) == ("mpsearch.device", 1)


def test_a_file_without_energy_is_one_that_was_measured_without(tmp_path: Path) -> None:
    document = to_document(PROFILE)
    del document["energy"]
    (tmp_path / "device.json").write_text(json.dumps(document))
    assert load_device_profile(tmp_path / "device.json").energy is None


def _set(document: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for key in path:
        document = document[key]
    if value is ...:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", "mpsearch.front", "is not a device.json"),
        ("version", 2, "has version 2; this mpsearch reads 1"),
        ("steady.median_s", "0.1", "steady.median_s: got '0.1'; expected a number"),
        ("steady.median_s", True, "steady.median_s: got True"),
        ("steady.median_s", math.nan, "NaN, which is no number"),
        ("steady.median_s", 10**400, "a number of 401 digits"),
        ("steady.median_s", 0.0, "expected a positive number"),
        ("steady.minimum_s", -0.1, "steady.minimum_s: got -0.1; expected no negative number"),
        ("steady.minimum_s", 0.5, "steady: minimum, median, p90 and p99 are out of order"),
        ("process.latency.p99_s", 0.001, "process.latency: minimum"),
        ("steady", [1], "steady: got [1]; expected an object"),
        ("steady.mean_s", 1.0, "steady.'mean_s' is unknown"),
        ("steady.runs", ..., "steady.runs is missing"),
        ("steady.runs", 2.0, "steady.runs: got 2.0; expected a whole number"),
        ("machine", ..., "machine is missing"),
        ("machine.cores", 0, "machine.cores: got 0"),
        ("host", "\x1b[2J", "host: got '\\x1b[2J'; expected one line of printable text"),
        ("host", "x" * 2001, "expected one line"),
        ("invalid", "hot", "invalid: got 'hot'; expected a list"),
        ("invalid", [1], "invalid[0]: got 1; expected a text"),
        ("emulated", 1, "emulated: got 1; expected true or false"),
        ("launch_prefix", ["qemu-aarch64"], "expected true beside a launch_prefix"),
        ("network", "sha256:1", "network: expected sha256: and 64 digits"),
        ("energy.samples", -1, "energy.samples: got -1"),
        ("checked_samples", 0, "checked_samples: got 0"),
    ],
)
def test_a_file_that_no_run_wrote_is_refused(
    name: str, value: Any, message: str, tmp_path: Path
) -> None:
    document = to_document(PROFILE)
    document = json.loads(json.dumps(document))
    _set(document, name, value)
    path = tmp_path / "device.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as refused:
        load_device_profile(path)
    assert message in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2


@pytest.mark.parametrize("content", ["", "[" * 100_000, "[]", "null", "\0", "{} {}", " " * 2**21])
def test_what_is_no_document_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "device.json").write_text(content)
    with pytest.raises(InputError, match=r"device\.json"):
        load_device_profile(tmp_path / "device.json")
    with pytest.raises(InputError, match="mpsearch device run"):
        load_device_profile(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is not a device"):
        load_device_profile(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(to_document(PROFILE))), JSON)
def test_any_value_in_any_place_is_loaded_or_refused(name: str, value: Any) -> None:
    import tempfile

    document = to_document(PROFILE) | {name: value}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "device.json")
        path.write_text(json.dumps(document))
        try:
            loaded = load_device_profile(path)
        except InputError:
            return
        save_device_profile(loaded, path)
        assert load_device_profile(path) == loaded


@pytest.mark.parametrize(
    ("mode", "seconds"), [("process", 0.012), ("cold", 0.0005 + 0.009), ("steady", 0.0071)]
)
def test_latency_is_that_of_one_mode(mode: Mode, seconds: float) -> None:
    assert device_latency(PROFILE, mode) == seconds
    without = replace(PROFILE, process=None, cold=None, steady=None)
    with pytest.raises(InputError, match=f"has no {mode} runs"):
        device_latency(without, mode)


def test_emulated_and_invalid_profiles_have_no_device_latency() -> None:
    with pytest.raises(InputError, match="obtained under emulation, refused as device latency"):
        device_latency(replace(PROFILE, emulated=True))
    with pytest.raises(InputError, match="is invalid: throttled"):
        device_latency(replace(PROFILE, invalid=("throttled",)))
