"""A network whose outputs for one sample depend on its companions is refused wherever it enters.

The oracle of each case is in its name: what the module does to the batch dimension.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import token_networks
import torch
from torch import nn
from torch.nn import functional

from mpsearch.cli import run
from mpsearch.data import bind
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.exporting import export_graph
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import load, save
from mpsearch.graph.sample_layout import check_samples_apart
from mpsearch.importers.loading import ModelSource, load_network

MIXED = "mixes the samples of a batch"


class Function(nn.Module):
    """A linear layer, then what `after` does with its outputs [N, 6]."""

    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.layer(x))


def _model(after: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Function(after).eval()


MIXING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "centred": lambda y: y - y.mean(0),
    "softmax": lambda y: y.softmax(0),
    "largest": lambda y: y / y.abs().amax(),
    "flipped": lambda y: y.flip(0),
    "statistics": lambda y: functional.batch_norm(y, None, None, training=True),
    "by-size": lambda y: y * y.shape[0],
    "by-place": lambda y: y + torch.arange(y.shape[0])[:, None],
    "attention": lambda y: functional.scaled_dot_product_attention(y, y, y),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_samples_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=MIXED):
        Network.from_module(_model(MIXING[name]), (torch.zeros(1, 4),))


def test_what_only_moves_the_batch_is_taken() -> None:
    """Attention over [T, N, C] and a convolution over [N·T, C, H, W]."""
    model, inputs, _ = token_networks.build("sequence-first")
    network = Network.from_module(model, inputs)
    check_samples_apart(network.graph, [x[:1] for x in inputs])


def test_rounding_noise_is_told_from_mixing_in_double() -> None:
    """0.4 + n·2^18 − n·2^18 is 13/32 for one sample and 6/16 for three in float32 (IEEE 754)."""

    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            far = x.shape[0] * 262144
            return (x + far) - far

    rows = torch.tensor([[0.4], [0.7], [0.1]])
    network = Network.from_graph(export_graph(Noisy(), (rows,)), (rows,))
    assert network(rows)[0] != network(rows[:1])[0]
    check_samples_apart(network.graph, (rows,))


def test_a_network_that_draws_numbers_is_named_as_that() -> None:
    noisy = _model(lambda y: functional.dropout(y, 0.5, training=True))
    with pytest.raises(InputError, match="other outputs each time"):
        Network.from_module(noisy, (torch.zeros(1, 4),))


class Table(nn.Module):
    """Mixes tokens other than 0 and 1 only, which random inputs do not hit."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        rare = (tokens > 1).float()
        return torch.add(self.head(self.table(tokens).mean(1)), rare.mean())


@pytest.fixture(scope="module")
def mixing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a mixing network in every format that this project reads."""
    folder = tmp_path_factory.mktemp("mixing")
    model = _model(MIXING["centred"])
    x = torch.randn(8, 4)
    with pytest.warns(UserWarning, match=MIXED):
        save(model, folder / "model.pt", (x[:1],), {"x0": x, "y": x.argmax(1)})
    np.savez(folder / "data.npz", x0=x.numpy(), y=x.argmax(1).numpy())
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(
        torch.export.export(model, (x[:2],), dynamic_shapes=batch), folder / "exported.pt2"
    )
    torch.jit.trace(model, (x[:2],)).save(str(folder / "script.pt"))
    return folder


@pytest.mark.parametrize("name", ["model.pt", "exported.pt2", "script.pt"])
def test_every_format_is_tested_when_a_command_loads_it(
    name: str, mixing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(mixing / name), "--trust", "--input-shape", "4"]
    words += ["--data", str(mixing / "data.npz")]
    assert run(["profile", *words, "-o", str(tmp_path / "profile.csv")]) == 2
    said = capsys.readouterr().err
    assert MIXED in said
    assert name in said
    assert said.strip().count("\n") <= 1
    assert not list(tmp_path.iterdir())


def test_an_onnx_file_with_a_free_batch_is_tested_too(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    make = onnx.helper
    nodes = [
        make.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        make.make_node("Sub", ["x", "m"], ["y"]),
    ]
    ends = [make.make_tensor_value_info(name, 1, ["n", 4]) for name in "xy"]
    graph = make.make_graph(nodes, "g", ends[:1], ends[1:])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=MIXED):
        load_network(ModelSource(str(tmp_path / "net.onnx")))


def test_mixing_that_only_real_data_show_is_found_when_they_are_bound(tmp_path: Path) -> None:
    model, tokens = Table().eval(), torch.tensor([[0, 1], [5, 1], [8, 8], [0, 0]])
    with pytest.warns(UserWarning, match=MIXED):
        save(model, tmp_path / "model.pt", (tokens[:1],), {"x0": tokens})
    loaded = load(tmp_path / "model.pt")  # zeros and ones pass
    with pytest.raises(InputError, match=f"on the sample the network {MIXED}"):
        bind(Arrays("the sample", loaded.sample), loaded.network)
    bind(Arrays("the sample", {"x0": tokens % 2}), loaded.network)
