"""Which networks `evaluate` measures, on which data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Evaluations
from mpsearch.evaluation.measuring import (
    evaluate,
    from_logits,
    labels_of,
    logits_of,
    one_answer,
    origin_of,
)
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.importers.kinds import QUANTIZED, detect
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.losses.loss import CROSS_ENTROPY
from mpsearch.losses.sum_loss import SumLoss
from mpsearch.post_training.kept_repairs import undone_sentence
from mpsearch.post_training.quantizing import Quantizing
from mpsearch.post_training.repairing import PostTraining
from mpsearch.quantization.calibrated_inputs import input_ranges, outside_notes, ranges_of
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork, check_assignment
from mpsearch.quantization.quantized_file import load_quantized
from mpsearch.quantization.quantizer import check_bits
from mpsearch.running.workers import find_device
from mpsearch.tables.assignment import Assignment, weights_notes
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import Origin

FLOAT = "FP32"


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure: see the options of `mpsearch evaluate`."""

    source: ModelSource
    assignment: str | None = None
    uniform: tuple[str, ...] = ()
    data: str | None = None
    calibration: str | None = None
    fp32: str | None = None
    batch_size: int = 64
    post_training: PostTraining = field(default_factory=PostTraining)
    integer: bool = False
    losses: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True)
class Subject:
    """A float network and the data to measure its assignments on.

    What is measured is computed where `network` is.
    """

    path: str
    """The network's file, for messages."""
    network: Network
    """The float network."""
    data: Data
    """The samples that are measured on; without labels against the float network."""
    calibration: Data | None
    """Samples for the ranges of activations; None: nothing can be quantized."""
    batch_size: int = 64
    """Samples in one pass."""
    post_training: PostTraining = field(default_factory=PostTraining)
    """How an assignment becomes a quantized network."""
    metrics: tuple[str, ...] = ()
    """Further metrics to measure, by name, as `--metric` takes them."""

    @property
    def held_out(self) -> bool:
        """False when the data are the calibration sample itself."""
        return self.calibration is None or self.calibration.digest != self.data.digest

    @property
    def outside(self) -> list[str]:
        """Which inputs of the data are not what the calibration data have, a sentence each."""
        if self.calibration is None:
            return []
        ranges = input_ranges(self.network, self.calibration)
        return outside_notes(self.network, self.data, ranges, len(self.calibration))

    @cached_property
    def quantizing(self) -> Quantizing:
        """How its assignments become networks. Raises InputError without calibration data."""
        if self.calibration is None:
            raise InputError(
                f"{self.path} carries no sample to set the activations' ranges; "
                "give data for them with --calibration (training data, not the data to measure on)"
            )
        return Quantizing(self.network, self.calibration, self.batch_size, self.post_training)

    def quantized(self, choices: Mapping[str, Choice]) -> QuantizedNetwork:
        """The network at these choices. Raises InputError for another network's choices."""
        return self.quantizing(choices)

    @cached_property
    def float_outputs(self) -> torch.Tensor:
        """Of the float network on the data: what metrics of others are compared with."""
        return logits_of(self.network, self.data, self.batch_size)

    @property
    def reference(self) -> torch.Tensor | None:
        """The same where metrics are compared; accuracy is paired by its samples."""
        loss = self.data.loss or CROSS_ENTROPY
        plain = not self.metrics and one_answer(loss, self.network.output_shape)
        return None if plain and self.data.labels is not None else self.float_outputs

    def float_row(self) -> Evaluation:
        """The float network, measured; it is not compared with itself."""
        row = from_logits(
            FLOAT, self.float_outputs, self.data, self.network.fp32_bytes,
            float_bops(self.network), self.metrics, self.float_outputs,
        )  # fmt: skip
        return replace(row, origin=origin_of(self.network, self.data))

    def measure(
        self, name: str, choices: Mapping[str, Choice], quantized: QuantizedNetwork | None = None
    ) -> Evaluation:
        """The network at these choices, measured; `quantized` where it is there already."""
        return evaluate(
            name, quantized or self.quantized(choices), self.data, self.batch_size,
            size_bytes(self.network, choices), bops(self.network, choices),
            self.metrics, self.reference,
        )  # fmt: skip


