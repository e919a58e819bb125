"""Keras files that are damaged, hostile or of another kind: one clear error, and nothing runs."""

import io
import json
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras_models
import numpy as np
import pytest
from keras_models import STRUCTURES, chain, keras, randomize

from mpsearch.errors import InputError, MissingExtraError
from mpsearch.graph.memory_budget import of_load
from mpsearch.importers.keras.converting import convert
from mpsearch.importers.keras.layer_graph import clean_names
from mpsearch.importers.keras.reading import CONFIG, WEIGHTS
from mpsearch.importers.kinds import KERAS, detect
from mpsearch.importers.loading import ModelSource, load_module

L: Any = keras_models.L


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution, a batch norm and a dense layer, as `.keras` and as `.h5`."""
    folder = tmp_path_factory.mktemp("keras")
    model = chain((6, 6, 2), L.Conv2D(3, 3, name="conv"), L.BatchNormalization(name="norm"),
                  L.Flatten(name="flat"), L.Dense(2, name="dense"))  # fmt: skip
    model.save(folder / "net.keras")
    model.save(folder / "net.h5")
    return folder / "net.keras"


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, content: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def edited(good: Path, path: Path, change: Callable[[Any], object]) -> Path:
    """The good file with its config changed."""
    content = members(good)
    config = json.loads(content[CONFIG])
    change(config)
    return pack(path, {**content, CONFIG: json.dumps(config).encode()})


def rewired(good: Path, path: Path, change: Callable[[Any], object]) -> Path:
    """The good file with its weights changed."""
    content = members(good)
    buffer = io.BytesIO(content[WEIGHTS])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return pack(path, {**content, WEIGHTS: buffer.getvalue()})


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        convert(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_a_heap_that_hdf5_would_never_leave_is_refused(tmp_path: Path) -> None:
    """The library walks a heap of texts by their sizes, and stays where one is 0."""
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{" * 300
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    free = heap + 16 + 16 + 304
    for at, size in ((free + 8, 0), (heap + 16 + 8, 2**64 - 16), (heap + 8, 2**40), (14, 4)):
        damaged = bytearray(whole)
        damaged[at : at + (1 if at == 14 else 8)] = size.to_bytes(1 if at == 14 else 8, "little")
        path.write_bytes(damaged)
        refused(path, "whose sizes cannot be|addresses of 8 bytes")


def entry(config: Any, name: str) -> Any:
    return next(e for e in config["config"]["layers"] if e["config"]["name"] == name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: entry(c, "conv").update(class_name="Lambda"), "'conv' has the class Lambda"),
        (lambda c: entry(c, "conv").update(module="my.code"), "Conv2D of my.code"),
        (lambda c: entry(c, "conv").update(registered_name="a>Conv2D"), "Conv2D of a>Conv2D"),
        (lambda c: entry(c, "conv").update(class_name=3), "without class"),
        (lambda c: entry(c, "dense").update(config=[]), "dense|without a name"),
        (lambda c: c["config"].update(layers=3), "layers is not a list|without layers"),
        (lambda c: c["config"].update(layers=[]), "without layers"),
        (lambda c: c.update(class_name="MyModel", config={}), "subclassed"),
        (lambda c: entry(c, "conv")["config"].update(filters=10**9), "filters is '1000000000'"),
        (lambda c: entry(c, "conv")["config"].update(filters=4), "kernel has shape"),
        (lambda c: entry(c, "conv")["config"].update(kernel_size=[3]), "kernel_size"),
        (lambda c: entry(c, "conv")["config"].update(kernel_size=[30, 3]), "kernel has shape"),
        (lambda c: entry(c, "conv")["config"].update(strides=[0, 1]), "strides"),
        (lambda c: entry(c, "conv")["config"].update(padding="odd"), "padding is 'odd'"),
        (lambda c: entry(c, "conv")["config"].update(activation="evil"), "activation 'evil'"),
        (lambda c: entry(c, "conv")["config"].update(
            activation={"class_name": "function", "config": "evil"}), "activation 'evil'"),
        (lambda c: entry(c, "conv")["config"].update(
            activation={"class_name": "Lambda", "config": {}}), "'Lambda' is not one of"),
        (lambda c: entry(c, "conv")["config"].update(dtype={
            "class_name": "QuantizedDTypePolicy", "config": {}}), "quantized already"),
        (lambda c: entry(c, "norm")["config"].update(axis=7), "axis is '7'"),
        (lambda c: entry(c, "norm")["config"].update(epsilon="x"), "epsilon is 'x'"),
        (lambda c: entry(c, "x")["config"].update(batch_shape=[None, 10**9, 10**9, 2]), "of shape"),
        (lambda c: entry(c, "x")["config"].update(batch_shape=[None, 6, 6]), "3 dimensions"),
    ],
)  # fmt: skip
def test_configs_that_do_not_fit_are_one_clear_error(
    change: Callable[[Any], object], message: str, good: Path, tmp_path: Path
) -> None:
    refused(edited(good, tmp_path / "net.keras", change), message)


def test_a_mask_that_is_read_is_refused(tmp_path: Path) -> None:
    """Keras 3 computes it as a layer of the model; Keras 2 and chains only let it be read."""
    x = keras.Input((5,), name="x")
    made = L.Embedding(7, 4, mask_zero=True, name="words")(x)
    keras.Model(x, L.LSTM(2)(made)).save(tmp_path / "net.keras")
    refused(tmp_path / "net.keras", "a mask of steps from the data")
    chain = keras.Sequential([x, L.Embedding(7, 4, mask_zero=True, name="words"), L.LSTM(2)])
    chain.save(tmp_path / "chain.keras")
    refused(tmp_path / "chain.keras", "reads the mask of words .*depends on the data")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_axes": [2]}, "attention_axes is .* expected axes between"),
        ({"output_shape": [0]}, "output_shape is"),
        ({"use_gate": True}, "use_gate is 'True'; expected none"),
        ({"num_heads": 3}, "kernel has shape"),
    ],
)
def test_attention_that_does_not_fit_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    x = keras.Input((5, 4), name="x")
    keras.Model(x, L.MultiHeadAttention(2, 3, name="heads")(x, x)).save(tmp_path / "good.keras")
    path = edited(
        tmp_path / "good.keras",
        tmp_path / "net.keras",
        lambda config: entry(config, "heads")["config"].update(settings),
    )
    refused(path, message)


def virtual(file: Any) -> None:
    del file["layers/conv2d/vars/0"]
    layout = h5py.VirtualLayout((3, 3, 2, 3), "float32")
    layout[:] = h5py.VirtualSource("other.h5", "data", (3, 3, 2, 3))
    file["layers/conv2d/vars"].create_virtual_dataset("0", layout)


def external(file: Any) -> None:
    del file["layers/dense/vars/1"]
    place = [("/etc/passwd", 0, 8)]
    file["layers/dense/vars"].create_dataset("1", (2,), "float32", external=place)


def replace(file: Any, name: str, value: object) -> None:
    del file[name]
    file[name] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, "layers/dense", h5py.ExternalLink("b.h5", "/")), "link to another"),
        (lambda f: replace(f, "layers/dense", h5py.SoftLink("/layers/conv2d")), "link to another"),
        (virtual, "in another file"),
        (external, "in another file"),
        (lambda f: f.__delitem__("layers/dense"), "no weights .*layers/dense"),
        (lambda f: f.__delitem__("layers/conv2d/vars/1"), "no weight .*conv2d/vars/1"),
        (lambda f: replace(f, "layers/dense/vars/1", "text"), "expected numbers"),
        (lambda f: replace(f, "layers/dense/vars/1", np.zeros(3)), "bias has shape"),
        (lambda f: replace(f, "layers/dense/vars/1", [np.nan, 0]), "NaN"),
    ],
)
def test_weights_that_do_not_fit_are_one_clear_error(
    change: Callable[[Any], object], message: str, good: Path, tmp_path: Path
) -> None:
    refused(rewired(good, tmp_path / "net.keras", change), message)


def test_arrays_and_archives_that_would_unpack_to_gigabytes_are_not_read(
    good: Path, tmp_path: Path
) -> None:
    def empty(file: Any) -> None:
        del file["layers/dense/vars/0"]
        shape = (1 << 20, 1 << 16)
        file["layers/dense/vars"].create_dataset("0", shape, "float32", chunks=(1024, 1024))

    refused(rewired(good, tmp_path / "a.keras", empty), "layers/dense/vars/0 would need 256.0 GB")
    content = members(good)
    bomb = {**content, CONFIG: content[CONFIG] + b" " * 50_000_000}
    refused(pack(tmp_path / "b.keras", bomb, zipfile.ZIP_DEFLATED), "would unpack")


def test_links_to_one_array_count_every_time(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    chain((32,), *(L.Dense(32, name=f"d{i}") for i in range(8))).save(path)

    def link(file: Any) -> None:
        for index in range(1, 8):
            del file[f"layers/dense_{index}/vars/0"]
            file[f"layers/dense_{index}/vars/0"] = file["layers/dense/vars/0"]

    rewired(path, path, link)
    with of_load(path, 80_000):  # 4 KB each, beside 68 KB of the archive itself
        refused(path, r"layers/dense_\d/vars/0 would need 4.0 KB .* --max-model-memory")
    convert(path)


def test_damaged_containers_are_named(good: Path, tmp_path: Path) -> None:
    content, path = members(good), tmp_path / "net.keras"
    for name, damage, message in (
        (CONFIG, b"{", "config.json is damaged"),
        (CONFIG, b"[1]", "config.json is list"),
        (CONFIG, b'{"a":' * 100_000, "config.json is damaged"),
        (WEIGHTS, content[WEIGHTS][:300], "damaged Keras file"),
    ):
        refused(pack(path, {**content, name: damage}), message)
    del content[WEIGHTS]
    refused(pack(path, content), f"no {WEIGHTS}")
    whole = good.with_suffix(".h5").read_bytes()
    path = tmp_path / "net.h5"
    path.write_bytes(whole[:2000])
    refused(path, "damaged Keras file")
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    refused(path, "weights without the network")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["model_weights/dense"].attrs["weight_names"] = [b"dense/kernel"]
    refused(path, "has 1 weights in the file; expected 2")


def functional(path: Path, change: Callable[[Any], object]) -> Path:
    STRUCTURES["broadcast"]().save(path)
    return edited(path, path, change)


def test_graphs_that_are_none_are_refused(tmp_path: Path) -> None:
    def nodes(config: Any, class_name: str) -> Any:
        return next(e for e in config["config"]["layers"] if e["class_name"] == class_name)

    def cycle(config: Any) -> None:
        history = {"keras_history": [nodes(config, "Add")["name"], 0, 0]}
        call = {"args": [{"class_name": "__keras_tensor__", "config": history}], "kwargs": {}}
        nodes(config, "Conv1D")["inbound_nodes"] = [call]

    def unknown(config: Any) -> None:
        config["config"]["output_layers"] = [["nobody", 0, 0]]

    def training(config: Any) -> None:
        nodes(config, "Add")["inbound_nodes"][0]["kwargs"] = {"training": True}

    def nested(config: Any) -> None:
        inner = json.loads(json.dumps(config))
        for _ in range(30):
            inner["config"]["layers"].append(json.loads(json.dumps(inner)) | {"name": "deep"})
            inner["config"]["layers"] = inner["config"]["layers"][-1:]
        config["config"]["layers"].append(inner)

    for change, message in (
        (cycle, "form a cycle"),
        (unknown, "no layer 'nobody'"),
        (training, "called with training=True"),
        (nested, "in each other|two layers|no layer"),
        (lambda c: nodes(c, "Add").update(inbound_nodes=[{"args": 3}]), "a call of layer"),
        (lambda c: nodes(c, "Add").update(name="x"), "two layers of one name"),
        (lambda c: nodes(c, "Add").update(inbound_nodes=[[["x", 0, 0]]]), "expected two or more"),
    ):
        refused(functional(tmp_path / "net.keras", change), message)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a JSON document."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_random_changes_of_a_config_never_end_in_another_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    STRUCTURES["squeeze-excite"]().save(path)
    if suffix == ".keras":
        content = members(path)
        text = content[CONFIG].decode()
    else:
        with h5py.File(path) as file:
            text = str(file.attrs["model_config"])
    draw = random.Random(0)
    odd = [
        None,
        -1,
        0,
        1,
        2.5,
        10**12,
        "",
        "x",
        [],
        [1],
        [[None]],
        {},
        {"a": 1},
        True,
        [3, 3, 3, 3],
    ]
    messages = []
    for _ in range(40):
        document = json.loads(text)
        for container, key in draw.sample(places(document), draw.choice((1, 2))):
            if draw.random() < 0.2 and isinstance(container, dict):
                container.pop(key, None)
            else:
                container[key] = draw.choice(odd)
        if suffix == ".keras":
            pack(path, {**content, CONFIG: json.dumps(document).encode()})
        else:
            with h5py.File(path, "r+") as file:
                file.attrs["model_config"] = json.dumps(document)
        try:
            convert(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(message.count("\n") <= 1 for message in messages)


def test_kinds_of_files_and_ways_out(good: Path, tmp_path: Path) -> None:
    assert detect(good) == detect(good.with_suffix(".h5")) == KERAS
    with pytest.raises(InputError, match="needs no --architecture"):
        load_module(ModelSource(str(good), model="resnet8"), None)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(InputError, match="SavedModel"):
        detect(tmp_path)
    with pytest.raises(InputError, match="TensorFlow graph"):
        detect(tmp_path / "saved_model.pb")
    weights = tmp_path / "only.weights.h5"
    keras.models.load_model(good).save_weights(weights)
    refused(weights, "weights without the network")


def test_sizes_that_the_file_leaves_open_come_from_the_call(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    randomize(
        keras.Sequential([keras.Input((None, None, 2)), L.Conv2D(3, 3), L.GlobalMaxPooling2D()])
    ).save(path)
    refused(path, r"--input-shape 32x32x2")
    assert convert(path, ((9, 8, 2),)).examples[0].shape == (1, 9, 8, 2)
    with pytest.raises(InputError, match="got \\(9, 8, 3\\)"):
        convert(path, ((9, 8, 3),))
    with pytest.raises(InputError, match="got 2 --input-shape"):
        convert(path, ((9, 8, 2), (9, 8, 2)))


def test_reading_needs_h5py_and_says_how_to_get_it(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[keras\]'"):
        convert(good)


def test_reading_imports_neither_keras_nor_tensorflow(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("keras", "tensorflow", "jax"):
        monkeypatch.setitem(sys.modules, name, None)  # importing them would fail now
    assert convert(good).examples[0].shape == (1, 6, 6, 2)


def test_different_names_stay_different() -> None:
    names = ["conv-1", "conv_1", "conv.1", "conv 1", "training", "forward", "1x", "__class__", "é"]
    cleaned = clean_names(names)
    assert cleaned["conv_1"] == "conv_1"
    assert len(set(cleaned.values())) == len(names)
    assert all(name.isidentifier() and name.isascii() for name in cleaned.values())
