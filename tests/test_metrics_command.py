"""`mpsearch metrics` lists what `profile` and `evaluate` take, and what plug-ins add."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import measuring
import pytest
import torch

from mpsearch.cli import run
from mpsearch.data import bind
from mpsearch.errors import InputError
from mpsearch.evaluation.metric_choice import NAMES
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.profiling.profile import GROUP
from mpsearch.running import plugins
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.study import Profiler, Study
from mpsearch.tables.choice import Choice


def test_both_kinds_are_listed_and_a_broken_plug_in_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = plugins.installed(GROUP)
    theirs = {"theirs": EntryPoint("theirs", "no_such_module:METRIC", GROUP)}
    monkeypatch.setattr(plugins, "installed", lambda group: own | theirs)
    assert run(["metrics", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    of_layers = {row["name"]: row for row in document["sensitivity"]}
    assert {*of_layers} == {*own, "theirs"}
    assert "cannot be loaded: ModuleNotFoundError" in of_layers.pop("theirs")["description"]
    for row in of_layers.values():
        assert row["labels"] in ("needed", "used if there", "not used")
        assert all(row.values())
    evaluation = {row["name"]: row["compares_with"] for row in document["evaluation"]}
    assert tuple(evaluation) == NAMES
    assert [name for name, what in evaluation.items() if what == "FP32"] == [
        "agreement", "kl", "sqnr"
    ]  # fmt: skip
    assert run(["metrics"]) == 0
    first, second = capsys.readouterr().out.split("of evaluations:")
    assert all(f"  {name} " in first for name in [*own, "theirs"])
    assert all(f"  {name} " in second for name in NAMES)


def test_what_is_said_of_labels_is_so(tmp_path: Path) -> None:
    """Metrics that do not use labels do not see other ones; of all others but `needed`, none
    is missed."""
    module = measuring.build()
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    network = Network.from_module(module, (inputs[:2],))
    choices = (Choice(4, 8), Choice(8, 8))

    def omega(metric: Profiler, labels: torch.Tensor | None) -> list[float]:
        arrays = {"x0": inputs} if labels is None else {"x0": inputs, "y": labels}
        data = bind(Arrays("x", arrays), network)
        assert data.loss is not None
        study = Study(network, data, data.loss, choices, 16, 0, rtol=0.5, max_probes=4)
        with Journal(tmp_path / "x.csv", "sha256:0") as journal:
            scores = metric.score(study, journal, lambda: None)
            journal.discard()
        return [score.omega for score in scores.values()]

    for name in {*plugins.installed(GROUP)} - {"pyhessian"}:  # an optional package
        metric: Any = plugins.load(GROUP, name, "metric")
        said = metric.labels
        if said == "needed":
            with pytest.raises(InputError, match="needs labels"):
                omega(metric, None)
        elif said == "not used":
            assert omega(metric, torch.arange(16) % 4) == omega(metric, torch.arange(16) // 4)
        else:
            assert max(omega(metric, None)) > 0
