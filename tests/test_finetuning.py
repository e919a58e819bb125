"""Fine-tuning improves what the integers score, resumes to the bit and never returns worse."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate
from mpsearch.finetuning.arguments import trained_tensors
from mpsearch.finetuning.data import EVALUATION_BATCH, split
from mpsearch.finetuning.student import student
from mpsearch.finetuning.training import START, Epoch, FineTuned, FineTuning, finetune
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import get_tensor, set_tensor
from mpsearch.post_training.repairing import PostTraining, quantize_after_training
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, assemble, quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.quantization.quantizer import QuantizedWeight, weight_at, weight_codes_range
from mpsearch.tables.choice import Choice

pytestmark = pytest.mark.kernels
MIXED = [Choice(4, 8), Choice(3, 3), Choice(32, 8), Choice(8, 32), Choice(2, 4), Choice(32, 32)]


def _accuracies(result: FineTuned) -> list[float]:
    return [epoch.accuracy for epoch in result.history if epoch.accuracy is not None]


def _prepare(name: str) -> tuple[Network, Data]:
    model, inputs, labels = networks.build(name, samples=40)
    return Network.from_module(model, inputs), Data("test", inputs, labels)


def _mixed(network: Network, shift: int = 0) -> dict[str, Choice]:
    return {
        layer.name: MIXED[(index + shift) % len(MIXED)]
        for index, layer in enumerate(network.layers)
    }


def spirals(count: int, seed: int) -> Data:
    """Three arms around the origin: a network must bend its borders, which few bits do badly."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    radius = 0.2 + 1.8 * torch.rand(count, generator=generator)
    angle = 2 * radius + labels * (2 * math.pi / 3)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    points += 0.05 * torch.randn(count, 2, generator=generator)
    return Data("spirals", (points,), labels)


