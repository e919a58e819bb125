"""Which networks `evaluate` measures, on which data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mpsearch.assignment import Assignment
from mpsearch.calibration import calibrate
from mpsearch.choice import Choice
from mpsearch.cost import bops, size_bytes
from mpsearch.data import Arrays, Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.evaluate import evaluate
from mpsearch.evaluation import Evaluation, Evaluations
from mpsearch.model_files import QUANTIZED, ModelSource, detect, load_network
from mpsearch.network import Network
from mpsearch.quantized import check_layers, quantize
from mpsearch.quantized_file import load_quantized
from mpsearch.quantizer import check_bits

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


def run(request: EvaluationRequest) -> Evaluations:
    """Measure everything that the request names. Raises InputError in one or two lines."""
    if detect(request.source.path) == QUANTIZED:
        return _quantized_file(request)
    if request.fp32 is not None:
        raise InputError(
            f"{request.source.path} is a float model; --fp32 goes with a quantized one"
        )
    arrays = None if request.data is None else read_arrays(request.data)
    loaded = load_network(request.source, arrays)
    sample = _sample(request, loaded.sample)
    evaluated = arrays if arrays is not None else sample
    if evaluated is None:
        raise InputError(f"{request.source.path} carries no sample; give labelled data with --data")
    choices = _wanted(request, loaded.network)
    if choices and sample is None:
        raise InputError(
            f"{request.source.path} carries no sample to set the activations' ranges; "
            "give data for them with --calibration (training data, not the data to measure on)"
        )
    data = bind(evaluated, loaded.network)
    rows = [_float_row(loaded.network, data, request.batch_size)]
    rows += measure_choices(
        loaded.network, choices, None if sample is None else bind(sample, loaded.network), data,
        request.batch_size,
    )  # fmt: skip
    return Evaluations(data.name, data.digest, held_out(data, sample, loaded.network), tuple(rows))


def measure_choices(
    network: Network,
    choices: Mapping[str, Mapping[str, Choice]],
    calibration: Data | None,
    data: Data,
    batch_size: int = 64,
) -> list[Evaluation]:
    """One Evaluation per named assignment, quantized with ranges from `calibration`."""
    if not choices:
        return []
    assert calibration is not None
    histograms = calibrate(network, calibration, batch_size)
    return [
        evaluate(
            name, quantize(network, chosen, histograms), data, batch_size,
            size_bytes(network, chosen), bops(network, chosen),
        )
        for name, chosen in choices.items()
    ]  # fmt: skip


def held_out(data: Data, sample: Arrays | None, network: Network) -> bool:
    """False when the data are the calibration sample itself."""
    return sample is None or bind(sample, network).digest != data.digest


def _sample(request: EvaluationRequest, stored: Mapping[str, object]) -> Arrays | None:
    if request.calibration is not None:
        return read_arrays(request.calibration)
    if stored:
        return Arrays(f"the sample in {request.source.path}", dict(stored))  # type: ignore[arg-type]
    return None


def _wanted(request: EvaluationRequest, network: Network) -> dict[str, dict[str, Choice]]:
    names = [layer.name for layer in network.layers]
    wanted = {}
    for text in request.uniform:
        choice = Choice.parse(text)
        check_bits(choice.w_bits)
        check_bits(choice.a_bits)
        wanted[str(choice)] = dict.fromkeys(names, choice)
    if request.assignment is not None:
        chosen = dict(Assignment.load(request.assignment).layers)
        check_layers(network, chosen)
        wanted["assignment"] = chosen
    largest_first = sorted(wanted, key=lambda name: size_bytes(network, wanted[name]), reverse=True)
    return {name: wanted[name] for name in largest_first}


def _float_row(network: Network, data: Data, batch_size: int) -> Evaluation:
    operations = sum(layer.macs for layer in network.layers) * 32 * 32
    return evaluate(FLOAT, network, data, batch_size, network.fp32_bytes, operations)


def _quantized_file(request: EvaluationRequest) -> Evaluations:
    if request.assignment is not None or request.uniform:
        raise InputError(
            f"{request.source.path} is quantized already; give the float model instead"
        )
    quantized = load_quantized(request.source.path)
    if request.data is None:
        raise InputError(f"{request.source.path} carries no data; give labelled data with --data")
    arrays = read_arrays(request.data)
    data = bind(arrays, quantized.source)
    chosen = quantized.assignment
    rows = [
        evaluate(
            "quantized", quantized, data, request.batch_size,
            size_bytes(quantized.source, chosen), bops(quantized.source, chosen),
        )
    ]  # fmt: skip
    if request.fp32 is None:
        return Evaluations(data.name, data.digest, True, tuple(rows))
    loaded = load_network(replace(request.source, path=request.fp32), arrays)
    rows.insert(0, _float_row(loaded.network, bind(arrays, loaded.network), request.batch_size))
    unseen = not loaded.sample or held_out(data, Arrays("sample", loaded.sample), loaded.network)
    return Evaluations(data.name, data.digest, unseen, tuple(rows))
