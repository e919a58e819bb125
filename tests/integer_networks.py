"""Small networks that use every operator that has an integer form, and random ones."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from family_networks import FAMILIES
from moved_networks import IMAGE, LINE, LINE_MOVES, MOVES, Chain, Moved, Upwards
from torch import nn
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.graph.network import Network
from mpsearch.post_training.stored_tensors import store_tensors
from mpsearch.quantization.quantized import QuantizedNetwork


class Function(nn.Module):
    """Layers by name and a function of them and the inputs."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.function(self, x)
        return result


def _option_a(m: Any, x: torch.Tensor) -> Any:
    first = torch.relu(m.stem(x))
    short = functional.pad(first[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
    out = torch.relu(m.deep(first) + short)
    return m.head(out.mean(dim=(2, 3)))


def _pools(m: Any, x: torch.Tensor) -> Any:
    out = functional.relu6(m.conv(x))
    most = functional.max_pool2d(out, 3, 2, padding=1, ceil_mode=True)
    mean = functional.avg_pool2d(most, 2, 1, padding=1, count_include_pad=False, ceil_mode=True)
    other = functional.avg_pool2d(most, (2, 1), padding=(1, 0), divisor_override=3)
    both = torch.cat([mean.flatten(1), other.flatten(1), most.flatten(1)], dim=-1)
    return m.head(both)


def _line(m: Any, x: torch.Tensor) -> Any:
    out = torch.relu(m.first(x))
    out = functional.max_pool1d(out, 2) + functional.avg_pool1d(out, 2)
    out = functional.adaptive_avg_pool1d(m.second(out), 2)
    return m.head(out.flatten(1)).softmax(-1)


def _moves(m: Any, x: torch.Tensor) -> Any:
    out = functional.hardtanh(m.conv(x), -0.4, 0.7).permute(0, 2, 3, 1)
    out = m.tokens(out).transpose(1, 3)  # a linear layer over positions
    out = out[:, 1:, :-1].clamp(min=-0.5)
    out = functional.pad(out, (-1, 2), value=0.25).contiguous()
    return m.head(out.reshape(out.shape[0], -1).unsqueeze(1).squeeze(1))


def _gate(m: Any, x: torch.Tensor) -> Any:
    weights = torch.softmax(m.score(x), dim=1)
    return m.head(weights) + m.other(weights)


def _classes(m: Any, x: torch.Tensor) -> Any:
    return m.head(torch.relu(m.first(x))).argmax(1)


def _input_everywhere(m: Any, x: torch.Tensor) -> Any:
    return m.head((x + m.a(x) + m.b(x)).flatten(1))


def _adaptive(m: Any, x: torch.Tensor) -> Any:
    return m.head(functional.adaptive_avg_pool2d(m.conv(x), (2, 3)).flatten(1))


def _removed_constants(m: Any, x: torch.Tensor) -> Any:
    """Numbers far outside of what anything reads in the end; each sum or mean has its own scale."""
    pad, pool = functional.pad, functional.max_pool2d
    one, odd, corner = (0, 1), (1, 0, 0, 1), (0, 1, 0, 1)
    parts = [
        pool(pad(torch.relu(m.pooled(x)), corner, value=-1e9), 2),
        pool(pad(m.left(x), odd, value=-torch.inf) + pad(m.right(x), odd), 2),
        pad(m.cut(x), (1, 1), value=3e8)[:, :, :, 1:-1],
        pad(pad(m.cropped(x), one, value=-torch.inf), (0, -1)),
        pad(m.clipped(x), one, value=-1e30).clamp(-0.5, 0.5),
        torch.relu(pad(m.positive(x), one, value=-torch.inf)),
        (m.small(x) + m.strong(x)).clamp(min=-0.2, max=0.4),
        pool(pad(x, corner, value=-torch.inf), 2, 1) + x,
    ]
    return m.head(torch.cat([part.mean(dim=(2, 3)) for part in parts], dim=1))


def _two_channels() -> dict[str, nn.Module]:
    """The layers of `_removed_constants`; `strong` gives values in the thousands."""
    names = ("pooled", "left", "right", "cut", "cropped", "clipped", "positive", "small", "strong")
    layers = {name: nn.Conv2d(2, 2, 1) for name in names}
    with torch.no_grad():
        layers["strong"].weight.mul_(5e3)
    return dict(layers)


def _functions(m: Any, x: torch.Tensor) -> Any:
    """Every kind of function of one number, as one operator and spelled out."""
    a, b = m.first(x), m.second(x)
    parts = [
        functional.silu(a), a * torch.sigmoid(a), functional.hardswish(b),
        functional.relu6(b + 3) / 6, functional.leaky_relu(a, 0.2), functional.elu(a),
        functional.gelu(b), functional.mish(a), functional.softplus(a), functional.softsign(a),
        torch.maximum(a, a * 0.1), 1 / (1 + b.abs()), torch.sqrt(1 + a * a), torch.tanh(b),
        m.slope(a), -a, 0.5 - b, b * 3 / 2 + 1,
    ]  # fmt: skip
    read = m.head(torch.cat(parts, 1))
    ends = [read, torch.sigmoid(a), torch.exp(-b.abs()), functional.log_softmax(read, 1)]
    return torch.cat([end.flatten(1) for end in ends], 1)


def _gates(m: Any, x: torch.Tensor) -> Any:
    """Squeeze and excite, gates, constants, factors per channel; a batch norm behind a ReLU."""
    out = functional.hardswish(m.first(functional.softsign(x)))
    squeezed = functional.relu(m.squeeze(functional.adaptive_avg_pool2d(out, 1)))
    out = out * functional.hardsigmoid(m.excite(squeezed))
    deep = m.norm(torch.relu(m.deep(out))) + m.position
    gate = torch.tanh(m.left(deep)) * torch.sigmoid(m.right(deep))
    out = torch.add(gate, deep, alpha=0.7) - m.slopes(out)
    out = torch.rsub(m.position - out, out * m.columns) * m.factor / 1.5
    out = out + out.mean(dim=(2, 3), keepdim=True)
    return m.head(out.flatten(1)) - m.offset


def _decoded(m: Any, x: torch.Tensor) -> Any:
    """Boxes in pixels beside probabilities, which are squared too; a gated linear unit, sums,
    minima, the larger and the smaller of two tensors."""
    y = m.first(x)
    place, size, score = torch.sigmoid(y).permute(0, 2, 3, 1).split((2, 1, 1), 3)
    boxes = torch.cat(((place * 2 - 0.5) * 40, (size * 2) ** 2 * 30, score), 3)
    gated = functional.glu(m.second(x), 1)
    ends = torch.minimum(gated, y[:, :2]) - torch.maximum(gated, y[:, 2:])
    parts = [boxes, m.head(ends), gated.sum((2, 3)), y.amin(3)]
    return torch.cat([part.flatten(1) for part in parts], 1)


def _graph(m: Any, x: torch.Tensor) -> Any:
    """Messages over stored edges; tensors of the batch's size that are filled with a number."""
    y = torch.relu(m.first(torch.einsum("ij,njc->nic", m.edges, x)))
    y = torch.zeros(len(x), 5, 4) + m.edges @ m.second(y)
    y = torch.cat((torch.full((len(x), 1, 4), 0.5), y * torch.ones(len(x), 5, 1)), 1)
    return m.head(torch.einsum("nic,cd->ndi", y, m.turn).amax(2))


def _graph_layers() -> Function:
    network = Function(_graph, first=nn.Linear(3, 4), second=nn.Linear(4, 4), head=nn.Linear(2, 3))
    network.register_buffer("edges", torch.rand(5, 5))
    network.register_buffer("turn", torch.randn(4, 2))
    return network


def _normed(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert values is not None
        nn.init.uniform_(values, 0.5, 2)
    return norm


def _gate_layers() -> Function:
    slopes = nn.PReLU(4)
    nn.init.uniform_(slopes.weight, -0.5, 0.5)
    network = Function(
        _gates, first=nn.Conv2d(2, 4, 3, padding=1), squeeze=nn.Conv2d(4, 2, 1),
        excite=nn.Conv2d(2, 4, 1), deep=nn.Conv2d(4, 4, 3, padding=1, groups=4), norm=_normed(4),
        left=nn.Conv2d(4, 4, 3, padding=1), right=nn.Conv2d(4, 4, 1), slopes=slopes,
        head=nn.Linear(80, 3),
    )  # fmt: skip
    network.register_buffer("position", 0.3 * torch.randn(1, 4, 5, 4))
    network.register_buffer("factor", torch.randn(4, 1, 1))
    network.register_buffer("columns", torch.randn(4))
    network.register_buffer("offset", torch.randn(3))
    return network


MANY = [MOVES[name] for name in sorted(MOVES)]
BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "option-a": (
        lambda: Function(
            _option_a, stem=nn.Conv2d(2, 3, 3, padding=1),
            deep=nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), head=nn.Linear(5, 3),
        ),
        (2, 6, 5),
    ),
    "pools": (
        lambda: Function(_pools, conv=nn.Conv2d(1, 2, 2), head=nn.LazyLinear(3)),
        (1, 6, 7),
    ),
    "line": (
        lambda: Function(
            _line, first=nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2),
            second=nn.Conv1d(6, 6, 3, stride=2, groups=6), head=nn.Linear(12, 5),
        ),
        (4, 12),
    ),
    "moves": (
        lambda: Function(
            _moves, conv=nn.Conv2d(3, 4, (2, 3), padding="same", dilation=(1, 2)),
            tokens=nn.Linear(4, 5), head=nn.LazyLinear(3),
        ),
        (3, 4, 5),
    ),
    "gate": (
        lambda: Function(
            _gate, score=nn.Linear(6, 4), head=nn.Linear(4, 3), other=nn.Linear(4, 3, bias=False)
        ),
        (6,),
    ),
    "classes": (
        lambda: Function(_classes, first=nn.Linear(6, 9), head=nn.Linear(9, 7)),
        (6,),
    ),
    "input-everywhere": (
        lambda: Function(
            _input_everywhere, a=nn.Conv2d(2, 2, 3, padding=1, groups=2), b=nn.Conv2d(2, 2, 1),
            head=nn.Linear(24, 3),
        ),
        (2, 3, 4),
    ),
    "removed-constants": (
        lambda: Function(_removed_constants, head=nn.Linear(16, 4), **_two_channels()),
        (2, 5, 5),
    ),
    "functions": (
        lambda: Function(
            _functions, first=nn.Conv2d(2, 2, 1), second=nn.Conv2d(2, 3, 1), slope=nn.PReLU(),
            head=nn.LazyConv2d(3, 2, padding=1),
        ),
        (2, 4, 5),
    ),
    "decoded": (
        lambda: Function(
            _decoded, first=nn.Conv2d(2, 4, 1), second=nn.Conv2d(2, 4, 3, padding=1),
            head=nn.Conv2d(2, 2, 1),
        ),
        (2, 5, 4),
    ),
    "graph": (_graph_layers, (5, 3)),
    "gates": (_gate_layers, (2, 5, 4)),
    "adaptive": (
        lambda: Function(_adaptive, conv=nn.Conv2d(2, 4, 2, groups=2), head=nn.Linear(24, 3)),
        (2, 6, 6),
    ),
    "moved": (lambda: Moved(MANY[::2], IMAGE), IMAGE),
    "rearranged": (lambda: Moved(MANY[1::2], IMAGE), IMAGE),
    **{family.__name__.lower(): (family, family.SHAPE) for family in FAMILIES},
    "upwards": (lambda: Upwards(plain=True), Upwards.SHAPE),
    "upwards-grouped": (lambda: Upwards(plain=False), Upwards.SHAPE),
    "moved-lines": (lambda: Moved(list(LINE_MOVES.values()), LINE), LINE),
}  # fmt: skip
# One assignment is enough for each of these.
LARGE = {"moved", "rearranged", "moved-lines", "upwards", "upwards-grouped"}
LARGE |= {family.__name__.lower() for family in FAMILIES}