@pytest.fixture(scope="module")
def trained() -> Network:
    """A small float network that separates the arms."""
    data = spirals(600, 0)
    assert data.labels is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(300):
            loss = functional.cross_entropy(model(data.inputs[0]), data.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Network.from_module(model.eval(), data.inputs)


def _uniform(network: Network, choice: Choice) -> dict[str, Choice]:
    return dict.fromkeys((layer.name for layer in network.layers), choice)


def _tune(network: Network, choice: Choice, **settings: object) -> FineTuned:
    wanted = replace(FineTuning(epochs=3, lr=5e-3), **settings)  # type: ignore[arg-type]
    return finetune(network, _uniform(network, choice), spirals(600, 0), None, wanted)


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_before_training_the_student_is_the_quantized_network(name: str) -> None:
    network, data = _prepare(name)
    start = quantize(network, _mixed(network), calibrate(network, data))
    begun = student(network, start)
    with torch.no_grad():
        assert torch.equal(begun(*data.inputs), start(*data.inputs))
    back = begun.quantized()
    assert back.assignment == start.assignment
    for layer in network.layers:
        old, new = start.layers[layer.name], back.layers[layer.name]
        assert old.activation == new.activation
        assert (old.weight is None) == (new.weight is None)
        if old.weight is not None and new.weight is not None:
            assert torch.equal(old.weight.codes, new.weight.codes)
            assert torch.equal(old.weight.scales, new.weight.scales)
    with torch.no_grad():
        assert torch.equal(back(*data.inputs), start(*data.inputs))


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_the_integers_after_training_score_as_the_student_did(name: str) -> None:
    """Steps and weights have moved: what is written computes what was trained."""
    network, data = _prepare(name)
    learner = student(network, quantize(network, _mixed(network, 3), calibrate(network, data)))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in learner.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    with torch.no_grad():
        assert torch.equal(learner.quantized()(*data.inputs), learner(*data.inputs))


class Normed(nn.Module):
    """Tokens, a layer norm, a constant mask and a tensor that is only added."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)
        self.register_buffer("offset", torch.ones(6))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.embedding(tokens) + self.offset)
        return functional.linear(hidden.mean(1), self.head.weight, self.head.bias)


def test_norms_embeddings_and_biases_train_and_constants_do_not() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 7, (60, 4))
    data = Data("tokens", (tokens,), tokens[:, 0] % 2)
    model = Normed().eval()
    with torch.no_grad():
        model.head.bias[2] = 3.0  # a class that no sample has: whatever training does is better
    network = Network.from_module(model, (tokens,))
    assert set(trained_tensors(network)) == {
        "embedding.weight", "norm.weight", "norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    choices = {"embedding": Choice(32, 32), "head": Choice(4, 4)}
    settings = FineTuning(epochs=4, lr=0.1, distillation=0)
    learner = student(network, quantize(network, choices, calibrate(network, data)))
    learner(tokens).square().sum().backward()
    for name, parameter in learner.parameters.items():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
    result = finetune(network, choices, data, data, settings)
    assert _accuracies(result)[0] == 0
    assert _accuracies(result)[result.best.number] > 0


def test_a_start_with_other_rounding_is_kept() -> None:
    """Adaptive rounding moves codes to the other neighbour; rescaling gives codes far away."""
    network, data = _prepare("residual")
    choices = _uniform(network, Choice(4, 8))
    nearest = quantize(network, choices, calibrate(network, data))
    generator = torch.Generator().manual_seed(0)
    low, high = weight_codes_range(4)
    layers = dict(nearest.layers)
    for name, layer in nearest.layers.items():
        assert layer.weight is not None
        moved = torch.randint(-1, 2, layer.weight.codes.shape, generator=generator)
        moved *= 1 if name != "conv2" else 4
        codes = (layer.weight.codes + moved).clamp(low, high).to(torch.int16)
        layers[name] = replace(layer, weight=QuantizedWeight(codes, layer.weight.scales))
    start = assemble(network, layers)
    back = student(network, start).quantized()
    for name, layer in start.layers.items():
        found = back.layers[name].weight
        assert layer.weight is not None
        assert found is not None
        assert torch.equal(found.codes, layer.weight.codes)


@pytest.mark.parametrize("labelled", [True, False])
def test_training_repairs_a_start_on_unseen_data(trained: Network, labelled: bool) -> None:
    """One output's bias is so wrong that a third of the answers is right, on any processor."""
    train, test = spirals(600, 0), spirals(1000, 7)
    assert evaluate("float", trained, test).accuracy > 0.9
    harmed = replace(trained, graph=copy_graph(trained.graph))
    name = trained.layers[-1].bias_name
    assert name is not None
    set_tensor(harmed.graph, name, get_tensor(harmed.graph, name) + torch.tensor([20.0, 0, 0]))
    choices = _uniform(trained, Choice(3, 4))
    start = quantize(harmed, choices, calibrate(trained, train))
    if not labelled:
        train = replace(train, labels=None)
    result = finetune(trained, choices, train, None, FineTuning(epochs=4, lr=2e-2), start)
    assert result.labelled == labelled
    assert evaluate("before", start, test).accuracy < 0.6
    assert evaluate("after", result.network, test).accuracy > 0.8


def test_the_reported_score_is_that_of_the_written_file(trained: Network, tmp_path: Path) -> None:
    validation = spirals(300, 3)
    result = finetune(
        trained, _uniform(trained, Choice(2, 4)), spirals(600, 0), validation,
        FineTuning(epochs=3, lr=5e-3),
    )  # fmt: skip
    save_quantized(result.network, tmp_path / "q.pt")
    measured = evaluate("file", load_quantized(tmp_path / "q.pt"), validation)
    assert (measured.accuracy, measured.loss) == (result.best.accuracy, result.best.loss)
    assert result.best in result.history
    assert result.best.accuracy == max(_accuracies(result))


def test_it_never_returns_worse_than_the_start(trained: Network) -> None:
    result = _tune(trained, Choice(8, 8), lr=3.0)
    assert _accuracies(result)[0] > max(_accuracies(result)[1:])
    assert result.best == result.history[0]
    sample = split(spirals(600, 0), None, 0)[0].take(256, 0)
    choices = _uniform(trained, Choice(8, 8))
    start = quantize_after_training(trained, choices, sample, START, EVALUATION_BATCH)
    x = spirals(50, 1).inputs
    assert torch.equal(result.network(*x), start(*x))


def _same_integers(one: QuantizedNetwork, other: QuantizedNetwork) -> bool:
    x = spirals(200, 5).inputs
    return one.source.digest == other.source.digest and torch.equal(one(*x), other(*x))


@pytest.mark.parametrize(
    ("killed_after", "restless"), [(1, False), (2, False), (4, False), (2, True)]
)
def test_a_killed_run_goes_on_to_the_same_bits(
    trained: Network, killed_after: int, restless: bool, tmp_path: Path
) -> None:
    """`restless`: steps so large and so many that many codes turn back, on any processor."""
    calm, wild = FineTuning(epochs=4, lr=5e-3), FineTuning(epochs=4, lr=0.1, batch_size=4)
    settings = wild if restless else calm
    choices = _uniform(trained, Choice(3, 4))
    whole = finetune(trained, choices, spirals(300, 0), None, settings)
    if restless:
        shares = [epoch.frozen for epoch in whole.history]
        assert 0 < shares[killed_after] < shares[4] < 1

    def kill(epoch: Epoch) -> None:
        if epoch.number == killed_after:
            raise KeyboardInterrupt

    output = tmp_path / "q.pt"
    with pytest.raises(KeyboardInterrupt):
        finetune(trained, choices, spirals(300, 0), None, settings, None, kill, output)
    seen: list[Epoch] = []
    resumed = finetune(trained, choices, spirals(300, 0), None, settings, None, seen.append, output)
    assert resumed.resumed == killed_after
    assert [epoch.number for epoch in seen] == list(range(killed_after + 1, 5))
    assert resumed.history == whole.history
    assert _same_integers(resumed.network, whole.network)
    assert resumed.checkpoint is not None
    assert resumed.checkpoint.exists()


def test_a_checkpoint_is_not_read_by_another_run(trained: Network, tmp_path: Path) -> None:
    data, choices = spirals(200, 0), _uniform(trained, Choice(3, 4))
    settings = FineTuning(epochs=1)
    output = tmp_path / "q.pt"
    first = finetune(trained, choices, data, None, settings, checkpoint=output)
    start = quantize(trained, choices, calibrate(trained, data))
    others = (
        (choices, data, replace(settings, lr=2e-3), None),
        (choices, data, replace(settings, freezing=False), None),
        (choices, spirals(200, 1), settings, None),
        (_uniform(trained, Choice(4, 4)), data, settings, None),
        (choices, data, settings, start),
    )
    for bits, samples, changed, begun in others:
        again = finetune(trained, bits, samples, None, changed, begun, checkpoint=output)
        assert again.resumed == 0
    same = finetune(trained, choices, data, None, settings, checkpoint=output)
    assert same.resumed == 1
    assert first.checkpoint is not None
    first.checkpoint.write_bytes(first.checkpoint.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged checkpoint"):
        finetune(trained, choices, data, None, settings, checkpoint=output)


def test_it_is_seeded_and_leaves_everything_else_alone(trained: Network) -> None:
    state, before = torch.get_rng_state(), copy.copy(trained.graph.state_dict())
    before = {name: tensor.clone() for name, tensor in before.items()}
    first, second = (_tune(trained, Choice(3, 3), seed=4) for _ in range(2))
    assert first.history == second.history
    assert _same_integers(first.network, second.network)
    other = _tune(trained, Choice(3, 3), seed=5)
    assert first.history[1].train_loss != other.history[1].train_loss
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in trained.graph.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert not tensor.requires_grad


def test_a_tenth_of_every_class_is_held_out() -> None:
    labels = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)[torch.randperm(60)]
    data = Data("classes", (torch.arange(60.0)[:, None],), labels)
    fitting, validation = split(data, None, 3)
    assert validation.labels is not None
    assert validation.labels.bincount().tolist() == [3, 2, 1]
    rows = [x.inputs[0].flatten().tolist() for x in (fitting, validation)]
    assert sorted(rows[0] + rows[1]) == list(range(60))
    assert rows[1] != split(data, None, 4)[1].inputs[0].flatten().tolist()
    two = Data("two", (torch.zeros(2, 1),), None)
    assert [len(part) for part in split(two, None, 0)] == [1, 1]


def test_augmentation_changes_the_training_and_teaches_by_the_changed_batch() -> None:
    model, inputs, labels = networks.build("residual", samples=30)
    network, data = Network.from_module(model, inputs), Data("images", inputs, labels)
    choices = _uniform(network, Choice(4, 4))
    plain, changed = (
        finetune(network, choices, data, data, FineTuning(epochs=1, augment=augment))
        for augment in (False, True)
    )
    assert plain.history[0] == changed.history[0]
    assert plain.history[1].train_loss != changed.history[1].train_loss


def test_a_repaired_start_is_trained_as_it_is(trained: Network) -> None:
    """Equalised, bias-corrected, adaptively rounded: its weights are no roundings of FP32's."""
    choices, data = _uniform(trained, Choice(3, 4)), spirals(300, 0)
    repairs = PostTraining(equalize=True)
    start = quantize_after_training(trained, choices, data, repairs)
    x = spirals(100, 2).inputs
    with torch.no_grad():
        assert torch.equal(student(trained, start)(*x), start(*x))
    result = finetune(trained, choices, data, data, FineTuning(epochs=2), start)
    begun, measured = result.history[0], evaluate("start", start, data)
    assert (begun.accuracy, begun.loss) == (measured.accuracy, measured.loss)
    assert result.best.accuracy == max(_accuracies(result))


def test_one_scale_for_all_channels_stays_one(trained: Network) -> None:
    """A start that was quantized per tensor is still per tensor after a step of training."""
    choices, data = _uniform(trained, Choice(4, 4)), spirals(300, 0)
    start = quantize(trained, choices, calibrate(trained, data))
    layers, scale_of = {}, {}
    for layer in trained.layers:
        rows, _ = trained.weight_rows(layer)
        scales = torch.full((len(rows),), float(rows.abs().max()) / 7)
        weight = weight_at(rows, scales, 4)
        scale_of[layer.name] = float(scales[0])
        layers[layer.name] = replace(start.layers[layer.name], weight=weight, bias_codes=None)
    learner = student(trained, assemble(trained, layers))
    optimizer = torch.optim.Adam(learner.parameters.values(), lr=1e-2)
    functional.cross_entropy(learner(*data.inputs), torch.zeros(300).long()).backward()
    optimizer.step()
    for name, tuned in learner.quantized().layers.items():
        assert tuned.weight is not None
        assert len(tuned.weight.scales.unique()) == 1
        assert float(tuned.weight.scales[0]) != scale_of[name]


def test_a_dead_channel_keeps_its_bias() -> None:
    model, inputs, labels = networks.build("smooth", samples=40)
    with torch.no_grad():
        model.get_parameter("first.weight")[0] = 1e-12
        model.get_parameter("first.bias")[0] = 1.5
    network, data = Network.from_module(model, inputs), Data("test", inputs, labels)
    choices = _uniform(network, Choice(8, 8))
    learner = student(network, quantize(network, choices, calibrate(network, data)))
    with torch.no_grad():
        learner.parameters["first.weight_scale"][0] = -30.0  # the training may take it anywhere
    bias = learner.quantized().layers["first"].bias()
    assert bias is not None
    assert float(bias[0]) == pytest.approx(1.5, rel=1e-6)


def test_settings_and_data_that_cannot_work(trained: Network) -> None:
    for settings, complaint in (
        ({"epochs": 0}, "expected positive numbers"),
        ({"batch_size": 0}, "expected positive numbers"),
        ({"lr": math.nan}, "expected positive numbers"),
        ({"distillation": 1.5}, "expected 0 to 1"),
        ({"augment": True}, r"cannot augment x0 of shape \(2,\)"),
        ({"lr": 1e30}, r"the loss became .* in epoch 1 at lr 1e\+30; try a smaller lr"),
    ):
        with pytest.raises(InputError, match=complaint):
            _tune(trained, Choice(4, 4), **settings)
    data = spirals(50, 0)
    with pytest.raises(InputError, match="has one sample"):
        finetune(trained, _uniform(trained, Choice(4, 4)), data.take(1, 0))
    with pytest.raises(InputError, match="'conv9'"):
        finetune(trained, {"conv9": Choice(4, 4)}, data)
    start = quantize(trained, _uniform(trained, Choice(8, 8)), calibrate(trained, data))
    with pytest.raises(InputError, match="other bits"):
        finetune(trained, _uniform(trained, Choice(4, 4)), data, start=start)
    wide = nn.Sequential(
        nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 3)
    )
    other = Network.from_module(wide.eval(), data.inputs)
    with pytest.raises(InputError, match="of another model: they differ at layer '2'"):
        finetune(other, start.assignment, data, start=start)
