"""Training learns, is repeatable, and leaves everything around it as it was."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.errors import InputError
from mpsearch.models.samples import Dataset, Split
from mpsearch.models.tinym2net import Convolution, Modality, TinyM2Net, TinyM2NetConfig
from mpsearch.models.training import MIXUP, Accuracy, Epoch, augmented, measure, mixed, train

SOUND = Modality("sound", (1, 12, 6), (Convolution(4, "same", pool=2),), dense=8)
PICTURE = Modality(
    "picture",
    (3, 8, 8),
    (Convolution(4, "same"), Convolution(4, "same", separable=True, pool=2)),
    dense=8,
)
CONFIG = TinyM2NetConfig((SOUND, PICTURE), hidden=(8,), classes=2)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyM2Net(CONFIG)


def toy_split(count: int, seed: int) -> Split:
    """The label is the sign of a bright corner, in both inputs: every start learns it."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    inputs = []
    for shape in (SOUND.shape, PICTURE.shape):
        x = random.standard_normal((count, *shape)).astype(np.float32)
        x[:, :, :4, :4] += 2 * (2 * labels - 1).reshape(-1, 1, 1, 1)
        inputs.append(x)
    return Split(tuple(inputs), labels)


def numpy_random_state() -> np.ndarray:
    state = np.random.get_state(legacy=True)
    assert isinstance(state, tuple)
    return state[1]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    splits = {"train": toy_split(160, 0), "val": toy_split(60, 1), "test": toy_split(200, 2)}
    return Dataset("toy", ("sound", "picture"), ("no", "yes"), splits, True, "a test", "sha256:0")


@pytest.mark.kernels
def test_it_learns_and_returns_the_best_epoch(toy: Dataset) -> None:
    seen: list[Epoch] = []
    result = train(network(), toy, epochs=6, lr=5e-3, on_epoch=seen.append)
    assert result.test is not None
    assert result.test.value > 0.9
    assert tuple(seen) == result.history
    assert result.best.val_accuracy == max(epoch.val_accuracy for epoch in result.history)
    # The network that is returned is the one of that epoch, in evaluation mode.
    loss, accuracy = measure(result.model, toy.split("val"))
    assert (loss, accuracy.value) == (result.best.val_loss, result.best.val_accuracy)
    assert accuracy == result.validation
    assert not result.model.training


@pytest.mark.kernels
def test_a_seed_gives_the_same_network_whatever_came_before(toy: Dataset) -> None:
    first = train(network(), toy, epochs=2, seed=5)
    torch.rand(17)
    again, other = train(network(), toy, epochs=2, seed=5), train(network(), toy, epochs=2, seed=6)
    assert first.history == again.history
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.history != other.history


@pytest.mark.parametrize("augment", [False, True])
def test_the_callers_network_and_random_state_are_untouched(toy: Dataset, augment: bool) -> None:
    mine = network()
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    state = torch.random.get_rng_state()
    numpy_state = numpy_random_state()
    result = train(mine, toy, epochs=1, augment=augment)
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(numpy_random_state(), numpy_state)
    assert all(torch.equal(value, before[key]) for key, value in mine.state_dict().items())
    assert all(parameter.grad is None for parameter in mine.parameters())
    assert all(p.is_contiguous() for p in result.model.parameters())
    assert result.model is not mine


def test_the_test_split_decides_nothing(toy: Dataset) -> None:
    turned = replace(toy.splits["test"], labels=1 - toy.splits["test"].labels)
    splits = {**toy.splits, "test": turned}
    one, two = (train(network(), replace(toy, splits=s), epochs=2) for s in (toy.splits, splits))
    assert one.history == two.history
    assert one.test is not None
    assert two.test is not None
    assert one.test.correct + two.test.correct == 200


def test_without_a_validation_split_a_tenth_of_train_stands_in(toy: Dataset) -> None:
    splits = {"train": toy.splits["train"]}
    result = train(network(), replace(toy, splits=splits), epochs=1)
    assert result.validation.n == 16
    assert result.test is None


def test_a_constant_schedule_differs_from_cosine_after_the_first_epoch(toy: Dataset) -> None:
    cosine = train(network(), toy, epochs=2).history
    constant = train(network(), toy, epochs=2, schedule="constant").history
    assert cosine[0] == constant[0]
    assert cosine[1] != constant[1]