def load_subject(
    source: ModelSource,
    data: str | None,
    calibration: str | None,
    batch_size: int = 64,
    post_training: PostTraining | None = None,
    losses: tuple[str, ...] = (),
    metrics: tuple[str, ...] = (),
    need_labels: bool = True,
    device: str = "cpu",
) -> Subject:
    """Read a float model and its data; the model file's sample where they are not named.

    device: as `find_device` has it, where the network goes.

    Raises InputError for data that do not fit, that have no labels unless these are not needed, or
    that are nowhere.
    """
    place = find_device(device)
    arrays = None if data is None else read_arrays(data)
    loaded = load_network(source, arrays)
    sample: Arrays | None = None
    if calibration is not None:
        sample = read_arrays(calibration)
    elif loaded.sample:
        sample = Arrays(f"the sample in {source.path}", loaded.sample)
    evaluated = arrays if arrays is not None else sample
    if evaluated is None:
        kind = "labelled data" if need_labels else "data"
        raise InputError(f"{source.path} carries no sample; give {kind} with --data")
    bound = bind(evaluated, loaded.network, losses)
    if need_labels:
        labels_of(bound)
    ranges = None
    if sample is not None:
        ranges = bind(sample, loaded.network, losses, need_labels=False)
    settings = post_training or PostTraining()
    network = loaded.network.to(place)
    return Subject(source.path, network, bound, ranges, batch_size, settings, metrics)


def run(request: EvaluationRequest) -> Evaluations:
    """Measure everything that the request names. Raises InputError in one or two lines."""
    if detect(request.source.path) == QUANTIZED:
        return _quantized_file(request)
    if request.fp32 is not None:
        raise InputError(
            f"{request.source.path} is a float model; --fp32 goes with a quantized one"
        )
    subject = load_subject(
        request.source, request.data, request.calibration, request.batch_size,
        request.post_training, request.losses, request.metrics, False, request.device,
    )  # fmt: skip
    choices, told = _wanted(request, subject.network)
    if subject.data.labels is None and not choices:
        raise InputError(
            f"{subject.data.name} has no labels, and FP32 alone has nothing to be compared with; "
            "name an assignment or --uniform w8a8, or give labelled data with --data"
        )
    if choices:
        _ = subject.quantizing  # raises before anything is measured
    rows, notes = [subject.float_row()], [*told, *subject.outside]
    for name, chosen in choices.items():
        quantized = subject.quantized(chosen)
        notes += _undone(name, quantized)
        rows.append(subject.measure(name, chosen, quantized))
        if request.integer:
            rows.append(
                _integers(
                    name, quantized, subject.calibration, subject.data,
                    request.metrics, subject.reference,
                )
            )  # fmt: skip
    return together(subject.data, subject.held_out, rows, notes)


def _undone(name: str, quantized: QuantizedNetwork) -> list[str]:
    return [f"{name}: {undone_sentence(quantized.undone)}"] if quantized.undone else []


def float_bops(network: Network) -> int:
    """Bit operations of one sample in 32-bit floating point."""
    return sum(layer.macs for layer in network.layers) * 32 * 32


def _wanted(
    request: EvaluationRequest, network: Network
) -> tuple[dict[str, dict[str, Choice]], list[str]]:
    """What to measure, by name, the largest first; and what to know of it."""
    notes: list[str] = []
    names = [layer.name for layer in network.layers]
    wanted = {}
    for text in request.uniform:
        choice = Choice.parse(text)
        check_bits(choice.w_bits)
        check_bits(choice.a_bits)
        wanted[str(choice)] = dict.fromkeys(names, choice)
    if request.assignment is not None:
        assignment = Assignment.load(request.assignment)
        check_assignment(network, assignment)
        wanted["assignment"] = dict(assignment.layers)
        notes = weights_notes(assignment, request.assignment, request.source.path, network.digest)
    largest_first = sorted(wanted, key=lambda name: size_bytes(network, wanted[name]), reverse=True)
    return {name: wanted[name] for name in largest_first}, notes


