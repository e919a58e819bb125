"""`mpsearch export --format tflm`: a file that TensorFlow Lite Micro takes, for firmware."""

import re
import shutil
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import integer_networks
import networks
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (extra litert)")

from mpsearch.cli import run as command
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.agreement_of_outputs import Part, Reference, judge
from mpsearch.exporters.litert.check import compare, reference_kernels
from mpsearch.exporters.litert.model import LiteRtModel, build
from mpsearch.exporters.tflm import folder as tflm
from mpsearch.exporters.tflm.operators import METHODS, operators_of
from mpsearch.exporters.tflm.running import run
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.integer.inference import outputs
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.quantization.quantized_file import save_quantized
from mpsearch.running.plugins import litert
from mpsearch.tables.choice import Choice

needs_micro = pytest.mark.skipif(
    find_spec("tflite_micro") is None,
    reason="the package tflite-micro is not installed (python -m pip install '.[tflm]')",
)
CXX = shutil.which("g++")
needs_cxx = pytest.mark.skipif(CXX is None, reason="there is no g++")


def _quantized(network: Network, data: Data, choice: str = "w4a8") -> QuantizedNetwork:
    choices = {layer.name: Choice.parse(choice) for layer in network.layers}
    return quantize(network, choices, calibrate(network, data))


def _network(name: str) -> tuple[Network, Data]:
    if name == "gelu":
        return _exported(
            integer_networks.Function(_gelu, stem=nn.Conv2d(1, 2, 3), head=nn.Linear(8, 2))
        )
    if name in networks.BUILDERS:
        model, inputs, _ = networks.build(name, 6)
        return Network.from_module(model, inputs), Data("test", inputs, None)
    network, inputs = integer_networks.exported(name)
    return network, Data("test", tuple(x[:6] for x in inputs), None)


def _gelu(m: Any, x: torch.Tensor) -> Any:
    return m.head(nn.functional.gelu(m.stem(x)).flatten(1))


def _join(m: Any, x: torch.Tensor) -> Any:
    parts = [torch.relu(m.stem(x)) for _ in range(2)]
    tiles = [part * (0.5 + k) for k in range(6) for part in parts]
    return m.head(torch.cat(tiles, 1).flatten(1))


def _exported(model: nn.Module) -> tuple[Network, Data]:
    inputs = (torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)),)
    return Network.from_module(model.eval(), inputs), Data("test", inputs, None)


@needs_micro
@pytest.mark.parametrize("name", ["two-inputs", "classes", "gelu", "unet"])
def test_it_computes_what_litert_s_reference_kernels_compute(name: str) -> None:
    """4-bit convolutions, dense layers raised to 8, class numbers, GELU by its table, sums."""
    network, data = _network(name)
    model = build(_quantized(network, data), data, micro=True)
    operators_of(model)
    micro = run(model, data)
    reference = outputs(reference_kernels(model.content, network), data)
    assert micro.outputs.shape == reference.shape
    (entry,) = compare(model, data, {"tflm": micro.outputs})
    assert entry.ok
    # They round twice, once more than others do: a code may be the neighbouring one.
    whole = Part("all", tuple(range(reference[0].numel())))
    (found,) = judge(Reference(reference.numpy(), (whole,)), micro.outputs.numpy(), rounded=True)
    assert found.assigned.largest_steps < 4
    arena = micro.arena
    assert arena.total == arena.tensors + arena.bookkeeping
    assert arena.tensors > max(x[0].numel() for x in data.inputs)


@needs_micro
def test_the_interpreter_has_every_operator_that_the_resolver_can_name() -> None:
    spec = find_spec("tflite_micro")
    assert spec is not None
    assert spec.origin is not None
    (library,) = Path(spec.origin).parent.rglob("_runtime.so")
    code = library.read_bytes()
    assert [name for name in METHODS if f"Register_{name}Ev".encode() not in code] == []


