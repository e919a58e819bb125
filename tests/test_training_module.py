"""A quantized network as a module: the same bits in any mode, trains anywhere, and comes back."""

import copy
import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import family_networks
import integer_networks
import networks
import pytest
import token_networks
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import mpsearch
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.finetuning.student import student
from mpsearch.graph.network import Network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, assemble, quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

pytestmark = pytest.mark.kernels
Inputs = tuple[torch.Tensor, ...]
MIXED = [Choice(4, 8), Choice(2, 4), Choice(8, 8)]
WITH_FLOAT = [Choice(4, 8), Choice(32, 8), Choice(8, 32), Choice(3, 3), Choice(32, 32)]
FAMILIES = {
    "recurrent": (family_networks.Reader, WITH_FLOAT),
    "two outputs": (family_networks.Stream, MIXED),
    "padded with infinities": ("adaptive", MIXED),
    "joined in a stored tensor": ("option-a", MIXED),
    "depthwise, two inputs": ("two-inputs", WITH_FLOAT),
    "attention": ("vision-fused", MIXED),
    "indices": ("language", MIXED),
}


def _quantized(of: Any, bits: list[Choice]) -> tuple[QuantizedNetwork, Inputs]:
    """With stored tensors where every layer has integers; codes that are not the nearest."""
    model: nn.Module
    inputs: Inputs
    if not isinstance(of, str):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model, inputs = of().eval(), (torch.randn(8, *of.SHAPE),)
    elif of in networks.BUILDERS:
        model, inputs, _ = networks.build(of, samples=8)
    elif of in token_networks.BUILDERS:
        model, inputs, _ = token_networks.build(of, samples=8)
    else:
        model, inputs = integer_networks.build(of, 8)
    network, data = Network.from_module(model, inputs), Data("x", inputs, None)
    choices = {layer.name: bits[i % len(bits)] for i, layer in enumerate(network.layers)}
    found = quantize(network, choices, calibrate(network, data))
    return (found if bits is WITH_FLOAT else integer_networks.storing(found, data)), inputs


def _flat(outputs: Any) -> torch.Tensor:
    if isinstance(outputs, torch.Tensor):
        return outputs
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.cat([part.flatten(1) for part in parts], 1)


