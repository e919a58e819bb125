"""Every kind of file that a command reads, damaged at random: exit code 0, 1 or 2, a short message.

MPSEARCH_FUZZ=50 tries fifty times as many of each; a failure names the kind and the number, from
which the same bytes are made again.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tool_tables
import torch
from damaging import (
    Mutator,
    in_bytes,
    in_csv,
    in_json,
    in_lines,
    in_npy,
    in_safetensors,
    in_toml,
    in_zip,
    packed,
)
from device_profiles import PROFILE
from exports import small_export
from litert_files import Graph
from own_files import write_classes
from safetensors.torch import save_file

import mpsearch
from mpsearch.cli import run
from mpsearch.device.exported import read_export
from mpsearch.device.power_csv import csv_source
from mpsearch.device.profile import save_device_profile
from mpsearch.errors import MpsearchError
from mpsearch.evaluation.evaluation import Evaluation
from mpsearch.finetuning.oscillations import still
from mpsearch.finetuning.training import State, load_state, save_state
from mpsearch.reproduction.run_store import Measured, RunStore
from mpsearch.running.finished_steps import Record, Step
from mpsearch.running.journal import Journal
from mpsearch.statistics import wilson_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.provenance import network_digest

TIMES = int(os.environ.get("MPSEARCH_FUZZ", "1"))
LINES, CHARACTERS = 3, 1500  # of an error


@dataclass(frozen=True)
class Kind:
    """A file of the good folder, a command line (or a function) that reads it, and how it is
    damaged beside changes of its bytes. count: of damaged files that are tried."""

    file: str
    read: str | Callable[[], object]
    inner: Mutator = in_bytes
    count: int = 12


def _read_run() -> object:
    return RunStore.open(Path("run"), "same")


def _read_power() -> object:
    return csv_source("", "power.csv?time=t&power=p&unit=W").read(0.0)


REPORT = "report -o out.html"  # which lists what is damaged, and goes on
SMALL = "--architecture small:make --input-shape 4 -o out.pt"
_NPZ = in_zip({".npy": in_npy})
_MODEL = in_zip({".json": in_json, ".safetensors": in_safetensors})
_KERAS = in_zip({".json": in_json})
KINDS = (
    Kind("profile.csv", "solve --size 90% -o out.json", in_csv, 30),
    Kind("profile.csv", "explain", in_csv, 10),
    Kind("profile.csv", "front -o out.csv", in_csv, 6),
    Kind("profile.json", REPORT, in_json, 1),
    Kind("assignment.json", "gate --max-size 1MB", in_json, 20),
    Kind("assignment.json", REPORT, in_json, 1),
    Kind("assignment.json", "predict assignment.json", in_json),
    Kind("front.json", "solve --size 90% --from-front front.json -o out.json", in_json, 20),
    Kind("front.json", REPORT, in_json, 1),
    Kind("evaluation.json", "gate --min-accuracy 1% --max-drop 99", in_json, 40),
    Kind("evaluation.json", REPORT, in_json, 1),
    Kind("baseline.json", "gate --baseline baseline.json --max-size-growth 1%", in_json, 20),
    Kind("baseline.json", "diff baseline.json assignment.json", in_json, 20),
    Kind("assignment.json", "diff profile.csv assignment.json", in_json, 10),
    Kind("device.json", "gate --device-file device.json --max-latency 5s", in_json, 20),
    Kind("device.json", REPORT, in_json, 1),
    Kind("mpsearch.toml", "gate --config mpsearch.toml", in_toml, 20),
    Kind("profile.interactions.npz", "predict assignment.json", _NPZ, 40),
    Kind("data.npz", "evaluate model.pt --data data.npz", _NPZ, 16),
    Kind("data.safetensors", "evaluate model.pt --data data.safetensors", in_safetensors, 10),
    Kind("model.pt", "evaluate model.pt --data data.npz", _MODEL, 24),
    Kind("quantized.pt", "evaluate quantized.pt --data data.npz", _MODEL, 16),
    Kind("weights.safetensors", f"convert weights.safetensors {SMALL}",
         in_safetensors, 6),
    Kind("weights.pt", f"convert weights.pt {SMALL}", in_zip({}), 6),
    Kind("net.onnx", "convert net.onnx -o out.pt", in_bytes, 6),
    Kind("net.tflite", "convert net.tflite -o out.pt", in_bytes, 12),
    Kind("net.keras", "convert net.keras -o out.pt", _KERAS, 10),
    Kind("net.h5", "convert net.h5 -o out.pt", in_bytes, 6),
    Kind("built/samples.csv", "data check built", in_csv, 20),
    Kind("built/dataset.json", "data check built", in_json, 20),
    Kind("built/test.npz", "data check built", _NPZ),
    Kind("parts/test.npz", "data check parts", _NPZ),
    Kind("data.toml", "data build data.toml -o out", in_toml, 6),
    Kind("export/export.json", lambda: read_export("export"), in_json, 30),
    Kind("export/check/input.f32", lambda: read_export("export"), in_bytes, 4),
    Kind(".out.csv.partial", "profile model.pt --data data.npz -o out.csv",
         in_lines, 6),
    Kind(".tuned.pt.0.checkpoint", lambda: load_state(Path(".tuned.pt.0.checkpoint")),
         in_safetensors, 20),
    Kind("run/run.json", _read_run, in_json, 20),
    Kind("steps/run.json", lambda: Record.open("steps", "1"), in_json, 20),
    Kind("power.csv", _read_power, in_csv, 20),
    *(Kind(name, f"table {read}", in_json, 12) for name, (_, read) in tool_tables.FILES.items()),
    Kind("kld.csv", "solve kld.csv --columns layer=name,choice=type,omega=kld,size_bytes=bytes "
         "--group {fc,conv} --size 90% -o out.json", in_csv, 20),
    Kind("shapes.safetensors", "table sensitivities.json --shapes shapes.safetensors",
         in_safetensors, 12),
    Kind("shapes.gguf", "table sensitivities.json --shapes shapes.gguf", in_bytes, 20),
)  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good file of every kind, made as users make them."""
    folder = tmp_path_factory.mktemp("good")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        _make()
    return folder


