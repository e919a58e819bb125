"""TinyM²Net as a Keras model: the paper's size, torch's outputs, and the way back to LiteRT."""

import json
from pathlib import Path

import keras_models
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from networks import randomize_batch_norms

from mpsearch.cli import cli
from mpsearch.errors import InputError
from mpsearch.graph.network_file import save
from mpsearch.importers.keras.converting import convert
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.models.registry import build
from mpsearch.models.tinym2net import (
    BATTLEFIELD,
    COVID,
    Convolution,
    Modality,
    TinyM2Net,
    TinyM2NetConfig,
)
from mpsearch.models.tinym2net_keras import tinym2net_keras

SMALL = TinyM2NetConfig(
    modalities=(
        Modality("audio", (1, 9, 8), (Convolution(4, "same"), Convolution(5, "valid", True, 2)), 6),
        Modality("image", (3, 8, 8), (Convolution(4, "valid"), Convolution(5, "same", True, 3)), 6),
    ),
    hidden=(7,),
    classes=3,
)


def trained(config: TinyM2NetConfig, seed: int = 0) -> TinyM2Net:
    """A network with statistics that are not those of a fresh one."""
    torch.manual_seed(seed)
    model = TinyM2Net(config)
    randomize_batch_norms(model)
    return model.eval()


@pytest.mark.parametrize(("config", "count"), [(BATTLEFIELD, 419_012), (COVID, 119_458)])
def test_the_keras_model_has_the_papers_parameters(config: TinyM2NetConfig, count: int) -> None:
    assert tinym2net_keras(config).count_params() == count


@pytest.mark.parametrize("config", [SMALL, BATTLEFIELD, SMALL.only("image")])
def test_the_weights_of_a_torch_network_give_its_outputs(
    config: TinyM2NetConfig, tmp_path: Path
) -> None:
    model = trained(config)
    inputs = [torch.randn(3, *modality.shape) for modality in config.modalities]
    last = [x.permute(0, 2, 3, 1) for x in inputs]
    with torch.no_grad():
        wanted = model(*inputs).numpy()
    copy = tinym2net_keras(config, model.state_dict())
    got = keras_models.outputs(copy, [x.numpy() for x in last])[0]
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    copy.save(tmp_path / "net.keras")
    converted = convert(tmp_path / "net.keras")
    np.testing.assert_allclose(converted.module(*last).detach().numpy(), wanted, atol=1e-4)
    ours = {name for name, _ in model.named_parameters() if "bn" not in name}
    theirs = {name for name in converted.module.state_dict() if ".bn" not in name}
    assert ours == theirs


def test_weights_of_another_network_are_refused() -> None:
    state = trained(SMALL).state_dict()
    with pytest.raises(InputError, match="shapes"):
        tinym2net_keras(SMALL, {**state, "head.output.bias": torch.zeros(9)})
    del state["audio.bn1.running_var"]
    with pytest.raises(InputError, match=r"no weight audio\.bn1\.running_var"):
        tinym2net_keras(SMALL, state)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_trained_network_goes_through_keras_to_litert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = build("tinym2net-battlefield:image")
    randomize_batch_norms(model)
    images = torch.randn(8, 3, 32, 32)
    save(model.eval(), "trained.pt", (images[:1],))
    weights = ["--keras", "net.keras", "--weights", "trained.pt", "--json"]
    written = json.loads(run("models", "export", "tinym2net-battlefield:image", *weights))
    network = load_network(ModelSource("net.keras")).network
    assert written == {"output": "net.keras", "parameters": network.parameters}
    assert [layer.name for layer in network.layers] == [
        "image.conv1", "image.sep2.depthwise", "image.sep2.pointwise", "image.sep3.depthwise",
        "image.sep3.pointwise", "image.dense", "head.dense1", "head.output",
    ]  # fmt: skip
    with torch.no_grad():
        wanted = model(images)
        got = network(images.permute(0, 2, 3, 1))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    np.savez("data.npz", x0=images.permute(0, 2, 3, 1).numpy(), y=wanted.argmax(1).numpy())
    run("profile", "net.keras", "--data", "data.npz", "--metric", "weight-mse")
    run("solve", "--size", "60%")
    run("apply", "net.keras", "--data", "data.npz")
    pytest.importorskip("ai_edge_litert", reason="python -m pip install '.[litert]'")
    said = run(
        "export", "quantized.pt", "--format", "litert", "--calibration", "data.npz",
        "-o", "net.tflite", "--json",
    )  # fmt: skip
    agreement = json.loads(said)["agreement"]
    parts = [part for kernels in agreement for part in kernels["network"]]
    assert [part["name"] for part in parts] == ["output", "output"]
    assert all(part["assigned"]["rms_steps"] < 4 for part in parts)
