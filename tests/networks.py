"""Small networks, one per structure that the graph code has to get right."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from mpsearch.graph.network import Network
from mpsearch.graph.tensors import set_float_width

Inputs = tuple[torch.Tensor, ...]


def in_float64(model: nn.Module, inputs: Inputs) -> tuple[Network, Inputs]:
    """A network and its inputs in float64, which only tests have: formulas are compared to the
    last digit."""
    network = Network.from_module(model, inputs)
    set_float_width(network.graph, torch.float64)
    return network, tuple(x.double() if x.is_floating_point() else x for x in inputs)


def randomize_batch_norms(model: nn.Module) -> nn.Module:
    """Statistics of a trained network: without them folding would be tested on identities."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias)
            module.running_mean = torch.randn_like(module.bias)
            module.running_var = torch.rand_like(module.bias) + 0.5
    return model


class Residual(nn.Module):
    """A residual block with a down-sampling branch, in-place ReLU, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.down = nn.Conv2d(3, 6, 1, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.bn1(self.conv1(image)))
        hidden = self.relu(self.bn2(self.conv2(hidden)) + self.down(image))
        return self.head(hidden.mean((2, 3)))


class TwoInputs(nn.Module):
    """Two modalities, depthwise and 'same' convolutions, dropout, max-pooling, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding="same")
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.pointwise = nn.Conv2d(4, 5, 1)
        self.bn = nn.BatchNorm2d(5)
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(7, 5)
        self.head = nn.Linear(5 * 2 * 3 + 5, 4)

    def forward(self, sound: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.conv(sound))
        hidden = torch.relu(self.bn(self.pointwise(self.depthwise(hidden))))
        hidden = self.drop(functional.max_pool2d(hidden, 2)).flatten(1)
        return self.head(torch.cat([hidden, torch.relu(self.dense(vector))], dim=1))


class Transposed(nn.Module):
    """Grouped transposed convolution under a batch norm, dilation, 1-d convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.bn = nn.BatchNorm2d(6)
        self.dilated = nn.Conv2d(6, 4, (3, 2), stride=(2, 1), dilation=(2, 1), groups=2)
        self.line = nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.dilated(torch.relu(self.bn(self.up(x)))))
        return self.line(hidden.flatten(2)).amax(2)


class Smooth(nn.Module):
    """GELU: the Hessian block and its Gauss-Newton block differ."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(functional.gelu(self.first(x)))


class Shared(nn.Module):
    """One weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.inner(torch.relu(self.inner(x)))))


class WeightNormed(nn.Module):
    """A weight that is computed from two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))
        self.second = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


class Unreached(nn.Module):
    """A layer whose output the loss does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x) + 0.0 * self.unused(x).detach()


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...], int]] = {
    "residual": (Residual, ((3, 8, 8),), 3),
    "two-inputs": (TwoInputs, ((1, 6, 8), (7,)), 4),
    "transposed": (Transposed, ((4, 5, 4),), 3),
    "smooth": (Smooth, ((6,),), 3),
    "shared": (Shared, ((5,),), 3),
    "weight-norm": (WeightNormed, ((6,),), 2),
}


def build(name: str, samples: int = 6, seed: int = 0) -> tuple[nn.Module, Inputs, torch.Tensor]:
    """(model in evaluation mode, inputs, labels) of one of the networks, seeded."""
    factory, shapes, classes = BUILDERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = randomize_batch_norms(factory()).eval()
        inputs = tuple(torch.randn(samples, *shape) for shape in shapes)
        labels = torch.randint(0, classes, (samples,))
    return model, inputs, labels
