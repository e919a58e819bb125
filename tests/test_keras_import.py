"""Keras files as networks: the same outputs as Keras, its layer names, and nothing that runs."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import keras_models
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from keras_models import ACTIVATIONS, SINGLE, STRUCTURES, chain, outputs, randomize, samples

from mpsearch.cli import cli
from mpsearch.graph.network import Network
from mpsearch.importers.keras.converting import Converted, convert
from mpsearch.importers.loading import ModelSource, load_network

L: Any = keras_models.L


def compare(model: Any, converted: Converted, tolerance: float = 1e-4) -> None:
    """The module's outputs against Keras's own."""
    arrays = samples(model)
    found = converted.module(*(torch.from_numpy(array) for array in arrays))
    got = list(found.values()) if isinstance(found, dict) else [found]
    for ours, theirs in zip(got, outputs(model, arrays), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=tolerance, rtol=1e-4)


def command(*arguments: str) -> str:
    """Run `mpsearch` and return what it prints."""
    done = CliRunner().invoke(cli, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", SINGLE)
def test_every_layer_gives_the_outputs_of_keras(name: str, tmp_path: Path) -> None:
    shape, layers = SINGLE[name]
    model = chain(shape, *layers())
    model.save(tmp_path / "net.keras")
    compare(model, convert(tmp_path / "net.keras"))


def test_every_activation_gives_the_outputs_of_keras(tmp_path: Path) -> None:
    x = keras_models.keras.Input((3, 4), name="x")
    heads = [L.Dense(2)(L.Activation(name)(x)) for name in ACTIVATIONS]
    model = randomize(keras_models.keras.Model(x, heads))
    model.save(tmp_path / "net.keras")
    compare(model, convert(tmp_path / "net.keras"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("loss", ["binary_crossentropy", "mse", None])
def test_a_last_sigmoid_is_left_out_where_it_was_trained_on_answers(
    loss: str | None, suffix: str, tmp_path: Path
) -> None:
    """An autoencoder may end in one: only the file's own loss tells."""
    model = chain((7,), L.Dense(4, activation="sigmoid"))
    if loss is not None:
        model.compile(loss=loss)
    model.save(tmp_path / f"net{suffix}")
    converted = convert(tmp_path / f"net{suffix}")
    (x,) = samples(model)
    found = converted.module(torch.from_numpy(x)).detach()
    (expected,) = outputs(model, [x])
    if loss == "binary_crossentropy":
        assert "the sigmoid at the output is left out" in converted.notes[0]
        found = torch.sigmoid(found)
    else:
        assert not converted.notes
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_graphs_of_layers_give_the_outputs_of_keras(name: str, suffix: str, tmp_path: Path) -> None:
    model = STRUCTURES[name]()
    model.save(tmp_path / f"net{suffix}")
    compare(model, convert(tmp_path / f"net{suffix}"))


