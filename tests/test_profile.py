"""Profiles: right numbers, repeatable to the byte, nothing lost in a kill, nothing mixed."""

import contextlib
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dense_hessian
import networks
import pytest
import tables
import torch
from torch import nn
from torch.nn import functional

from mpsearch.cli import run
from mpsearch.commands.console import progress
from mpsearch.commands.profile import next_command
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.profiling.profile import ProfileSettings, Progress, parse_choices, profile
from mpsearch.quantization.packing import layer_bytes
from mpsearch.quantization.quantizer import quantize_weight
from mpsearch.running.journal import Journal
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import load_provenance

METRICS = ("hessian", "empirical")


def _study(name: str, samples: int = 12) -> tuple[Network, Data]:
    model, inputs, labels = networks.build(name, samples=samples)
    return Network.from_module(model, inputs), Data("test", inputs, labels)


def test_hessian_omega_is_trace_over_n_times_squared_error(tmp_path: Path) -> None:
    """From the dense Hessian and the dequantized weights, for every layer and choice."""
    network, data = _study("residual")
    choices = (Choice(2, 8), Choice(4, 4), Choice(8, 8))
    settings = ProfileSettings(metric="hessian", choices=choices, batch_size=5)
    table = profile(network, data, tmp_path / "p.csv", settings, progress)
    provenance = table.provenance
    assert data.labels is not None
    for layer in network.layers:
        block = dense_hessian.block(
            network.graph, layer.weight_name, data.inputs, data.labels
        ).double()
        rows, _ = network.weight_rows(layer)
        for choice in choices:
            error = (quantize_weight(rows, choice.w_bits).dequantize() - rows).square().sum()
            expected = float(block.trace() / layer.weights * error)
            row = table.row_of(layer.name, choice)
            assert table.omega[row] == pytest.approx(expected, rel=1e-4)
            assert table.resources["size_bytes"][row] == layer_bytes(layer, choice)
            assert table.resources["bops"][row] == layer.macs * choice.w_bits * choice.a_bits
    assert provenance["metric_notes"]["estimated_traces"] == []


def test_smooth_layers_are_estimated_with_a_standard_error(tmp_path: Path) -> None:
    network, data = _study("smooth")
    table = profile(
        network,
        data,
        tmp_path / "p.csv",
        ProfileSettings(metric="hessian", rtol=0.01, max_probes=64),
        progress,
    )
    provenance = table.provenance
    assert provenance["metric_notes"]["estimated_traces"] == ["first"]
    assert provenance["metric_notes"]["exact_traces"] == ["second"]
    assert table.omega_stderr[table.row_of("first", Choice(4, 4))] > 0
    assert table.omega_stderr[table.row_of("second", Choice(4, 4))] == 0