def build(name: str, samples: int, seed: int = 0) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """(model, inputs), seeded."""
    factory, shape = BUILDERS[name]
    return _seeded(factory, shape, samples, seed)


@cache
def exported(name: str) -> tuple[Network, tuple[torch.Tensor, ...]]:
    """The network and 60 samples: exporting takes longer than what several tests do with it."""
    model, inputs = build(name, 60)
    return Network.from_module(model, inputs), inputs


def storing(quantized: QuantizedNetwork, data: Data, wide: str = "8") -> QuantizedNetwork:
    """With quantizers for what is stored between layers."""
    return store_tensors(quantized.source, quantized.layers, data, wide, lambda _: 0.0)


def build_random(seed: int, samples: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A random chain of convolutions, pools, residual and parallel branches, or of moves."""
    source = random.Random(seed)
    if seed % 2:
        return _seeded(lambda: Chain(source), IMAGE, samples, seed)
    shape = (source.randint(1, 3), source.randint(5, 7), source.randint(5, 7))
    return _seeded(lambda: _random_network(source, shape[0]), shape, samples, seed)


def _seeded(
    factory: Callable[[], nn.Module], shape: tuple[int, ...], samples: int, seed: int
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = factory().eval()
        inputs = (torch.randn(samples, *shape),)
        vocabulary: Any = getattr(model, "vocabulary", None)
        if vocabulary is not None:
            inputs = (torch.randint(0, vocabulary, (samples, *shape)),)
        model(*inputs)  # lazy layers take their size
    return model, inputs


def _random_network(source: random.Random, channels: int) -> nn.Module:
    blocks: list[nn.Module] = []
    for _ in range(source.randint(1, 3)):
        block, channels = source.choice((_plain, _residual, _parallel, _gated))(source, channels)
        blocks.append(block)
        blocks += source.choice(
            ([], [nn.ReLU()], [nn.ReLU6()], [nn.MaxPool2d(2, 1)], [nn.AvgPool2d(2, 1)],
             [nn.ReLU(), nn.MaxPool2d(3, 1, padding=1)], [nn.Hardswish()], [nn.ELU(), nn.GELU()],
             [nn.PReLU(channels)], [nn.ReLU(), _normed(channels)])
        )  # fmt: skip
    blocks += source.choice(([nn.AdaptiveAvgPool2d(1), nn.Flatten()], [nn.Flatten()]))
    blocks.append(nn.LazyLinear(source.randint(2, 5)))
    blocks += source.choice(([], [nn.ReLU()], [nn.Softmax(dim=1)], [nn.LogSoftmax(dim=1)]))
    return nn.Sequential(*blocks)


def _plain(source: random.Random, channels: int) -> tuple[nn.Module, int]:
    groups = source.choice((1, channels))
    out = channels * source.randint(1, 2)
    kernel = (source.randint(1, 3), source.randint(1, 3))
    stride, dilation = source.randint(1, 2), source.randint(1, 2)
    conv = nn.Conv2d(
        channels, out, kernel, stride, padding=source.randint(0, 2) + 1, dilation=dilation,
        groups=groups, bias=source.random() < 0.7,
    )  # fmt: skip
    return conv, out


class _Sum(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.conv(torch.relu(x))
        return result


class _Concatenation(nn.Module):
    def __init__(self, channels: int, more: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, more, 1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.relu(self.one(x)), self.two(x), x], dim=1)


class _Gate(nn.Module):
    """Every channel times a number of its own, every place times another, minus what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.by_channel = nn.Conv2d(channels, channels, 1)
        self.by_place = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.sigmoid(self.by_channel(x.mean(dim=(2, 3), keepdim=True)))
        result: torch.Tensor = x * scale * torch.tanh(self.by_place(x)) - x
        return result


def _gated(source: random.Random, channels: int) -> tuple[nn.Module, int]:
    return _Gate(channels), channels


def _residual(source: random.Random, channels: int) -> tuple[nn.Module, int]:
    return _Sum(channels), channels


def _parallel(source: random.Random, channels: int) -> tuple[nn.Module, int]:
    more = source.randint(1, 3)
    return _Concatenation(channels, more), 2 * channels + more