def mean_of_windows(
    x: np.ndarray[Any, Any], window: tuple[int, int], strides: tuple[int, int]
) -> np.ndarray[Any, Any]:
    """TensorFlow's average pooling with padding 'same', window by window."""
    _, height, width, _ = x.shape
    rows = []
    for size, k, s in zip((height, width), window, strides, strict=True):
        places = -(-size // s)
        before = max((places - 1) * s + k - size, 0) // 2
        rows.append(
            [range(max(i * s - before, 0), min(i * s - before + k, size)) for i in range(places)]
        )
    return np.stack(
        [np.stack([x[:, r][:, :, c].mean((1, 2)) for c in rows[1]], 1) for r in rows[0]], 1
    )


@pytest.mark.parametrize(
    ("window", "strides"), [((3, 3), (2, 2)), ((2, 4), (1, 1)), ((5, 2), (3, 1)), ((3, 3), (1, 1))]
)
def test_average_pooling_with_same_padding_is_tensorflows(
    window: tuple[int, int], strides: tuple[int, int], tmp_path: Path
) -> None:
    """Keras's torch backend repeats the border instead where the two sides differ (3.15)."""
    model = chain((9, 8, 3), L.AveragePooling2D(window, strides=strides, padding="same"))
    model.save(tmp_path / "net.keras")
    (x,) = samples(model)
    got = convert(tmp_path / "net.keras").module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(got, mean_of_windows(x, window, strides), atol=1e-6)


def test_batch_norms_of_a_model_inside_fold_into_its_convolutions(tmp_path: Path) -> None:
    model = STRUCTURES["frozen"]()
    model.save(tmp_path / "net.h5")
    network = load_network(ModelSource(str(tmp_path / "net.h5"))).network
    assert not any("batch_norm" in str(node.target) for node in network.graph.graph.nodes)
    arrays = samples(model)
    with torch.no_grad():
        got = network(torch.from_numpy(arrays[0])).numpy()
    np.testing.assert_allclose(got, outputs(model, arrays)[0], atol=1e-4)


def test_projections_of_attention_are_layers(tmp_path: Path) -> None:
    model = STRUCTURES["attention"]()
    model.save(tmp_path / "net.keras")
    network = load_network(ModelSource(str(tmp_path / "net.keras"))).network
    found = {layer.name: layer.macs for layer in network.layers}
    assert found["own.query"] == found["own.key"] == 6 * 8 * 8
    assert found["own.value"] == found["own.attention_output"] == 6 * 8 * 6
    arrays = samples(model)
    with torch.no_grad():
        got = network(*map(torch.from_numpy, arrays)).numpy()
    np.testing.assert_allclose(got, outputs(model, arrays)[0], atol=1e-5)


def test_layers_have_the_names_of_keras(tmp_path: Path) -> None:
    model = STRUCTURES["shared"]()
    model.save(tmp_path / "net.keras")
    loaded = load_network(ModelSource(str(tmp_path / "net.keras")))
    network = loaded.network
    assert network.input_names == ("left", "right")
    assert network.input_shapes == ((4, 4, 2), (4, 4, 2))
    last = model.layers[-1].name
    one_by_one = model.get_layer("tower").layers[2].name
    assert [(layer.name, layer.kind, len(layer.nodes)) for layer in network.layers] == [
        ("tower.conv", "conv2d", 2),
        (f"tower.{one_by_one}", "conv2d", 2),
        ("tower.depth", "depthwise_conv2d", 2),
        ("both", "linear", 2),
        (last, "linear", 1),
    ]
    arrays = samples(model)
    with torch.no_grad():
        got = network(*(torch.from_numpy(array) for array in arrays)).numpy()
    np.testing.assert_allclose(got, outputs(model, arrays)[0], atol=1e-4)


@pytest.mark.parametrize("name", ["rescaling-same", "rescaling-uneven", "rescaling-dense"])
def test_a_rescaling_goes_into_the_weights_behind_it(name: str, tmp_path: Path) -> None:
    shape, layers = SINGLE[name]
    chain(shape, *layers()).save(tmp_path / "net.keras")
    targets = [node.target for node in convert(tmp_path / "net.keras").module.graph.nodes]
    assert torch.mul not in targets
    assert torch.add not in targets


def test_outputs_have_names_and_recurrent_layers_are_searched(tmp_path: Path) -> None:
    x = keras_models.keras.Input((5, 3), name="x")
    states = L.LSTM(4, return_sequences=True, name="memory")(x)
    heads = {
        "word": L.Dense(3, activation="softmax", name="a")(L.Flatten()(states)),
        "value": L.Dense(1, name="b")(L.GRU(2, name="last")(states)),
    }
    model = randomize(keras_models.keras.Model(x, heads))
    model.save(tmp_path / "net.keras")
    converted = convert(tmp_path / "net.keras")
    assert len(converted.notes) == 1
    network = Network.from_module(converted.module, converted.examples)
    assert [(output.name, output.shape) for output in network.outputs] == [
        ("word", (3,)), ("value", (1,)),
    ]  # fmt: skip
    assert {layer.name for layer in network.layers} == {
        "memory.weight_ih_l0", "memory.weight_hh_l0", "last.weight_ih_l0", "last.weight_hh_l0",
        "a", "b",
    }  # fmt: skip
    arrays = samples(model)
    wanted = model(arrays[0], training=False)
    with torch.no_grad():
        got = network(torch.from_numpy(arrays[0]))
    word = keras_models.keras.ops.convert_to_numpy(wanted["word"])
    value = keras_models.keras.ops.convert_to_numpy(wanted["value"])
    np.testing.assert_allclose(torch.softmax(got[:, :3], 1).numpy(), word, atol=1e-4)
    np.testing.assert_allclose(got[:, 3:].numpy(), value, atol=1e-4)


needs_data = pytest.mark.skipif(
    "MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA names the real data"
)


@pytest.mark.data
@needs_data
def test_the_resnet_of_mlperf_tiny_has_its_accuracy() -> None:
    root = Path(os.environ["MPSEARCH_DATA"])
    converted = convert(root / "pretrained" / "pretrainedResnet.h5")
    assert "softmax" in converted.notes[0]
    network = Network.from_module(converted.module, converted.examples)
    archive = np.load(root / "cifar10" / "cifar10_test1000.npz")
    with torch.no_grad():
        logits = network(torch.from_numpy(archive["images"]).float())
    assert int((logits.argmax(1).numpy() == archive["labels"]).sum()) == 881


@pytest.mark.data
@needs_data
def test_the_autoencoder_of_mlperf_tiny_gives_the_outputs_of_keras() -> None:
    path = Path(os.environ["MPSEARCH_DATA"]) / "pretrained" / "ad01.h5"
    model = keras_models.keras.models.load_model(path, compile=False)
    converted = convert(path)
    assert converted.notes == ()
    compare(model, converted)
    network = Network.from_module(converted.module, converted.examples)
    assert network.output_shape == (640,)
    assert [layer.name for layer in network.layers] == [
        "dense",
        *(f"dense_{i}" for i in range(1, 10)),
    ]


@pytest.mark.data
@pytest.mark.slow
@needs_data
def test_the_autoencoder_of_mlperf_tiny_is_searched_with_a_regression_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(Path(os.environ["MPSEARCH_DATA"]) / "pretrained" / "ad01.h5")
    np.savez("data.npz", x0=np.random.default_rng(0).normal(0, 1, (24, 640)).astype(np.float32))
    data = ["--data", "data.npz"]
    command("profile", path, *data, "--loss", "reconstruction", "--metric", "fisher")
    command("solve", "--size", "60%")
    command("apply", path, *data)
    command("evaluate", "quantized.pt", *data, "--loss", "reconstruction", "--fp32", path)
    fp32, quantized = json.loads(Path("evaluation.json").read_text())["rows"]
    assert quantized["loss"] == pytest.approx(fp32["loss"], rel=0.3)


@pytest.mark.data
@pytest.mark.slow
@needs_data
def test_the_resnet_of_mlperf_tiny_goes_through_the_whole_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(os.environ["MPSEARCH_DATA"])
    archive = np.load(root / "cifar10" / "cifar10_test1000.npz")
    images, labels = archive["images"].astype(np.float32), archive["labels"].astype(np.int64)
    monkeypatch.chdir(tmp_path)
    np.savez("few.npz", x0=images[:32], y=labels[:32])
    np.savez("test.npz", input_1=images[:300], y=labels[:300])
    model = str(root / "pretrained" / "pretrainedResnet.h5")

    said = command("convert", model, "-o", "model.pt", "--data", "few.npz")
    assert "softmax at the output is left out" in said
    command("profile", model, "--data", "few.npz", "--metric", "sqnr")
    command("solve", "--size", "70%")
    command("apply", model, "--data", "few.npz")
    command("evaluate", "quantized.pt", "--data", "test.npz")
    (row,) = json.loads(Path("evaluation.json").read_text())["rows"]
    assert row["accuracy"] > 0.8
    command("export", "quantized.pt", "--fp32", "model.pt", "-o", "network")
    if shutil.which("cc") and shutil.which("make"):
        subprocess.run(["make", "-s", "-C", "network", "check"], check=True)
