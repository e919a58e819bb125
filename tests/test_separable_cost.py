"""TinyM²Net, Table 1: parameters of traditional and depthwise separable convolution.

M input channels, N filters, a kernel of Dk x Dk: traditional M·Dk²·N, separable M·Dk² + M·N, both
without biases. The counts are taken from tensors of the built network.
"""

import pytest
from torch import nn

from mpsearch.models.tinym2net import BATTLEFIELD, COVID, TinyM2Net, TinyM2NetConfig

KERNEL = 3


@pytest.mark.parametrize("config", [BATTLEFIELD, COVID], ids=["battlefield", "covid"])
def test_parameters_of_every_convolution(config: TinyM2NetConfig) -> None:
    network = TinyM2Net(config)
    for modality in config.modalities:
        channels = modality.shape[0]
        branch = network.get_submodule(modality.name)
        for number, block in enumerate(modality.blocks, start=1):
            kind = "sep" if block.separable else "conv"
            weights = sum(
                module.weight.numel()
                for module in branch.get_submodule(f"{kind}{number}").modules()
                if isinstance(module, nn.Conv2d)
            )
            traditional = channels * KERNEL**2 * block.filters
            separable = channels * KERNEL**2 + channels * block.filters
            assert weights == (separable if block.separable else traditional)
            channels = block.filters


def test_a_separable_block_filters_each_channel_alone() -> None:
    separable = TinyM2Net(BATTLEFIELD).get_submodule("image.sep2")
    depthwise, pointwise = (
        separable.get_submodule("depthwise"),
        separable.get_submodule("pointwise"),
    )
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(pointwise, nn.Conv2d)
    assert (depthwise.groups, depthwise.bias) == (64, None)
    assert tuple(depthwise.weight.shape) == (64, 1, 3, 3)
    assert tuple(pointwise.weight.shape) == (32, 64, 1, 1)
    assert pointwise.bias is not None