def _make() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)).eval()
    x = torch.randn(24, 4)
    arrays = {"x0": x.numpy(), "y": net(x).argmax(1).numpy()}
    np.savez("data.npz", **arrays)
    save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, "data.safetensors")
    mpsearch.save(net, "model.pt", (x[:1],), sample=arrays)
    for line in (
        "profile model.pt --interactions",
        "solve --size 90%",
        "front -o front.csv",
        "apply model.pt -o quantized.pt",
        "evaluate model.pt --assignment assignment.json --metric f1",
        "evaluate model.pt --front front.csv --points 3",
        "gate --max-size 1MB --update-baseline baseline.json",
    ):
        assert run(line.split()) == 0, line
    Path("mpsearch.toml").write_text('[gate]\nmax-size = "1MB"\nmax = { f1 = 1 }\nstrict = false\n')
    solved = Assignment.load("assignment.json")
    device = replace(PROFILE, network=network_digest(solved.layers))
    save_device_profile(replace(device, model_digest=solved.model_digest), "device.json")
    _make_models(net)
    _make_dataset()
    small_export(Path("export"))
    with contextlib.suppress(KeyboardInterrupt):
        _interrupt()
    (kept,) = Path().glob(".out.csv.*.partial")
    JOURNAL.append(kept.name)
    kept.rename(".out.csv.partial")
    moments = {"w": {"step": torch.ones(()), "exp_avg": x[0], "exp_avg_sq": x[1]}}
    history = [(0, None, 1.0, 0.5, 0.0), (1, 0.7, 0.8, 0.6, 0.1)]
    codes = {"w": still(torch.tensor([[1, -2]], dtype=torch.int8))}
    state = State({"w": x[0]}, moments, {"w": x[0]}, codes, history)
    save_state(state, Path(".tuned.pt.0.checkpoint"))
    row = Evaluation("FP32", 2, 0.5, wilson_interval(1, 2), 0.3, (0.2, 0.4), (True, False), 8, 9)
    RunStore.open(Path("run"), "same").measure("FP32", lambda: Measured(row, 10))
    Path("steps").mkdir()
    step = Step("profile", ("profile", "model.pt"), ("model.pt",), ("profile.csv",))
    steps = Record.open("steps", "1")
    steps.finish(step, steps.begin(step), 1.5)
    Path("power.csv").write_text("t,p\n" + "".join(f"{n / 10},{2 + n / 100}\n" for n in range(9)))

    tool_tables.write_all(Path())
    rows = ("fc,Q4_K,0.5,10", "fc,Q6_K,0.25,14", "conv,Q4_K,0.5,10", "conv,Q6_K,0.25,14")
    Path("kld.csv").write_text("\n".join(["name,type,kld,bytes", *rows, ""]))
    shapes = {name: tuple(shape) for name, shape in tool_tables.SHAPES.items()}
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    save_file(tensors, "shapes.safetensors")
    Path("shapes.gguf").write_bytes(tool_tables.gguf(*shapes.items()))


JOURNAL: list[str] = []  # what the profile's own journal is called: its name holds a digest


def _interrupt() -> None:
    """A profile that is stopped after its first piece."""
    put, left = Journal.put, [1]

    def once_more(self: Journal, key: str, value: object) -> None:
        put(self, key, value)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "put", once_more)
        run("profile model.pt --data data.npz -o out.csv".split())


