"""Loading a model file: data are loaded, code is refused, damage is named, and nothing runs."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from archives import edit_header
from safetensors.torch import save_file
from torch import nn

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.graph_json import unstorable
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import HEADER, save
from mpsearch.importers.kinds import detect
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.profiling.profile import profile


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_an_mpsearch_file_gives_the_same_network_back(name: str, tmp_path: Path) -> None:
    model, inputs, labels = networks.build(name)
    path = tmp_path / "model.anything"
    sample = {**{f"x{i}": x for i, x in enumerate(inputs)}, "y": labels}
    save(model, path, inputs, sample)
    loaded = load_network(ModelSource(str(path)))
    assert loaded.network.digest == Network.from_module(model, inputs).digest
    assert loaded.network.input_names == Network.from_module(model, inputs).input_names
    assert {key: value.shape for key, value in loaded.sample.items()} == {
        key: value.shape for key, value in sample.items()
    }


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model, inputs, _ = networks.build("residual")
    for name in ("a.pt", "b.pt"):
        save(model, tmp_path / name, inputs, {"image": inputs[0].numpy()})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".wrong"])
def test_a_state_dict_loads_with_the_callers_factory(suffix: str, tmp_path: Path) -> None:
    model, inputs, _ = networks.build("two-inputs")
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"state_dict": model.state_dict()}, path)
    arrays = Arrays("test", {"x0": inputs[0], "x1": inputs[1]})
    source = ModelSource(str(path), model="networks:TwoInputs")
    network = load_network(source, arrays).network
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), model(*inputs))


class _Bomb:
    """Unpickling it would create the file that `path` names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def _hostile_pickle(path: Path, canary: Path) -> None:
    torch.save(_Bomb(canary), path)


def _hostile_legacy_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(_Bomb(canary)))


def _hostile_state_dict(path: Path, canary: Path) -> None:
    torch.save({"weight": torch.zeros(1), "extra": _Bomb(canary)}, path)


def _hostile_export(path: Path, canary: Path) -> None:
    """A torch.export archive whose symbolic shape is a Python expression."""
    model, inputs, _ = networks.build("smooth")
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, inputs, dynamic_shapes=(batch,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(path, "w") as bad:
        for entry in good.namelist():
            content = good.read(entry)
            if entry.endswith("model.json"):
                code = f"__import__('os').mkdir({str(canary)!r})"
                document = json.loads(content)
                text = json.dumps(document).replace('"expr_str": "s', f'"expr_str": "{code} or s')
                content = text.encode()
            bad.writestr(entry, content)


def _script(path: Path, canary: Path) -> None:
    model, inputs, _ = networks.build("smooth")
    torch.jit.trace(model, inputs).save(str(path))


@pytest.mark.parametrize(
    "make",
    [_hostile_pickle, _hostile_legacy_pickle, _hostile_state_dict, _hostile_export, _script],
)
def test_files_that_carry_code_are_refused_and_do_not_run(
    make: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    path, canary = tmp_path / "model.pt", tmp_path / "canary"
    make(path, canary)
    with pytest.raises(InputError, match="--trust"):
        load_network(ModelSource(str(path)))
    with pytest.raises(InputError):
        load_network(ModelSource(str(path), model="networks:Smooth"))
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "script", "export"])
def test_trusted_files_give_the_network(kind: str, tmp_path: Path) -> None:
    model, inputs, _ = networks.build("residual")
    path = str(tmp_path / "model.pt")
    if kind == "pickle":
        torch.save(model, path)
    elif kind == "script":
        torch.jit.trace(model, inputs).save(path)
    else:
        torch.export.save(torch.export.export(model, inputs), path)
    source = ModelSource(path, trust=True, input_shapes=((3, 8, 8),))
    if kind == "export":  # it was exported for one batch size, which the error says
        with pytest.raises(InputError, match="batch"):
            load_network(source)
        batch = ({0: torch.export.Dim.AUTO},)
        torch.export.save(torch.export.export(model, inputs, dynamic_shapes=batch), path)
    network = load_network(source).network
    assert {layer.name for layer in network.layers} == {"conv1", "conv2", "down", "head"}
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), model(*inputs))


