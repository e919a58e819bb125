"""What is installed on request is imported on request, and its absence names the exact command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import networks
import pytest

import mpsearch

EXTRAS = tuple(
    "tensorflow keras h5py onnx onnxruntime ai_edge_litert tflite_micro librosa av".split()
)
# A process in which none of them can be imported, as where they are not installed.
WITHOUT = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from mpsearch.cli import run
for command in sys.argv[1:]:
    if code := run(command.split()):
        sys.exit(code)
"""


def run(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """The commands one after another in that process, until one fails."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *commands], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mpsearch file with its sample."""
    place = tmp_path_factory.mktemp("extras")
    model, inputs, labels = networks.build("residual")
    sample = {"x0": inputs[0], "y": labels}
    mpsearch.save(model, place / "model.pt", (inputs[0][:1],), sample)
    return place


def test_the_loop_needs_no_extra(folder: Path) -> None:
    done = run(folder, "profile model.pt", "solve --size 80%", "apply model.pt -o quantized.pt")
    assert done.returncode == 0, done.stderr


def write_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="python -m pip install '.[onnx]'")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", 1, ["N", 3])], [value("y", 1, ["N", 3])]
    )
    onnx.save(onnx.helper.make_model(graph), path)


def write_keras(path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="python -m pip install '.[keras]'")
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"


@pytest.mark.parametrize(
    ("name", "write", "extra"),
    [("net.onnx", write_onnx, "onnx"), ("net.h5", write_keras, "keras")],
)
def test_a_file_that_needs_an_extra_names_the_command(
    folder: Path, name: str, write: Callable[[Path], None], extra: str
) -> None:
    write(folder / name)
    done = run(folder, f"convert {name} --input-shape 3 -o out.pt")
    assert done.returncode == 2
    assert f"install it with: python -m pip install '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out.pt").exists()


def test_torch_alone_does_not_bring_them(folder: Path) -> None:
    """Loading and running a network imports none of them where they are installed."""
    code = (
        "import sys; from mpsearch.importers.loading import ModelSource, load_network; "
        "load_network(ModelSource('model.pt')); "
        f"sys.exit(' '.join(name for name in {EXTRAS!r} if name in sys.modules) or None)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_no_page_or_message_installs_a_name_that_is_not_ours() -> None:
    """The name mpsearch on a package index is somebody else's."""
    root = Path(__file__).parents[1]
    folders = ("mpsearch", "models", "solvers", "sensitivity", "reports", "docs")
    read = [
        p for folder in folders for kind in ("py", "md") for p in root.glob(f"{folder}/**/*.{kind}")
    ]
    assert len(read) > 300
    for path in [*read, root / "README.md"]:
        assert "install 'mpsearch[" not in path.read_text(encoding="utf-8"), path
