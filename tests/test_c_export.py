"""`mpsearch export --format c`: the C code gives the integers of the reference, equal, not near."""

import json
import os
import random
import re
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import attention_networks
import integer_networks
import networks
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

from mpsearch.cli import cli, run
from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.exporters.c.folder import check, export_c, kernel_sources
from mpsearch.exporters.formats import ExportRequest, check_options
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.integer.inference import IntegerNetwork, integer_network, quantize_input
from mpsearch.integer.inference import run as infer
from mpsearch.integer.lowering import HEADROOM, lower
from mpsearch.models.registry import architecture, build
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.packing import pack, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.quantization.quantized_file import save_quantized
from mpsearch.tables.choice import Choice
from mpsearch.tables.units import format_size

BITS = (2, 3, 4, 5, 6, 7, 8, 16)
ROOT = Path(__file__).parent.parent
CORE = ROOT / "mpsearch" / "exporters" / "c"
GCC = shutil.which("gcc")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
CHECKED = (*STRICT, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
EVERY = (*integer_networks.BUILDERS, *attention_networks.NETWORKS)
needs_gcc = pytest.mark.skipif(GCC is None, reason="there is no C compiler (gcc)")


def _gcc(*arguments: str | Path) -> None:
    done = subprocess.run([str(GCC), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixed kernels as objects, compiled once with sanitizers and strict warnings."""
    folder = tmp_path_factory.mktemp("kernels")
    for name in kernel_sources():
        _gcc(*CHECKED, "-c", CORE / name, "-o", folder / Path(name).with_suffix(".o"))
    return folder


def _program(folder: Path, kernels: Path) -> Path:
    """The exported command line with the sanitized kernels."""
    sources = [folder / f"{name}.c" for name in ("network", "border", "main")]
    objects = sorted(kernels.glob("*.o"))
    _gcc(*CHECKED, "-o", folder / "program", *sources, *objects, "-lm")
    return folder / "program"


def _call(program: Path, *arguments: str | Path) -> np.ndarray:
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return np.array([line.split() for line in done.stdout.splitlines()], dtype=np.float64)


def _raw(inputs: tuple[torch.Tensor, ...]) -> bytes:
    rows = range(len(inputs[0]))
    return b"".join(x[row].float().contiguous().numpy().tobytes() for row in rows for x in inputs)


def _mixed(network: Network, seed: int) -> dict[str, Choice]:
    source = random.Random(seed)
    return {
        layer.name: Choice(source.choice(BITS), source.choice(BITS)) for layer in network.layers
    }


def _quantized(network: Network, data: Data, choice: str | int) -> QuantizedNetwork:
    names = [layer.name for layer in network.layers]
    choices = (
        dict.fromkeys(names, Choice.parse(choice))
        if isinstance(choice, str)
        else _mixed(network, choice)
    )
    return quantize(network, choices, calibrate(network, data))


def _check_equal(
    quantized: QuantizedNetwork, data: Data, folder: Path, kernels: Path, wide: int | None = None
) -> None:
    """Every output integer, also of inputs beyond the calibrated range; and the payload."""
    document = export_c(quantized, data, folder, wide).document
    program = _program(folder, kernels)
    graph = lower(quantized, data, wide_bits=wide)
    inputs = tuple(
        x * torch.linspace(0.5, 2, len(x)).view(-1, *[1] * (x.dim() - 1)) if x.is_floating_point()
        else 3 * x - 4  # numbers of rows, some beyond the table
        for x in data.inputs
    )  # fmt: skip
    (folder / "samples.f32").write_bytes(_raw(inputs))
    codes = [quantize_input(inputs[e.index].numpy(), e.tensor) for e in graph.inputs]
    expected = infer(graph, *codes).reshape(len(inputs[0]), -1)
    got = _call(program, "--input", folder / "samples.f32", "--integers")
    np.testing.assert_array_equal(got, expected)
    meant = IntegerNetwork(graph)(*inputs).reshape(len(inputs[0]), -1).numpy()
    real = _call(program, "--input", folder / "samples.f32")
    np.testing.assert_allclose(real, meant, rtol=1e-7)
    for layer in document["layers"]:
        stored = (layer["weight_bytes"], layer["bias_bytes"], layer["scale_bytes"])
        assert sum(stored) == layer["size_bytes"]
    kinds = ("weights", "biases", "scales")
    assert sum(document["constant_bytes"][kind] for kind in kinds) == size_bytes(
        quantized.source, quantized.assignment
    )
    arena = document["arena"]
    assert arena["peak_bytes"] <= 1.1 * arena["lower_bound_bytes"] + 4 * len(arena["offsets"])


@cache
def _exported(name: str) -> tuple[Network, Data]:
    if name in networks.BUILDERS:
        model, inputs, _ = networks.build(name, 6)
        return Network.from_module(model, inputs), Data("test", inputs, None)
    source = attention_networks if name in attention_networks.NETWORKS else integer_networks
    network, inputs = source.exported(name)
    return network, Data("test", tuple(x[:6] for x in inputs), None)


@needs_gcc
@pytest.mark.parametrize("name", [*EVERY, "residual", "two-inputs", "shared"])
def test_every_operator_gives_the_integers_of_the_reference(
    name: str, tmp_path: Path, kernels: Path
) -> None:
    network, data = _exported(name)
    quantized = _quantized(network, data, len(name))
    wide = "16" if len(name) % 3 == 0 else "8"
    _check_equal(integer_networks.storing(quantized, data, wide), data, tmp_path, kernels)


@needs_gcc
@pytest.mark.parametrize("name", ["option-a", "pools"])
def test_sums_and_means_in_32_bits(name: str, tmp_path: Path, kernels: Path) -> None:
    network, data = _exported(name)
    _check_equal(_quantized(network, data, 3), data, tmp_path, kernels)


@needs_gcc
@pytest.mark.parametrize("seed", range(5))
def test_random_networks_with_random_assignments(seed: int, tmp_path: Path, kernels: Path) -> None:
    model, inputs = integer_networks.build_random(seed + 100, samples=5)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    quantized = _quantized(network, data, seed)
    if seed == 3:
        _check_equal(quantized, data, tmp_path, kernels, 16)
    else:
        _check_equal(integer_networks.storing(quantized, data), data, tmp_path, kernels)


def _axes(m: Any, x: torch.Tensor) -> Any:
    out = m.conv(x).softmax(2).permute(0, 3, 1, 2)[:, ::2]
    out = torch.cat([out, functional.pad(out, (-1, 1, 0, 2, 1, 0))[:, 1:, :4]], dim=3)
    return m.token(out).mean((1, 3)).unsqueeze(1).argmax(2)


@needs_gcc
def test_moves_means_softmax_and_argmax_along_inner_axes(tmp_path: Path, kernels: Path) -> None:
    model = integer_networks.Function(_axes, conv=nn.Conv2d(2, 4, 2), token=nn.Linear(10, 3))
    inputs = (torch.randn(6, 2, 6, 8, generator=torch.Generator().manual_seed(0)),)
    network, data = Network.from_module(model.eval(), inputs), Data("test", inputs, None)
    _check_equal(_quantized(network, data, "w8a8"), data, tmp_path, kernels)


@needs_gcc
@pytest.mark.parametrize("name", ["tinym2net-battlefield", "tinym2net-covid"])
def test_tinym2net(name: str, tmp_path: Path, kernels: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = architecture(name).inputs.values()
    inputs = tuple(torch.randn(3, *shape, generator=generator) for shape in shapes)
    network = Network.from_module(build(name), inputs)
    data = Data("random", inputs, None)
    quantized = _quantized(network, data, 1)
    _check_equal(quantized, data, tmp_path, kernels)


@pytest.mark.data
@needs_gcc
@pytest.mark.skipif("MPSEARCH_DATA" not in os.environ, reason="MPSEARCH_DATA is not set")
def test_resnet20(tmp_path: Path, kernels: Path) -> None:
    path = Path(os.environ["MPSEARCH_DATA"], "pretrained", "resnet20.safetensors")
    network = load_network(ModelSource(str(path), model="resnet20")).network
    data = bind(read_arrays("cifar10:train"), network).take(4, 0)
    _check_equal(_quantized(network, data, "w4a8"), data, tmp_path, kernels)


@needs_gcc
def test_packed_weights_unpack_at_every_width_and_position(tmp_path: Path) -> None:
    """Arrays of exactly the packed length: the address sanitizer sees any byte read beyond."""
    source = np.random.default_rng(0)
    lines, expected = ['#include <stdio.h>\n#include "integers.h"', "int main(void) {"], []
    for bits in (*range(2, 9), 16):
        codes = source.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 37)
        codes[:2] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        values = ", ".join(map(str, pack(codes, bits)))
        lines.append(f"    const uint8_t w{bits}[] = {{{values}}};")
        lines.append(f'    for (int i = 0; i < 37; i++) printf("%ld\\n", '
                     f"(long)mps_weight(w{bits}, {bits}, (size_t)i));")  # fmt: skip
        expected += codes.tolist()
    (tmp_path / "unpack.c").write_text("\n".join([*lines, "    return 0;", "}", ""]))
    _gcc(*CHECKED, f"-I{CORE}", tmp_path / "unpack.c", "-o", tmp_path / "unpack")
    assert _call(tmp_path / "unpack")[:, 0].tolist() == expected


def _small(folder: Path, choice: str = "w4a8") -> tuple[QuantizedNetwork, Data, Path]:
    """A stored quantized network beside the data that it was made with."""
    network, data = _exported("two-inputs")
    quantized = _quantized(network, data, choice)
    save_quantized(quantized, folder / "quantized.pt")
    x0, x1 = (x.numpy() for x in data.inputs)
    np.savez(folder / "data.npz", x0=x0, x1=x1)
    return quantized, data, folder / "quantized.pt"


def _class_of_example(example: str) -> str:
    """What the README's program says of the first sample in check/, built as the README says."""
    filled, first = [], np.fromfile("net/check/input.f32", np.float32)
    for name, count in re.findall(r"static float (x\d+)\[(\d+)\];", example):
        taken, first = first[: int(count)], first[int(count) :]
        filled.append(f"memcpy({name}, (float[]){{{', '.join(map(str, taken))}}}, sizeof {name});")
    head, body = example.split("int best = 0;\n")
    code = "#include <string.h>\n" + head + "int best = 0;\n" + "\n".join(filled) + body
    Path("example.c").write_text(code)
    built = [*STRICT, "-Inet", "example.c", "net/border.c", "net/build/libnetwork.a", "-lm"]
    _gcc(*built, "-o", "example")
    Path("example.c").write_text(example)  # as it stands there
    _gcc(*built, "-o", "plain")
    return subprocess.run(["./example"], check=True, capture_output=True, text=True).stdout


def _first_class(folder: Path) -> str:
    line = (folder / "check" / "output.txt").read_text().splitlines()[0]
    return f"class {np.argmax(list(map(int, line.split())))}\n"


@needs_gcc
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_command_writes_a_folder_that_builds_and_checks_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quantized, _, _ = _small(tmp_path)
    arguments = ["export", "quantized.pt", "--calibration", "data.npz", "-o", "net"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "net" / "export.json").read_text())
    peak = format_size(document["arena"]["peak_bytes"])
    assert f"static memory (SRAM) {peak}" in done.output
    assert "against the fake-quantized network on 6 samples" in done.output
    assert [entry["name"] for entry in document["agreement"]] == ["output"]
    assert document["size_bytes"] == size_bytes(quantized.source, quantized.assignment)
    readme = (tmp_path / "net" / "README.md").read_text()
    assert f"| weights | {document['constant_bytes']['weights']:,} |" in readme
    (example,) = re.findall(r"```c\n(.*?)```", readme, flags=re.DOTALL)
    make = ["make", "-s", "-C", "net", "CFLAGS=-O1 -Werror"]
    checked = subprocess.run([*make, "check"], check=True, capture_output=True, text=True)
    ok = "ok: all 4 samples in check/input.f32 give the integers in check/output.txt"
    assert checked.stdout.splitlines()[-1] == ok
    assert _class_of_example(example) == _first_class(Path("net"))
    symbols = subprocess.run(
        ["nm", "net/build/libnetwork.a"], check=True, capture_output=True, text=True
    ).stdout
    assert "network_run" in symbols
    for absent in ("malloc", "free", "calloc", "printf", "rint"):
        assert f" U {absent}" not in symbols
    # again, over itself and what make built; the stored answer must be able to say no
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    text = (tmp_path / "net/check/output.txt").read_text()
    (tmp_path / "net/check/output.txt").write_text(text.replace("1", "2"))
    failed = subprocess.run([*make, "check"], capture_output=True, text=True)
    assert failed.returncode != 0
    assert "ok" not in failed.stdout
    done = CliRunner().invoke(cli, [*arguments[:-1], "other", "--json"])
    assert json.loads(done.output)["arena"] == document["arena"]


@needs_gcc
def test_a_layer_whose_factors_have_no_compact_form_stores_them(
    tmp_path: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpsearch.exporters.c.constants.channel_scales", lambda *_: None)
    network, data = _exported("two-inputs")
    quantized = _quantized(network, data, 3)
    document = export_c(quantized, data, tmp_path).document
    assert document["constant_bytes"]["scales"] == 0
    channels = sum(layer.channels for layer in network.layers)
    assert document["constant_bytes"]["tables"] == 5 * channels
    program = _program(tmp_path, kernels)
    got = _call(program, "--input", tmp_path / "check" / "input.f32", "--integers")
    np.testing.assert_array_equal(got, np.loadtxt(tmp_path / "check" / "output.txt"))


@needs_gcc
def test_the_program_reads_codes_prints_times_and_refuses_bad_input(
    tmp_path: Path, kernels: Path
) -> None:
    network, data = _exported("two-inputs")
    quantized = _quantized(network, data, "w4a4")
    export_c(quantized, data, tmp_path)
    program = _program(tmp_path, kernels)
    graph = integer_network(quantized, data).graph
    codes = [quantize_input(data.inputs[e.index].numpy(), e.tensor) for e in graph.inputs]
    raw = b"".join(x[row].tobytes() for row in range(len(data)) for x in codes)
    (tmp_path / "codes").write_bytes(raw)
    expected = infer(graph, *codes)
    got = _call(program, "--input", tmp_path / "codes", "--codes", "--integers")
    np.testing.assert_array_equal(got, expected)

    def fails(*arguments: str | Path) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr

    done = subprocess.run(
        [program, "--input", tmp_path / "codes", "--codes", "--repeat", "5", "--integers"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    times = [json.loads(line) for line in done.stderr.splitlines()]
    assert [row["sample"] for row in times] == list(range(len(data)))
    assert all(
        0 < row["minimum_ns"] <= row["median_ns"] <= row["p90_ns"] <= row["p99_ns"] for row in times
    )
    assert all(a["start_ns"] + a["first_ns"] <= b["start_ns"] for a, b in pairwise(times))
    assert done.stdout.splitlines()[0].split() == [str(int(v)) for v in expected[0]]
    (tmp_path / "half").write_bytes(raw[:-1])
    assert "half a sample" in fails("--input", tmp_path / "half", "--codes")
    (tmp_path / "beyond").write_bytes(b"\x10" + raw[1:])  # 16 is no 4-bit code
    assert "out of range" in fails("--input", tmp_path / "beyond", "--codes")
    (tmp_path / "empty").write_bytes(b"")
    assert "no sample" in fails("--input", tmp_path / "empty")
    assert "No such file" in fails("--input", tmp_path / "absent")
    assert "1 to 100000" in fails("--input", tmp_path / "codes", "--repeat", "0")
    assert "1 to 99999" in fails("--input", tmp_path / "codes", "--warm-up", "0")
    assert "usage" in fails()


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["export", *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_exported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _small(tmp_path)
    assert "--calibration" in _refused(capsys, "quantized.pt", "-o", "net")
    data = ["--calibration", "data.npz", "-o", "net"]
    _, _, path = _small(tmp_path, "w8a32")
    assert "left in float (w8a32)" in _refused(capsys, str(path), *data)
    inputs = (torch.randn(6, 5, generator=torch.Generator().manual_seed(0)),)
    sums = integer_networks.Function(lambda m, x: m.a(x).cumsum(1), a=nn.Linear(5, 3)).eval()
    network, sample = Network.from_module(sums, inputs), Data("test", inputs, None)
    save_quantized(_quantized(network, sample, "w8a8"), "quantized.pt")
    np.savez("sums.npz", x0=inputs[0].numpy())
    refused = _refused(capsys, "quantized.pt", "--calibration", "sums.npz", "-o", "net")
    assert "cumsum (node 'cumsum') has no integer form" in refused
    save(sums, "model.pt", inputs, {"x0": inputs[0]})
    assert "is not a quantized network" in _refused(capsys, "model.pt", *data)
    assert not Path("net").exists()


def test_the_sample_of_the_float_model_sets_the_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs = integer_networks.build("classes", 6)
    network, data = Network.from_module(model, inputs), Data("test", inputs, None)
    save(model, "model.pt", inputs, {"x0": inputs[0]})
    save_quantized(_quantized(network, data, "w8a8"), "quantized.pt")
    arguments = ["export", "quantized.pt", "--fp32", "model.pt", "-o", "net", "--wide", "16"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    codes = infer(lower(_quantized(network, data, "w8a8"), data, wide_bits=16),
                  *_entry_codes(network, data))  # fmt: skip
    assert Path("net/check/output.txt").read_text().split() == [str(v) for v in codes[:4].ravel()]


def _entry_codes(network: Network, data: Data) -> list[np.ndarray]:
    graph = lower(_quantized(network, data, "w8a8"), data, wide_bits=16)
    return [quantize_input(data.inputs[e.index].numpy(), e.tensor) for e in graph.inputs]


def test_files_of_others_are_never_overwritten(tmp_path: Path) -> None:
    quantized, data, _ = _small(tmp_path)
    target = tmp_path / "net"
    target.mkdir()
    (target / "main.c").write_text("mine")
    with pytest.raises(InputError, match=r"holds main\.c, which no export wrote"):
        export_c(quantized, data, target)
    assert [path.name for path in target.iterdir()] == ["main.c"]
    (target / "main.c").unlink()
    export_c(quantized, data, target)
    (target / "build").mkdir()
    (target / "build" / "network").write_text("an old program")
    export_c(quantized, data, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt, which no export wrote"):
        export_c(quantized, data, target)
    (target / "notes.txt").unlink()
    other = (target / "export.json").read_text().replace("mpsearch.c_export", "mpsearch.other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "export.json").write_text(other)
    (tmp_path / "other" / "main.c").write_text("theirs")
    with pytest.raises(InputError, match=r"an export of another kind \(mpsearch\.other\)"):
        export_c(quantized, data, tmp_path / "other")
    (target / "main.c").write_text("changed")
    with pytest.raises(InputError, match=r"main\.c was changed after the export"):
        export_c(quantized, data, target)
    assert (target / "main.c").read_text() == "changed"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        export_c(quantized, data, tmp_path / "file")


@needs_gcc
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_commands_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    monkeypatch.chdir(tmp_path)
    (python,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(python, "docs/export.md", "exec"), {})
    commands = "".join(re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL))
    for words in map(str.split, commands.strip().splitlines()):
        if words[0] == "mpsearch":
            assert run(words[1:]) == 0
        else:
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(done.stderr.splitlines()) == 4
    (declared,) = re.findall(r"```c\n(.*?)```", page, flags=re.DOTALL)
    header = (tmp_path / "network" / "network.h").read_text()
    for line in declared.splitlines():
        assert line.split(";")[0] in header


def test_options_of_other_formats_are_refused() -> None:
    request = ExportRequest(cast(QuantizedNetwork, None), None, "net.onnx", wide_bits=16)
    with pytest.raises(InputError, match="--format onnx has no --wide; it goes with c"):
        check_options("onnx", request)


def test_every_output_is_compared_with_the_fake_quantized_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores of 0.01 beside boxes of 320: 16 bits for both leave the scores two values."""
    monkeypatch.chdir(tmp_path)
    box, score = nn.Linear(6, 4), nn.Linear(6, 3, bias=False)
    with torch.no_grad():
        box.weight.mul_(320)
        score.weight.mul_(0.01)
    model = integer_networks.Function(
        lambda m, x: {"box": m.box(x), "score": m.score(x)}, box=box, score=score
    )
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    network, data = Network.from_module(model.eval(), (x,)), Data("test", (x,), None)
    save_quantized(_quantized(network, data, "w8a8"), "q.pt")
    np.savez("data.npz", x0=x.numpy())

    def export(*options: str) -> tuple[int, str]:
        code = run(["export", "q.pt", "--calibration", "data.npz", "-o", "net", *options])
        return code, capsys.readouterr().out

    code, text = export("--wide", "16")
    assert code == 1
    assert not Path("net").exists()
    first, _, of_box, of_score = text.splitlines()
    assert first.startswith("not written")
    assert "--wide 32" in first
    assert of_box.strip().startswith("box: ")
    assert "DIFFERS" not in of_box
    assert "DIFFERS" in of_score
    code, text = export("--wide", "16", "--no-check")
    assert code == 0
    assert "not compared" in text
    code, text = export("--json")
    assert code == 0
    found = {entry["name"]: entry for entry in json.loads(text)["agreement"]}
    assert set(found) == {"box", "score"}
    assert all(entry["ok"] and entry["samples"] == 40 for entry in found.values())
    # a range that is too narrow saturates what the network gives
    monkeypatch.setitem(HEADROOM, 32, 0.2)
    code, text = export("--json")
    assert code == 1
    assert not json.loads(text)["agreement"][0]["ok"]


def test_large_networks_are_compared_on_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(300, 4)
    network, data = Network.from_module(nn.Linear(4, 2), (x,)), Data("test", (x,), None)
    quantized = _quantized(network, data, "w8a8")
    graph = lower(quantized, data)
    for most, samples in ((10**6, 256), (100, 12), (1, 8)):  # 8 MACs a sample
        monkeypatch.setattr("mpsearch.exporters.c.folder._MACS", most)
        (found,) = check(graph, quantized, data)
        assert found.samples == samples


def test_functions_between_layers_are_judged_by_the_size_of_their_noise() -> None:
    """Of thousands of outputs some are always beyond one step: a code became its neighbour."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3), nn.Tanh(),
                          nn.Conv2d(4, 4, 1))  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for values in model.parameters():
            nn.init.normal_(values, std=0.5)
        x = torch.randn(16, 1, 20, 20)
    network, data = Network.from_module(model.eval(), (x,)), Data("test", (x,), None)
    quantized = _quantized(network, data, "w8a4")
    (found,) = check(lower(quantized, data), quantized, data)
    assert found.ok
    assert found.rounded
    assert found.assigned.within_step < 0.5  # so that the limit for sums of 32 bits would refuse it
