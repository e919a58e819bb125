"""Networks from TorchScript are those of the modules that were scripted or traced."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from test_outputs import Fusion
from torch import nn

from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.importers.torchscript.module import as_module

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Controlled(nn.Module):
    """Branches, loops and numbers that Python would compute while the network is built."""

    scale: int

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=(1, 0))
        self.norm = nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, padding="same") for _ in range(3)])
        self.head = nn.Linear(4, 5)
        self.scale = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 4, "an image"
        x = torch.relu(self.norm(self.stem(x)))
        parts: list[torch.Tensor] = []
        for i, block in enumerate(self.blocks):
            x = x + torch.relu(block(x))
            if i % 2 == 0:
                parts.append(x * self.scale)
        if self.training:
            x = -x
        while x.size(3) > 2:
            x = nn.functional.max_pool2d(x, 2)
        parts.append(x)
        pooled = [part.mean([2, 3]).view(part.size(0), -1) for part in parts]
        return self.head(torch.stack(pooled).sum(0))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.a(x), "b": self.b(x)}


def _encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    return model


def _save(model: nn.Module, inputs: tuple[torch.Tensor, ...], how: str, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "traced":
            script: Any = torch.jit.trace(model, inputs, strict=False, check_trace=False)
        else:
            script = torch.jit.script(model)
        if how == "frozen":
            script = torch.jit.freeze(script)
        script.save(str(path))


def _load(path: Path, inputs: tuple[torch.Tensor, ...]) -> Network:
    arrays = Arrays("test", {f"x{i}": x for i, x in enumerate(inputs)})
    return load_network(ModelSource(str(path), trust=True), arrays).network


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "controlled": (Controlled, (3, 9, 8)),
    "recurrent": (Recurrent, (5, 3)),
    "several": (Several, (4,)),
    "encoder": (_encoder, (3, 8)),
    "tied": (_tied, (4,)),
    **{
        n: (networks.BUILDERS[n][0], networks.BUILDERS[n][1][0]) for n in ("residual", "transposed")
    },
}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "scripted") for name in CASES if name != "residual"),
        *((name, "traced") for name in ("controlled", "recurrent", "encoder", "residual")),
        ("two-inputs", "traced"),
        ("two-inputs", "scripted"),
        ("weight-norm", "traced"),
    ],
)
def test_scripts_give_the_network_of_their_module(
    name: str, how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name in CASES:
        factory, shape = CASES[name]
        torch.manual_seed(0)
        model = networks.randomize_batch_norms(factory()).eval()
        inputs: tuple[torch.Tensor, ...] = (torch.randn(4, *shape),)
    else:
        model, inputs, _ = networks.build(name)
    _save(model, inputs, how, tmp_path / "m.pt")
    capfd.readouterr()
    network = _load(tmp_path / "m.pt", inputs)
    assert capfd.readouterr() == ("", "")
    expected = Network.from_module(model, inputs)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), expected(*inputs), rtol=1e-4, atol=1e-5)
    described = [(x.name, x.weights, x.macs, len(x.nodes)) for x in network.layers]
    assert described == [(x.name, x.weights, x.macs, len(x.nodes)) for x in expected.layers]
    assert network.outputs == expected.outputs
    if how == "scripted":
        assert network.input_names == expected.input_names


def test_frozen_weights_are_named_after_their_operators(tmp_path: Path) -> None:
    model, inputs, _ = networks.build("residual")
    _save(model, inputs, "frozen", tmp_path / "m.pt")
    network = _load(tmp_path / "m.pt", inputs)
    assert {layer.name for layer in network.layers} == {
        "conv2d_0", "conv2d_1", "conv2d_2", "linear_0"
    }  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


def test_a_script_that_takes_a_dictionary_keeps_its_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, image, audio = Fusion().eval(), torch.randn(4, 1, 5, 5), torch.randn(4, 5)
    torch.jit.script(model).save(str(tmp_path / "m.pt"))
    arrays = Arrays("test", {"image": image, "audio": audio})
    network = load_network(ModelSource(str(tmp_path / "m.pt"), trust=True), arrays).network
    assert network.input_names == ("image", "audio")
    with torch.no_grad():
        torch.testing.assert_close(network(image, audio), model({"image": image, "audio": audio}))


class _OnAnotherDevice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(3, device=torch.device("cuda:0"))


def test_a_script_of_another_device_runs_here(tmp_path: Path) -> None:
    torch.jit.script(_OnAnotherDevice()).save(str(tmp_path / "m.pt"))
    network = _load(tmp_path / "m.pt", (torch.zeros(2, 3),))
    assert torch.equal(network(torch.zeros(2, 3)), torch.ones(2, 3))


class _Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


class _Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 3:
            raise ValueError("three dimensions")
        return x


class _Streaming(nn.Module):
    """Keeps its state between calls, and calls its child as a wrapper of ours might."""

    def __init__(self) -> None:
        super().__init__()
        self._model = nn.Linear(4, 4)
        self.state, self.calls = torch.zeros(0), 0

    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        if len(self.state) == 0:
            self.state = torch.zeros(x.shape[0], 4) + 0.25
        if rate == 8000:
            x = x * 0.5
        self.calls += 1
        self.state = torch.tanh(self._model(x) + self.state)
        return self.state * self.calls


def test_a_script_that_keeps_state_is_read_as_its_first_call(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.jit.script(_Streaming().eval()).save(str(tmp_path / "m.pt"))
    x = torch.randn(5, 4)
    source = ModelSource(str(tmp_path / "m.pt"), trust=True, fix={"rate": 8000})
    loaded = load_network(source, Arrays("test", {"x0": x}))
    assert [layer.name for layer in loaded.network.layers] == ["_model"]
    assert "keeps state between calls (calls, state)" in loaded.notes[0]
    fresh = torch.jit.load(str(tmp_path / "m.pt"))
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(x), fresh(x, 8000))
        torch.testing.assert_close(loaded.network(x[:2]), loaded.network(x)[:2])


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (_Branch, "branches on its data; expected .*torch.where"),
        (_Raising, "raises an exception on the example inputs: .*three dimensions"),
    ],
)
def test_what_cannot_be_converted_gets_its_reason_in_one_line(
    factory: Callable[[], nn.Module],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    torch.jit.script(factory()).save(str(tmp_path / "m.pt"))
    capfd.readouterr()
    with pytest.raises(InputError, match=message) as caught:
        _load(tmp_path / "m.pt", (torch.ones(2, 4),))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_branch_of_a_module_is_refused_without_noise(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="branches on its data"):
        Network.from_module(_Branch(), (torch.ones(2, 4),))
    assert capfd.readouterr() == ("", "")


def test_weights_packed_for_one_machine_are_refused(tmp_path: Path) -> None:
    model, inputs, _ = networks.build("residual")
    script = torch.jit.optimize_for_inference(torch.jit.script(model))
    if "mkldnn" not in str(script.graph):
        pytest.skip("this build of torch packs no weights")
    script.save(str(tmp_path / "m.pt"))
    with pytest.raises(InputError, match="after optimize_for_inference") as caught:
        _load(tmp_path / "m.pt", inputs)
    assert str(caught.value).count("\n") <= 1


class _Foreign(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mpsearch_test.twice(x)


def test_operators_of_an_extension_are_named() -> None:
    library = torch.library.Library("mpsearch_test", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    with pytest.raises(InputError, match=r"calls mpsearch_test::twice .*mpsearch\.save"):
        as_module(torch.jit.script(_Foreign()))


def test_a_script_without_forward_is_refused() -> None:
    with pytest.raises(InputError, match="no forward of its own"):
        as_module(torch.jit.script(nn.LSTM(3, 4)))
