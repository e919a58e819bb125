"""A model in any form to a table, or to an mpsearch file."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from mpsearch.errors import InputError, did_you_mean
from mpsearch.exporters.checking import TargetCheck
from mpsearch.exporters.checking import check as check_network
from mpsearch.finetuning.module import is_trainable
from mpsearch.finetuning.training import FineTuned
from mpsearch.graph.inputs import ExampleInputs
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save as save_module
from mpsearch.importers.kinds import QUANTIZED, detect
from mpsearch.post_training.repairing import Rounding
from mpsearch.post_training.words import usual_ranges
from mpsearch.profiling.profile import ProfileSettings, Progress, parse_choices
from mpsearch.profiling.profile import profile as profile_network
from mpsearch.python.chosen import with_fields
from mpsearch.python.given import as_arrays, as_data, drawn, given, plain_module, readings
from mpsearch.python.limits import amount_text, as_losses
from mpsearch.python.quantizing import as_quantized
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.sensitivity.traces import Trace
from mpsearch.sensitivity.traces import hessian_traces as traces_of
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice
from mpsearch.tables.solution import Solution
from mpsearch.tables.stored_widths import FORMATS, choices_for
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import parse_bytes


def profile(
    model: Any,
    data: Any = None,
    output: str | os.PathLike[str] | None = None,
    settings: ProfileSettings | None = None,
    *,
    bits: str | int | Iterable[int] | None = None,
    choices: str | Iterable[Choice | str] | None = None,
    format: str | None = None,
    metric: str | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    rtol: float | None = None,
    max_probes: int | None = None,
    group_residual: bool | None = None,
    memory_limit: str | int | None = None,
    interactions: bool | None = None,
    rounding: Rounding | None = None,
    correct_bias: bool | None = None,
    ranges: str | None = None,
    loss: Any = None,
    device: str = "cpu",
    progress: Progress | None = None,
    trust: bool = False,
) -> LayerTable:
    """Score every layer at every choice of bits, as `mpsearch profile` does.

    model: a torch module, a Network, a path or an opened file; a module is traced in evaluation
    mode and left as it was. data: `(x, y)`, `x`, `[x0, x1]`, `{"x0": …, "y": …}`, a path to .npz, a
    Dataset or a DataLoader (at most 4,096 samples of these are read), by default the sample in the
    model's file; numpy, tensors and pandas. Labels may be missing.

    output: write this CSV, its provenance beside it, and what is needed to go on after a kill; None
    writes nothing. The table has `provenance`, and in memory `origin`, the network and the samples
    that were used, so that `apply` needs neither again.

    bits: `(4, 8)` for w4a4 and w8a8; choices: `("w4a8", "w8a8")`; format: those that a file format
    stores. The arguments from `metric` to `ranges` are the fields of ProfileSettings, on top of
    `settings`. loss: a name, or one for each output. device: `cpu`, `cuda`, `auto`. trust: whether
    a file that can run code may be loaded. Raises InputError for what does not fit.

    >>> table = mpsearch.profile(model, (x, y), choices=("w4a8", "w8a8"))
    >>> table.layer_names, len(table.choices), table.provenance["samples"]
    (('0', '3'), 2, 96)
    """
    network, bound = given(model, data, "profile", losses=as_losses(loss), trust=trust)
    wanted: tuple[Choice, ...] | None = None
    if bits is not None or choices is not None:
        if format is not None:
            raise InputError("got format beside bits or choices; expected one of them")
        wanted = parse_choices(_bits(bits), _choices(choices))
    elif format is not None:
        if format not in FORMATS:
            close = did_you_mean(format, FORMATS)
            raise InputError(f"got the format {format!r}{close}; expected {', '.join(FORMATS)}")
        usual = parse_choices(None, None)
        wanted = choices_for(format, (layer.kind for layer in network.layers), usual)
    if memory_limit is not None:
        memory_limit = parse_bytes(amount_text("memory_limit", "memory_bytes", memory_limit))
    if settings is None and ranges is None and rounding is not None and correct_bias is not None:
        ranges = usual_ranges(rounding, correct_bias)
    settings = with_fields(
        settings or ProfileSettings(), choices=wanted, metric=metric, samples=samples,
        batch_size=batch_size, seed=seed, rtol=rtol, max_probes=max_probes,
        group_residual=group_residual, memory_limit=memory_limit, interactions=interactions,
        rounding=rounding, correct_bias=correct_bias, ranges=ranges,
    )  # fmt: skip
    return profile_network(network, bound, output, settings, progress, device)


def _bits(given: Any) -> str | None:
    """`(4, 8)` -> `4,8`, as `--bits` takes it."""
    if given is None or isinstance(given, str):
        return given
    numbers = [given] if isinstance(given, int) else given
    if not isinstance(numbers, Iterable) or isinstance(numbers, dict):
        raise InputError(f"got bits={given!r:.60}; expected numbers such as (4, 8)")
    return ",".join(map(str, numbers))


def _choices(given: Any) -> str | None:
    """`("w4a8", Choice(8, 8))` -> `w4a8,w8a8`, as `--choices` takes it."""
    if given is None or isinstance(given, str):
        return given
    named = [given] if isinstance(given, Choice) else given
    if not isinstance(named, Iterable):
        raise InputError(f"got choices={given!r:.60}; expected names such as ('w4a8', 'w8a8')")
    return ",".join(map(str, named))


def check(model: Any, data: Any = None, *, trust: bool = False) -> dict[str, TargetCheck]:
    """What the mpsearch file and every export will make of a network: target -> `TargetCheck`.

    model: a float model in any form, tried with 8 bits in every layer, or a quantized network or
    file, tried with its own. data: samples for ranges, of which 8 are used; None: the file's own,
    or random numbers. Raises InputError for a file that cannot be loaded.

    >>> found = mpsearch.check(model, x)
    >>> [target for target, each in found.items() if not each.ok]
    []
    """
    if isinstance(model, str | os.PathLike) and detect(os.fspath(model)) == QUANTIZED:
        model = load_quantized(model)
    if isinstance(model, QuantizedNetwork):
        samples = None if data is None else as_data(data, model.source, need_labels=False)
        return check_network(model, samples)
    if data is None and isinstance(model, Network | str | os.PathLike):
        return check_network(model)
    network, samples = given(model, data, "check", need_labels=False, trust=trust)
    return check_network(network, samples)


def hessian_traces(
    model: Any,
    data: Any = None,
    rtol: float = 0.05,
    max_probes: int = 256,
    batch_size: int = 32,
    seed: int = 0,
    *,
    loss: Any = None,
) -> dict[str, Trace]:
    """Tr(H_i) of every layer by name, H_i the Hessian of the mean loss over data in its weights.

    model, data, loss: as `profile` takes them.

    Tr(H_i) = Tr(G_i) + Tr(R_i): the Gauss-Newton part Σ_n Tr(J_niᵀ ∇²ℓ_n J_ni)/N is exact for up
    to 31 outputs, else sampled; the residual part, zero where the outputs are piecewise linear in
    the weights, is estimated by Hutchinson's E[vᵀR_i v], v of independent signs (Hutchinson, 1990).
    Estimates get probes until their standard error is below rtol × max(its magnitude, the layers'
    mean) or `max_probes` are used. Raises InputError for a loss without a second derivative and for
    a trace that is not finite.

    >>> traces = mpsearch.hessian_traces(model, (x, y))
    >>> traces["0"].value > 0, traces["0"].stderr
    (True, 0.0)
    """
    network, bound = given(model, data, "hessian_traces", losses=as_losses(loss))
    return traces_of(network, bound, rtol, max_probes, batch_size, seed)


def save(
    model: Any,
    path: str | os.PathLike[str],
    example_inputs: ExampleInputs | None = None,
    sample: Any = None,
    batch_dim: Mapping[str, int] | None = None,
    fix: Mapping[str, Any] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> None:
    """Write a torch module as an mpsearch file, which loads without executing anything.

    sample: calibration samples to keep in the file, as `profile` takes data: `(x, y)`, `{"x0": …,
    "y": …}` and so on, of which at most `samples` are drawn by `seed` (None: all are kept).
    example_inputs: one tensor per input, batch first, `(torch.zeros(1, 3, 32, 32),)`, or by name,
    `{"image": …, "audio": …}`, for keyword arguments or for one argument that is a dictionary;
    without them the first sample is the example. batch_dim: the dimension of an input or output
    that holds the samples, `{"h": 1}`, where it is not the first and not found by running the model
    on two and three samples. In the file, and in `sample`, the samples are first. fix: constants
    for inputs that are not per sample, `{"sr": 16000}`, which the examples may leave out.

    Weights, inputs and sample are stored as float32 where they are in other floating point. Written
    atomically, and only what was read back and gave the same outputs. A quantized network and a
    solution are written to their own files. Raises InputError when the model cannot be exported,
    uses an operator outside the allow-list or gives a file that cannot be read.

    >>> mpsearch.save(model, "saved.pt", sample=(x, y))
    """
    if isinstance(model, QuantizedNetwork | FineTuned) or is_trainable(model):
        return save_quantized(as_quantized(model), path)
    if isinstance(model, Solution | Assignment):
        return model.save(path)
    model = plain_module(model)
    if not isinstance(model, nn.Module):
        raise InputError(f"got {type(model).__name__} to save; expected a torch module")
    if sample is None and example_inputs is None:
        raise InputError(
            "a module does not say what its inputs look like; give samples, sample=(x, y), or "
            "example_inputs"
        )
    if sample is None and example_inputs is not None:
        return save_module(model, path, example_inputs, {}, batch_dim, fix)
    found = readings(as_arrays(sample), model)
    for reading in found:
        kept = dict(reading.tensors) if samples is None else drawn(reading, samples, seed)
        examples = reading.example_inputs() if example_inputs is None else example_inputs
        try:
            return save_module(model, path, examples, kept, batch_dim, fix)
        except InputError:
            if reading is found[-1]:
                raise
    return None
