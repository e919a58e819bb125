"""Options of every command that loads a model and data."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mpsearch.commands.console import echo
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.graph.network_file import NetworkFile
    from mpsearch.importers.loading import ModelSource

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--model", "model", metavar="NAME",
        help="The network of a state dict: a bundled name or package.module:factory.",
    ),
    click.option(
        "--trust", is_flag=True, help="The file may run code: you trust its author."
    ),
    click.option(
        "--input-shape", "input_shapes", multiple=True, metavar="3x32x32",
        help="Shape of one sample, once per input, where neither file nor data tell.",
    ),
    click.option(
        "--max-model-memory", "max_model_memory", metavar="SIZE",
        help="All tensors at once while the file is loaded [default: 4 × the file + 1GB].",
    ),
)  # fmt: skip


def loss_option(function: Function) -> Function:
    """Add `--loss`, which gives `loss`: a tuple of texts for `bind`."""
    return click.option(
        "--loss", "loss", multiple=True, metavar="[OUTPUT=]LOSS",
        help="cross-entropy, bce, mse, mae, reconstruction, kl, … or package.module:function; once "
        "per output [default: by outputs and labels, see docs/losses.md].",
    )(function)  # fmt: skip


def device_option(function: Function) -> Function:
    """Add `--device`, which gives `device`: a name for `find_device`."""
    return click.option(
        "--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda or auto."
    )(function)


def model_options(function: Function) -> Function:
    """Add `--model`, `--trust`, `--input-shape` and `--max-model-memory`; see `source_of`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def source_of(
    path: str,
    model: str | None,
    trust: bool,
    input_shapes: tuple[str, ...],
    max_model_memory: str | None = None,
) -> "ModelSource":
    """The options as a ModelSource. Raises InputError for a shape or a size that is none."""
    from mpsearch.importers.loading import ModelSource
    from mpsearch.tables.units import parse_bytes

    shapes = tuple(_shape(text) for text in input_shapes)
    most = None if max_model_memory is None else parse_bytes(max_model_memory)
    return ModelSource(path, model, trust, shapes, most)


def _shape(text: str) -> tuple[int, ...]:
    from mpsearch.tables.units import whole_number

    sizes = tuple(whole_number(part) or 0 for part in text.lower().split("x"))
    if 0 in sizes:
        raise InputError(f"got --input-shape {text!r}; expected sizes such as 3x32x32")
    return sizes


def print_notes(path: str, notes: tuple[str, ...]) -> None:
    """What loading changed, once, on standard error."""
    for note in notes:
        echo(f"{path}: {note}", err=True)


def print_data_notes(data: "Data") -> None:
    """What was made of labels that may mean several things, on standard error."""
    for note in data.notes:
        echo(f"note: {note}", err=True)


def load_model_and_data(
    source: "ModelSource",
    data: str | None,
    purpose: str,
    losses: tuple[str, ...] = (),
    need_labels: bool = True,
) -> tuple["NetworkFile", "Data"]:
    """The network, and the named data or else the sample in the model file, bound to it.

    `purpose` completes "… needs data" in the error when there are none; `losses` and `need_labels`
    are those of `bind`.
    """
    from mpsearch.data import bind, check_repeatable, read_arrays
    from mpsearch.graph.arrays import Arrays
    from mpsearch.importers.loading import load_network

    arrays: Arrays | None = None
    if data is not None:
        arrays = read_arrays(data)
        check_repeatable(data, arrays)
    loaded = load_network(source, arrays)
    print_notes(source.path, loaded.notes)
    if arrays is None:
        if not loaded.sample:
            raise InputError(
                f"{source.path} carries no sample of data; {purpose} needs data: give "
                "--data FILE.npz, a dataset's name or package.module:function"
            )
        arrays = Arrays(f"the sample in {source.path}", loaded.sample)
    bound = bind(arrays, loaded.network, losses, need_labels)
    if need_labels:
        print_data_notes(bound)
    return loaded, bound
