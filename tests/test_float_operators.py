"""What stays in float: MACs against torch's own counter, bytes against what the layers leave."""

import networks
import pytest
import token_networks
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mpsearch.graph.network import Network
from mpsearch.profiling.float_operators import FloatOperator, float_part
from mpsearch.profiling.float_text import float_rows, float_sentence
from mpsearch.quantization.packing import float_bytes_outside


class Products(nn.Module):
    """Every operator that multiplies activations, weights that are computed, parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.kernel = nn.Linear(6, 2 * 9)
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.offset = nn.Parameter(torch.randn(1, 3, 4))
        self.slope = nn.PReLU(4)

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).reshape(-1, 3, 4) + self.offset
        scores = torch.einsum("nic,njc->nij", hidden, hidden)
        scores = torch.baddbmm(scores, hidden, hidden.transpose(1, 2))
        hidden = self.slope((scores @ hidden).transpose(1, 2)).transpose(1, 2)
        hidden = torch.einsum("...c,cd->...d", hidden, self.weight)  # a parameter, not a layer
        kernel = self.kernel(torch.zeros_like(x)).mean(0)  # computed, and the same for all samples
        kernel = kernel.reshape(2, 1, 3, 3)
        seen = functional.conv2d(image, kernel, groups=2)
        return torch.cat([hidden.flatten(1), seen.flatten(1)], dim=1)


class Norms(nn.Module):
    """A batch norm behind an addition cannot be folded; group norm; a sigmoid that scales."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.batch = nn.BatchNorm2d(4)
        self.group = nn.GroupNorm(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.conv(x)
        hidden = self.batch(torch.relu(hidden) + hidden)
        hidden = self.group(hidden) * torch.sigmoid(hidden) * 2.0
        return hidden.mean((2, 3))


def network_of(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], Network]:
    if name == "products":
        inputs: tuple[torch.Tensor, ...] = (torch.randn(2, 6), torch.randn(2, 2, 5, 5))
        model: nn.Module = Products().eval()
    elif name == "norms":
        model, inputs = Norms().eval(), (torch.randn(2, 3, 4, 4),)
    else:
        model, inputs, _ = (networks if name in networks.BUILDERS else token_networks).build(name)
    return model, inputs, Network.from_module(model, inputs)


@pytest.mark.parametrize(
    "name", ["products", "norms", "vision", "vision-fused", "sequence-first", "transposed"]
)
def test_macs_of_layers_and_float_operators_are_those_that_torch_counts(name: str) -> None:
    model, inputs, network = network_of(name)
    one = tuple(x[:1] for x in inputs)
    # torch does not count what its fused attention on the CPU computes
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(*one)
    part = float_part(network)
    assert part.macs + sum(layer.macs for layer in network.layers) == counter.get_total_flops() / 2
    assert part.bytes == float_bytes_outside(network)


def test_operators_and_shares_by_hand() -> None:
    _, _, network = network_of("vision-fused")
    part = float_part(network)
    norm = ("layer_norm", 2 * 8 * 4, 0)
    assert [(each.name, each.operator, each.bytes, each.macs) for each in part.operators] == [
        ("token", "add", 32, 0),
        ("positions", "add", 160, 0),
        ("norms.0", *norm),
        ("attention", "scaled_dot_product_attention", 0, 2 * (5 * 5 * 4 + 5 * 5 * 4)),
        ("norms.1", *norm),
        ("norms.2", *norm),
    ]
    document = part.to_json()
    layers = sum(layer.macs for layer in network.layers)
    assert document["share_of_w8a8_bops"] == pytest.approx(
        400 * 1024 / (layers * 64 + 400 * 1024), rel=1e-12
    )
    assert document["share_of_fp32_bytes"] == pytest.approx(384 / network.fp32_bytes, rel=1e-12)
    assert document["others"] == {"gelu": 1}
    rows = {row[0]: row for row in float_rows(document)}
    assert rows["layer_norm"][1:4] == ("3", "norms.0 and 2 more", "192 B")
    shares = [float(row[6].removesuffix(" %")) for row in rows.values() if row[6]]
    assert shares == [pytest.approx(100 * document["share_of_w8a8_bops"], rel=0.1)]
    assert float_sentence(document).endswith("gelu (1)")


def test_parameters_that_are_no_layer_are_named() -> None:
    _, _, network = network_of("products")
    part = float_part(network)
    assert FloatOperator("slope", "prelu", 16, 0) in part.operators
    assert FloatOperator("offset", "add", 48, 0) in part.operators
    assert [each.bytes for each in part.operators if each.operator == "einsum"] == [0, 80]
    assert [each.macs for each in part.operators if each.operator == "conv2d"] == [2 * 9 * 9]
    _, _, network = network_of("norms")
    part = float_part(network)
    assert [(each.name, each.bytes) for each in part.operators] == [("batch", 64), ("group", 32)]
    assert part.others == {"mul": 1, "sigmoid": 1}  # a scaling by 2 is none


@pytest.mark.parametrize("name", ["residual", "two-inputs", "transposed", "shared"])
def test_nothing_is_listed_where_all_is_in_layers(name: str) -> None:
    part = float_part(network_of(name)[2])
    assert part.operators == ()
    assert float_rows(part.to_json()) == []
    assert float_sentence(part.to_json()) == ""
