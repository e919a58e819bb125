"""Loading `model.pt`: nothing in a file is executed unless the caller trusts its author.

Only data are loaded as they are: the mpsearch file, a Keras, ONNX or LiteRT file, and a state dict
together with the code that the caller names. A torch.export archive (its loader evaluates
expression strings), TorchScript and a pickled module carry code and need `trust`.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mpsearch.data import bind
from mpsearch.errors import InputError, first_line
from mpsearch.files.archives import is_archive, open_archive
from mpsearch.graph import memory_budget, network_file
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.inputs import Call, ExampleInputs
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import NetworkFile
from mpsearch.graph.samples_first import at_border
from mpsearch.importers.kinds import (
    EXPORT,
    KERAS,
    LITERT,
    MPSEARCH,
    ONNX,
    PICKLE,
    QUANTIZED,
    SCRIPT,
    STATE_DICT,
    detect,
)  # fmt: skip
from mpsearch.losses.sum_loss import separate
from mpsearch.running.plugins import import_object, put_working_directory_on_path


@dataclass(frozen=True)
class ModelSource:
    """How to load a model: the file and what the caller says about it."""

    path: str
    """The model file."""
    model: str | None = None
    """For a state dict: `package.module:factory` or a bundled architecture's name; None for other
    files."""
    trust: bool = False
    """Whether the caller trusts the file's author, so that code in it may run."""
    input_shapes: tuple[tuple[int, ...], ...] = ()
    """Shapes of one sample, `((1, 44, 13), (3, 32, 32))`, where the file has none and the data do
    not tell; empty: not said."""
    max_memory: int | None = None
    """Bytes that all tensors may take while the file is loaded; None: four times the file and 1 GiB
    (`memory_budget`)."""
    batch_dim: Mapping[str, int] = field(default_factory=dict)
    """The dimension of an input or output that holds the samples, `{"h": 1}`, by the names that the
    model has for them; those that are not named are found."""
    fix: Mapping[str, Any] = field(default_factory=dict)
    """Constants for inputs that are not per sample, `{"sr": 16000}`: a number, a list or a
    tensor."""


def convert(
    source: ModelSource | str,
    output: str | os.PathLike[str],
    data: Arrays | None = None,
    samples: int = 256,
    seed: int = 0,
) -> NetworkFile:
    """Turn a model file into an mpsearch file, which executes nothing, as `mpsearch convert` does.

    source: a path, or with what it takes to load it. data: at most `samples` of them, drawn by
    `seed`, are kept in the file for calibration; their shapes are the inputs' where the file has
    none. An mpsearch file gets these samples in place of its own, and needs data for that. Returns
    network, sample and what the loader changed. Raises InputError as loading does.

    >>> torch.save(model, "pickled.pt")
    >>> source = mpsearch.ModelSource("pickled.pt", trust=True)
    >>> own = mpsearch.Arrays("own", {"x0": x, "y": y})
    >>> len(mpsearch.convert(source, "model.pt", own, samples=32).sample["y"])
    32
    """
    if isinstance(source, str):
        source = ModelSource(source)
    if data is not None and detect(source.path) == MPSEARCH:
        drawn = _drawn(data, load_network(source).network, samples, seed)
        return network_file.save_with_sample(source.path, output, drawn)
    with memory_budget.of_load(source.path, source.max_memory):
        module, examples = load_module(source, data)
        network = network_of(source, module, examples)
    sample = {} if data is None else _drawn(data, network, samples, seed)
    network_file.save(module, output, examples, sample)
    return NetworkFile(network, sample, notes_of(module))


def _drawn(data: Arrays, network: Network, samples: int, seed: int) -> dict[str, torch.Tensor]:
    """At most so many samples of the data, as an mpsearch file names them."""
    bound = bind(data, network).take(samples, seed)
    sample = {f"x{i}": x for i, x in enumerate(bound.inputs)}
    if bound.labels is not None:
        sample |= separate(bound.labels, bound.loss)
    return sample


def load_network(source: ModelSource, data: Arrays | None = None) -> NetworkFile:
    """The network of a file, and the sample that it carries (empty unless it is an mpsearch file).

    `data` gives the example inputs when the file has none. Raises InputError in one or two lines.
    """
    with memory_budget.of_load(source.path, source.max_memory):
        return _load_network(source, data)


