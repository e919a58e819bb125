"""Every model becomes one graph with the same outputs, names and costs."""

import networks
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mpsearch.errors import InputError
from mpsearch.graph.layers import residual_groups
from mpsearch.graph.network import Network


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    model, inputs, _ = networks.build(name)
    network = Network.from_module(model, inputs)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), model(*inputs))


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_batch_norms_are_gone_and_layers_keep_their_module_names(name: str) -> None:
    model, inputs, _ = networks.build(name)
    network = Network.from_module(model, inputs)
    operators = {str(node.target) for node in network.graph.graph.nodes}
    assert not any("batch_norm" in operator or "dropout" in operator for operator in operators)
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    modules = {path for path, module in model.named_modules() if isinstance(module, kinds)}
    assert {layer.name for layer in network.layers} == modules


def test_the_callers_model_is_left_alone() -> None:
    model, inputs, _ = networks.build("two-inputs")
    model.train()
    model.get_submodule("drop").eval()  # a mixed state must come back as it was
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    Network.from_module(model, inputs)
    assert [m.training for m in model.modules()].count(False) == 1
    assert not model.get_submodule("drop").training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_macs_agree_with_torchs_flop_counter(name: str) -> None:
    model, inputs, _ = networks.build(name)
    network = Network.from_module(model, inputs)
    one = tuple(x[:1] for x in inputs)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*one)
    assert 2 * sum(layer.macs for layer in network.layers) == counter.get_total_flops()


@pytest.mark.parametrize(("m", "n", "dk", "dp"), [(3, 8, 3, 10), (16, 4, 5, 7)])
def test_separable_costs_are_those_of_tinym2net_table_1(m: int, n: int, dk: int, dp: int) -> None:
    """Depthwise separable: M·Dk² + M·N parameters, M·Dp²·Dk² + M·Dp²·N MACs; traditional beside."""
    depthwise = nn.Conv2d(m, m, dk, padding="same", groups=m, bias=False)
    separable = nn.Sequential(depthwise, nn.Conv2d(m, n, 1, bias=False))
    traditional = nn.Sequential(nn.Conv2d(m, n, dk, padding="same", bias=False))
    for model, weights, macs in (
        (separable, m * dk**2 + m * n, m * dp**2 * dk**2 + m * dp**2 * n),
        (traditional, m * dk**2 * n, m * dk**2 * dp**2 * n),
    ):
        head = nn.Sequential(model, nn.Flatten())
        network = Network.from_module(head, (torch.zeros(1, m, dp, dp),))
        assert sum(layer.weights for layer in network.layers) == weights
        assert sum(layer.macs for layer in network.layers) == macs


def test_a_weight_used_twice_is_one_layer_with_the_macs_of_both_uses() -> None:
    model, inputs, _ = networks.build("shared")
    inner = Network.from_module(model, inputs).layers[0]
    assert (inner.name, len(inner.nodes), inner.macs) == ("inner", 2, 2 * 25)


def test_layers_that_meet_in_an_addition_share_a_group() -> None:
    model, inputs, _ = networks.build("residual")
    network = Network.from_module(model, inputs)
    groups = residual_groups(network.graph, network.layers)
    assert set(groups) == {"conv2", "down"}
    assert groups["conv2"] == groups["down"]


def test_parameters_count_running_statistics_and_folding_does_not_change_the_count() -> None:
    model, inputs, _ = networks.build("residual")
    expected = sum(p.numel() for p in model.parameters()) + 2 * 2 * 6  # two norms: mean, variance
    assert Network.from_module(model, inputs).parameters == expected


def test_equal_networks_have_equal_digests_and_a_changed_weight_does_not() -> None:
    model, inputs, _ = networks.build("residual")
    first, second = (Network.from_module(model, inputs).digest for _ in range(2))
    with torch.no_grad():
        model.get_parameter("down.bias")[0] += 1e-6
    assert first == second != Network.from_module(model, inputs).digest


class _Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1).sum(0, keepdim=True)


class _Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class _Counted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1)


def test_a_batch_counted_by_len_stays_free() -> None:
    """The quick exporter makes a number of `len(x)`; users write it as often as `x.shape[0]`."""
    network = Network.from_module(_Counted(), (torch.zeros(1, 2, 3),))
    assert network(torch.arange(18.0).reshape(3, 2, 3)).tolist()[2] == [12, 13, 14, 15, 16, 17]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_Fixed(), "makes a constant of its batch size|fixes its batch size"),
        (_Branch(), "cannot be exported"),
        (nn.Sequential(nn.Flatten(0)), "expected one row of outputs per sample"),
    ],
)
def test_what_cannot_be_exported_gets_its_reason_in_one_line(
    model: nn.Module, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Network.from_module(model, (torch.ones(2, 4),))
    assert "\n" not in str(caught.value)


def test_a_wrong_number_of_inputs_is_named() -> None:
    model, inputs, _ = networks.build("residual")
    with pytest.raises(InputError, match="does not take 2 inputs"):
        Network.from_module(model, (*inputs, *inputs))