def _train(module: nn.Module, inputs: Inputs, steps: int = 2) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        _flat(module(*inputs)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_module_computes_what_the_integers_do_before_and_after_training(
    name: str, tmp_path: Path
) -> None:
    quantized, inputs = _quantized(*FAMILIES[name])
    module = mpsearch.to_module(quantized)
    assert torch.equal(_flat(module.train()(*inputs)), quantized(*inputs))
    with torch.no_grad():
        assert torch.equal(_flat(module.eval()(*inputs)), quantized(*inputs))
    assert student(quantized.source, quantized).quantized().digest == quantized.digest
    back = mpsearch.from_module(module)
    for file, network in (("q.pt", quantized), ("back.pt", back)):
        save_quantized(network, tmp_path / file)
    assert (tmp_path / "q.pt").read_bytes() == (tmp_path / "back.pt").read_bytes()
    _train(module.train(), inputs)
    missing = [n for n, parameter in module.named_parameters() if parameter.grad is None]
    assert not missing
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    trained = mpsearch.from_module(module)
    assert trained.digest != quantized.digest
    assert torch.equal(trained(*inputs), _flat(module.eval()(*inputs)))
    save_quantized(trained, tmp_path / "trained.pt")
    read = load_quantized(tmp_path / "trained.pt")
    assert torch.equal(_flat(mpsearch.to_module(read)(*inputs)), trained(*inputs))
    assert (read.model_digest, read.input_ranges) == (quantized.model_digest, back.input_ranges)


def _spirals() -> tuple[QuantizedNetwork, torch.Tensor, torch.Tensor]:
    """A small network whose third class is hidden behind a bias of 20."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 3)).eval()
        x = torch.randn(200, 2)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    with torch.no_grad():
        model.get_parameter("2.bias")[0] = 20.0
    network, data = Network.from_module(model, (x,)), Data("x", (x,), y)
    choices = {layer.name: Choice(4, 8) for layer in network.layers}
    return quantize(network, choices, calibrate(network, data)), x, y


def test_a_plain_loop_lowers_the_loss_and_moves_weights_and_steps() -> None:
    quantized, x, y = _spirals()
    for optimizer in (torch.optim.SGD, torch.optim.AdamW):
        module = mpsearch.to_module(quantized)
        assert module(x).requires_grad
        begun = {name: value.clone() for name, value in module.state_dict().items()}
        stepping = optimizer(module.parameters(), lr=0.1)
        losses = []
        for _ in range(60):
            loss = functional.cross_entropy(module(x), y)
            stepping.zero_grad()
            loss.backward()
            stepping.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        moved = {
            name for name, value in module.state_dict().items() if not value.equal(begun[name])
        }
        assert moved == {name for name, _ in module.named_parameters()}
        trained = mpsearch.from_module(module)
        assert torch.equal(trained(x), module(x))
        again = mpsearch.to_module(quantized)
        again.load_state_dict(module.state_dict())
        assert torch.equal(again(x), module(x))
        assert mpsearch.from_module(again).digest == trained.digest


def test_names_are_those_of_the_model() -> None:
    quantized, inputs = _quantized("two-inputs", MIXED)
    module = mpsearch.to_module(quantized)
    state = module.state_dict()
    assert {name for name in state if name.startswith("conv.")} == {
        "conv.weight", "conv.bias", "conv.weight_scale", "conv.weight_scale_change",
        "conv.weight_bits", "conv.input_scale", "conv.input_scale_change", "conv.input_bits",
        "conv.input_zero_point",
    }  # fmt: skip
    conv = quantized.layers["conv"]
    assert conv.weight is not None
    assert torch.equal(state["conv.weight"].flatten(1), conv.weight.dequantize())
    assert torch.equal(state["conv.weight_scale"], conv.weight.scales)
    assert float(state["conv.input_scale"]) == conv.activation.scale
    sound, vector = inputs
    expected = module(sound, vector)
    assert torch.equal(module(vector=vector, sound=sound), expected)
    assert torch.equal(module({"vector": vector, "sound": sound}), expected)
    float_model, _, _ = networks.build("two-inputs", samples=8)
    network = Network.from_module(float_model, inputs)
    latent = mpsearch.to_module(quantized, network)
    assert torch.equal(latent(*inputs), expected)
    assert not torch.equal(latent.state_dict()["conv.weight"], state["conv.weight"])


def test_several_outputs_come_apart() -> None:
    quantized, inputs = _quantized(*FAMILIES["two outputs"])
    scores, state = mpsearch.to_module(quantized)(*inputs)
    assert (scores.shape, state.shape) == ((8, 3), (8, 5))


def test_copies_pickles_and_wrappers_are_the_module(tmp_path: Path) -> None:
    quantized, x, _ = _spirals()
    module = mpsearch.to_module(quantized)
    copied = copy.deepcopy(module)
    _train(module, (x,))
    assert torch.equal(copied(x), quantized(x))
    pickled = pickle.loads(pickle.dumps(module))
    assert torch.equal(pickled(x), module(x))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    copied.load_state_dict(torch.load(file))
    averaged = AveragedModel(copied)
    averaged.update_parameters(module)
    for same in (pickled, copied, averaged):
        assert torch.equal(mpsearch.from_module(same)(x), module(x))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        parallel = DistributedDataParallel(copied)
        _train(module, (x,))
        _train(parallel, (x,))
        trained = mpsearch.from_module(parallel)
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(trained(x), copied.eval()(x))
    torch.testing.assert_close(trained(x), module(x))


def test_scales_for_a_bias_stay_where_they_are() -> None:
    """Channels without weights, and with biases that 32 bits cannot count: twice is once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 96), nn.ReLU(), nn.Linear(96, 4)).eval()
        x = torch.randn(30, 6)
        with torch.no_grad():
            weight, bias = model.get_parameter("0.weight"), model.get_parameter("0.bias")
            weight[:32] *= torch.logspace(-12, -4, 32)[:, None]
            weight[32:64] = 0
            bias.add_(torch.rand(96), alpha=3)
    network, data = Network.from_module(model, (x,)), Data("x", (x,), None)
    start = quantize(network, dict.fromkeys(("0", "2"), Choice(8, 8)), calibrate(network, data))
    module = mpsearch.to_module(start)
    assert torch.equal(module(x), start(x))
    again = student(start.source, start).quantized()
    for name, layer in start.layers.items():
        weight_again = again.layers[name].weight
        assert layer.weight is not None
        assert weight_again is not None
        assert torch.equal(weight_again.scales, layer.weight.scales)
        assert torch.equal(weight_again.codes, layer.weight.codes)
    for change in (-25.0, 25.0):  # a training may take steps anywhere: both ways are counted
        with torch.no_grad():
            module.get_parameter("0.weight_scale_change").fill_(change)
        trained = mpsearch.from_module(module)
        assert torch.equal(trained(x), module(x))
        written = trained.layers["0"].bias()
        assert written is not None
        if change < 0:
            torch.testing.assert_close(written, start.layers["0"].bias(), rtol=1e-6, atol=0)


def test_what_a_module_is_not_and_what_it_cannot_be() -> None:
    quantized, x, _ = _spirals()
    module = mpsearch.to_module(quantized)
    others: list[Any] = [nn.Linear(2, 2), nn.Sequential(module), 3]
    for wrong in others:
        with pytest.raises(InputError, match=r"expected a module that mpsearch.to_module made"):
            mpsearch.from_module(wrong)
    unquantized: Any = quantized.source
    with pytest.raises(InputError, match="got Network for the quantized network; expected"):
        mpsearch.to_module(unquantized)
    wide = Network.from_module(nn.Sequential(nn.Linear(2, 3)).eval(), (x,))
    with pytest.raises(InputError, match="of another model"):
        mpsearch.to_module(quantized, wide)
    layers = {n: replace(v, choice=Choice(3, 8)) for n, v in quantized.layers.items()}
    other = mpsearch.to_module(assemble(quantized.source, layers))
    with pytest.raises(InputError, match=r"0.weight_bits is 3 there and 4 here"):
        module.load_state_dict(other.state_dict())
    with pytest.raises(InputError, match="got 2 inputs; expected 1"):
        module(x, x)
    number: Any = 3
    with pytest.raises(InputError, match="got int as an input; expected tensors"):
        module(number)
    with pytest.raises(InputError, match=r"in float64; expected float32: call module.float\(\)"):
        mpsearch.from_module(copy.deepcopy(module).double())
    with torch.no_grad():
        module.get_parameter("0.weight_scale_change").fill_(200)
    with pytest.raises(InputError, match=r"0.weight_scale is inf; expected positive, finite"):
        mpsearch.from_module(module)
    with torch.no_grad():
        module.get_parameter("2.bias").fill_(float("nan"))
        module.get_parameter("0.weight_scale_change").fill_(0)
    with pytest.raises(InputError, match=r"2.bias is nan; expected finite numbers"):
        mpsearch.from_module(module)
