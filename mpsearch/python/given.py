"""What people have, as what everything below takes: a model as a Network, samples as Data.

A model is a Network, a torch module, a path or an opened file. Samples are arrays of any kind,
alone, in a pair with labels or by name, a path, a Dataset or a DataLoader.
"""

import copy
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from mpsearch.data import Data, as_tensor, bind, read_arrays
from mpsearch.errors import InputError, first_line
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.inputs import is_label_name
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import NetworkFile
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.importers.torchscript.module import as_module
from mpsearch.models.samples import Dataset, Split
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.running.streams import say

MOST = 4096  # samples that are read of a Dataset or a DataLoader, where not all are measured on
OWN = "own arrays"
LABELS = ("y", "label", "labels", "target", "targets")
_PLACE = re.compile(r"x\d+")
_NAMES = (
    f"of arrays by name, labels are called {', '.join(LABELS[:-1])} or {LABELS[-1]}; the others as "
    "the model's inputs, or they are in their order"
)
MODELS = "a torch module, a Network, a path, a ModelSource or a NetworkFile"
SAMPLES = (
    "(x, y), x, [x0, x1] for several inputs, {'x0': …, 'y': …} by name, a path to a .npz file, a "
    "Dataset or a DataLoader"
)


def given(
    model: Any,
    data: Any = None,
    purpose: str = "this",
    *,
    losses: Sequence[str] = (),
    need_labels: bool = True,
    trust: bool = False,
    most: int | None = MOST,
) -> tuple[Network, Data]:
    """The network, and its samples: those given, or else those that the model's file carries.

    `purpose` completes "… needs data" where there are none. Raises InputError as `as_network` and
    `as_data`.
    """
    arrays = None if data is None or isinstance(data, Data) else as_arrays(data, most)
    loaded = _opened(model, data if arrays is None else arrays, trust)
    if data is None and loaded.sample:
        arrays = Arrays("the sample in the model's file", loaded.sample)
    elif data is None:
        raise InputError(f"{purpose} needs data, and the model carries none; expected {SAMPLES}")
    return loaded.network, as_data(
        data if arrays is None else arrays, loaded.network, losses=losses, need_labels=need_labels,
        form=data,
    )  # fmt: skip


def as_network(model: Any, data: Any = None, *, trust: bool = False) -> Network:
    """The Network of a model in any form. A torch module is traced on the first of the samples, in
    evaluation mode, and left as it was.

    `trust`: whether a file that can run code may be loaded. Raises InputError for another type, a
    module without samples to trace it on, and as loading does.
    """
    arrays = data if data is None or isinstance(data, Data) else as_arrays(data)
    return _opened(model, arrays, trust).network


def _opened(model: Any, data: Data | Arrays | None, trust: bool = False) -> NetworkFile:
    if isinstance(model, NetworkFile):
        return model
    if isinstance(model, Network):
        return NetworkFile(model, {})
    if isinstance(data, Data):
        data = Arrays(data.name, {f"x{i}": x for i, x in enumerate(data.inputs)})
    if isinstance(model, str | os.PathLike):
        model = ModelSource(os.fspath(model), trust=trust)
    if isinstance(model, ModelSource):
        return load_network(model, data)
    model = plain_module(model)
    if isinstance(model, nn.Module):
        if data is None:
            raise InputError(
                f"the module {type(model).__name__} does not say what its inputs look like; give "
                f"samples too: {SAMPLES}"
            )
        return NetworkFile(_traced(model, data), {})
    raise InputError(_wrong_model(model))


def _wrong_model(model: object) -> str:
    if isinstance(model, QuantizedNetwork):
        return "got a quantized network; expected the float model that it was made from"
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"got the class {model.__name__}; expected a module of it: {model.__name__}(…)"
    if isinstance(model, Mapping) and all(isinstance(one, torch.Tensor) for one in model.values()):
        return "got a state dict: weights without the network; load it into the module, and give it"
    return f"got {type(model).__name__} for the model; expected {MODELS}"


def plain_module(model: Any) -> Any:
    """The module inside of what torch wraps it in, or makes of it; anything else as it is."""
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    return as_module(model) if isinstance(model, torch.jit.ScriptModule) else model


def _traced(model: nn.Module, data: Arrays) -> Network:
    """The network of a module on the CPU; whole numbers are tried as they are, then as floats."""
    if any(each.device.type != "cpu" for each in (*model.parameters(), *model.buffers())):
        model = copy.deepcopy(model).cpu()
    *by_name, in_order = readings(data, model)
    for reading in by_name:
        try:
            return _traced_on(model, reading)
        except InputError:  # no argument is called so, nor does one take all of them
            pass
    try:
        return _traced_on(model, in_order)
    except InputError as error:
        raise InputError(*error.lines, *_naming(data, error)) from None