def _make_models(net: torch.nn.Module) -> None:
    Path("small.py").write_text(
        "from torch import nn\n\n\ndef make() -> nn.Module:\n"
        "    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()\n"
    )
    state = net.state_dict()
    torch.save(state, "weights.pt")
    save_file(state, "weights.safetensors")
    onnx = pytest.importorskip("onnx")
    h5py = pytest.importorskip("h5py")
    weight = np.ones((3, 4), np.float32)
    made = onnx.helper
    graph = made.make_graph(
        [made.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "g",
        [made.make_tensor_value_info("x", 1, ["n", 4])],
        [made.make_tensor_value_info("y", 1, ["n", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    onnx.save(made.make_model(graph, opset_imports=[made.make_opsetid("", 17)]), "net.onnx")
    written = Graph()
    y = written.conv(written.input("x", 4, 4, 2), 2, 3)
    Path("net.tflite").write_bytes(written.content(written.op("RELU", [y])))
    layers = [
        {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {"batch_shape": [None, 4], "name": "x"},
        },
        {
            "module": "keras.layers",
            "class_name": "Dense",
            "config": {"name": "d", "units": 3, "activation": "linear"},
        },
    ]
    model = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "s", "layers": layers},
    }
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = weight.T, np.zeros(3, "f4")
    members = {
        "config.json": json.dumps(model).encode(),
        "metadata.json": b'{"keras_version": "3.0.0"}',
        "model.weights.h5": content.getvalue(),
    }
    Path("net.keras").write_bytes(packed(members))
    with h5py.File("net.h5", "w") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(model), "2.15.0"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["x", "d"]
        group.create_group("x").attrs["weight_names"] = np.array([], "S1")
        dense = group.create_group("d")
        dense.attrs["weight_names"] = ["d/kernel:0", "d/bias:0"]
        dense["d/kernel:0"], dense["d/bias:0"] = weight.T, np.zeros(3, "f4")


def _make_dataset() -> None:
    write_classes(Path(), classes=2, files=6, seconds=0.6)
    Path("data.toml").write_text(
        'name = "own"\nclasses = ["bell", "drum"]\n[split]\nval = 0.2\ntest = 0.2\nseed = 1\n'
        '[inputs.image]\nkind = "image"\nfolder = "pictures"\nsize = 8\n'
    )
    assert run("data build data.toml -o built".split()) == 0
    Path("parts").mkdir()
    for name in ("train.npz", "test.npz"):
        shutil.copy(Path("built", name), Path("parts", name))


def reading(kind: Kind) -> tuple[int, str]:
    """(exit code, what is said on standard error) of reading the file of this kind."""
    said = io.StringIO()
    if isinstance(kind.read, str):
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            return run(kind.read.split()), said.getvalue()
    try:
        kind.read()
    except MpsearchError as error:
        return error.exit_code, str(error)
    return 0, ""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.file}-{str(kind.read)[:12]}")
def test_a_damaged_file_is_an_error_of_the_input(
    kind: Kind, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(good)
    path = Path(JOURNAL[0] if kind.inner is in_lines else kind.file)
    whole = Path(kind.file).read_bytes()
    path.write_bytes(whole)
    try:
        _try_damaged(kind, path, whole)
    finally:
        path.write_bytes(whole)


def _try_damaged(kind: Kind, path: Path, whole: bytes) -> None:
    code, said = reading(kind)
    assert code == 0, said
    refused = 0
    for number in range(kind.count * TIMES):
        seed = zlib.crc32(
            f"{kind.file} {kind.read if isinstance(kind.read, str) else ''} {number}".encode()
        )
        rng = random.Random(seed)
        damaged = (in_bytes if rng.random() < 0.35 else kind.inner)(whole, rng)
        path.unlink(missing_ok=True)
        path.write_bytes(damaged)
        code, said = reading(kind)
        assert code in (0, 1, 2), (number, code, said[-2000:])
        assert code != 2 or (said and "out of memory" not in said), (number, said[-2000:])
        if code == 2:
            assert len(said.splitlines()) <= LINES, (number, said[-2000:])
            assert len(said) <= CHARACTERS, (number, len(said), said[:300])
        refused += code == 2
    assert refused > 0 or kind.read == REPORT, "nothing was refused: the file is not read"


_SPECIAL = (
    "profile.csv", "assignment.json", "evaluation.json", "front.json", "baseline.json",
    "device.json", "mpsearch.toml", "profile.interactions.npz", "data.npz", "model.pt",
)  # fmt: skip


@pytest.mark.parametrize("file", _SPECIAL)
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(
    what: str, file: str, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(good)
    kind = next(kind for kind in KINDS if kind.file == file and kind.read != REPORT)
    path, whole = Path(file), Path(file).read_bytes()
    path.unlink()
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"{file} is waited for"))
    signal.alarm(60)
    try:
        if what == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        code, said = reading(kind)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        path.unlink()
        path.write_bytes(whole)
    assert code == 2
    assert path.name in said
    assert len(said.splitlines()) <= LINES
