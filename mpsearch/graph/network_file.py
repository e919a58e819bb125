"""The mpsearch file: a zip of the graph as JSON, weights and sample as safetensors.

    mpsearch.json         format, version, inputs, graph (see graph_json)
    weights.safetensors   every tensor of the graph by qualified name
    sample.safetensors    optional: calibration sample x0, x1, …, and labels y

Loading executes nothing from the file.
"""

import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import fx, nn

from mpsearch.errors import InputError
from mpsearch.files.archives import open_archive
from mpsearch.files.json_file import parse_json
from mpsearch.files.whole import atomic_path
from mpsearch.graph import memory_budget
from mpsearch.graph.arrays import Arrays as NamedArrays
from mpsearch.graph.arrays import bind_arrays
from mpsearch.graph.exporting import export_graph
from mpsearch.graph.graph_json import graph_from_json, graph_to_json
from mpsearch.graph.inputs import ExampleInputs, bind_inputs, is_label_name
from mpsearch.graph.network import Network, output_shape, record_shapes
from mpsearch.graph.outputs import (
    describe_outputs,
    left_out_outputs,
    read_outputs,
    recorded_outputs,
)
from mpsearch.graph.sample_layout import check_samples_apart
from mpsearch.graph.samples_first import at_border
from mpsearch.graph.tensors import as_float32, set_float_width, tensor_nodes

FORMAT, VERSION = "mpsearch.network", 1
HEADER = "mpsearch.json"
_OBJECTS = 20  # bytes of Python's objects for a byte of JSON
_WEIGHTS, _SAMPLE = "weights.safetensors", "sample.safetensors"
_INPUT_TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
_DTYPES = {str(t).removeprefix("torch."): t for t in _INPUT_TYPES}

Arrays = Mapping[str, "np.ndarray[Any, Any] | torch.Tensor"]


