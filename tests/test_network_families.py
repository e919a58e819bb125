"""Families of networks through the whole loop: profile, solve, apply, evaluate, tiny instances."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import networks
import pytest
import token_networks
import torch
from torch import nn
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.evaluation.measuring import evaluate
from mpsearch.graph.layers import residual_groups
from mpsearch.graph.network import Network
from mpsearch.post_training.quantizing import Quantizing
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice


class Mobile(nn.Module):
    """MobileNet blocks: expand, depthwise, squeeze and excite, project; ReLU6 and hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm, self.swish = nn.BatchNorm2d(8), nn.Hardswish()
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.project = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.swish(self.norm(self.depthwise(self.expand(image))))
        squeezed = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(hidden, 1)))
        hidden = self.project(hidden * functional.hardsigmoid(self.excite(squeezed)))
        return self.head((image + hidden).mean((2, 3)))


class Audio(nn.Module):
    """One-dimensional convolutions; batch norms behind convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv1d(2, 6, 5, stride=2), nn.BatchNorm1d(6)
        self.second, self.norm2 = nn.Conv1d(6, 6, 3, padding="same"), nn.BatchNorm1d(6)
        self.dense, self.norm3 = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm1(self.first(sound)))
        hidden = functional.max_pool1d(torch.relu(self.norm2(self.second(hidden))), 2)
        return self.head(torch.relu(self.norm3(self.dense(hidden.mean(2)))))


class Products(nn.Module):
    """Linear layers written as products, as in GPT-2, one of them with the bias added behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.offset = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(5))
        self.square = nn.Parameter(torch.randn(5, 5))
        self.last, self.bias = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(x @ self.first + self.offset)
        hidden = torch.relu(torch.mm(hidden, self.square.transpose(0, 1)))
        return torch.addmm(self.bias, hidden, self.last)


# The network, one sample's shape, the layers by kind, and the operators in float.
FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, str], set[str]]] = {
    "mobile": (
        Mobile,
        (4, 6, 6),
        {
            "expand.0": "conv2d", "depthwise": "depthwise_conv2d", "squeeze": "conv2d",
            "excite": "conv2d", "project.0": "conv2d", "head": "linear",
        },
        {"hardswish", "hardsigmoid", "mul"},
    ),
    "audio": (
        Audio,
        (2, 24),
        {"first": "conv1d", "second": "conv1d", "dense": "linear", "head": "linear"},
        set(),
    ),
    "products": (
        Products, (6,), {"first": "linear", "square": "linear", "last": "linear"}, set()
    ),
}  # fmt: skip


def _subject(name: str) -> tuple[nn.Module, Data]:
    factory, shape, _, _ = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = networks.randomize_batch_norms(factory()).eval()
        return model, Data(name, (torch.randn(12, *shape),), torch.randint(0, 3, (12,)))


@pytest.mark.parametrize("name", FAMILIES)
def test_profile_solve_apply_evaluate(name: str, tmp_path: Path) -> None:
    model, data = _subject(name)
    network = Network.from_module(model, data.inputs)
    with torch.no_grad():
        torch.testing.assert_close(network(*data.inputs), model(*data.inputs), rtol=1e-4, atol=1e-5)
    _, _, kinds, in_float = FAMILIES[name]
    assert {layer.name: layer.kind for layer in network.layers} == kinds
    settings = ProfileSettings(choices=(Choice(4, 8), Choice(8, 8)), batch_size=6)
    table = profile(network, data, tmp_path / "profile.csv", settings)
    provenance = table.provenance
    assert provenance["float_operators"]["operators"] == []  # all norms are folded
    assert set(provenance["float_operators"]["others"]) == in_float
    largest = table.uniform_total("size_bytes", Choice(8, 8))
    solution = solve(table, Budget({"size_bytes": 0.9 * largest}))
    assert len(set(solution.choices.values())) == 2
    assert solution.totals["size_bytes"] == size_bytes(network, solution.choices)
    assert solution.totals["bops"] == bops(network, solution.choices)
    quantized = Quantizing(network, data)(solution.choices)
    save_quantized(quantized, tmp_path / "quantized.pt")
    loaded = load_quantized(tmp_path / "quantized.pt")
    with torch.no_grad():
        assert torch.equal(loaded(*data.inputs), quantized(*data.inputs))
    measured = evaluate("quantized", loaded, data)
    with torch.no_grad():
        said = quantized(*data.inputs).argmax(1).tolist()
    assert data.labels is not None
    right = [a == b for a, b in zip(said, data.labels.tolist(), strict=True)]
    assert measured.accuracy == pytest.approx(sum(right) / 12)


@pytest.mark.parametrize("metric", ["hessian", "fisher", "sqnr"])
def test_progress_ends_at_its_total(metric: str, tmp_path: Path) -> None:
    model, data = _subject("mobile")
    network = Network.from_module(model, data.inputs)
    totals, done = [], []

    @contextmanager
    def progress(_: str, total: int) -> Iterator[Callable[[], None]]:
        totals.append(total)
        yield lambda: done.append(1)

    settings = ProfileSettings(metric=metric, batch_size=6, max_probes=32, rtol=0.5)
    profile(network, data, tmp_path / "profile.csv", settings, progress)
    batches, layers = 2, 6
    # exact Gauss-Newton traces, then at most four rounds of eight probes for what is smooth
    assert totals == [{"hessian": batches * 5, "fisher": batches, "sqnr": batches * layers}[metric]]
    assert len(done) == totals[0]


def test_additions_of_sums_tie_no_layers() -> None:
    model, inputs, _ = token_networks.build("vision")
    attention = Network.from_module(model, inputs)
    model, data = _subject("mobile")
    mobile = Network.from_module(model, data.inputs)
    for network in (attention, mobile):  # one side of each addition is a sum or the input
        assert residual_groups(network.graph, network.layers) == {}
