"""Networks with several outputs or inputs by name become one tensor that can be taken apart."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import edit_header
from torch import nn

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.graph.outputs import split_outputs
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

Pair = namedtuple("Pair", "left right")


@dataclass
class Detected:
    score: torch.Tensor
    box: torch.Tensor


torch.export.register_dataclass(Detected)


class Heads(nn.Module):
    """Three tensors of different shapes per sample, put together by `arrange`."""

    def __init__(self, arrange: Callable[..., Any]) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)
        self.arrange = arrange

    def forward(self, x: torch.Tensor) -> Any:
        hidden = torch.tanh(self.body(x))
        return self.arrange(self.head(hidden), hidden.unflatten(1, (2, 3)), hidden.sum(1))


class Fusion(nn.Module):
    """Takes a dictionary, whose order is not the alphabet's."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(1, 2, 3)
        self.audio = nn.Linear(5, 2)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen: torch.Tensor = self.image(batch["image"]).amax((2, 3))
        heard: torch.Tensor = self.audio(batch["audio"])
        return seen - heard


class Named(Fusion):
    """Takes keyword arguments."""

    def forward(self, *, image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward({"image": image, "audio": audio})


ARRANGEMENTS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "tuple": (lambda a, b, c: (a, b, c), ["output0", "output1", "output2"]),
    "list": (lambda a, b, c: [a, b, c], ["output0", "output1", "output2"]),
    "dict": (lambda a, b, c: {"z": a, "b": b, "sum": c}, ["z", "b", "sum"]),
    "nested": (lambda a, b, c: {"z": a, "aux": [b, (c,)]}, ["z", "aux.0", "aux.1.0"]),
    "in a tuple": (lambda a, b, c: (a, {"b": b, "c": c}), ["output0", "output1.b", "output1.c"]),
    "named tuple": (lambda a, b, c: (Pair(a, b), c), ["output0.left", "output0.right", "output1"]),
    "dataclass": (lambda a, b, c: (Detected(a, b), c), ["output0.score", "output0.box", "output1"]),
    "equal keys": (lambda a, b, c: {1: a, "1": b, 2: c}, ["1", "1_1", "2"]),
}


def _heads(arrange: Callable[..., Any]) -> tuple[Heads, torch.Tensor]:
    torch.manual_seed(0)
    return Heads(arrange).eval(), torch.randn(5, 4)


@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_several_outputs_lie_side_by_side_under_their_names(kind: str) -> None:
    arrange, names = ARRANGEMENTS[kind]
    model, x = _heads(arrange)
    network = Network.from_module(model, (x,))
    a, b, c = _heads(lambda *parts: parts)[0](x)
    assert [o.name for o in network.outputs] == names
    assert network.output_shape == (3 + 6 + 1,)
    assert network.left_out_outputs == ()
    with torch.no_grad():
        values = network(x)
    assert torch.equal(values, torch.cat([a, b.reshape(5, 6), c[:, None]], 1))
    for name, expected in zip(names, (a, b, c), strict=True):
        assert torch.equal(split_outputs(network.outputs, values)[name], expected)


@pytest.mark.parametrize(
    ("arrange", "name", "left_out"),
    [
        (lambda a, b, c: b, "output", ()),
        (lambda a, b, c: (b,), "output", ()),
        (lambda a, b, c: {"grid": b, "extra": None}, "grid", ()),
        (lambda a, b, c: (a.argmax(1), b, c > 0), "output1", ("output0", "output2")),
        (lambda a, b, c: {"grid": b, "temperature": 0.5}, "grid", ("temperature",)),
    ],
)
def test_one_tensor_of_floats_keeps_its_shape(
    arrange: Callable[..., Any], name: str, left_out: tuple[str, ...]
) -> None:
    model, x = _heads(arrange)
    network = Network.from_module(model, (x,))
    (output,) = network.outputs
    assert (output.name, output.shape, output.start, output.stop) == (name, (2, 3), 0, 6)
    assert network.output_shape == (2, 3)
    assert network.left_out_outputs == left_out
    with torch.no_grad():
        assert split_outputs(network.outputs, network(x))[name].shape == (5, 2, 3)


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda a, b, c: {"loss": a.mean(), "z": a}, "into one number of 'loss'"),
        (lambda a, b, c: (a, b.flatten(0, 1)), "into 6 output rows of 'output1'"),
        (lambda a, b, c: (a.argmax(1), c > 0), "output0: torch.int64, output1: torch.bool"),
        (lambda a, b, c: {"nothing": None}, "returns no tensor"),
    ],
)
def test_outputs_that_are_no_rows_of_floats_are_named(
    arrange: Callable[..., Any], message: str
) -> None:
    model, x = _heads(arrange)
    with pytest.raises(InputError, match=message) as caught:
        Network.from_module(model, (x,))
    assert "\n" not in str(caught.value)


def test_a_network_that_remembers_is_refused() -> None:
    class Counting(nn.Module):
        calls: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * self.calls

    with pytest.raises(InputError, match="changes its 'calls' when it runs"):
        Network.from_module(Counting(), (torch.ones(2, 3),))


