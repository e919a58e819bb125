"""--device: on another device everything is what it is on the CPU."""

import itertools
import re
import shutil
from pathlib import Path

import networks
import pytest
import token_networks
import torch
from elsewhere import NAME, Device
from measuring import PLAINLY, make_folder

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import logits_of
from mpsearch.finetuning.training import FineTuning, finetune
from mpsearch.graph.network import Network
from mpsearch.post_training.kept_repairs import Yardstick
from mpsearch.post_training.repairing import PostTraining, quantize_after_training
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.running.workers import find_device
from mpsearch.tables.choice import Choice

pytestmark = pytest.mark.usefixtures("coarsest_scales")

CHOICES = ("w2a8", "w4a4", "w32a8", "w3a32", "w8a8")
DEFAULT = PostTraining()
EVERY_REPAIR = PostTraining(ranges="auto", equalize=True)
NEAREST = PostTraining(ranges="percentile", per_tensor=True, rounding="nearest")
# convolutions of all kinds and a residual; a weight used twice; tables, positions, a mask
CASES = {
    "residual": (DEFAULT, NEAREST),
    "two-inputs": (DEFAULT, EVERY_REPAIR),
    "transposed": (DEFAULT, NEAREST),
    "shared": (DEFAULT, NEAREST),
    "language": (DEFAULT, NEAREST),
}
COMMANDS = {
    "apply": "apply model.pt assignment.json",
    "evaluate": f"evaluate model.pt --assignment assignment.json --data test.npz {PLAINLY}",
    "evaluate of a file": "evaluate made.pt --fp32 model.pt --data test.npz --metric f1 --integer",
    "evaluate --front": f"evaluate model.pt --front front.csv --data test.npz --points 2 {PLAINLY}",
    "finetune": "finetune model.pt --start made.pt --data test.npz --epochs 1",
    "solve --min-accuracy": f"solve --min-accuracy 60% --data test.npz {PLAINLY} --measure 4 "
    "--confirm-data fresh.npz",
    "solve --refine": f"solve --size 62% --refine 3 --data test.npz {PLAINLY}",
    "profile": "profile model.pt --bits 2,8 --samples 32",
}


def _build(name: str) -> tuple[Network, Data, dict[str, Choice]]:
    made = token_networks if name == "language" else networks
    model, inputs, labels = made.build(name, samples=12)
    network = Network.from_module(model, inputs)
    names = itertools.cycle(CHOICES)
    choices = {layer.name: Choice.parse(next(names)) for layer in network.layers}
    return network, Data("drawn", inputs, labels), choices


@pytest.mark.parametrize("name", CASES)
def test_networks_are_quantized_where_they_are(name: str, tmp_path: Path) -> None:
    network, data, choices = _build(name)
    noise = Yardstick(network, data).noise
    with Device():
        moved = network.to(find_device(NAME))
        assert moved.digest == network.digest
        assert torch.allclose(logits_of(moved, data), logits_of(network, data), atol=1e-5)
        for settings in CASES[name]:
            expected = quantize_after_training(network, choices, data, settings, batch_size=5)
            found = quantize_after_training(moved, choices, data, settings, batch_size=5)
            assert found(*data.inputs).device.type == NAME  # it was not moved back on the way
            assert found.model_digest == network.digest
            assert found.undone == expected.undone
            save_quantized(found, tmp_path / "quantized.pt")
            here = load_quantized(tmp_path / "quantized.pt")
            assert here.digest == found.digest
            assert torch.equal(logits_of(here, data), logits_of(found, data))
            assert noise(here) == pytest.approx(noise(expected), rel=0.05, abs=1e-4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_folder(folder, "2,4,8")
        assert run(["solve", "--size", "62%"]) == 0
        assert run(["apply", "model.pt", "-o", "made.pt"]) == 0
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_compute_where_they_are_told(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said = []
    for device in ("cpu", NAME):
        folder = tmp_path / device
        shutil.copytree(made, folder)
        monkeypatch.chdir(folder)
        capsys.readouterr()
        with Device() as elsewhere:
            assert run([*COMMANDS[name].split(), "--device", device]) == 0
        assert (elsewhere.calls > 100) == (device == NAME)
        said.append(re.sub(r"[\d.]+ (s|MB)\b", "", capsys.readouterr().out))
        written = {path.name for path in folder.iterdir()}
        assert not [path for path in written if path.startswith(".")]  # no journal is left
    assert said[0] == said[1]


def test_a_device_that_is_not_there_is_named() -> None:
    for name in ("tpu", "cuda:99", NAME):
        with pytest.raises(
            InputError, match=f"no device '{name}' here .*expected cpu, cuda or auto"
        ):
            find_device(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    network, data, choices = _build(name)
    noise = Yardstick(network, data).noise
    moved = network.to(find_device("cuda"))
    assert torch.allclose(logits_of(moved, data), logits_of(network, data), atol=1e-4)
    for settings in CASES[name]:
        expected = quantize_after_training(network, choices, data, settings, batch_size=5)
        found = quantize_after_training(moved, choices, data, settings, batch_size=5)
        here = found.to(torch.device("cpu"))
        assert noise(here) == pytest.approx(noise(expected), rel=0.1, abs=1e-3)
        assert noise(found.to(moved.device)) == pytest.approx(noise(here), rel=0.1, abs=1e-3)
    tuned = finetune(moved, choices, data, settings=FineTuning(epochs=1)).network
    assert tuned.source.device == moved.device
