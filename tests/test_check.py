"""`mpsearch check`: what it says of each target is what the export does, and it says all of it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from integer_networks import Function
from torch import nn
from torch.nn import functional

pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert")

import mpsearch
from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.checking import TargetCheck, at_8_bits, check
from mpsearch.exporters.formats import FORMATS, export
from mpsearch.exporters.litert.inner import node_of
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.graph.refusals import Refused
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantized_file import save_quantized
from mpsearch.tables.choice import Choice


def _plain(m: Any, x: torch.Tensor) -> Any:
    return m.b(torch.relu(m.a(x)).mean((2, 3)))


def _hidden(m: Any, x: torch.Tensor) -> Any:
    """LiteRT refuses pools in front of, beside and behind what no integers compute."""
    image = torch.relu(m.a(x))
    before = functional.max_pool2d(image, 2, 1, dilation=2)
    beside = functional.max_pool2d(image, 2, dilation=2)
    after = functional.max_pool2d(torch.erfinv(torch.tanh(before) * 0.5), 2, dilation=3)
    return m.b(torch.cat([after.mean((2, 3)), beside.mean((2, 3))], 1)[:, ::2])


def _nowhere(m: Any, x: torch.Tensor) -> Any:
    first, second = m.a(x).cumprod(1).chunk(2, 1)
    return m.b(torch.cat([first, second.cumprod(1)], 1).mean((2, 3)))


def _time_major(m: Any, x: torch.Tensor) -> Any:
    steps = m.a(x).flatten(2).permute(2, 0, 1)
    return m.b(torch.erfinv(torch.tanh(steps) * 0.5).mean(0))


def _score(m: Any, x: torch.Tensor) -> Any:
    """One number for each sample, as it stands in the file: [N]."""
    top = torch.relu(m.a(x)).amax(3).amax(2)
    return m.b(top).sum(1) * 2 + 1


CASES = {
    "score": _score,
    "plain": _plain,
    "hidden": _hidden,
    "nowhere": _nowhere,
    "time-major": _time_major,
}
WORKS = {"plain": {"file", "c", "litert", "tflm", "onnx"}, "nowhere": {"file"}}


@cache
def _network(name: str) -> tuple[Network, Data]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "words":
            model: nn.Module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
            inputs = torch.randint(0, 9, (12, 3))
        else:
            model = Function(CASES[name], a=nn.Conv2d(2, 4, 3), b=nn.Linear(4, 3))
            inputs = torch.randn(12, 2, 9, 10)
    network = Network.from_module(model.eval(), (inputs,))
    return network, Data("test", (inputs,), None)


def _as_exported(found: TargetCheck, quantized: Any, data: Data, folder: Path) -> None:
    """The export's exit is what was said, and its error has the same nodes and reasons."""
    arguments = (quantized, folder / f"out.{found.target}", found.target, data)
    if found.ok:
        export(*arguments, check=False)
        return
    with pytest.raises(InputError) as caught:
        export(*arguments, check=False)
    if isinstance(caught.value, Refused):
        said = [(each.node, each.why) for each in caught.value.refusals]
    else:
        said = [("", " ".join(caught.value.lines))]
    assert sorted(said) == sorted((each.node, each.why) for each in found.refused)


@pytest.mark.parametrize("name", [*CASES, "words"])
def test_what_is_said_is_what_the_exports_do(name: str, tmp_path: Path) -> None:
    network, data = _network(name)
    found = check(network, data)
    assert [*found] == ["file", *FORMATS]
    if name in WORKS:
        assert {target for target, each in found.items() if each.ok} == WORKS[name]
    quantized = at_8_bits(network, data)
    for target in FORMATS:
        if target == "onnx":
            (tmp_path / "out.onnx").unlink(missing_ok=True)
        _as_exported(found[target], quantized, data, tmp_path)


def test_a_step_between_steps_is_of_its_node() -> None:
    assert [node_of(name, {"amax"}) for name in ("amax", "amax.1.1", "amax_as2.1")] == ["amax"] * 3