def test_settings_that_cannot_work(toy: Dataset) -> None:
    for settings in ({"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": math.nan}):
        with pytest.raises(InputError, match="expected positive numbers"):
            train(network(), toy, **settings)
    with pytest.raises(InputError, match="try a smaller lr"):
        train(network(), toy, epochs=3, lr=1e30)
    with pytest.raises(InputError, match="no split 'train'"):
        train(network(), replace(toy, splits={"test": toy.splits["test"]}))


def test_wilson_interval_against_published_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for correct, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)]:
        assert Accuracy(correct, n).interval == pytest.approx((low, high), abs=5e-5)
    assert Accuracy(0, 20).interval == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert Accuracy(29, 29).interval == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_augmentation_keeps_shapes_and_moves_only_what_it_should() -> None:
    sounds = torch.arange(1.0, 1 + 50 * 20 * 13).view(50, 1, 20, 13)
    images = torch.arange(1.0, 1 + 50 * 3 * 32 * 32).view(50, 3, 32, 32)
    new = augmented((sounds, images), torch.Generator().manual_seed(0))
    assert [x.shape for x in new] == [sounds.shape, images.shape]
    for index in range(50):  # every pixel comes from the same image, or is blanked
        values = set(new[1][index].flatten().tolist()) - {0.0}
        assert values <= set(images[index].flatten().tolist())
        for coefficient in new[0][index, 0].T:  # one constant is added, and the order is kept
            seen = coefficient[coefficient != 0]
            steps = (seen - seen[:1]) / 13
            assert torch.allclose(steps, steps.round(), atol=1e-2)
            assert len(steps.round().unique()) == len(seen)
    blanked = [(x.flatten(1) == 0).all(1) for x in new]
    assert not (blanked[0] & blanked[1]).any()  # never all inputs of one sample
    assert sum(int(b.sum()) for b in blanked) > 0
    # A channel stays where it was: images hold 1024 consecutive numbers per channel.
    assert bool((new[1][:, 0] <= images[:, 0].amax((1, 2), keepdim=True)).all())


def test_mixing_blends_samples_and_says_which() -> None:
    inputs = (torch.eye(16).view(16, 1, 4, 4), 2 * torch.eye(16))
    labels = torch.arange(16)
    shares = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        blended, others, share = mixed(inputs, labels, generator)
        expected = share * torch.eye(16) + (1 - share) * torch.eye(16)[others]
        assert torch.allclose(blended[0].view(16, 16), expected)
        assert torch.allclose(blended[1], 2 * expected)
        assert others.sort().values.equal(labels)
        shares.append(share)
    # Beta(a, a) has mean 1/2 and variance 1/(4 (2a + 1)); four standard errors of 200 draws.
    variance = 1 / (4 * (2 * MIXUP + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * math.sqrt(variance / 200))
    assert np.var(shares) == pytest.approx(variance, rel=0.3)


@pytest.mark.kernels
def test_augmented_training_averages_weights_and_repeats(toy: Dataset) -> None:
    first = train(network(), toy, epochs=3, lr=5e-3, augment=True)
    again = train(network(), toy, epochs=3, lr=5e-3, augment=True)
    for left, right in zip(
        first.model.state_dict().values(), again.model.state_dict().values(), strict=True
    ):
        assert left.equal(right)
    assert first.best == min(first.history, key=lambda epoch: epoch.val_loss)
    # One epoch of one step: the average is the network after that step, not before it.
    one = replace(toy, splits={**toy.splits, "train": toy.splits["train"].take(np.arange(32))})
    before = network().state_dict()["head.output.weight"]
    after = train(network(), one, epochs=1, lr=5e-3, augment=True).model
    assert float((after.state_dict()["head.output.weight"] - before).abs().max()) > 1e-3


def test_a_balanced_sample_takes_what_there_is() -> None:
    labels = np.array([0] * 90 + [1] * 7 + [2] * 30)
    split = Split((np.arange(127, dtype=np.float32)[:, None],), labels)
    sample = split.balanced(60, 3, seed=1)
    assert np.bincount(sample.labels).tolist() == [27, 7, 26]
    assert len(set(sample.inputs[0][:, 0])) == 60
    assert (labels[sample.inputs[0][:, 0].astype(int)] == sample.labels).all()
    assert list(sample.arrays()) == ["x0", "y"]
    assert len(split.balanced(1000, 3)) == 127
