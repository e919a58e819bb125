"""What a model file is, by its content: the first bytes, or the names inside of an archive."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpsearch.errors import InputError, MpsearchError, first_line
from mpsearch.files.archives import is_archive, open_archive
from mpsearch.files.whole import like_file
from mpsearch.graph import memory_budget, network_file
from mpsearch.importers.onnx.detection import is_damaged_onnx, is_onnx, is_ort
from mpsearch.quantization import quantized_file

MPSEARCH, QUANTIZED = "mpsearch file", "quantized mpsearch file"
STATE_DICT, PICKLE = "state dict", "pickled nn.Module"
EXPORT, SCRIPT = "torch.export archive", "TorchScript archive"
KERAS, ONNX, LITERT = "Keras file", "ONNX file", "LiteRT file"


def detect(path: str | os.PathLike[str]) -> str:
    """What the file is, from its first bytes and the names inside. Raises InputError when
    unknown."""
    file = Path(path)
    if not file.exists():
        raise InputError(f"{path}: no such file{like_file(path)}")
    if file.is_dir():
        if (file / "saved_model.pb").exists() or (file / "keras_metadata.pb").exists():
            raise InputError(
                f"{path} is a TensorFlow SavedModel; expected the Keras model, "
                "model.save('net.keras'), or an ONNX file of tf2onnx"
            )
        raise InputError(f"{path} is a folder; expected a model file")
    if not file.is_file():
        raise InputError(f"{path} is a pipe or device; expected a model file")
    with file.open("rb") as stream:
        head = stream.read(9)
    if not head:
        raise InputError(f"{path}: the file is empty")
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return KERAS
    if head[4:8] == b"TFL3":
        return LITERT
    if is_archive(file):  # also one behind a LiteRT file, with its labels
        return _detect_zip(file)
    if head[:1] == b"\x80":
        return STATE_DICT  # or any other pickle of old torch: reading as weights only decides
    if (
        len(head) == 9
        and int.from_bytes(head[:8], "little") < file.stat().st_size
        and head[8] == 123
    ):
        return STATE_DICT
    if is_onnx(file):
        return ONNX
    if is_ort(head):
        raise InputError(
            f"{path}: onnxruntime's own format; expected the .onnx file that it was made from"
        )
    if is_damaged_onnx(file):
        raise InputError(f"{path}: damaged or truncated ONNX file; copy or export it again")
    if head[:4] == b"PK\x03\x04":
        raise InputError(f"{path}: the file is truncated: a zip archive without its end")
    if file.suffix == ".pb":
        raise InputError(
            f"{path} is a TensorFlow graph; expected the Keras model: model.save('net.keras')"
        )
    raise InputError(
        f"{path}: an unknown format; expected an mpsearch file, a state dict (.pt or "
        ".safetensors), a Keras file (.keras or .h5), an ONNX file, a LiteRT file (.tflite), "
        "a torch.export archive, TorchScript or a pickled nn.Module"
    )


def _detect_zip(path: Path) -> str:
    with open_archive(path) as archive:
        names = list(archive.sizes)
    if network_file.HEADER in names:
        found = network_file.read_header(path).get("format")
        return QUANTIZED if found == quantized_file.FORMAT else MPSEARCH
    if "config.json" in names and any(name.startswith("model.weights.") for name in names):
        return KERAS
    inside = {name.partition("/")[2] for name in names}
    if "archive_format" in inside or "serialized_exported_program.json" in names:
        return EXPORT
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return SCRIPT
    if "data.pkl" in inside:
        return STATE_DICT
    raise InputError(
        f"{path}: a zip archive without a model in it (first entries: "
        f"{', '.join(ascii(name)[:60] for name in names[:3])})"
    )


@contextmanager
def read_within_bounds(path: str, kind: str) -> Iterator[None]:
    """A foreign file is read inside: in the memory that it may take, and every error names it."""
    try:
        with memory_budget.of_load(path):
            yield
    except InputError as error:
        named = error.lines[0].startswith(path)
        raise InputError(*error.lines_after("" if named else f"{path}: ")) from error
    except MpsearchError:
        raise
    except Exception as error:  # what a damaged file that passed the checks runs into
        raise InputError(f"{path}: damaged {kind}: {first_line(error)}") from error