def _traced_on(model: nn.Module, data: Arrays) -> Network:
    examples = data.example_inputs()
    tensors = examples.values() if isinstance(examples, dict) else examples
    try:
        return Network.from_module(model, examples)
    except InputError:
        if all(x.is_floating_point() for x in tensors):
            raise
        try:
            return Network.from_module(model, tuple(x.float() for x in tensors))
        except InputError:
            pass
        raise


def _naming(arrays: Arrays, error: InputError) -> tuple[str, ...]:
    """How arrays are called, where their names say something and there is room for a line."""
    named = any(not is_label_name(one) and not _PLACE.fullmatch(one) for one in arrays.tensors)
    return (_NAMES,) if named and len(error.lines) == 1 else ()


def readings(arrays: Arrays, model: nn.Module | Network) -> list[Arrays]:
    """What arrays by name may be for a model, most literal first: its inputs by name and, where
    none of them is called so, its inputs in order. Labels are found by their usual names."""
    if isinstance(model, Network):
        inputs = set(model.input_names)
    else:
        inputs = set(inspect.signature(model.forward).parameters)
    tensors = dict(arrays.tensors)
    labels = [name for name in LABELS if name in tensors and name not in inputs]
    if len(labels) == 1 and not any(map(is_label_name, tensors)):
        tensors = {"y" if name == labels[0] else name: x for name, x in tensors.items()}
    named = Arrays(arrays.name, tensors)
    others = [name for name, x in tensors.items() if x.dim() and not is_label_name(name)]
    if not others or any(name in inputs or _PLACE.fullmatch(name) for name in others):
        return [named]
    places = {name: f"x{place}" for place, name in enumerate(others)}
    return [named, Arrays(arrays.name, {places.get(name, name): x for name, x in tensors.items()})]


def as_data(
    data: Any,
    network: Network,
    *,
    losses: Sequence[str] = (),
    need_labels: bool = True,
    most: int | None = MOST,
    form: Any = None,
) -> Data:
    """Samples in any form, checked against a network and bound to the loss that fits it.

    `losses` and `need_labels` are those of `bind`. `most`: how many samples of a Dataset or
    DataLoader are read; None: all. `form`: what was given, for messages, where `data` was made of
    it. Raises InputError for another type, and as `bind`.
    """
    if isinstance(data, Data):
        if data.loss is not None and not losses:
            return data
        labels = {} if data.labels is None else {"y": data.labels}
        inputs = {f"x{place}": x for place, x in enumerate(data.inputs)}
        return bind(Arrays(data.name, {**inputs, **labels}), network, losses, need_labels)
    arrays = data if isinstance(data, Arrays) else as_arrays(data, most)
    try:
        return bind(readings(arrays, network)[-1], network, losses, need_labels)
    except InputError as error:
        hint = _hint(data if form is None else form, len(network.input_names))
        hint = hint or _naming(arrays, error)
        raise InputError(*error.lines, *hint) from None


def _hint(form: Any, inputs: int) -> tuple[str, ...]:
    """What was perhaps meant, where a pair and a list of two could be taken for each other."""
    if isinstance(form, tuple) and len(form) == inputs > 1:
        return (
            "of a tuple the last is labels; inputs alone are a list: [x0, x1], or ([x0, x1], y)",
        )
    if isinstance(form, list) and len(form) == inputs + 1:
        return ("a list is inputs alone; inputs and labels are a tuple: (x, y)",)
    return ()


def as_arrays(data: Any, most: int | None = MOST) -> Arrays:
    """Samples in any form as named tensors. Raises InputError, which names the right forms."""
    if isinstance(data, Arrays):
        return data
    if isinstance(data, str | os.PathLike):
        return read_arrays(os.fspath(data))
    if isinstance(data, Split):
        return Arrays(OWN, _named(data.arrays()))
    if isinstance(data, Dataset):
        first = next(iter(data.splits))
        raise InputError(f"got the dataset {data.name}; expected a split of it: .split({first!r})")
    if isinstance(data, DataLoader):
        return _gathered(map(_named, data), f"a {type(data).__name__}", most, _length(data.dataset))
    if isinstance(data, IterableDataset):
        samples = (_one(sample) for sample in data)
        return _gathered(samples, f"a {type(data).__name__}", most)
    if isinstance(data, TorchDataset):
        return _of_samples(data, type(data).__name__, most)
    if isinstance(data, list) and data and isinstance(data[0], tuple | Mapping):
        if _is_batch(data[0]):
            return _gathered(map(_named, data), "a list of batches", most)
        return _of_samples(data, "a list of samples", most)
    if isinstance(data, list) and not (data and all(map(_is_array, data))):
        return Arrays(OWN, {"x0": _tensor("x0", data)})
    if isinstance(data, list):
        return Arrays(OWN, {f"x{place}": _tensor(f"x{place}", x) for place, x in enumerate(data)})
    if isinstance(data, Iterator):
        return _gathered(map(_named, data), "a generator of batches", most)
    return Arrays(OWN, _named(data))