def test_files_keep_the_outputs(tmp_path: Path) -> None:
    model, x = _heads(lambda a, b, c: {"grid": b, "class": a.argmax(1), "sum": c})
    network = Network.from_module(model, (x,))
    save(model, tmp_path / "m.pt", (x,), {"x0": x})
    loaded = load_network(ModelSource(str(tmp_path / "m.pt"))).network
    assert loaded.outputs == network.outputs
    assert loaded.left_out_outputs == network.left_out_outputs == ("class",)
    assert loaded.digest == network.digest
    histograms = calibrate(network, Data("x", (x,), None))
    choices = {layer.name: Choice(4, 8) for layer in network.layers}
    quantized = quantize(network, choices, histograms)
    save_quantized(quantized, tmp_path / "q.pt")
    back = load_quantized(tmp_path / "q.pt")
    assert back.source.outputs == network.outputs
    assert back.source.left_out_outputs == ("class",)
    with torch.no_grad():
        assert torch.equal(back(x), quantized(x))


def test_other_names_give_another_digest() -> None:
    first, second = (
        Network.from_module(*_example(lambda a, b, c, k=key: {"a": a, k: b})).digest
        for key in ("b", "c")
    )
    assert first != second


def _example(arrange: Callable[..., Any]) -> tuple[nn.Module, tuple[torch.Tensor]]:
    model, x = _heads(arrange)
    return model, (x,)


def test_files_without_names_of_outputs_still_load(tmp_path: Path) -> None:
    model, x = _heads(lambda a, b, c: (a, b))
    save(model, tmp_path / "m.pt", (x,))
    edit_header(tmp_path / "m.pt", lambda header: header.pop("outputs"))
    (output,) = load_network(ModelSource(str(tmp_path / "m.pt"))).network.outputs
    assert (output.name, output.shape, output.stop) == ("output", (9,), 9)


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs: outputs.pop(),
        lambda outputs: outputs.clear(),
        lambda outputs: outputs[0].pop("name"),
        lambda outputs: outputs[0].update(name="b\x1b[2J"),
        lambda outputs: outputs[0].update(name=outputs[1]["name"]),
        lambda outputs: outputs[0].update(shape=[-3]),
        lambda outputs: outputs[0].update(shape=3),
    ],
)
def test_damaged_outputs_are_one_clear_error(
    change: Callable[[Any], object], tmp_path: Path
) -> None:
    model, x = _heads(lambda a, b, c: (a, b))
    save(model, tmp_path / "m.pt", (x,))
    edit_header(tmp_path / "m.pt", lambda header: change(header["outputs"]))
    with pytest.raises(InputError, match=r"m\.pt: damaged mpsearch file: .*outputs") as caught:
        load_network(ModelSource(str(tmp_path / "m.pt")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "given"),
    [
        (Fusion, lambda image, audio: ({"image": image, "audio": audio},)),
        (Fusion, lambda image, audio: {"image": image, "audio": audio}),
        (Named, lambda image, audio: {"audio": audio, "image": image}),
    ],
)
def test_inputs_by_name_keep_their_names(
    factory: type[nn.Module], given: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, image, audio = factory().eval(), torch.randn(4, 1, 5, 5), torch.randn(4, 5)
    inputs = given(image, audio)
    network = Network.from_module(model, inputs)
    assert network.input_names == ("image", "audio")
    save(model, tmp_path / "m.pt", inputs, {"image": image, "audio": audio})
    loaded = load_network(ModelSource(str(tmp_path / "m.pt")))
    assert loaded.network.digest == network.digest
    assert set(loaded.sample) == {"x0", "x1"}
    with torch.no_grad():
        expected = Fusion.forward(model, {"image": image, "audio": audio})  # type: ignore[arg-type]
        torch.testing.assert_close(network(image, audio), expected)


def test_example_inputs_that_are_no_tensors_are_named() -> None:
    with pytest.raises(InputError, match="hold int for 'audio'; expected a tensor"):
        Network.from_module(Fusion(), ({"image": torch.zeros(1, 1, 5, 5), "audio": 3},))
    with pytest.raises(InputError, match=r"input 'audio' is a single number.*--fix audio=3"):
        Network.from_module(
            Fusion(), ({"image": torch.zeros(1, 1, 5, 5), "audio": torch.tensor(3)},)
        )


def test_arrays_by_name_say_what_a_network_takes(tmp_path: Path) -> None:
    torch.save(Fusion().state_dict(), tmp_path / "weights.pt")
    arrays = Arrays("a", {"image": torch.zeros(3, 1, 5, 5), "audio": torch.zeros(3, 5)})
    source = ModelSource(str(tmp_path / "weights.pt"), model="test_outputs:Fusion")
    network = load_network(source, arrays).network
    assert network.input_names == ("image", "audio")
    assert network.input_shapes == ((1, 5, 5), (5,))
