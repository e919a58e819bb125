"""The two networks of the TinyM²Net paper, count for count."""

import pytest
import torch
from torch import nn

from mpsearch.errors import InputError
from mpsearch.models.registry import ARCHITECTURES, architecture, build
from mpsearch.models.tinym2net import (
    BATTLEFIELD,
    COVID,
    Convolution,
    Modality,
    TinyM2Net,
    TinyM2NetConfig,
    flattened_size,
    parameter_count,
)

PRESETS = {"tinym2net-battlefield": BATTLEFIELD, "tinym2net-covid": COVID}


def random_inputs(reference: str, batch: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = architecture(reference).inputs.values()
    return tuple(torch.randn(batch, *shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize(
    ("name", "count"), [("tinym2net-battlefield", 419_012), ("tinym2net-covid", 119_458)]
)
def test_the_papers_parameter_counts(name: str, count: int) -> None:
    assert parameter_count(build(name)) == count


@pytest.mark.parametrize(("config", "sizes"), [(BATTLEFIELD, [2112, 4096]), (COVID, [672, 1296])])
def test_flattened_sizes_by_formula_and_by_running(
    config: TinyM2NetConfig, sizes: list[int]
) -> None:
    assert [flattened_size(modality) for modality in config.modalities] == sizes
    network = TinyM2Net(config).eval()
    for modality, size in zip(config.modalities, sizes, strict=True):
        x = torch.zeros(1, *modality.shape)
        for name, layer in network.get_submodule(modality.name).named_children():
            if name == "dense":
                break
            x = layer(x)
        assert x.shape == (1, size)


def test_layer_names_say_modality_and_kind() -> None:
    layers = [
        name
        for name, module in build("tinym2net-battlefield").named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    branch = ["conv1", "sep2.depthwise", "sep2.pointwise", "sep3.depthwise", "sep3.pointwise"]
    assert layers == [
        *(f"audio.{name}" for name in (*branch, "dense")),
        *(f"image.{name}" for name in (*branch, "dense")),
        "head.dense1",
        "head.output",
    ]


@pytest.mark.parametrize("name", [*ARCHITECTURES, "tinym2net-battlefield:image", "resnet20"])
def test_every_network_exports_with_a_dynamic_batch(name: str) -> None:
    network = build(name).eval()
    inputs = random_inputs(name, 2)
    one = ({0: torch.export.Dim("batch", min=1)},) * len(inputs)
    # TinyM2Net takes `*inputs`: one argument that is a tuple.
    shapes = (one,) if isinstance(network, TinyM2Net) else one
    exported = torch.export.export(network, inputs, dynamic_shapes=shapes).module()
    for batch in (1, 5):
        more = random_inputs(name, batch)
        with torch.no_grad():
            assert exported(*more).shape == (batch, architecture(name).classes)
            torch.testing.assert_close(exported(*more), network(*more))


def test_unimodal_variant_is_one_branch_of_the_whole() -> None:
    whole, image = build("tinym2net-battlefield"), build("tinym2net-battlefield:image")
    branch = {k for k in whole.state_dict() if k.startswith("image.")}
    assert {k for k in image.state_dict() if not k.startswith("head.")} == branch
    assert image(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(ValueError, match="shorter"):
        whole(torch.zeros(2, 1, 44, 13))  # an input too few must not go unnoticed


def test_a_third_modality_is_only_configuration() -> None:
    radar = Modality("radar", (2, 16, 16), (Convolution(8, "same", pool=4),), dense=5)
    network = TinyM2Net(TinyM2NetConfig((*BATTLEFIELD.modalities, radar), (7,), 3))
    inputs = [torch.zeros(2, *modality.shape) for modality in network.config.modalities]
    assert network(*inputs).shape == (2, 3)
    assert network.state_dict()["head.dense1.weight"].shape == (7, 64 + 64 + 5)


def test_the_seed_decides_the_weights_and_nothing_else() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build("tinym2net-covid", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [network.state_dict()["head.output.weight"] for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("tinym2net", "tinym2net-battlefield, tinym2net-covid, resnet20, resnet8"),
        ("tinym2net-battlefield:radar", "audio, image"),
        ("resnet20:sound", "image"),
    ],
)
def test_unknown_names_list_the_known_ones(reference: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        build(reference)


@pytest.mark.parametrize(
    ("modality", "complaint"),
    [
        (Modality("head", (1, 8, 8), (Convolution(4, "same"),), 4), "'head'"),
        (Modality("a.b", (1, 8, 8), (Convolution(4, "same"),), 4), "'a.b'"),
        (Modality("tiny", (1, 4, 4), (Convolution(4, "valid", pool=3),), 4), "nothing is left"),
    ],
)
def test_configurations_that_cannot_be_built(modality: Modality, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        TinyM2Net(TinyM2NetConfig((modality,), (4,), 2))


def test_registry_shapes_are_the_configurations_shapes() -> None:
    for name, config in PRESETS.items():
        shapes = {modality.name: modality.shape for modality in config.modalities}
        assert architecture(name).inputs == shapes
        assert architecture(name).classes == config.classes
