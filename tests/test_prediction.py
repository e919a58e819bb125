"""What a profile will take: predicted from a part of it, on a clock that counts work done."""

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mpsearch
from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.post_training.quantizing import work_of
from mpsearch.profiling.prediction import predict, tried_layers
from mpsearch.profiling.profile import ProfileSettings, study_of
from mpsearch.running.journal import Journal
from mpsearch.sensitivity import cells, study
from mpsearch.sensitivity.study import Scores, Study

pytestmark = pytest.mark.usefixtures("coarsest_scales")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Seconds by what was called: each pass, each rerun, each range, each layer's rounding."""
    now = [0.0]

    def costs(owner: Any, name: str, seconds: Callable[..., float]) -> None:
        function = getattr(owner, name)

        def counted(*args: Any, **more: Any) -> Any:
            now[0] += seconds(*args)
            return function(*args, **more)

        monkeypatch.setattr(owner, name, counted)

    costs(PartialForward, "run", lambda engine, inputs: 0.2)
    costs(PartialForward, "rerun", lambda engine, layer, *_: 1.0)
    costs(study, "choose_quantizers", lambda network, *_: 4 + 2 * len(network.layers))
    costs(study, "calibrate", lambda *_: 1.5)
    costs(cells, "rounded_weights", lambda study, layer, *_: 3e-9 * work_of(layer))
    return lambda: now[0]


def _network(widths: tuple[int, ...], samples: int) -> tuple[Network, Data]:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    x = torch.randn(samples, widths[0])
    return Network.from_module(nn.Sequential(*layers[:-1]), (x[:1],)), Data("test", (x,), None)


@pytest.mark.parametrize(
    ("widths", "samples"),
    [
        ((8,) * 13, 96),  # alike
        ((6, 6, 6, 700, 6, 6, 6, 6), 64),  # two that take far more than all others
        ((8, 8), 64),  # one layer
        ((8, 8, 8, 8), 20),  # one batch
    ],
)
def test_a_part_tells_what_the_whole_takes(
    widths: tuple[int, ...], samples: int, clock: Callable[[], float]
) -> None:
    network, data = _network(widths, samples)
    settings = ProfileSettings(choices=(mpsearch.Choice(2, 8), mpsearch.Choice(4, 4)))
    profiler, whole = study_of(network, data, settings)
    found = predict(profiler, whole, clock)
    tried = clock()
    profiler, whole = study_of(network, data, settings)  # with nothing kept from the trial
    with Journal(None, "") as journal:
        profiler.score(whole, journal, lambda: None)
    took = clock() - tried
    assert found.seconds == pytest.approx(took, rel=0.15)
    assert (found.tried, found.of) == (len(tried_layers(network.layers)), len(widths) - 1)
    if len(widths) > 12:
        assert tried < 0.7 * took
    assert found.more_bytes >= 0


def test_layers_that_take_far_more_are_not_tried() -> None:
    network, _ = _network((6, 6, 6, 700, 700, 6, 6, 6, 6), 2)
    tried = tried_layers(network.layers)
    assert max(layer.weights for layer in tried) < 700 * 700
    assert (tried[0], tried[-1]) == (network.layers[0], network.layers[-1])
    assert len(tried_layers(network.layers[:1])) == 1


class _Steps:
    """A metric of others: 40 steps of 3 s, the first of 10 s."""

    name, description = "steps", ""

    def __init__(self) -> None:
        self.now, self.made = 0.0, 0

    def steps(self, study: Study) -> int:
        return 40

    def score(self, study: Study, journal: Journal, step: Callable[[], None]) -> Scores:
        for number in range(40):
            self.now += 3.0 if number else 10.0
            self.made += 1
            step()
        return {}

    def notes(self, study: Study) -> Mapping[str, object]:
        return {}


def test_other_metrics_are_counted_in_their_steps() -> None:
    network, data = _network((4, 4), 64)
    _, whole = study_of(network, data, ProfileSettings())
    metric = _Steps()
    found = predict(metric, whole, lambda: metric.now)
    assert found.seconds == pytest.approx(10 + 39 * 3)
    assert metric.made == found.tried == 2
    assert found.at_most  # more steps than batches and layers: it may end when it is sure enough


@pytest.mark.parametrize("metric", ["sqnr", "fisher"])
def test_a_dry_run_tells_and_writes_nothing(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    mpsearch.save(model, "model.pt", (x[:1],), {"x0": x, "y": torch.arange(64) % 3})
    assert run(["profile", "model.pt", "--dry-run", "--metric", metric]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"profiling model.pt with {metric} takes about ")
    assert second.endswith(" s; nothing was written)")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert run(["profile", "model.pt", "--dry-run", "--metric", metric, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["seconds"] > 0
    assert document["peak_memory_bytes"] > 2**20
    assert document["tried"] <= document["of"]