def _call(header: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    return next(node for node in header["graph"] if node["op"] == "call_function")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("aten.from_file.default", "not on the allow-list"),
        ("operator.__import__", "not on the allow-list"),
        ("os.system", "not on the allow-list"),
        ("aten.relu_.default", "not on the allow-list"),
        ("aten.linear.nosuchoverload", "not on the allow-list"),
        (["aten"], "not on the allow-list"),
    ],
)
def test_operators_outside_the_allow_list_do_not_run(
    target: object, message: str, tmp_path: Path
) -> None:
    model, inputs, _ = networks.build("smooth")
    save(model, tmp_path / "m.pt", inputs)
    edit_header(tmp_path / "m.pt", lambda header: _call(header).update(target=target))
    with pytest.raises(InputError, match=message):
        load_network(ModelSource(str(tmp_path / "m.pt")))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(graph=3),
        lambda h: h.update(graph=[]),
        lambda h: h.update(version=99),
        lambda h: h.update(format="other"),
        lambda h: h.update(inputs=[{"shape": [10**9, 10**9], "dtype": "float32"}]),
        lambda h: h.update(inputs=[]),
        lambda h: h["graph"][0].update(op="call_module"),
        lambda h: h["graph"][0].update(name="not an identifier"),
        lambda h: h["graph"][0].update(target="__class__.weight"),
        lambda h: _call(h).update(args=[{"node": "nosuch"}]),
        lambda h: _call(h).update(args=[{"eval": "1"}]),
        lambda h: _call(h).update(args=[]),
        lambda h: h["graph"].reverse(),
    ],
)
def test_damaged_headers_are_one_clear_error(
    change: Callable[[Any], object], tmp_path: Path
) -> None:
    model, inputs, _ = networks.build("smooth")
    path = tmp_path / "m.pt"
    save(model, path, inputs)
    edit_header(path, change)
    with pytest.raises(InputError, match=r"m\.pt") as caught:
        load_network(ModelSource(str(path)))
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is no model", "unknown format"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "LiteRT"),
        (b"\x80\x02garbage", "pickled|damaged"),
        ((20).to_bytes(8, "little") + b"{" + bytes(40), "damaged safetensors"),
    ],
)
def test_foreign_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_network(ModelSource(str(path)))


def test_truncated_and_missing_files_are_named(tmp_path: Path) -> None:
    model, inputs, _ = networks.build("smooth")
    path = tmp_path / "model.pt"
    save(model, path, inputs)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="truncated"):
        detect(path)
    with pytest.raises(InputError, match="no such file"):
        detect(tmp_path / "nothing.pt")
    with pytest.raises(InputError, match="is a folder"):
        detect(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(InputError, match="without a model"):
        detect(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, b" " * 50_000_000)
    with pytest.raises(InputError, match="over 100 times its size"):
        load_network(ModelSource(str(path)))


def test_a_state_dict_needs_its_network_and_the_right_one(tmp_path: Path) -> None:
    model, inputs, _ = networks.build("smooth")
    path = str(tmp_path / "weights.pt")
    torch.save(model.state_dict(), path)
    arrays = Arrays("test", {"x0": inputs[0]})
    for source, message in (
        (ModelSource(path), "Name the network: --architecture"),
        (ModelSource(path, model="networks:Shared"), "does not fit --architecture networks:Shared"),
        (ModelSource(path, model="networks:nothing"), "cannot import"),
        (ModelSource(path, model="networks:BUILDERS"), "expected a function"),
        (ModelSource(path, model="networks:build"), "failed: TypeError"),
        (ModelSource(path, model="no-such-name"), "no-such-name"),
    ):
        with pytest.raises(InputError, match=message):
            load_network(source, arrays)
    with pytest.raises(InputError, match="--input-shape"):
        load_network(ModelSource(path, model="networks:Smooth"))


def test_a_sample_with_a_strange_array_is_refused(tmp_path: Path) -> None:
    model, inputs, _ = networks.build("smooth")
    with pytest.raises(InputError, match="'z'"):
        save(model, tmp_path / "m.pt", inputs, {"z": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_all_operators_that_the_format_lacks_are_named_before_anything_is_spent(
    tmp_path: Path,
) -> None:
    class Unusual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.special.bessel_j0(self.layer(x))
            for _ in range(4):
                hidden = torch.special.bessel_j1(hidden)
            return torch.special.bessel_j0(hidden)

    model, inputs = Unusual(), (torch.zeros(2, 3),)
    network = Network.from_module(model, inputs)
    found = unstorable(network.graph)
    operators = ["special_bessel_j0", *["special_bessel_j1"] * 4, "special_bessel_j0"]
    assert [operator for operator, _ in found] == [f"aten.{name}.default" for name in operators]
    message = (
        r"aten\.special_bessel_j0\.default at special_bessel_j0, special_bessel_j0_1, "
        r"aten\.special_bessel_j1\.default at special_bessel_j1, special_bessel_j1_1, "
        r"special_bessel_j1_2 and 1 more; expected"
    )
    data = Data("data", inputs, torch.zeros(2, dtype=torch.int64))
    for use in (
        lambda: save(model, tmp_path / "m.pt", inputs),
        lambda: profile(network, data, tmp_path / "profile.csv"),
    ):
        with pytest.raises(InputError, match=message):
            use()
    assert not list(tmp_path.iterdir())


def test_a_trusted_pickle_finds_its_class_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "class_of_a_pickle.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    pass\n"
    )
    code = (
        "import torch; from torch import nn; from class_of_a_pickle import Net; "
        "torch.save(Net(nn.Linear(3, 2)), 'net.pt')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    source = ModelSource("net.pt", trust=True, input_shapes=((3,),))
    assert [layer.name for layer in load_network(source).network.layers] == ["0"]