def test_empirical_omega_is_the_loss_increase_of_one_layer(tmp_path: Path) -> None:
    """With float activations, so that the oracle is the module with one weight replaced."""
    model, inputs, labels = networks.build("smooth", samples=12)
    network, data = Network.from_module(model, inputs), Data("test", inputs, labels)
    settings = ProfileSettings(
        metric="empirical", choices=(Choice(2, 32),), batch_size=5,
        rounding="nearest", correct_bias=False,
    )  # fmt: skip
    table = profile(network, data, tmp_path / "p.csv", settings, progress)
    with torch.no_grad():
        before = functional.cross_entropy(model(*inputs), labels)
        for name in ("first", "second"):
            weight = model.get_parameter(f"{name}.weight")
            rounded = quantize_weight(weight, 2).dequantize()
            logits = torch.func.functional_call(model, {f"{name}.weight": rounded}, inputs)
            increase = float(functional.cross_entropy(logits, labels) - before)
            omega = float(table.omega[table.row_of(name, Choice(2, 32))])
            assert omega == pytest.approx(max(0.0, increase), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_without_labels_the_provenance_says_so(metric: str, tmp_path: Path) -> None:
    network, data = _study("two-inputs")
    unlabelled = Data("test", data.inputs, None)
    settings = ProfileSettings(metric=metric)
    table = profile(network, unlabelled, tmp_path / "p.csv", settings, progress)
    provenance = table.provenance
    assert provenance["labels"] is False
    assert provenance["loss"] == "kl-to-fp32"
    assert (table.omega > 0).any()


@pytest.mark.parametrize("metric", METRICS)
def test_equal_inputs_give_equal_bytes(metric: str, tmp_path: Path) -> None:
    network, data = _study("smooth")
    for name in ("a", "b"):
        settings = ProfileSettings(metric=metric, samples=8)
        profile(network, data, tmp_path / f"{name}.csv", settings, progress)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_network_and_torchs_random_state_come_back_unchanged(tmp_path: Path) -> None:
    network, data = _study("smooth")
    digest, state = network.digest, torch.random.get_rng_state()
    for metric in METRICS:
        profile(network, data, tmp_path / "p.csv", ProfileSettings(metric=metric), progress)
    assert torch.equal(torch.random.get_rng_state(), state)
    fresh = Network(**{f: getattr(network, f) for f in network.__dataclass_fields__})
    assert fresh.digest == digest
    assert not any(t.requires_grad for t in network.graph.state_dict().values())


class _Interrupted(Exception):
    pass


def _stops_after(steps: int) -> Progress:
    """A progress bar that stands for Ctrl-C after some steps."""

    @contextlib.contextmanager
    def bar(description: str, total: int) -> Iterator[Callable[[], None]]:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if done == steps:
                raise _Interrupted

        yield step

    return bar


@pytest.mark.parametrize("metric", METRICS)
def test_an_interrupted_run_goes_on_and_gives_the_same_table(metric: str, tmp_path: Path) -> None:
    network, data = _study("smooth")
    settings = ProfileSettings(metric=metric, batch_size=4)
    whole = profile(network, data, tmp_path / "whole.csv", settings, progress)
    with pytest.raises(_Interrupted):
        profile(network, data, tmp_path / "p.csv", settings, _stops_after(2))
    assert not (tmp_path / "p.csv").exists()
    resumed = profile(network, data, tmp_path / "p.csv", settings, progress)
    provenance = resumed.provenance
    assert provenance["resumed_pieces"] == 2
    assert resumed.digest == whole.digest
    assert not list(tmp_path.glob(".p.csv.*"))


@pytest.mark.parametrize("change", ["model", "data", "seed", "batch"])
def test_a_changed_run_never_reads_another_runs_pieces(change: str, tmp_path: Path) -> None:
    network, data = _study("smooth")
    settings = ProfileSettings(metric="empirical", batch_size=4)
    with pytest.raises(_Interrupted):
        profile(network, data, tmp_path / "p.csv", settings, _stops_after(2))
    if change == "model":
        model, inputs, _ = networks.build("smooth", seed=5)
        network = Network.from_module(model, inputs)
    elif change == "data":
        data = Data("test", tuple(x + 1e-3 for x in data.inputs), data.labels)
    elif change == "seed":
        settings = ProfileSettings(metric="empirical", batch_size=4, seed=1)
    else:
        settings = ProfileSettings(metric="empirical", batch_size=3)
    provenance = profile(network, data, tmp_path / "p.csv", settings, progress).provenance
    assert provenance["resumed_pieces"] == 0
    assert len(list(tmp_path.glob(".p.csv.*.partial"))) == 1  # the other run's, still there


# `mpsearch profile`, killed by kill -9 when its third finished piece is on the disk.
KILLED = """
import os, signal, sys
from mpsearch.cli import run
from mpsearch.running.journal import Journal
put, done = Journal.put, []
def counted(self, key, value):
    put(self, key, value)
    done.append(key)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.put = counted
run(sys.argv[1:])
"""


def test_a_killed_process_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 in the middle of `mpsearch profile`, then the same command again."""
    model, inputs, labels = networks.build("residual", samples=40)
    save(model, tmp_path / "m.pt", inputs, {"x0": inputs[0], "y": labels})
    monkeypatch.chdir(tmp_path)
    command = ["profile", "m.pt", "--metric", "empirical", "--batch-size", "8", "--json"]
    command += ["--rounding", "nearest", "--no-bias-correction", "-o", "p.csv"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "p.csv").exists()
    assert run(command) == 0
    provenance = json.loads(capsys.readouterr().out)["provenance"]
    assert (provenance["resumed_pieces"], provenance["model_file"]) == (3, "m.pt")
    assert (tmp_path / "p.csv").exists()


def test_a_journal_forgets_a_half_written_line(tmp_path: Path) -> None:
    with Journal(tmp_path / "p.csv", "sha256:ab") as journal:
        journal.put("first", [1.0])
        journal.put("second", [2.0])
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:-4])
    with Journal(tmp_path / "p.csv", "sha256:ab") as journal:
        assert (journal.get("first"), journal.get("second")) == ([1.0], None)
        journal.put("second", [3.0])
    with Journal(tmp_path / "p.csv", "sha256:ab") as journal:
        assert journal.get("second") == [3.0]


def test_residual_groups_reach_the_table(tmp_path: Path) -> None:
    network, data = _study("residual")
    settings = ProfileSettings(group_residual=True)
    table = profile(network, data, tmp_path / "p.csv", settings, progress)
    groups = {layer.name: layer.group for layer in table.layers}
    assert groups["conv2"] == groups["down"] != ""
    assert groups["conv1"] == groups["head"] == ""


@pytest.mark.parametrize(
    ("bits", "choices", "expected"),
    [
        (None, None, "w2a8 w3a8 w4a4 w4a8 w8a8"),
        ("8,2,4", None, "w2a2 w4a4 w8a8"),
        (None, "w8a8,w4a8", "w4a8 w8a8"),
        ("4,4", None, "w4a4"),
    ],
)
def test_choices_are_parsed(bits: str | None, choices: str | None, expected: str) -> None:
    assert " ".join(map(str, parse_choices(bits, choices))) == expected


@pytest.mark.parametrize(
    ("bits", "choices"), [("4,", None), ("x", None), ("1", None), ("4", "w4a4"), (None, "w4")]
)
def test_bad_choices_are_errors(bits: str | None, choices: str | None) -> None:
    with pytest.raises(InputError):
        parse_choices(bits, choices)


def test_what_cannot_be_profiled_is_said(tmp_path: Path) -> None:
    network, data = _study("smooth")
    with pytest.raises(InputError, match="unknown metric 'nothing'"):
        profile(network, data, tmp_path / "p.csv", ProfileSettings(metric="nothing"), progress)
    rows = Data("test", (torch.zeros(2, 3),), None)
    none = Network.from_module(nn.ReLU(), (torch.zeros(2, 3),))
    with pytest.raises(InputError, match="no convolution, linear layer or embedding"):
        profile(none, rows, tmp_path / "p.csv", ProfileSettings(), progress)
    assert load_provenance(tmp_path / "p.csv") == {}


@pytest.mark.parametrize("choices", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_next_command_has_an_answer(
    seed: int, choices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales and biases do not shrink with the bits, so that 66 % can be less than the least."""
    monkeypatch.chdir(tmp_path)
    table = tables.random_table(seed, 4, choices, 1.0, groups=False)
    for path in ("profile.csv", "my table.csv"):
        table.write_csv(path)
        program, *words = shlex.split(next_command(table, path))
        assert program == "mpsearch"
        assert run(words) == 0