def _named(batch: Any) -> dict[str, torch.Tensor]:
    """`(x, y)`, `(x0, x1, y)`, `([x0, x1], y)`, `{"x0": …}` or `x`, as tensors by name."""
    if isinstance(batch, Mapping):
        return {str(name): _tensor(str(name), array) for name, array in batch.items()}
    if isinstance(batch, tuple | list):
        *inputs, labels = batch if len(batch) > 1 else (*batch, None)
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            found = _named(inputs[0])
        else:
            if len(inputs) == 1 and isinstance(inputs[0], tuple | list):
                inner = inputs[0]
                inputs = list(inner) if inner and all(map(_is_array, inner)) else inputs
            found = {f"x{place}": _tensor(f"x{place}", x) for place, x in enumerate(inputs)}
        if isinstance(labels, Mapping):
            return found | {
                name if name.startswith("y") else f"y_{name}": _tensor(f"y_{name}", array)
                for name, array in labels.items()
            }
        return found if labels is None else found | {"y": _tensor("y", labels)}
    if _is_array(batch):
        return {"x0": _tensor("x0", batch)}
    raise InputError(f"got {type(batch).__name__} for the data; expected {SAMPLES}")


def _is_array(given: object) -> bool:
    return isinstance(given, torch.Tensor) or hasattr(given, "__array__")


def _tensor(name: str, array: Any) -> torch.Tensor:
    try:
        return as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"got {type(array).__name__} for the array {name} ({first_line(error)}); expected a "
            "tensor or a numpy array [N, …] of numbers, in one of these forms:",
            SAMPLES,
        ) from None


def _is_batch(item: Any) -> bool:
    """Whether an item of a list has as many labels as inputs, and is not one sample."""
    named = _named(item)
    first, *others = named.values()
    return bool(others) and all(x.dim() > 0 and len(x) == len(first) for x in named.values())


def _one(sample: Any) -> dict[str, torch.Tensor]:
    """One sample as a batch of its own."""
    return {name: tensor[None] for name, tensor in _named(sample).items()}


def _of_samples(items: Any, what: str, most: int | None) -> Arrays:
    """At most `most` samples of what has a length, drawn by the seed 0, in their own order."""
    count = _length(items)
    if count is None:
        raise InputError(f"the Dataset {what} has no length; give a DataLoader, or (x, y)")
    rows = _drawn(count, count if most is None else most, 0)
    return _gathered((_one(items[row]) for row in rows), what, None, count)


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except (TypeError, NotImplementedError):
        return None


def _gathered(
    batches: Iterable[dict[str, torch.Tensor]], what: str, most: int | None, of: int | None = None
) -> Arrays:
    """Batches joined, up to `most` samples; where that was not all, the name and a note say so."""
    kept: list[dict[str, torch.Tensor]] = []
    room, cut = sys.maxsize if most is None else most, False
    try:
        for batch in batches:
            samples = max(map(len, batch.values()))
            cut = samples > room
            if room:
                kept.append({name: tensor[:room] for name, tensor in batch.items()})
                room -= min(samples, room)
            if cut:
                break
    except InputError as error:
        raise InputError(*error.lines_after(f"{what}: ")) from None
    if not kept:
        raise InputError(f"{what} gives no samples; expected at least one")
    if len({tuple(batch) for batch in kept}) > 1:
        raise InputError(f"{what} gives batches of different arrays; expected the same in each")
    try:
        arrays = {name: torch.cat([batch[name] for batch in kept]) for name in kept[0]}
    except RuntimeError as error:
        raise InputError(f"{what} gives arrays of different shapes: {first_line(error)}") from None
    count = len(next(iter(arrays.values())))
    if cut or (of is not None and count < of):
        whole = f" of {of:,}" if of is not None else ""
        what = f"{count:,}{whole} samples of {what}"
        say(f"note: {what} are read; give arrays, (x, y), for others")
    return Arrays(what, arrays)


def drawn(arrays: Arrays, most: int, seed: int) -> dict[str, torch.Tensor]:
    """At most `most` samples of every array, drawn by `seed`, in their own order."""
    count = max((len(x) for x in arrays.tensors.values() if x.dim()), default=0)
    if count <= most:
        return dict(arrays.tensors)
    rows = _drawn(count, most, seed)
    return {
        name: x[rows] if x.dim() and len(x) == count else x for name, x in arrays.tensors.items()
    }


def _drawn(count: int, most: int, seed: int) -> list[int]:
    if count <= most:
        return list(range(count))
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:most].sort().values.tolist()