def _load_network(source: ModelSource, data: Arrays | None) -> NetworkFile:
    kind = detect(source.path)
    if kind == QUANTIZED:
        raise InputError(f"{source.path} is quantized already; expected the float model")
    if kind == MPSEARCH:
        for option, given in (
            ("--architecture", source.model), ("--batch-dim", source.batch_dim),
            ("--fix", source.fix),
        ):  # fmt: skip
            if given:
                raise InputError(f"{source.path} is an mpsearch file and needs no {option}")
        return network_file.load(source.path)
    module, examples = load_module(source, data)
    return NetworkFile(network_of(source, module, examples), {}, notes_of(module))


def network_of(source: ModelSource, module: nn.Module, examples: ExampleInputs) -> Network:
    """The network of a file's module. Raises InputError, which names the file."""
    try:
        return Network.from_module(module, examples)
    except InputError as error:
        reword: Any = getattr(module, "reworded", None)
        told: InputError = error if reword is None else reword(error)
        if source.path in told.lines[0]:
            raise
        raise InputError(*told.lines_after(f"{source.path}: ")) from error


def load_module(source: ModelSource, data: Arrays | None) -> tuple[nn.Module, ExampleInputs]:
    """(module, example inputs) of a file that is not an mpsearch file.

    The module takes and gives samples along the first dimension.
    """
    with memory_budget.of_load(source.path, source.max_memory):
        module, examples = _load_module(source, data)
        own = isinstance(examples, Call)  # stored with the model, as it takes them
        try:
            return at_border(module, examples, source.batch_dim, source.fix, by_sample=not own)
        except InputError as error:
            raise InputError(*error.lines_after(f"{source.path}: ")) from error


def _load_module(source: ModelSource, data: Arrays | None) -> tuple[nn.Module, ExampleInputs]:
    kind = detect(source.path)
    if kind == MPSEARCH:
        raise InputError(
            f"{source.path} is an mpsearch file already; give --data for another sample in it"
        )
    if kind == STATE_DICT:
        state = _read_state(source.path)
        if state is not None:
            return _from_state(source, state, data)
        kind = PICKLE
    if kind == KERAS:
        return _from_keras(source)
    if kind == ONNX:
        return _load_onnx(source, data)
    if kind == LITERT:
        return _load_litert(source)
    if not source.trust:
        raise InputError(
            f"{source.path} is a {kind}: loading it can run any code that its author put there, "
            "so it was not loaded.",
            "If you trust its author, convert it once: "
            f"mpsearch convert {source.path} --trust -o safe.pt (or pass --trust here)",
        )
    loader = {EXPORT: _load_export, SCRIPT: _load_script, PICKLE: _load_pickle}[kind]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return loader(source, data)
    except InputError:
        raise
    except Exception as error:  # trusted code may raise anything
        raise InputError(f"{source.path}: cannot load this {kind}: {first_line(error)}") from error


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """The weights by name of an mpsearch file of a float network or of a state dict."""
    kind = detect(path)
    if kind == MPSEARCH:
        return network_file.read_archive(path)[1]
    state = _read_state(path) if kind == STATE_DICT else None
    if state is None:
        raise InputError(f"{path} is a {kind}; expected an mpsearch file or a state dict")
    return state


def _read_state(path: str) -> dict[str, torch.Tensor] | None:
    """The tensors by name; None when the file holds objects that only unpickling would make."""
    try:
        with Path(path).open("rb") as stream:
            pickled = stream.read(1) in (b"\x80", b"P")
        if not pickled:
            return load_file(path)
        if is_archive(path):
            with open_archive(path) as archive:  # torch reads compressed members as well
                memory_budget.reserve(sum(archive.sizes.values()), f"{path}: its tensors")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except SafetensorError as error:
        raise InputError(f"{path}: damaged safetensors file: {error}") from error
    except Exception as error:
        if "weights_only" in str(error) or "Weights only" in str(error):
            return None
        raise InputError(f"{path}: damaged or foreign file: {first_line(error)}") from error
    for key in ("state_dict", "model", "model_state_dict"):  # common wrappers of checkpoints
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if (
        not isinstance(content, dict)
        or not content
        or not all(map(torch.is_tensor, content.values()))
    ):
        raise InputError(
            f"{path}: holds {type(content).__name__}; expected a dict of tensors by name"
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _from_state(
    source: ModelSource, state: dict[str, torch.Tensor], data: Arrays | None
) -> tuple[nn.Module, ExampleInputs]:
    from mpsearch.models.registry import ARCHITECTURES, architecture, build

    if source.model is None:
        raise InputError(
            f"{source.path} is a state dict: weights without the network.",
            "Name the network: "
            f"--architecture package.module:factory, or one of {', '.join(ARCHITECTURES)}",
        )
    if ":" in source.model and source.model.partition(":")[0] not in ARCHITECTURES:
        factory = import_object(source.model)
        if not callable(factory):
            raise InputError(f"{source.model} is {type(factory).__name__}; expected a function")
        module, shapes = _call(source.model, factory), source.input_shapes
    else:
        module = build(source.model)
        inputs = architecture(source.model).inputs
        shapes = source.input_shapes or tuple(inputs.values())
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"{source.path} does not fit --architecture {source.model}: {text[:400]}"
        ) from error
    return module, _examples(source, shapes, data)