@dataclass(frozen=True)
class NetworkFile:
    """What an mpsearch file has in it."""

    network: Network
    """The float network."""
    sample: Mapping[str, torch.Tensor]
    """Its calibration sample, `x0`, `x1`, … and `y`; empty when it has none."""
    notes: tuple[str, ...] = ()
    """What the loader of another format changed, a sentence each."""


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: ExampleInputs,
    sample: Arrays | None = None,
    batch_dim: Mapping[str, int] | None = None,
    fix: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` as an mpsearch file that loads without executing anything.

    `example_inputs`: one tensor per input, batch first: `(torch.zeros(1, 3, 32, 32),)`, or by name:
    `{"image": torch.zeros(1, 3, 32, 32), "audio": torch.zeros(1, 1, 44, 13)}` for keyword arguments
    or for one argument that is a dictionary.
    `sample`: a few hundred calibration samples `{"x0": …, "x1": …, "y": labels}` for
    `mpsearch profile`; input names may stand for `x0, x1, …`.
    `batch_dim`: the dimension of an input or output that holds the samples, `{"h": 1}`, where it
    is not the first and not found by running the model on two and three samples. In the file, and
    in `sample`, the samples are first. `fix`: constants for inputs that are not per sample,
    `{"sr": 16000}`, which the examples may leave out. Weights, inputs and sample are stored
    as float32 where they are in other floating point. Written atomically, and only what was read
    back and gave the same outputs. Raises InputError when the model cannot be exported, uses an
    operator outside the allow-list or gives a file that cannot be read.
    """
    model, example_inputs = at_border(model, example_inputs, batch_dim, fix)
    graph = export_graph(model, example_inputs)
    examples = [as_float32(x) for x in bind_inputs(model, example_inputs).tensors()]
    header = {
        "inputs": describe_inputs(
            [tuple(x.shape[1:]) for x in examples], [x.dtype for x in examples]
        ),
        **describe_outputs(recorded_outputs(graph, ()), left_out_outputs(graph)),
        "graph": graph_to_json(graph),
    }
    tensors = {name: tensor for _, name, tensor in tensor_nodes(graph)}
    inputs = [str(n.target) for n in graph.graph.nodes if n.op == "placeholder"]
    checked = _checked_sample(sample or {}, inputs)

    def read_back(written: Path) -> None:
        found, stored, kept = read_archive(written)
        again, zeros = read_graph(written, found, stored)
        network = Network.from_graph(again, zeros)
        samples: Sequence[torch.Tensor] = zeros
        if kept:
            samples, _ = bind_arrays(NamedArrays("the sample", kept), network)
        check_same_graph(graph, again)
        with torch.no_grad():
            wanted, got = graph(*examples), again(*(x.cpu() for x in examples))
        # not to the last bit: sums over tensors that lie elsewhere in memory may be rounded apart
        if not _close(wanted.cpu(), got):
            raise InputError("it gives other outputs when it is read back")
        try:
            check_samples_apart(network.graph, samples)
        except InputError as error:  # the file holds what the caller has; the commands refuse it
            warnings.warn(f"{path} is written, but no command will take it: {error}", stacklevel=4)

    write_archive(
        path, {"format": FORMAT, "version": VERSION, **header}, tensors, checked, read_back
    )


def save_with_sample(
    path: str | os.PathLike[str], output: str | os.PathLike[str], sample: Arrays
) -> NetworkFile:
    """Write the network of an mpsearch file with another sample, `{"x0": …, "y": labels}`, to
    `output`; graph and weights stay. Raises InputError as `load` and `save`."""
    header, tensors, _ = read_archive(path)
    inputs = [f"x{index}" for index in range(len(header.get("inputs", ())))]
    checked = _checked_sample(sample, inputs)
    write_archive(output, header, tensors, checked, _read_whole)
    return load(output)


def check_same_graph(written: fx.GraphModule, read: fx.GraphModule) -> None:
    """Raise InputError unless what was read has the operators and the tensors that were written."""
    if _without_targets_of_inputs(written) != _without_targets_of_inputs(read):
        raise InputError("its graph comes back as another one")
    for (_, name, tensor), (_, _, again) in zip(
        tensor_nodes(written), tensor_nodes(read), strict=True
    ):
        if tensor.dtype != again.dtype or _bytes(tensor) != _bytes(again):
            raise InputError(f"its tensor {name} comes back with other numbers")


def _without_targets_of_inputs(graph: fx.GraphModule) -> list[dict[str, Any]]:
    """Inputs are read under the names of their nodes: `input_1` where the model says `input`."""
    return [
        node | ({"target": node["name"]} if node["op"] == "placeholder" else {})
        for node in graph_to_json(graph)
    ]


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().numpy().data)


def _close(wanted: torch.Tensor, got: torch.Tensor) -> bool:
    wanted, got = wanted.double(), got.double()
    largest = wanted.nan_to_num(0, 0, 0).abs().amax().item() if wanted.numel() else 0.0
    return torch.allclose(wanted, got, rtol=0, atol=1e-4 * largest, equal_nan=True)


def _checked_sample(sample: Arrays, input_names: Sequence[str]) -> dict[str, torch.Tensor]:
    aliases = {name: f"x{index}" for index, name in enumerate(input_names)}
    known = {*aliases.values(), "y"}  # and y_NAME, y0, y1, … for several outputs
    tensors = {}
    for name, array in sample.items():
        short = name if name in known or is_label_name(name) else aliases.get(name)
        if short is None:
            raise InputError(
                f"the sample has an array {name!r}; expected {', '.join(sorted(known))} "
                f"or the input names {', '.join(input_names)}"
            )
        try:
            tensors[short] = as_float32(torch.as_tensor(array))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the sample's array {name!r} holds no numbers: {error}") from error
    lengths = {name: len(x) if x.dim() else 0 for name, x in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the sample's arrays hold {lengths} samples; expected as many in each")
    return tensors


def write_archive(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    sample: Mapping[str, torch.Tensor],
    read_back: Callable[[Path], None],
) -> None:
    """Write the three members of an mpsearch file atomically; equal contents give equal bytes.

    `read_back` reads the written file under a temporary name; when it raises InputError, no file is
    left and the error says that the network cannot be stored.
    """
    members = {HEADER: json.dumps(header).encode(), _WEIGHTS: _pack(tensors)}
    if sample:
        members[_SAMPLE] = _pack(sample)
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in members.items():
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED if name == HEADER else zipfile.ZIP_STORED
                archive.writestr(entry, content)
        try:
            read_back(temporary)
        except InputError as error:
            first, *others = error.lines
            text = first.removeprefix(f"{temporary}: ")
            raise InputError(
                f"an mpsearch file cannot hold this network: {text}", *others
            ) from error


def _pack(tensors: Mapping[str, torch.Tensor]) -> bytes:
    # safetensors refuses views of one storage, so each tensor is written as its own copy
    try:
        return save_tensors({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:  # complex numbers
        raise InputError(f"an mpsearch file cannot hold these tensors: {error}") from error


def read_archive(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(header, tensors, sample) of an mpsearch file. Raises InputError when it is damaged."""
    header = read_header(path)
    with open_archive(path) as archive:
        stored = sum(size for name, size in archive.sizes.items() if name != HEADER)
        memory_budget.reserve(stored, f"{path}: its tensors")
        try:
            tensors = load_tensors(archive.read(_WEIGHTS))
            sample = load_tensors(archive.read(_SAMPLE)) if _SAMPLE in archive.sizes else {}
        except (KeyError, ValueError, TypeError, SafetensorError) as error:
            raise InputError(f"{path}: damaged mpsearch file: {error}") from error
    return header, _floats(tensors), _floats(sample)


def _floats(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Older files hold half and double."""
    return {name: as_float32(tensor) for name, tensor in tensors.items()}


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON of an mpsearch file. Raises InputError when it is damaged or of another version."""
    with memory_budget.of_load(path), open_archive(path) as archive:
        size = archive.sizes.get(HEADER, 0)
        memory_budget.expect(_OBJECTS * size, f"{path}: the graph in its header")
        content = archive.read(HEADER)
    try:
        header = parse_json(content)
    except ValueError as error:
        raise InputError(f"{path}: damaged mpsearch file: {error}") from error
    if not isinstance(header, dict) or header.get("version") != VERSION:
        found = header.get("version") if isinstance(header, dict) else None
        raise InputError(f"{path}: got version {found!r} of the file format; expected {VERSION}")
    return header


def load(path: str | os.PathLike[str], max_memory: int | None = None) -> NetworkFile:
    """Read an mpsearch file of a float network; nothing in it is executed.

    `max_memory`: bytes that all tensors may take while it is loaded; without it four times the file
    and 1 GiB. Raises InputError for a file that is damaged or needs more, and for a network that
    mixes the samples of a batch.

    >>> mpsearch.save(model, "saved.pt", (x[:1],), {"x0": x, "y": y})
    >>> loaded = mpsearch.load("saved.pt")
    >>> [layer.name for layer in loaded.network.layers], sorted(loaded.sample)
    (['0', '3'], ['x0', 'y'])
    """
    with memory_budget.of_load(path, max_memory):
        return _load(path)


def _load(path: str | os.PathLike[str]) -> NetworkFile:
    header, tensors, sample = read_archive(path)
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: got the format {header.get('format')!r}; expected {FORMAT!r}")
    graph, examples = read_graph(path, header, tensors)
    network = Network.from_graph(graph, examples)
    check_apart(path, network, examples)
    return NetworkFile(network, sample)


def _read_whole(path: Path) -> None:
    _load(path)


def check_apart(
    path: str | os.PathLike[str], network: Network, examples: Sequence[torch.Tensor]
) -> None:
    """Raise InputError that names the file when its network mixes the samples of a batch."""
    try:
        check_samples_apart(network.graph, examples)
    except InputError as error:
        raise InputError(*error.lines_after(f"{path}: ")) from error


def read_graph(
    path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[fx.GraphModule, tuple[torch.Tensor, ...]]:
    """(graph of a header over `tensors`, example inputs), with errors that name the file.

    The graph has run once on the examples and its nodes have their shapes.
    """
    try:
        graph = graph_from_json(header.get("graph"), tensors)
        set_float_width(graph)
    except InputError as error:
        raise InputError(*error.lines_after(f"{path}: ")) from error
    examples = _example_inputs(path, header)
    inputs = sum(node.op == "placeholder" for node in graph.graph.nodes)
    if inputs != len(examples) or not inputs:
        raise InputError(f"{path}: damaged graph: {inputs} inputs and {len(examples)} shapes")
    try:
        record_shapes(graph, examples)
    except InputError as error:
        raise InputError(*error.lines_after(f"{path}: ")) from error
    except Exception as error:  # whatever the operators raise on arguments that do not fit them
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path}: damaged graph: it does not run: {text[0][:200]}") from error
    try:
        read_outputs(graph, header, output_shape(graph))
    except InputError as error:
        raise InputError(*error.lines_after(f"{path}: ")) from error
    return graph, examples


def describe_inputs(
    shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype]
) -> list[dict[str, Any]]:
    """The header's entry for the inputs: shape of one sample and type."""
    return [
        {"shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def _example_inputs(
    path: str | os.PathLike[str], header: Mapping[str, Any]
) -> tuple[torch.Tensor, ...]:
    """One zero sample per input of the header."""
    try:
        with memory_budget.watched():
            return tuple(
                as_float32(torch.zeros(1, *entry["shape"], dtype=_DTYPES[entry["dtype"]]))
                for entry in header["inputs"]
            )
    except InputError as error:
        what = f"{path}: inputs {header['inputs']!r:.80}: "
        raise InputError(*error.lines_after(what)) from error
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: damaged mpsearch file: inputs: {error}") from error