def test_nothing_hides_behind_what_is_refused_first() -> None:
    network, data = _network("hidden")
    found = check(network, data)
    reasons = {each.operator: each.why for each in found["litert"].refused}
    nodes = [each.node for each in found["litert"].refused]
    assert nodes[0] == "erfinv"
    assert sorted(nodes[1:]) == ["max_pool2d", "max_pool2d_1", "max_pool2d_2"]
    assert reasons["max_pool2d"] == "has dilated windows"
    assert [each.node for each in found["c"].refused] == ["erfinv"]
    _, data = _network("nowhere")
    assert [each.node for each in check(*_network("nowhere"))["onnx"].refused] == [
        "cumprod", "cumprod_1",
    ]  # fmt: skip


def test_what_is_large_before_a_refused_node_refuses_nothing_else() -> None:
    """The logarithm's input, in the millions, would be an output beside those of a tanh."""

    def compute(m: Any, x: torch.Tensor) -> Any:
        large = torch.log(m.a(x).square() * 1e6 + 1e-3)
        memory = m.b(x) + x.mean(2, keepdim=True)
        return torch.cat([memory.flatten(1), (torch.tanh(memory) + large).flatten(1)], 1)

    model = Function(compute, a=nn.Conv1d(3, 3, 1), b=nn.Conv1d(3, 3, 1)).eval()
    x = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(0))
    network = Network.from_module(model, (x[:2],))
    found = check(network, Data("x", (x,), None))
    for target in ("c", "litert"):
        assert [each.node for each in found[target].refused] == ["log"], target


def test_a_quantized_network_is_checked_at_its_own_bits(tmp_path: Path) -> None:
    network, data = _network("plain")
    histograms = calibrate(network, data)
    mixed = quantize(network, {"a": Choice(3, 4), "b": Choice(8, 8)}, histograms)
    found = check(mixed, data)
    assert found["litert"].raised == {"a": ("w3a4", "w4a8")}
    assert {*found["onnx"].in_float} == {"relu", "mean"}
    left = quantize(network, {"a": Choice(8, 32), "b": Choice(32, 8)}, histograms)
    found = check(left)
    assert [each.ok for each in found.values()] == [True, False, False, False, True]
    for target in ("c", "litert", "tflm"):
        assert [each.why[:20] for each in found[target].refused] == [
            "layer 'a' is left in", "layer 'b' is left in",
        ]  # fmt: skip
        _as_exported(found[target], left, data, tmp_path)


def test_a_layer_that_reads_infinite_values_is_said_for_every_target() -> None:
    model = Function(
        lambda m, x: m.a(functional.pad(x, (0, 1), value=torch.inf)), a=nn.Linear(4, 2)
    )
    found = check(Network.from_module(model.eval(), (torch.randn(4, 3),)))
    assert [each.ok for each in found.values()] == [True, False, False, False, False]
    assert "reads infinite values" in found["onnx"].refused[0].why


def test_the_command_and_profile_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = torch.randn(12, 2, 9, 10, generator=torch.Generator().manual_seed(0))
    model = Function(_plain, a=nn.Conv2d(2, 4, 3), b=nn.Linear(4, 3)).eval()
    save(model, "model.pt", (inputs[:1],), {"x0": inputs})
    assert run(["check", "model.pt"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "what each export makes of model.pt, with 8 bits in every layer:"
    assert "  C              yes\n" in said
    assert run(["check", "model.pt", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["targets"]["c"]["ok"] is True
    assert run(["profile", "model.pt", "--metric", "weight-mse", "--choices", "w4a8,w8a8"]) == 0
    assert said.split("\n", 1)[1] in capsys.readouterr().out
    profiled = json.loads(Path("profile.json").read_text())["exports"]
    assert profiled == document["targets"]
    np.savez("other.npz", x0=inputs.numpy())
    network, data = _network("plain")
    quantized = quantize(network, dict.fromkeys("ab", Choice(3, 4)), calibrate(network, data))
    save_quantized(quantized, "quantized.pt")
    assert run(["check", "quantized.pt", "--data", "other.npz"]) == 0
    assert "yes; raised: a w3a4 to w4a8, b w3a4 to w4a8" in capsys.readouterr().out
    assert run(["check", "absent.pt"]) == 2


def test_lines_fit_a_terminal_and_name_what_is_the_same_once() -> None:
    from mpsearch.commands.check import target_lines

    lines = target_lines(mpsearch.check(_network("nowhere")[0]))
    assert max(map(len, lines)) <= 80
    assert "  LiteRT         no: the same as C" in lines
    assert "    cumprod (2: cumprod, cumprod_1) has no form in the ONNX export" in lines