def _from_keras(source: ModelSource) -> tuple[nn.Module, Sequence[torch.Tensor]]:
    from mpsearch.importers.keras.converting import convert

    if source.model is not None:
        raise InputError(f"{source.path} is a Keras file and needs no --architecture")
    converted = convert(source.path, source.input_shapes)
    converted.module.meta["notes"] = converted.notes
    return converted.module, converted.examples


def notes_of(module: nn.Module) -> tuple[str, ...]:
    """What the loader of a file did that its user should know."""
    meta = getattr(module, "meta", None)
    return tuple(meta.get("notes", ())) if isinstance(meta, dict) else ()


def _call(name: str, factory: Callable[[], object]) -> nn.Module:
    try:
        module = factory()
    except Exception as error:
        raise InputError(f"--architecture {name} failed: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"--architecture {name} returned {type(module).__name__}; expected an nn.Module"
        )
    return module


def _examples(
    source: ModelSource, shapes: Sequence[tuple[int, ...]], data: Arrays | None
) -> tuple[torch.Tensor, ...] | dict[str, torch.Tensor]:
    if shapes:
        with memory_budget.watched():
            return tuple(torch.zeros(1, *shape) for shape in shapes)
    if data is not None:
        return data.example_inputs()
    raise InputError(
        f"{source.path} does not say what its inputs look like; give --data, or --input-shape "
        "once per input (for example --input-shape 3x32x32)"
    )


def _load_onnx(source: ModelSource, data: Arrays | None) -> tuple[nn.Module, ExampleInputs]:
    from mpsearch.importers.onnx.loading import load_onnx

    given = () if data is None or source.input_shapes else data.example_inputs()
    return load_onnx(source.path, source.input_shapes, given, source.batch_dim, source.fix)


def _load_litert(source: ModelSource) -> tuple[nn.Module, ExampleInputs]:
    from mpsearch.importers.litert.loading import load_litert

    if source.model is not None:
        raise InputError(f"{source.path} is a LiteRT file and needs no --architecture")
    return load_litert(source.path, source.input_shapes)


def _load_export(source: ModelSource, data: Arrays | None) -> tuple[nn.Module, ExampleInputs]:
    program: torch.export.ExportedProgram = torch.export.load(source.path)
    if program.example_inputs is not None and not source.input_shapes and data is None:
        return program.module(), Call(*program.example_inputs)
    return program.module(), _examples(source, source.input_shapes, data)


def _load_script(source: ModelSource, data: Arrays | None) -> tuple[nn.Module, ExampleInputs]:
    from mpsearch.importers.torchscript.module import WAY_OUT, as_module

    try:
        script = torch.jit.load(source.path, map_location="cpu").eval()
    except RuntimeError as error:
        raise InputError(
            f"{source.path}: cannot read this TorchScript archive: {first_line(error)[:120]};",
            f"was it saved after optimize_for_inference? Then {WAY_OUT}",
        ) from error
    return as_module(script), _examples(source, source.input_shapes, data)


def _load_pickle(source: ModelSource, data: Arrays | None) -> tuple[nn.Module, ExampleInputs]:
    put_working_directory_on_path()  # where the class of the module may be defined
    module = torch.load(source.path, map_location="cpu", weights_only=False)
    if not isinstance(module, nn.Module):
        raise InputError(f"{source.path} holds {type(module).__name__}; expected an nn.Module")
    return module, _examples(source, source.input_shapes, data)
