"""Samples for calibration, profiling and evaluation, checked against the network at the border."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mpsearch.errors import InputError, did_you_mean, first_line
from mpsearch.files.archives import is_archive, read_npz
from mpsearch.files.whole import digest, like_file
from mpsearch.graph.arrays import Arrays, bind_arrays
from mpsearch.graph.inputs import is_label_name
from mpsearch.graph.network import Network
from mpsearch.graph.sample_layout import check_samples_apart
from mpsearch.losses.choosing import choose
from mpsearch.losses.loss import Loss
from mpsearch.running.plugins import import_object

Batch = tuple[tuple[torch.Tensor, ...], "torch.Tensor | None"]


@dataclass(frozen=True)
class Data:
    """Samples that fit a network."""

    name: str
    """Where they come from, for messages: the file or `package.module:function`."""
    inputs: tuple[torch.Tensor, ...]
    """One tensor [N, …] for each input of the network, in its order."""
    labels: torch.Tensor | None
    """Class numbers int64 [N], or targets as `choosing.choose` describes them; None: no labels."""
    loss: Loss | None = None
    """The loss that the labels were checked for; None: cross-entropy, without labels divergence."""
    notes: tuple[str, ...] = ()
    """What was made of labels that may mean several things, a sentence each."""

    def __post_init__(self) -> None:
        """Inputs as a tuple of tensors, whatever arrays they were given as.

        A single array is the only input. Raises InputError for what are no arrays, and for arrays
        of different lengths.
        """
        if not isinstance(self.name, str):
            raise InputError(
                f"got Data({type(self.name).__name__}, …); expected a name and the inputs: "
                'Data("own", x, y), or Data("own", (x0, x1), y)'
            )
        given = self.inputs if isinstance(self.inputs, tuple | list) else (self.inputs,)
        inputs = tuple(_given(self.name, f"x{place}", one) for place, one in enumerate(given))
        labels = None if self.labels is None else _given(self.name, "y", self.labels)
        lengths = [len(x) for x in (*inputs, *([] if labels is None else [labels]))]
        if not inputs or len(set(lengths)) > 1:
            raise InputError(
                f"{self.name}: got inputs and labels of {', '.join(map(str, lengths)) or 'no'} "
                "samples; expected the same number in each: one array [N, …] for each input of "
                "the network, as Data(name, (x0, x1), y)"
            )
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "labels", labels)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{list(x.shape[1:])}" for x in self.inputs)
        labels = "no labels" if self.labels is None else f"labels {list(self.labels.shape)}"
        return f"Data({self.name!r}: {len(self)} samples of {shapes}, {labels})"

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batches(self, size: int) -> Iterator[Batch]:
        """Consecutive batches of at most `size` samples."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            labels = None if self.labels is None else self.labels[rows]
            yield tuple(x[rows] for x in self.inputs), labels

    def take(self, count: int, seed: int) -> "Data":
        """At most `count` samples, drawn without replacement by `seed`, in their own order."""
        if count >= len(self):
            return self
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self), generator=generator)[:count].sort().values
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=tuple(x[rows] for x in self.inputs), labels=labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shapes and values of inputs and labels."""
        parts: list[bytes | str] = []
        for tensor in (*self.inputs, *([] if self.labels is None else [self.labels])):
            parts += [
                f"{tensor.dtype} {tuple(tensor.shape)}",
                tensor.contiguous().numpy().tobytes(),
            ]
        return digest(*parts)


def as_tensor(array: Any) -> torch.Tensor:
    """A tensor on the CPU of a tensor, a numpy array, what pandas has, or lists of numbers.

    Raises TypeError or ValueError for what is none of these.
    """
    if isinstance(array, torch.Tensor):
        return array.detach().cpu()
    if hasattr(array, "to_numpy"):  # pandas
        array = array.to_numpy()
    if isinstance(array, list | tuple) and any(isinstance(one, torch.Tensor) for one in array):
        return torch.stack([as_tensor(one) for one in array])
    whole = np.asarray(array)
    if whole.dtype.kind not in "biuf":
        raise TypeError(f"numbers are of the type {whole.dtype}")
    return _tensor("", "", whole)


def _given(source: str, name: str, array: object) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    try:
        found = as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{source}: got {type(array).__name__} for the array {name} ({first_line(error)}); "
            "expected a tensor or a numpy array [N, …] of numbers"
        ) from None
    if found.dim() == 0:
        raise InputError(f"{source}: got a single number for the array {name}; expected [N, …]")
    return found


def read_arrays(source: str) -> Arrays:
    """Read `file.npz`, `file.safetensors`, a dataset's split or `package.module:function`.

    A bundled dataset is named with a split, and with its inputs where the network takes only some
    of them: `image-audio:test`, `image-audio:test:image`.
    A function takes no arguments and yields batches: tuples `(x0, x1, …, y)`, or dictionaries by
    name when there are no labels or the order is not the model's. Raises InputError naming the
    source and, where there is one, the array.
    """
    if Path(source).is_file():
        return Arrays(source, _read_file(source))
    from mpsearch.models.datasets import DATASETS, is_dataset

    if is_dataset(source):
        return Arrays(source, _from_dataset(source))
    module, colon, function = source.partition(":")
    if not colon or os.sep in source:
        raise InputError(
            f"no data {source!r}{like_file(source) or did_you_mean(source, DATASETS)}; "
            "expected an existing .npz or .safetensors file, "
            f"package.module:function, or one of {', '.join(DATASETS)}"
        )
    return Arrays(source, _from_function(source, module, function))


def check_repeatable(source: str, first: Arrays) -> None:
    """Read a function's data again; raise InputError when they differ (shuffling, augmentation).

    Files and bundled datasets are what they are and are not read twice.
    """
    from mpsearch.models.datasets import is_dataset

    if Path(source).is_file() or is_dataset(source):
        return
    second = read_arrays(source).tensors
    for name, tensor in first.tensors.items():
        if name not in second or not torch.equal(tensor, second[name]):
            raise InputError(
                f"{source} gives other data when it is called again (array {name!r} differs); "
                "expected the same batches each time: turn off shuffling and augmentation"
            )


def _from_dataset(source: str) -> dict[str, torch.Tensor]:
    from mpsearch.models.datasets import load_dataset

    name, _, rest = source.partition(":")
    split, _, inputs = rest.partition(":")
    dataset = load_dataset(name)
    if not split:
        raise InputError(
            f"got the dataset {source!r} without a split; expected "
            f"{' or '.join(f'{name}:{known}' for known in dataset.splits)}"
        )
    if inputs:
        dataset = dataset.only(*inputs.split(","))
    return {key: torch.from_numpy(array) for key, array in dataset.split(split).arrays().items()}


def _read_file(path: str) -> dict[str, torch.Tensor]:
    try:
        if is_archive(path):
            return {name: _tensor(path, name, array) for name, array in read_npz(path).items()}
        return load_file(path)
    except (SafetensorError, ValueError, EOFError) as error:
        text = str(error).splitlines()[0]
        raise InputError(
            f"{path}: not readable as .npz without pickles or as .safetensors: {text}"
        ) from error


def _tensor(path: str, name: str, array: np.ndarray) -> torch.Tensor:
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        array = array.astype(np.int64)
    elif array.dtype == np.longdouble:
        array = array.astype(np.float64)
    whole = torch.from_numpy(np.ascontiguousarray(array))  # which makes a number a row of one
    return whole if is_label_name(name) else whole.reshape(array.shape)


def _from_function(source: str, module: str, function: str) -> dict[str, torch.Tensor]:
    make = import_object(f"{module}:{function}")
    if not callable(make):
        raise InputError(
            f"{source} is {type(make).__name__}; expected a function without arguments"
        )
    batches = [_named(source, batch) for batch in make()]
    if not batches:
        raise InputError(f"{source} yields no batches; expected at least one")
    if len({tuple(batch) for batch in batches}) > 1:
        raise InputError(f"{source} yields batches of different arrays; expected the same in each")
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _named(source: str, batch: object) -> dict[str, torch.Tensor]:
    if isinstance(batch, Mapping):
        return {str(name): torch.as_tensor(value) for name, value in batch.items()}
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        names = [*(f"x{index}" for index in range(len(batch) - 1)), "y"]
        return {name: torch.as_tensor(value) for name, value in zip(names, batch, strict=True)}
    raise InputError(
        f"{source} yields {type(batch).__name__}; expected (x0, …, y) or dictionaries by name"
    )


def bind(
    arrays: Arrays, network: Network, losses: Sequence[str] = (), need_labels: bool = True
) -> Data:
    """The arrays as inputs and labels of `network`. Raises InputError naming the array.

    `losses` names the loss as `--loss` does; without it output and labels decide. need_labels:
    whether labels that the loss wants have to be there. A network whose outputs for a sample depend
    on the other samples is refused here as when it is loaded: on real data more is seen.
    """
    inputs, labels = bind_arrays(arrays, network)
    try:
        check_samples_apart(network.graph, inputs)
    except InputError as error:
        raise InputError(*error.lines_after(f"on {arrays.name} ")) from error
    notes: list[str] = []
    targets, loss = choose(arrays.name, labels, inputs, network, losses, need_labels, notes)
    return Data(arrays.name, inputs, targets, loss, tuple(notes))


def with_loss(data: Data, network: Network) -> Data:
    """Data that were put together by hand, with the loss that output and labels decide."""
    if data.loss is not None:
        return data
    arrays = {} if data.labels is None else {"y": data.labels}
    notes: list[str] = []
    labels, loss = choose(data.name, arrays, data.inputs, network, notes=notes)
    return replace(data, labels=labels, loss=loss, notes=tuple(notes))
