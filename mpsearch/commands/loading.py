"""A command's model and data, and what reading them has to say on standard error."""

from typing import TYPE_CHECKING

from mpsearch.commands.console import echo
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.graph.network import Network
    from mpsearch.graph.network_file import NetworkFile
    from mpsearch.importers.loading import ModelSource
    from mpsearch.quantization.quantized import QuantizedNetwork


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


def print_notes(path: str, notes: tuple[str, ...]) -> None:
    """What loading changed, once, on standard error."""
    for note in notes:
        echo(f"{path}: {note}", err=True)


def print_data_notes(data: "Data") -> None:
    """What was made of labels that may mean several things, on standard error."""
    for note in data.notes:
        echo(f"note: {note}", err=True)


def note_missing_classes(network: "Network", calibration: "Data") -> None:
    """One line on standard error when the calibration sample lacks a class."""
    from mpsearch.quantization.calibration import missing_classes

    missing = missing_classes(network, calibration)
    if missing:
        named = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        echo(
            f"note: {calibration.name} has no sample of {len(missing)} of the "
            f"{network.output_shape[0]} classes ({named}); ranges may not fit them",
            err=True,
        )


def sample_sentence(quantized: "QuantizedNetwork") -> str:
    """What a quantized file carries beside its integers."""
    from mpsearch.tables.units import format_size

    kept = quantized.sample
    if kept is None:
        return "without a sample: export, evaluate and gate need data, or --fp32 MODEL"
    return (
        f"with {len(kept)} calibration samples and FP32's outputs for them "
        f"({format_size(kept.size_bytes)}), for export, evaluate and gate; --no-sample leaves them "
        "out"
    )