def test_what_it_does_not_have_is_refused_with_the_node() -> None:
    model = integer_networks.Function(_join, stem=nn.Conv2d(1, 2, 3), head=nn.Linear(12 * 8, 2))
    network, data = _exported(model)
    built = build(_quantized(network, data), data, micro=True)
    with pytest.raises(InputError) as caught:
        operators_of(built)
    (line,) = caught.value.lines
    assert line == (
        "cat (node 'cat') becomes CONCATENATION, which joins 12 tensors; TensorFlow Lite Micro "
        "joins at most 10; change this operator of the network, or export with --format c"
    )
    if find_spec("tflite_micro"):  # and so says the interpreter itself
        with pytest.raises(InputError, match=r"does not take the file: .*num_inputs <= kMaxInput"):
            run(built, data)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized network and its float model."""
    folder = tmp_path_factory.mktemp("saved")
    network, data = _network("two-inputs")
    save_quantized(_quantized(network, data), folder / "quantized.pt")
    model, inputs, _ = networks.build("two-inputs", 6)
    save(model, folder / "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1]})
    return folder


@pytest.fixture
def place(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = "export quantized.pt --format tflm --fp32 model.pt -o micro".split()


def test_without_the_package_the_folder_is_written_and_said_not_to_have_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tflm, "has_tflite_micro", lambda: False)
    assert command(COMMAND) == 0
    out = capsys.readouterr().out
    assert "raised to what TensorFlow Lite Micro has: 2 of 5 layers\n    dense: w4a8 -> w8a8" in out
    assert "  LiteRT's plain kernels on 6 samples" in out
    assert tflm.NOT_RUN in out
    assert "kNetworkArenaBytes" not in (place / "micro" / "model_ops.h").read_text()
    assert "was not measured" in (place / "micro" / "README.md").read_text()
    assert command([*COMMAND, "--check"]) == 2
    error = capsys.readouterr().err
    assert "needs the package tflite-micro" in error
    assert "python -m pip install '.[tflm]'" in error
    (place / "micro" / "model_ops.h").write_text("mine")
    assert command(COMMAND) == 2
    assert "model_ops.h was changed after the export" in capsys.readouterr().err


@needs_micro
def test_with_the_package_the_arena_is_measured(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(COMMAND) == 0
    out = capsys.readouterr().out
    assert re.search(r"  arena [\d.]+ K?B: tensors [\d.]+ K?B, bookkeeping [\d.]+ K?B \(less", out)
    assert "  TensorFlow Lite Micro kernels on 6 samples" in out
    assert "kNetworkArenaBytes = " in (place / "micro" / "model_ops.h").read_text()


def test_a_file_that_computes_something_else_is_not_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other_file(quantized: QuantizedNetwork, data: Data, **options: Any) -> LiteRtModel:
        model, inputs, _ = networks.build("two-inputs", 6, seed=1)
        stranger = _quantized(Network.from_module(model, inputs), data)
        return replace(
            build(quantized, data, **options), content=build(stranger, data, **options).content
        )

    monkeypatch.setattr(tflm, "build", other_file)
    assert command(COMMAND) == 1
    assert "not written: TensorFlow Lite Micro does not give" in capsys.readouterr().out
    assert not (place / "micro").exists()
    assert command([*COMMAND, "--no-check"]) == 0


# What stands for the library: it takes the names that are there, as often as there is room.
RESOLVER = """#pragma once
#include <cstdio>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; } while (0)
namespace tflite {
template <unsigned int count> class MicroMutableOpResolver {
    unsigned int used = 0;
    TfLiteStatus add(const char *name) {
        std::puts(name);
        return used++ < count ? kTfLiteOk : kTfLiteError;
    }
public:
METHODS
};
}
"""
MAIN = """#include "model_data.h"
#include "model_ops.h"
#include <cstdio>
int main() {
    NetworkOpResolver resolver;
    if (RegisterNetworkOps(resolver) != kTfLiteOk) return 1;
    std::fwrite(network_model, 1, network_model_bytes, stderr);
    return (unsigned long)network_model % 16 != 0;
}
"""


@needs_cxx
def test_the_c_array_is_the_file_and_the_resolver_has_its_operators(place: Path) -> None:
    assert command([*COMMAND, "--no-check"]) == 0
    header = place / "tensorflow" / "lite" / "micro" / "micro_mutable_op_resolver.h"
    header.parent.mkdir(parents=True)
    methods = "".join(
        f'    TfLiteStatus {name}() {{ return add("{key}"); }}\n' for key, name in METHODS.items()
    )
    header.write_text(RESOLVER.replace("METHODS", methods))
    (place / "main.cc").write_text(MAIN)
    flags = "-std=c++11 -Wall -Wextra -Werror -I. -Imicro main.cc micro/model_data.cc -o main"
    subprocess.run([str(CXX), *flags.split()], cwd=place, check=True)
    done = subprocess.run(["./main"], cwd=place, check=True, capture_output=True)
    content = (place / "micro" / "model.tflite").read_bytes()
    assert done.stderr == content
    interpreter = litert("interpreter").Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert(
            "interpreter"
        ).OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    used = {entry["op_name"] for entry in interpreter._get_ops_details()}
    assert done.stdout.decode().split() == sorted(used)
    assert np.frombuffer(content[4:8], "S4")[0] == b"TFL3"
