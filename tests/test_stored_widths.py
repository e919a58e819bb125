"""What a format stores as assigned, by the exporters themselves; and the searches for it."""

import json
import re
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from tables import hand_table
from torch import nn

from mpsearch.cli import run
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.exporters.litert.model import raise_bits
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.integer.lowering import lower
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import QuantizedNetwork, quantize
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.stored_widths import FORMATS, choices_for

BITS = (2, 3, 4, 7, 8, 16, 32)


def module() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten())
        return nn.Sequential(*convolution, nn.Linear(12, 4)).eval()


def sample() -> torch.Tensor:
    return torch.randn(24, 2, 4, 4, generator=torch.Generator().manual_seed(1))


@cache
def at(choice: Choice) -> QuantizedNetwork:
    network = Network.from_module(module(), (sample(),))
    data = Data("sample", (sample(),), None)
    return quantize(network, dict.fromkeys(("0", "3"), choice), calibrate(network, data))


def stored_by_litert(choice: Choice, micro: bool = False) -> list[bool]:
    try:
        raised, _ = raise_bits(at(choice), micro)
    except InputError:
        return [False, False]
    return [raised.assignment[layer] == choice for layer in ("0", "3")]


def stored_by_tflm(choice: Choice) -> list[bool]:
    return stored_by_litert(choice, micro=True)


def stored_by_onnx(choice: Choice) -> list[bool]:
    pytest.importorskip("onnx")
    from mpsearch.exporters.onnx.exported import layer_rows
    from mpsearch.exporters.onnx.model import onnx_model

    quantized = at(choice)
    rows = layer_rows(quantized, onnx_model(quantized))
    return [(r["stored_w_bits"], r["stored_a_bits"]) == (r["w_bits"], r["a_bits"]) for r in rows]


def stored_by_c(choice: Choice) -> list[bool]:
    try:
        lower(at(choice), Data("sample", (sample(),), None))
    except InputError:
        return [False, False]
    return [True, True]


@pytest.mark.parametrize(
    ("form", "stored"),
    [
        ("litert", stored_by_litert),
        ("tflm", stored_by_tflm),
        ("onnx", stored_by_onnx),
        ("c", stored_by_c),
    ],
)
def test_the_table_of_formats_is_what_their_exporters_do(
    form: str, stored: Callable[[Choice], list[bool]]
) -> None:
    for w_bits, a_bits in [*product(BITS, [8]), *product([8], BITS), (2, 4), (16, 16), (32, 32)]:
        choice = Choice(w_bits, a_bits)
        runs = [FORMATS[form].runs(kind, choice) for kind in ("conv2d", "linear")]
        assert (str(choice), runs) == (str(choice), stored(choice))


def test_profile_takes_the_choices_and_solve_leaves_out_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = torch.arange(24) % 4
    save(module(), "model.pt", (sample(),), {"x0": sample(), "y": labels})
    assert run("profile model.pt --format litert --samples 8".split()) == 0
    assert "--format litert" in capsys.readouterr().out.splitlines()[-1]
    choices = json.loads(Path("profile.json").read_text())["choices"]
    assert choices == ["w4a8", "w8a8"]  # w2a8 is for linear layers alone
    assert choices_for("litert", ["linear"], [Choice(2, 8), Choice(3, 8)]) == (Choice(2, 8),)
    assert run("profile model.pt --choices w2a8,w3a8,w4a4,w8a8 --samples 8".split()) == 0
    capsys.readouterr()
    assert run("solve --size 80% --format litert".split()) == 0
    assert "litert does not store w2a8 in 1 layers, w3a8, w4a4 at" in capsys.readouterr().err
    chosen = Assignment.load("assignment.json")
    assert dict(chosen.layers) == {"0": Choice(8, 8), "3": Choice(2, 8)}
    assert chosen.search == {"exclude": ("0=w2a8", "w3a8", "w4a4")}  # for explain and report
    assert run("solve --size 80% --format c".split()) == 0
    assert "does not store" not in capsys.readouterr().err


def test_wrong_calls_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = hand_table(tmp_path).read_text()
    Path("profile.csv").write_text(table.replace("fc,8,8", "fc,8,4"))
    assert run("solve --format litert".split()) == 2
    error = capsys.readouterr().err
    assert "litert stores none of the choices of layer 'fc': w4a4, w8a4" in error
    assert "profile again with --format litert" in error
    assert run("profile model.pt --format c --bits 4".split()) == 2
    assert "--format beside --bits" in capsys.readouterr().err


def test_a_metric_of_the_weights_alone_is_named_where_activation_bits_are_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = hand_table(tmp_path)
    provenance = table.with_suffix(".json")
    for metric, words, said in (
        ("hessian", "--bops-limit 50%", "Ω by hessian is of the weights alone"),
        ("weight-mse", "--minimize bops", "Ω by weight-mse is of the weights alone"),
        ("hessian", "--size 60%", ""),
        ("sqnr", "--bops-limit 50%", ""),
    ):
        document = {"format": "mpsearch.provenance", "version": 1, "metric": metric}
        provenance.write_text(json.dumps(document))
        capsys.readouterr()
        assert run(["solve", *words.split()]) == 0
        error = capsys.readouterr().err
        assert said in error
        assert ("alone" in error) == bool(said)
    # and another column, where it depends on the activations' bits
    rows = table.read_text().replace(",bops", ",latency_s").splitlines()
    wider = [row.replace(",4,4,", ",4,8,") for row in rows[1:] if ",4,4," in row]
    document["metric"] = "pyhessian"
    provenance.write_text(json.dumps(document))
    table.write_text("\n".join([*rows, *wider]) + "\n")
    assert run("solve --limit latency_s=100000".split()) == 0
    assert "alone" not in capsys.readouterr().err
    table.write_text("\n".join([*rows, *(f"{row}0" for row in wider)]) + "\n")
    assert run("solve --limit latency_s=100000".split()) == 0
    assert "fewer bits cost nothing in it and save latency_s" in capsys.readouterr().err


def test_the_page_on_choosing_bits_names_the_widths_of_every_format() -> None:
    page = (Path(__file__).parent.parent / "docs" / "choosing-bits.md").read_text()
    files = {"c": "export.md", "onnx": "onnx.md", "litert": "litert.md", "tflm": "tflm.md"}
    assert set(files) == set(FORMATS)
    for form, file in files.items():
        (row,) = [line for line in page.splitlines() if line.startswith("| [") and file in line]
        weights, activations = row.split(" | ")[1:]
        widths = FORMATS[form]
        for told, stored in ((weights, widths.weights), (activations, widths.activations)):
            named = {int(n) for n in re.findall(r"\d+", re.sub(r"(\d+) to (\d+)", spelled, told))}
            linear = set(widths.weights_linear) if stored is widths.weights else set()
            assert named == {*stored, *linear} - {32}, row


def spelled(found: "re.Match[str]") -> str:
    """`2 to 4` -> `2 3 4`."""
    return " ".join(map(str, range(int(found[1]), int(found[2]) + 1)))
