"""Half, bfloat16 and double: every format gives the float32 network, and what is written is read.

The oracle is the model itself, in its own width.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import edit_header, edit_tensors
from torch import nn

from mpsearch.data import bind
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import load, save
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

WIDTHS = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}


class Awkward(nn.Module):
    """What exporters stumble over: casts of every kind, a squeeze of all dimensions, a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.conv(image)).mean((2, 3), keepdim=True).squeeze()
        hidden = hidden.double().masked_fill(hidden < 0, torch.finfo(torch.float64).min)
        places = torch.arange(hidden.shape[1]).to(hidden.dtype)
        outputs: torch.Tensor = self.head((hidden + 0.1 * places).float().to(image.dtype)).squeeze(
            0
        )
        return outputs


def model_of(width: torch.dtype) -> tuple[Awkward, torch.Tensor]:
    """(model, 6 samples) in that width, seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Awkward().eval().to(width), torch.randn(6, 2, 5, 5).to(width)


def _mpsearch(model: nn.Module, x: torch.Tensor, path: Path) -> None:
    save(model, path, (x[:1],), {"x0": x, "y": torch.zeros(len(x), dtype=torch.int64)})


def _exported(model: nn.Module, x: torch.Tensor, path: Path) -> None:
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, (x[:2],), dynamic_shapes=batch), path)


def _script(model: nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.jit.trace(model, (x[:2],)).save(str(path))


def _state_dict(model: nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.save(model.state_dict(), path)


def half_model() -> nn.Module:
    """A factory whose module is in half precision itself."""
    return model_of(torch.float16)[0]


Writer = Callable[[nn.Module, torch.Tensor, Path], Any]
CASES: list[tuple[str, Writer, str | None]] = [
    *((width, _mpsearch, None) for width in WIDTHS),
    ("half", _exported, None),
    ("bfloat16", _script, None),
    ("double", lambda model, x, path: torch.save(model, path), None),
    ("double", _state_dict, "test_float_widths:Awkward"),
    ("bfloat16", _state_dict, "test_float_widths:half_model"),
]


@pytest.mark.parametrize(("width", "write", "model_name"), CASES)
def test_a_file_of_any_width_is_a_float32_network_that_can_be_applied(
    width: str, write: Writer, model_name: str | None, tmp_path: Path
) -> None:
    model, x = model_of(WIDTHS[width])
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(model, x, path)
    source = ModelSource(str(path), model_name, trust=True, input_shapes=((2, 5, 5),))
    network = load_network(source).network
    assert network.input_dtypes == (torch.float32,)
    assert {layer.name for layer in network.layers} == {"conv", "head"}
    with torch.no_grad():
        wanted = model(x).float()
        for rows in (network(x.float()), torch.cat([network(row[None].float()) for row in x])):
            assert rows.dtype == torch.float32
            torch.testing.assert_close(rows, wanted, rtol=2e-2, atol=2e-2)
    data = bind(Arrays("test", {"x0": x}), network)
    quantized = quantize(
        network, dict.fromkeys(("conv", "head"), Choice(4, 8)), calibrate(network, data)
    )
    save_quantized(quantized, tmp_path / "quantized.pt")
    again = load_quantized(tmp_path / "quantized.pt")
    with torch.no_grad():
        torch.testing.assert_close(again(x.float()), quantized(x.float()))


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    """As it was in the model; what was computed of its numbers since has more digits."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor


def test_files_with_half_weights_and_inputs_load(tmp_path: Path) -> None:
    """Files of earlier versions hold them."""
    model, x = model_of(torch.float16)
    path = tmp_path / "model.pt"
    _mpsearch(model, x, path)
    kept = load(path)
    edit_header(path, lambda header: header["inputs"][0].update(dtype="float16"))
    edit_tensors(path, _halved)
    older = load(path)
    assert older.network.digest == kept.network.digest
    assert older.network.input_dtypes == (torch.float32,)
    assert torch.equal(older.sample["x0"], kept.sample["x0"])


class Bits(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.view(torch.int32).float())


class Float8(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.to(torch.float8_e4m3fn).float())


@pytest.mark.parametrize(
    ("model", "sample", "message"),
    [
        (Bits(), None, "reinterprets the bits"),
        (Float8(), None, "float8_e4m3fn"),
        (nn.Linear(3, 2), {"x0": torch.zeros(4, 5)}, r"x0 \(input_1\) has shape \(4, 5\)"),
        (nn.Linear(3, 2), {"x0": torch.zeros(4, 3), "y": [1, 2]}, "expected as many in each"),
        (nn.Linear(3, 2), {"x0": [["a"]]}, "holds no numbers"),
        (nn.Linear(3, 2), {"x0": torch.full((2, 3), torch.nan)}, "NaN or infinity in sample 0"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_before_it_is_written(
    model: nn.Module, sample: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        save(model, tmp_path / "model.pt", (torch.ones(1, 3),), sample)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_quantized_file_that_comes_back_otherwise_is_not_written(tmp_path: Path) -> None:
    network = Network.from_module(nn.Linear(3, 2), (torch.zeros(1, 3),))
    (layer,) = network.layers
    histograms = calibrate(network, bind(Arrays("test", {"x0": torch.randn(8, 3)}), network))
    quantized = quantize(network, {layer.name: Choice(4, 8)}, histograms)
    weight = quantized.layers[layer.name].weight
    assert weight is not None
    weight.codes[0, 0] += 3 if weight.codes[0, 0] < 0 else -3  # not what the network computes with
    with pytest.raises(InputError, match="comes back with other numbers"):
        save_quantized(quantized, tmp_path / "quantized.pt")
    assert not list(tmp_path.iterdir())
