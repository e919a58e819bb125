"""Energy from power samples: honest for meters of known energy, and no number from a bad meter."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_profiles import PROFILE
from simulated_meters import IDLE_MW, INFERENCES, LOAD_MW, FakeMeter, Setting, message_of

from mpsearch.device.energy import chance_of_seeing, energy_of, measure_energy
from mpsearch.device.power import PowerError, Sample, manual
from mpsearch.device.profile import Energy, load_device_profile, save_device_profile
from mpsearch.device.readings import Level, Window, difference, level_of, readings_of
from mpsearch.statistics import student_975

Change = Callable[[list[Sample]], list[Sample]]


def _energy(setting: Setting, seed: int = 0, change: Change = lambda samples: samples) -> Energy:
    samples = change(setting.samples(seed))
    return energy_of(samples, setting.idle, setting.run, INFERENCES, "simulated")


METERS = {
    "USB meter, 1 Hz, mean of each second": Setting(hz=1, averaging=True),
    "1 Hz, a moment of each second": Setting(hz=1, noise=40),
    "2 Hz, slow noise": Setting(hz=2, averaging=True, memory=0.5),
    "INA219, 10 Hz, steps of 20 mW": Setting(hz=10, averaging=True, step=20, noise=15),
    "10 Hz, noise that lasts half a second": Setting(hz=10, memory=0.5),
    "10 Hz, noise that lasts a second": Setting(hz=10, memory=1.0, noise=50),
    "100 Hz, noise that lasts 0.3 s": Setting(hz=100, memory=0.3, noise=100),
    "500 Hz, 20 s": Setting(hz=500, memory=0.1, noise=200, run_seconds=20),
}


@pytest.mark.parametrize("name", METERS)
def test_the_interval_covers_the_known_energy(name: str) -> None:
    setting = METERS[name]
    runs = int(200 / max(1, setting.hz / 20))
    random = np.random.default_rng(1)
    energies = [_energy(replace(setting, phase=random.random()), seed) for seed in range(runs)]
    errors = [energy.joules_per_inference - setting.joules for energy in energies]  # type: ignore[operator]
    halves = [energy.joules_half_width or 0.0 for energy in energies]
    covered = sum(abs(error) <= half for error, half in zip(errors, halves, strict=True))
    # 95 % less four standard deviations of the count: an honest interval fails once in 30,000
    assert covered >= 0.95 * runs - 4 * math.sqrt(0.95 * 0.05 * runs)
    # and it does not cover by being useless: within three of the spread that there really is
    assert np.mean(halves) < 3 * 2 * np.std(errors)
    # no bias: the mean error is within its own noise
    assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(runs)


def test_independent_samples_would_claim_too_much() -> None:
    """The error of s/√n covers far less: why it is not used."""
    setting = METERS["10 Hz, noise that lasts half a second"]
    covered = 0
    for seed in range(200):
        levels = []
        for window in (setting.run, setting.idle):
            power = readings_of(setting.samples(seed)).inside(window).milliwatts
            levels.append(Level(power.mean(), power.std(ddof=1) / math.sqrt(len(power)), 99))
        above = difference(*levels)
        covered += abs(above.mean - LOAD_MW) <= 1.96 * above.stderr
    assert covered < 0.7 * 200


def test_the_figures_of_a_quiet_meter_are_the_truth() -> None:
    energy = _energy(Setting(noise=1e-3, step=1e-6))
    assert energy.idle_mw == pytest.approx(IDLE_MW, abs=0.01)
    assert energy.mean_mw == pytest.approx(IDLE_MW + LOAD_MW, abs=0.01)
    assert energy.peak_minus_idle_mw == pytest.approx(LOAD_MW, abs=0.01)
    assert energy.joules_per_inference == pytest.approx(0.798 * 10 / 1250, rel=1e-5)
    assert energy.seconds == pytest.approx(10)
    assert energy.inferences == 1250
    assert energy.samples is not None
    assert 96 <= energy.samples <= 99
    assert energy.warnings == ()


def test_the_peak_is_the_largest_sample_of_the_run() -> None:
    setting = Setting(noise=5)

    def burst(samples: list[Sample]) -> list[Sample]:
        return [(t, p + 500 if n == 150 else p) for n, (t, p) in enumerate(samples)]

    plain, changed = _energy(setting), _energy(setting, change=burst)
    expected = max(p for t, p in burst(setting.samples()) if setting.run.start <= t)
    assert changed.peak_mw == expected
    assert changed.peak_mw > plain.peak_mw + 400
    assert changed.peak_minus_idle_mw == expected - changed.idle_mw


def test_uneven_samples_count_for_the_time_they_stand_for() -> None:
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0, 10, 40))
    power = 100 + 50 * np.sin(times)
    level = level_of(readings_of(zip(times.tolist(), power.tolist(), strict=True)))
    area = sum(
        (power[n] + power[n + 1]) / 2 * (times[n + 1] - times[n]) for n in range(len(times) - 1)
    )
    assert level.mean == pytest.approx(area / (times[-1] - times[0]))


def test_a_coarse_meter_is_not_taken_for_an_exact_one() -> None:
    """Levels that no noise carries over a step: the truth is inside the interval all the same."""
    for load in np.linspace(700, 900, 21).tolist():
        for step in (20.0, 50.0):
            setting = Setting(load=load, step=step, noise=step / 8)
            energy = _energy(setting)
            assert energy.joules_half_width is not None
            assert energy.joules_per_inference == pytest.approx(
                setting.joules, abs=energy.joules_half_width
            )
            assert energy.joules_half_width < 0.1 * 10 / INFERENCES  # 100 mW, as of a display


@pytest.mark.parametrize("freedom", [1, 1.7, 2, 3, 5.5, 9, 12.3, 18, 100])
def test_students_quantile(freedom: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)


@pytest.mark.parametrize(("aperture", "expected"), [(0.0, 0.10), (0.02, 0.08)])
def test_how_often_a_slow_meter_sees_a_short_burst(aperture: float, expected: float) -> None:
    """Against throwing bursts at a meter: whole aperture inside the burst."""
    assert chance_of_seeing(0.1, 1.0, aperture) == pytest.approx(expected)
    begin = np.random.default_rng(0).uniform(0, 1, 100_000)  # the sample is taken at 1 - 1 + k
    seen = ((begin <= 0.5) & (begin + 0.1 >= 0.5 + aperture)).mean()
    assert seen == pytest.approx(expected, abs=0.005)


def test_the_chance_is_a_chance() -> None:
    assert chance_of_seeing(5.0, 1.0) == 1.0
    assert chance_of_seeing(0.01, 1.0, 0.02) == 0.0


def test_a_slow_meter_and_short_windows_are_warned_of() -> None:
    slow = _energy(Setting(hz=1)).warnings
    assert any("every 1 s" in line and "10 % of runs" in line for line in slow)
    short = _energy(Setting(idle_seconds=3, run_seconds=4)).warnings
    assert [line for line in short if "only 3.0 s of idle" in line or "only 4.0 s of run" in line]
    assert len(short) == 2


def _cut(after: float) -> Change:
    """The meter dies so many seconds into the run."""
    end = Setting().run.start + after
    return lambda samples: [one for one in samples if one[0] < end]


def _hole(samples: list[Sample]) -> list[Sample]:
    start = Setting().run.start
    return [one for one in samples if not start + 4 < one[0] < start + 6]


def _freeze(samples: list[Sample]) -> list[Sample]:
    start = Setting().run.start + 5
    last = next(p for t, p in samples if t >= start)
    return [(t, last if t >= start else p) for t, p in samples]


def _one(value: float, at: int = 150) -> Change:
    return lambda samples: [(t, value if n == at else p) for n, (t, p) in enumerate(samples)]


def _scaled(factor: float) -> Change:
    return lambda samples: [(t, factor * p) for t, p in samples]


def _shifted(seconds: float) -> Change:
    return lambda samples: [(t + seconds, p) for t, p in samples]


def _backwards(samples: list[Sample]) -> list[Sample]:
    return [(t - 3600 if n > 160 else t, p) for n, (t, p) in enumerate(samples)]


LONG = Setting(before=17)
FAULTS: dict[str, tuple[Setting, Change, str]] = {
    "nothing": (Setting(), lambda samples: [], "gave no sample"),
    "dies midway": (Setting(), _cut(4.2), "no sample for 5.9 s of the run"),
    "dies in the idle time": (Setting(), _cut(-3), "no sample for 2.7 s of the idle time"),
    "a hole": (Setting(), _hole, "no sample for 2.1 s of the run"),
    "one sample a minute": (Setting(hz=1 / 60), lambda samples: samples, "samples in the 10.0 s"),
    "0.4 Hz": (Setting(hz=0.4, noise=5), lambda samples: samples, "samples in the"),
    "stops updating": (Setting(), _freeze, "times in a row"),
    "always the same": (Setting(), lambda s: [(t, 3e3) for t, _ in s], "in a row"),
    "jumps up": (Setting(), _one(65_535.0), "1 of 100 samples jump, the first to 65535 mW"),
    "drops to zero": (Setting(), _one(0.0), "1 of 100 samples jump, the first to 0 mW"),
    "jumps while idle": (Setting(), _one(65_535.0, 60), "s into the idle time"),
    "one negative": (Setting(), _one(-2700.0), "samples jump, the first to -2700 mW"),
    "turned round": (Setting(), _scaled(-1), "turn the meter round"),
    "watts": (Setting(), _scaled(1e-3), "is it another unit?"),
    "microwatts": (Setting(), _scaled(1e3), "is it another unit?"),
    "an hour off": (Setting(), _shifted(3600), "do not overlap"),
    "an hour late": (Setting(), _shifted(-3600), "do not overlap"),
    "4 s off": (LONG, _shifted(4), "change offset by -4.0"),
    "4 s late": (LONG, _shifted(-4), "change offset by +4.0"),
    "11 s late": (LONG, _shifted(-11), "may be nothing"),
    "clock set": (Setting(), _backwards, "goes back by 3599.9 s"),
    "no load": (Setting(load=0), lambda samples: samples, "may be nothing"),
    "less than idle": (Setting(load=-500), lambda samples: samples, "may be nothing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_meter_gives_no_number(name: str) -> None:
    setting, change, message = FAULTS[name]
    assert message in message_of(lambda: _energy(setting, change=change))


@pytest.mark.parametrize("hz", [1, 10])
@pytest.mark.parametrize("before", [0, 17])
def test_a_wrong_clock_never_gives_a_wrong_number(hz: float, before: float) -> None:
    """Any difference of the clocks: the energy within 3 %, or none at all; also where something
    else ran for 17 s until 2 s before the idle time."""
    setting = Setting(hz=hz, noise=15, before=before)
    believed = []
    for quarter in range(-80, 81):
        seconds = quarter / 4
        try:
            energy = _energy(setting, change=_shifted(seconds))
        except PowerError:
            continue
        believed.append(seconds)
        assert energy.joules_per_inference == pytest.approx(setting.joules, rel=0.03)
        if abs(seconds) > 2 / hz:
            assert any("the power follows the run" in line for line in energy.warnings)
    assert {-1, 0, 1} <= set(believed)
    assert max(map(abs, believed)) <= 4


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        (Setting(hz=10, step=20, noise=25), lambda samples: samples),  # coarse
        (Setting(hz=1, averaging=True, load=30_000), lambda samples: samples),  # twelve times idle
        (Setting(hz=10, step=50, noise=2), lambda samples: samples),  # so coarse that it is still
        (Setting(hz=1, step=50, noise=2), lambda samples: samples),
        (Setting(hz=10), lambda s: [(t, s[n - n % 10][1]) for n, (t, _) in enumerate(s)]),  # asked
        (Setting(hz=100), lambda s: [(math.floor(t), p) for t, p in s]),  # clock of whole seconds
        (Setting(hz=100), lambda s: [(t - 0.02 * (n % 4 == 0), p) for n, (t, p) in enumerate(s)]),
    ],
    ids=[
        "coarse", "a large step", "still", "still at 1 Hz", "asked too often", "whole seconds",
        "packets",
    ],
)  # fmt: skip
def test_odd_meters_that_measure_are_believed(setting: Setting, change: Change) -> None:
    energy = _energy(setting, change=change)
    assert energy.joules_per_inference == pytest.approx(setting.joules, rel=0.05)


def test_a_weak_load_says_that_the_clocks_cannot_be_checked() -> None:
    energy = _energy(Setting(load=40, noise=60))
    assert any("not clear enough" in line for line in energy.warnings)


def test_a_weak_load_and_another_clock_give_no_number() -> None:
    setting = Setting(load=40, noise=60)
    text = message_of(
        lambda: energy_of(setting.samples(), setting.idle, setting.run, 9, "x", same_clock=False)
    )
    assert "to see whether the clocks agree" in text


@pytest.mark.parametrize("slowness", [0.2, 0.5, 0.9])
def test_a_slow_meter_is_waited_for(slowness: float) -> None:
    """A display that follows with a time constant: what is not settled yet is left out."""
    setting = Setting(noise=5)

    def smooth(samples: list[Sample]) -> list[Sample]:
        value, keep, shown = samples[0][1], math.exp(-0.1 / slowness), []
        for t, power in samples:
            value = keep * value + (1 - keep) * power
            shown.append((t, value))
        return shown

    energy = _energy(setting, change=smooth)
    assert energy.joules_per_inference == pytest.approx(setting.joules, rel=0.01)
    assert any("the power follows the run" in line for line in energy.warnings)


def test_an_idle_power_that_drifts_is_told() -> None:
    setting = Setting(load=100, noise=10)

    def drift(samples: list[Sample]) -> list[Sample]:
        return [(t, p + 3 * (t - setting.idle.start)) for t, p in samples]

    (told,) = _energy(setting, change=drift).warnings
    assert "the idle power drifts by +" in told
    assert _energy(setting).warnings == ()


def test_a_run_without_inferences_is_refused() -> None:
    setting = Setting()
    text = message_of(lambda: energy_of(setting.samples(), setting.idle, setting.run, 0, "x"))
    assert "0 inferences" in text
    empty = Window(setting.run.end, setting.run.end)
    assert "in 0.0 s" in message_of(lambda: energy_of([], setting.idle, empty, 9, "x"))


def test_measuring_calls_the_loop_after_the_idle_time() -> None:
    events: list[str] = []
    running = [math.inf, math.inf]

    def loop(seconds: float) -> tuple[float, float, int]:
        events.append(f"run {seconds:g}")
        running[0] = time.time()
        time.sleep(seconds)
        running[1] = time.time()
        return running[0], running[1], 40

    def sleep(seconds: float) -> None:
        events.append(f"idle {seconds:g}")
        time.sleep(seconds)

    random = np.random.default_rng(0)

    def power(at: float) -> float:
        busy = running[0] <= at <= running[1]
        return 2000 + 500 * busy + float(random.normal(0, 5))

    energy = measure_energy(FakeMeter(power, 50, notes=("look",)), loop, 1.0, 1.2, sleep)
    assert events == ["idle 1", "run 1.2"]
    seconds = running[1] - running[0]
    assert energy.seconds == pytest.approx(seconds)
    assert energy.joules_per_inference == pytest.approx(0.5 * seconds / 40, rel=0.02)
    assert energy.source == "fake"
    assert energy.warnings[0] == "look"


def _never(seconds: float) -> tuple[float, float, int]:
    raise AssertionError(f"nothing is to run for {seconds} s")


def test_numbers_read_by_eye_claim_no_joules(tmp_path: Path) -> None:
    energy = measure_energy(manual("manual:2700,3498", "2700,3498"), _never)
    assert energy.peak_minus_idle_mw == 798  # as the paper has it
    assert (energy.joules_per_inference, energy.mean_mw, energy.samples) == (None, None, None)
    assert any("no joules" in line for line in energy.warnings)
    profile = replace(PROFILE, energy=energy)
    save_device_profile(profile, tmp_path / "device.json")
    assert load_device_profile(tmp_path / "device.json") == profile


def test_a_measured_energy_is_stored_whole(tmp_path: Path) -> None:
    profile = replace(PROFILE, energy=_energy(Setting(hz=1)))
    save_device_profile(profile, tmp_path / "device.json")
    assert load_device_profile(tmp_path / "device.json") == profile
