"""Time series, sensors and tables; networks of several inputs, and odd ones."""

import torch
from torch import nn
from torch.nn import functional

from zoo_networks.network import ZooNetwork, conv, floats


def activity() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 16, 5, padding="same"), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 16, 5, padding="same"), nn.ReLU(), nn.AdaptiveMaxPool1d(4), nn.Flatten(),
        nn.Linear(64, 32), nn.SELU(), nn.Linear(32, 6),
    )  # fmt: skip


class Inception(nn.Module):
    """Kernels of three lengths and a pool side by side (InceptionTime)."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(4, 8, 1, bias=False)
        self.kernels = nn.ModuleList(
            nn.Conv1d(8, 8, k, padding=k // 2, bias=False) for k in (5, 11, 21)
        )
        self.pooled = nn.Conv1d(4, 8, 1, bias=False)
        self.norm, self.head = nn.BatchNorm1d(32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(x)
        branches = [kernel(y) for kernel in self.kernels]
        branches.append(self.pooled(functional.max_pool1d(x, 3, 1, 1)))
        y = torch.relu(self.norm(torch.cat(branches, 1)))
        return self.head(y.mean(-1))


class Causal(nn.Module):
    """Dilated convolutions that see the past only, gated (TCN, WaveNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(3, 16, 1)
        self.filters = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**k) for k in range(3))
        self.outs = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(3))
        self.head = nn.Conv1d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.enter(x)
        for k, (filters, out) in enumerate(zip(self.filters, self.outs, strict=True)):
            a, b = filters(functional.pad(y, (2**k, 0))).split(16, 1)
            y = y + out(torch.tanh(a) * torch.sigmoid(b))
        return self.head(y)[..., -1].squeeze(1)


class Stacks(nn.Module):
    """Each stack explains a part of the past and of the future (N-BEATS)."""

    def __init__(self) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(
            nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 30)) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        future = torch.zeros(len(x), 6)
        for stack in self.stacks:
            theta = stack(x)
            x, future = x - theta[:, :24], future + theta[:, 24:]
        return future


class Tabular(nn.Module):
    """Columns standardised, some embedded by number, gated linear units."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.kinds = nn.BatchNorm1d(10), nn.Embedding(7, 4)
        self.one, self.two, self.head = nn.Linear(14, 32), nn.Linear(16, 32), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        y = torch.cat((self.norm(x), self.kinds(kind)), 1)
        y = functional.glu(self.one(y))
        return self.head(functional.glu(self.two(y)) + y)


class HeartRate(nn.Module):
    """Strided convolutions, a norm over time, softplus of a rate and its spread."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(1, 8, 16, 4), nn.Conv1d(8, 8, 8, 4)
        self.norm, self.head = nn.LayerNorm(14), nn.Linear(112, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.mish(self.one(x))
        y = self.norm(functional.softsign(self.two(y)))
        return functional.softplus(self.head(y.flatten(1)))


class TwoSenses(nn.Module):
    """An image and a sound, joined before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            conv(3, 8, 3, 2, activation=nn.ReLU()), nn.AvgPool2d(4), nn.Flatten()
        )
        self.sound = nn.Sequential(nn.Conv1d(1, 8, 16, 8), nn.ReLU(), nn.AvgPool1d(4), nn.Flatten())
        self.join, self.head = nn.Linear(256, 24), nn.Linear(24, 4)

    def forward(self, image: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
        both = torch.cat((self.image(image), self.sound(sound)), 1)
        return self.head(torch.relu(self.join(both)))


class Embedder(nn.Module):
    """A face or speaker embedding of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            conv(1, 8, 3, 2, activation=nn.PReLU(8)),
            conv(8, 16, 3, 2, activation=nn.PReLU(16)),
        )
        self.last = nn.Linear(1024, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.last(self.two(self.one(x)).flatten(1)), dim=1)


class Siamese(nn.Module):
    """Both inputs through one network; the distance decides."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(20, 32), nn.Linear(32, 16), nn.Linear(16, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = (self.two(torch.relu(self.one(x))) for x in (a, b))
        return torch.sigmoid(self.head((a - b).abs())).squeeze(-1)


class MultiTask(nn.Module):
    """A shared trunk, three heads of different kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv(3, 16, 3, 4, activation=nn.ReLU()))
        self.kind, self.pose, self.mask = (
            nn.Linear(16, 5), nn.Linear(16, 3), nn.Conv2d(16, 2, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.trunk(x)
        means = y.mean((2, 3))
        return self.kind(means), torch.tanh(self.pose(means)), self.mask(y)


class Transformer2d(nn.Module):
    """A spatial transformer: an affine grid, sampled bilinearly (Jaderberg et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.locate, self.theta = nn.Conv2d(1, 8, 5, 2), nn.Linear(8, 6)
        self.conv, self.head = nn.Conv2d(1, 8, 3, 2), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.theta(torch.relu(self.locate(x)).mean((2, 3))).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, align_corners=False)
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class GraphConv(nn.Module):
    """Messages over a fixed graph of sensors (Kipf & Welling 2017)."""

    def __init__(self) -> None:
        super().__init__()
        edges = (torch.rand(9, 9) > 0.6).float() + torch.eye(9)
        self.register_buffer("edges", edges / edges.sum(1, keepdim=True))
        self.one, self.two, self.head = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.one(torch.einsum("ij,njc->nic", self.edges, x)))
        y = torch.relu(torch.einsum("ij,njc->nic", self.edges, self.two(y)))
        return self.head(y.amax(1))


class Experts(nn.Module):
    """Four networks, weighted by a fifth."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(12, 4)
        self.experts = nn.ModuleList(nn.Linear(12, 6) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.gate(x).softmax(-1)
        all_four = torch.stack([torch.relu(expert(x)) for expert in self.experts], 1)
        return (weights.unsqueeze(-1) * all_four).sum(1)


SERIES, ODD = "time series, tables", "several inputs, odd"
NETWORKS = (
    ZooNetwork(SERIES, "activity_cnn", activity, floats((6, 64)), 4, "2 + 2"),
    ZooNetwork(SERIES, "inception_time", Inception, floats((4, 50)), 6, "2 + 3 + head"),
    ZooNetwork(SERIES, "gated_tcn", Causal, floats((3, 32)), 8, "enter + 3 x 2 + head"),
    ZooNetwork(SERIES, "n_beats", Stacks, floats((24,)), 4, "2 x 2"),
    ZooNetwork(
        SERIES, "tabular", Tabular,
        lambda n: (torch.randn(n, 10), torch.randint(0, 7, (n,))), 4, "table + 3",
    ),
    ZooNetwork(SERIES, "heart_rate", HeartRate, floats((1, 256)), 3, "2 + head"),
    ZooNetwork(ODD, "two_senses", TwoSenses, floats((3, 32, 32), (1, 520)), 4, "2 + 2"),
    ZooNetwork(ODD, "unit_embedding", Embedder, floats((1, 32, 32)), 3, "2 + last"),
    ZooNetwork(ODD, "siamese", Siamese, floats((20,), (20,)), 3, "2 shared + head"),
    ZooNetwork(ODD, "multi_task", MultiTask, floats((3, 32, 32)), 4, "trunk + 3"),
    ZooNetwork(ODD, "spatial_transformer", Transformer2d, floats((1, 28, 28)), 4, "2 + 2"),
    ZooNetwork(ODD, "graph_convolution", GraphConv, floats((9, 4)), 3, "3"),
    ZooNetwork(ODD, "mixture_of_experts", Experts, floats((12,)), 5, "gate + 4"),
)  # fmt: skip
