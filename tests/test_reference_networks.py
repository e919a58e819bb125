"""ResNet-20 and ResNet-8 with their published weights reproduce the published accuracies."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpsearch.models.datasets import load_dataset
from mpsearch.models.registry import build
from mpsearch.models.training import measure

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA is not set"),
]


@pytest.mark.parametrize(
    ("name", "weights", "data", "correct"),
    [
        ("resnet20", "resnet20.safetensors", "cifar10", 915),
        ("resnet8", "resnet8_from_h5.safetensors", "cifar10-raw", 881),
    ],
)
def test_published_weights_give_the_published_accuracy(
    name: str, weights: str, data: str, correct: int
) -> None:
    network = build(name)
    state = load_file(Path(os.environ["MPSEARCH_DATA"]) / "pretrained" / weights)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    # The batch norms' counters of training steps take no part in inference.
    assert all(key.endswith("num_batches_tracked") for key in missing)
    loss, accuracy = measure(network, load_dataset(data).split("test"))
    assert (accuracy.correct, accuracy.n) == (correct, 1000)
    assert torch.isfinite(torch.tensor(loss))
