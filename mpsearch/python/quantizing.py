"""An assignment to a quantized network, trained further, and written as code."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from mpsearch.errors import InputError
from mpsearch.exporters.formats import Exported
from mpsearch.exporters.formats import export as export_network
from mpsearch.finetuning.module import from_module, is_trainable
from mpsearch.finetuning.module import to_module as module_of
from mpsearch.finetuning.training import Epoch, FineTuned, FineTuning
from mpsearch.finetuning.training import finetune as finetune_network
from mpsearch.importers.kinds import QUANTIZED, detect
from mpsearch.post_training.quantizing import apply as apply_choices
from mpsearch.post_training.quantizing import with_notice
from mpsearch.post_training.repairing import PostTraining, Rounding
from mpsearch.post_training.stored_tensors import Wide
from mpsearch.post_training.words import usual_ranges
from mpsearch.python.chosen import choices_of, float_model, memory_of, with_fields
from mpsearch.python.given import as_data, as_network, given
from mpsearch.python.limits import amount_text, as_losses
from mpsearch.quantization.calibration import Histogram
from mpsearch.quantization.calibration import calibrate as calibrate_network
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantized import quantize as quantize_network
from mpsearch.quantization.quantized_file import load_quantized
from mpsearch.running.workers import find_device
from mpsearch.tables.units import parse_bytes


def apply(
    model: Any,
    assignment: Any,
    data: Any = None,
    settings: PostTraining | None = None,
    batch_size: int = 64,
    on_step: Callable[[], None] | None = None,
    *,
    ranges: str | None = None,
    per_tensor: bool | None = None,
    equalize: bool | None = None,
    correct_bias: bool | None = None,
    rounding: Rounding | None = None,
    seed: int | None = None,
    learn_scales: bool | None = None,
    wide: Wide | None = None,
    keep_sample: bool = True,
    device: str = "cpu",
    trust: bool = False,
) -> QuantizedNetwork:
    """Quantize a model as an assignment says, calibrated on data, as `mpsearch apply` does.

    assignment: what `solve` returned, one that was saved or its path, `{"conv1": "w4a8", …}`, or
    `"w8a8"` for every layer. model, data: as `profile` takes them; data need no labels. What
    `solve` found in a table that was profiled in this program knows both: `best.apply()`. The
    arguments from `ranges` to `wide` are the fields of PostTraining, on top of `settings`: by
    default weights are rounded so that layer outputs are kept, and biases are corrected. on_step:
    called once per layer. keep_sample: whether its file holds some of the data and FP32's outputs
    for them, so that it can be exported and measured by itself. Raises InputError for a solution
    without an assignment and for an assignment of another network.

    >>> quantized = mpsearch.apply(model, solution, (x, y))
    >>> quantized.assignment == solution.bits
    True
    """
    network, samples = float_model(assignment, model, data, "apply", trust=trust)
    settings = _repairs(
        settings, ranges, per_tensor=per_tensor, equalize=equalize, correct_bias=correct_bias,
        rounding=rounding, seed=seed, learn_scales=learn_scales, wide=wide,
    )  # fmt: skip
    if memory_of(assignment) and settings.wide == "auto":
        settings = replace(settings, wide="8")  # what the search for it counted with
    choices = choices_of(assignment, (layer.name for layer in network.layers))
    step = on_step or (lambda: None)
    begins = with_notice(network.layers, step) if settings.rounding == "adaptive" else step
    placed = network.to(find_device(device))
    quantized = apply_choices(placed, choices, samples, settings, batch_size, begins, keep_sample)
    return replace(quantized, origin=(network, samples))


def _repairs(settings: PostTraining | None, ranges: str | None, **named: Any) -> PostTraining:
    """`settings` with the fields that are named; ranges without a name as on the command line."""
    if settings is None and ranges is None:
        rounding, bias = named["rounding"], named["correct_bias"]
        ranges = usual_ranges(rounding or "adaptive", True if bias is None else bias)
    return with_fields(settings or PostTraining(), ranges=ranges, **named)


def calibrate(model: Any, data: Any = None, batch_size: int = 64) -> dict[str, Histogram]:
    """Histogram of every layer's input over data, in two passes: range, then counts.

    model, data: as `profile` takes them; no labels are needed. A layer that is used more than once
    has one histogram over all uses. Raises InputError naming a layer that reads what is not finite.

    >>> int(mpsearch.calibrate(model, x)["0"].counts.sum()) == x.numel()
    True
    """
    network, samples = given(model, data, "calibrate", need_labels=False)
    return calibrate_network(network, samples, batch_size)


def quantize(model: Any, assignment: Any, data: Any = None) -> QuantizedNetwork:
    """Quantize every layer by itself, to the nearest codes: nothing is repaired, as `apply` does.

    model, assignment: as `apply` takes them; data: samples, or the histograms of `calibrate`.
    Raises InputError naming the first layer that assignment and network do not share.

    >>> quantized = mpsearch.quantize(model, "w8a8", x)
    >>> quantized(x).shape == model(x).shape
    True
    """
    if isinstance(data, Mapping) and all(isinstance(one, Histogram) for one in data.values()):
        network, histograms = as_network(model), dict(data)
        return quantize_network(network, _choices(assignment, network), histograms)
    network, samples = float_model(assignment, model, data, "quantize")
    quantized = quantize_network(
        network, _choices(assignment, network), calibrate_network(network, samples)
    )
    return replace(quantized, origin=(network, samples))


def _choices(assignment: Any, network: Any) -> Any:
    return choices_of(assignment, (layer.name for layer in network.layers))


def finetune(
    model: Any,
    assignment: Any,
    data: Any = None,
    validation: Any = None,
    settings: FineTuning | None = None,
    start: QuantizedNetwork | str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    distillation: float | None = None,
    augment: bool | None = None,
    seed: int | None = None,
    calibration_samples: int | None = None,
    freezing: bool | None = None,
    loss: Any = None,
    keep_sample: bool = True,
    device: str = "cpu",
    trust: bool = False,
) -> FineTuned:
    """Train a model with its layers quantized as an assignment says, as `mpsearch finetune` does.

    model, assignment: as `apply` takes them; data, validation: samples to train on and to choose
    the epoch on, in any form (all of a Dataset or DataLoader is read). The arguments from `epochs`
    to `freezing` are the fields of FineTuning, on top of `settings`.

    Weights, biases, norms and all step sizes train (LSQ, Adam, cosine schedule); the float network
    is the teacher. The start is `start`, or the network with repairs. It is itself a candidate: the
    result is never worse than it on `validation`, where accuracy decides and then the loss. Without
    `validation` a tenth of the data is held out, evenly from its classes. The same seed and number
    of threads give the same bits on a CPU. With `checkpoint`, the path of the output, a killed run
    goes on after its last epoch. keep_sample: as in `apply`. Raises InputError for settings and
    data that do not fit, and when the loss is no number.

    >>> tuned = mpsearch.finetune(model, solution, (x, y), epochs=1)
    >>> len(tuned.history), tuned.network.assignment == solution.bits
    (2, True)
    """
    losses = as_losses(loss)
    origin = getattr(assignment, "origin", None)
    if model is None and data is not None and origin is not None:
        network = origin[0]
        train = as_data(data, network, losses=losses, most=None)
    elif model is not None and data is not None:
        network, train = given(model, data, "finetune", losses=losses, trust=trust, most=None)
    else:
        network, train = float_model(
            assignment, model, data, "finetune", need_labels=True, losses=losses, trust=trust
        )
    held_out = None
    if validation is not None:
        held_out = as_data(validation, network, losses=losses, most=None)
    if isinstance(start, str | os.PathLike):
        start = load_quantized(start)
    settings = with_fields(
        settings or FineTuning(), epochs=epochs, lr=lr, batch_size=batch_size,
        distillation=distillation, augment=augment, seed=seed,
        calibration_samples=calibration_samples, freezing=freezing,
    )  # fmt: skip
    choices = _choices(assignment, network)
    placed = network.to(find_device(device))
    tuned = finetune_network(
        placed, choices, train, held_out, settings, start, on_epoch, checkpoint, keep_sample
    )
    sample = train.take(settings.calibration_samples, settings.seed)
    return replace(tuned, network=replace(tuned.network, origin=(network, sample)))


def export(
    quantized: Any,
    output: str | os.PathLike[str],
    format: str = "c",
    data: Any = None,
    *,
    target: str | None = None,
    board: str | None = None,
    flash: str | int | None = None,
    ram: str | int | None = None,
    package: str | None = None,
    wide_bits: int | None = None,
    check: bool | None = None,
) -> Exported:
    """Write a quantized network as code or as a file that a device runs, as `mpsearch export` does.

    quantized: a QuantizedNetwork, a path to its file, or what `solve` returned in this program.
    format: `c` or `tflm` (`output` is a new or empty folder), `onnx` or `litert` (a file). data:
    calibration samples in any form, by default those that it was quantized on in this program, or
    that its file keeps; without any nothing is compared, and formats that need them raise
    InputError. target: the processor, such as `cortex-m4` (`c` alone; None: any). board, flash,
    ram: where the firmware of a Cortex-M is linked, such as `mps2-an386`, and what it may take
    there, `"256KB"`. package: `arduino`, `esp-idf`, `zephyr`, `platformio` or `cmake`: a library
    instead (`c` alone). wide_bits: 16 or 32, of sums and outputs, whatever the network stores (`c`
    alone). check: run what was written and compare (None: where possible). Raises InputError for a
    format that is none, an option that the format lacks, and what it cannot hold.

    >>> mpsearch.export(quantized, "network", check=False).ok
    True
    """
    network = as_quantized(quantized)
    if data is None:
        samples = network.calibration()
    else:
        samples = as_data(data, network.source, need_labels=False)
    return export_network(
        network, output, format, samples, wide_bits, check, target, board,
        _bytes("flash", flash), _bytes("ram", ram), package,
    )  # fmt: skip


def _bytes(name: str, size: str | int | None) -> int | None:
    return None if size is None else parse_bytes(amount_text(name, "size_bytes", size))


def to_module(quantized: Any, network: Any = None) -> nn.Module:
    """A `torch.nn.Module` to train in a loop of your own: `from_module` gives the integers back.

    quantized: a QuantizedNetwork, a path to its file, or what `solve` returned in this program.
    It computes what the quantized network does, bit for bit, in every mode, takes the inputs in
    order or by name, and returns its output, or of several a tuple or a dictionary by name.
    Parameters are weights, biases, norms, and every step in its logarithm; roundings pass gradients
    straight through, with LSQ's for the steps (Esser et al., ICLR 2020). `state_dict` names them as
    the model did: `conv1.weight`, `conv1.bias`, `conv1.weight_scale`, `conv1.input_scale`. Weights
    begin at what their codes mean, or, with the float `network`, in any form, at its own inside of
    their codes' intervals. Raises InputError for another type, and for another `network`.

    >>> module = mpsearch.to_module(quantized)
    >>> optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    >>> loss = torch.nn.functional.cross_entropy(module(x), y)
    >>> loss.backward()
    >>> optimizer.step()
    >>> trained = mpsearch.from_module(module)
    >>> torch.equal(trained(x), module(x))
    True
    """
    made = as_quantized(quantized)
    if network is not None:
        examples = None if made.origin is None else made.origin[1]
        network = as_network(network, examples)
    return module_of(made, network)


def applied_module(model: Any, assignment: Any, data: Any = None, **settings: Any) -> nn.Module:
    """`to_module` of what `apply` makes with the same arguments."""
    return to_module(apply(model, assignment, data, **settings))


def as_quantized(quantized: Any) -> QuantizedNetwork:
    """A quantized network as it is, of its file, or of a solution that knows its model.

    Raises InputError for another type.
    """
    if isinstance(quantized, QuantizedNetwork):
        return quantized
    if isinstance(quantized, FineTuned):
        return quantized.network
    if is_trainable(quantized):
        return from_module(quantized)
    if isinstance(quantized, str | os.PathLike):
        if detect(os.fspath(quantized)) != QUANTIZED:
            raise InputError(
                f"{os.fspath(quantized)} is not a quantized network; write one with "
                "mpsearch.save_quantized"
            )
        return load_quantized(quantized)
    if getattr(quantized, "origin", None) is not None:
        return apply(None, quantized)
    raise InputError(
        f"got {type(quantized).__name__} for the quantized network; expected what mpsearch.apply "
        "returned, or a path to its file"
    )