def _quantized_file(request: EvaluationRequest) -> Evaluations:
    if request.assignment is not None or request.uniform:
        raise InputError(
            f"{request.source.path} is quantized already; give the float model instead"
        )
    place = find_device(request.device)
    quantized = load_quantized(request.source.path, request.source.max_memory)
    kept = None if quantized.sample is None else quantized.sample.named(request.source.path)
    if request.data is None and request.fp32 is None and kept is None:
        raise InputError(f"{request.source.path} carries no data; give data with --data")
    quantized, chosen = quantized.to(place), quantized.assignment
    subject = None
    if request.fp32 is not None:
        float_source = replace(request.source, path=request.fp32)
        subject = load_subject(
            float_source, request.data, request.calibration, request.batch_size,
            losses=request.losses, metrics=request.metrics, need_labels=False,
            device=request.device,
        )  # fmt: skip
    if request.data is not None:
        data = bind(read_arrays(request.data), quantized.source, request.losses)
    elif subject is None:
        assert kept is not None
        data = bind(kept, quantized.source, request.losses)
    else:  # the sample of the float model, which has the same inputs
        if subject.network.input_shapes != quantized.source.input_shapes:
            raise InputError(
                f"{request.fp32} has other inputs than {request.source.path}; expected the network "
                "that it was made from, or --data"
            )
        data = subject.data
    if subject is None:
        beside = _remembered(request, quantized, kept, data)
    else:
        beside = _Beside(
            subject.float_row(), subject.reference, subject.calibration, subject.held_out
        )
    row = evaluate(
        "quantized", quantized, data, request.batch_size,
        size_bytes(quantized.source, chosen), bops(quantized.source, chosen),
        request.metrics, beside.reference,
    )  # fmt: skip
    rows = [_of_file(row, quantized)]
    if request.integer:
        calibration = beside.calibration
        if request.calibration is not None:
            given = read_arrays(request.calibration)
            calibration = bind(given, quantized.source, request.losses, need_labels=False)
        integers = _integers(
            "quantized", quantized, calibration, data, request.metrics, beside.reference
        )
        rows.append(_of_file(integers, quantized))
    notes = outside_notes(quantized.source, data, ranges_of(quantized))
    notes += _undone("quantized", quantized)
    if subject is not None and quantized.model_digest not in (None, subject.network.digest):
        notes.append(
            f"{request.fp32} has other weights than the network that {request.source.path} was "
            "made from: what is lost against FP32 is not lost by quantizing"
        )
    if beside.row is not None:
        rows.insert(0, beside.row)
    return together(data, beside.held_out, rows, notes)


@dataclass(frozen=True)
class _Beside:
    """What is known of FP32 beside a quantized file: its row and outputs to compare with."""

    row: Evaluation | None
    reference: torch.Tensor | None
    calibration: Data | None
    held_out: bool


def _remembered(
    request: EvaluationRequest, quantized: QuantizedNetwork, kept: Arrays | None, data: Data
) -> _Beside:
    """FP32 as the file remembers it: on its own sample, and on no other data."""
    if quantized.sample is None or kept is None:
        return _Beside(None, None, None, True)
    own = bind(kept, quantized.source, request.losses, need_labels=False)
    if own.digest != data.digest:
        return _Beside(None, None, own, True)
    outputs, source = quantized.sample.outputs, quantized.source
    row = from_logits(
        FLOAT, outputs, data, source.fp32_bytes, float_bops(source), request.metrics, outputs
    )
    row = replace(row, origin=Origin(quantized.model_digest, None, data.digest))
    plain = not request.metrics and one_answer(data.loss or CROSS_ENTROPY, source.output_shape)
    return _Beside(row, None if plain and data.labels is not None else outputs, own, False)


def _of_file(row: Evaluation, quantized: QuantizedNetwork) -> Evaluation:
    """The row with the digest of the integers that the file holds."""
    return replace(row, origin=replace(row.origin, quantized=quantized.digest))


def together(
    data: Data, held_out: bool, rows: Sequence[Evaluation], notes: Sequence[str]
) -> Evaluations:
    """Networks measured on `data`, as evaluation.json has them; notes: a sentence each."""
    name = "cross-entropy" if data.loss is None else data.loss.name
    beside = [] if (without := _unlabelled(data)) is None else [
        f"no labels{without}: measured against the FP32 network"
    ]  # fmt: skip
    return Evaluations(
        data.name, data.digest, held_out, tuple(rows), name, (*beside, *data.notes, *notes),
        data.labels is not None,
    )  # fmt: skip


def _unlabelled(data: Data) -> str | None:
    """` of box`: which of several outputs have none; empty: none has; None: all have."""
    if data.labels is None:
        return ""
    shares = data.loss.shares if isinstance(data.loss, SumLoss) else ()
    names = [share.output.name for share in shares if share.labels is None]
    return f" of {', '.join(names)}" if names else None


def _integers(
    name: str, quantized: QuantizedNetwork, calibration: Data | None, data: Data,
    metrics: Sequence[str], reference: torch.Tensor | None,
) -> Evaluation:  # fmt: skip
    """The same network computed with integers only. Raises InputError without calibration data."""
    from mpsearch.integer.inference import integer_network, ranges_from

    chosen, source = quantized.assignment, quantized.source
    row = evaluate(
        f"{name}, integers", integer_network(quantized, ranges_from(calibration)), data,
        size_bytes=size_bytes(source, chosen), bops=bops(source, chosen),
        metrics=metrics, reference=reference,
    )  # fmt: skip
    return replace(row, origin=origin_of(quantized, data))
