"""Networks measured, alone or beside each other, points of a front, and searches that measure."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, overload

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import Evaluation, Evaluations
from mpsearch.evaluation.measuring import evaluate as evaluate_network
from mpsearch.evaluation.measuring import from_logits, logits_of, origin_of
from mpsearch.evaluation.subjects import FLOAT, Subject, float_bops, together
from mpsearch.finetuning.module import is_trainable
from mpsearch.finetuning.training import FineTuned
from mpsearch.graph.network import Network
from mpsearch.importers.kinds import QUANTIZED, detect
from mpsearch.integer.inference import integer_network, ranges_from
from mpsearch.measured.answer import Target, smallest_that_holds
from mpsearch.measured.answer import to_document as measured_document
from mpsearch.measured.front import measure_front
from mpsearch.measured.solutions import front_within
from mpsearch.measured.solutions import solution_of as measured_solution
from mpsearch.pareto.files import points_of
from mpsearch.pareto.front import Front
from mpsearch.post_training.kept_repairs import undone_sentence
from mpsearch.post_training.repairing import PostTraining
from mpsearch.python.chosen import float_model
from mpsearch.python.given import SAMPLES, as_arrays, as_data, as_network, given
from mpsearch.python.limits import as_losses, searched
from mpsearch.python.quantizing import as_quantized
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.refining.candidates import Asked
from mpsearch.refining.chosen import solution_of as refined_solution
from mpsearch.refining.chosen import to_document as refined_document
from mpsearch.refining.loop import COUNT, Refined
from mpsearch.refining.loop import refine as refine_choices
from mpsearch.running.workers import find_device
from mpsearch.search.solving import solve as solve_table
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.solution import Solution
from mpsearch.tables.units import parse_accuracy, parse_agreement, parse_points, parse_tolerance


@overload
def evaluate(
    subject: Mapping[str, Any],
    data: Any = None,
    *,
    name: None = None,
    fp32: Any = None,
    metrics: str | Sequence[str] = (),
    loss: Any = None,
    integer: bool = False,
    batch_size: int = 64,
    device: str = "cpu",
    trust: bool = False,
) -> Evaluations: ...
@overload
def evaluate(
    subject: Any,
    data: Any = None,
    *,
    name: str | None = None,
    fp32: Any = None,
    metrics: str | Sequence[str] = (),
    loss: Any = None,
    integer: bool = False,
    batch_size: int = 64,
    device: str = "cpu",
    trust: bool = False,
) -> Evaluation: ...
def evaluate(
    subject: Any,
    data: Any = None,
    *,
    name: str | None = None,
    fp32: Any = None,
    metrics: str | Sequence[str] = (),
    loss: Any = None,
    integer: bool = False,
    batch_size: int = 64,
    device: str = "cpu",
    trust: bool = False,
) -> Evaluation | Evaluations:
    """Measure a network on data: accuracy with its 95 % interval, loss, size and BOPS.

    subject: a float model in any form, what `apply` or `finetune` returned, a path to either, or
    what `solve` returned in this program. Several by name, `{"FP32": model, "mixed": quantized}`,
    are measured on the same samples and compared with the float one: `Evaluations`, whose `save`
    writes evaluation.json. data: as `profile` takes them; all of a Dataset or DataLoader is read.

    name: of the row. fp32: the float model that outputs are compared with, by default the one that
    was quantized in this program; needed without labels, where the row has no accuracy, its loss is
    the divergence from FP32's outputs, and its metrics are `agreement`, `kl` and `sqnr`. metrics:
    names as `--metric` has them, by default what fits the loss. integer: compute with integers
    only, as a device does (`quantized` and with the samples that it was calibrated on). Raises
    InputError for data that do not fit.

    >>> row = mpsearch.evaluate(quantized, (x, y))
    >>> row.n, row.accuracy_interval[0] <= row.accuracy <= row.accuracy_interval[1]
    (96, True)
    """
    wanted = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if isinstance(subject, Mapping) and name is not None:
        raise InputError("got a name beside networks by name; expected one of them")
    if data is not None and not isinstance(data, Data):
        data = as_arrays(data, None)
    named = subject if isinstance(subject, Mapping) else {name or "": subject}
    found: dict[str, tuple[Network | QuantizedNetwork, Data]] = {}
    for key, one in named.items():
        found[key] = _measurable(one, data, as_losses(loss), device, trust)
    float_network = _float_network(fp32, found)
    if not isinstance(subject, Mapping):
        ((network, bound),) = found.values()
        asked = fp32 is not None or wanted or bound.labels is None
        reference = None
        if asked and float_network is not None and not isinstance(network, Network):
            reference = logits_of(float_network, bound, batch_size)
        usual = FLOAT if isinstance(network, Network) else "quantized"
        return _row(name or usual, network, bound, reference, wanted, integer, batch_size)
    return _rows(found, float_network, wanted, integer, batch_size)


def _measurable(
    subject: Any, data: Any, losses: tuple[str, ...], device: str, trust: bool
) -> tuple[Network | QuantizedNetwork, Data]:
    """The network and the samples bound to it."""
    is_path = isinstance(subject, str | os.PathLike)
    if is_path and detect(os.fspath(subject)) != QUANTIZED:
        is_path = False
    known = isinstance(subject, QuantizedNetwork | FineTuned) or is_trainable(subject)
    if not is_path and not known and getattr(subject, "origin", None) is None:
        network, bound = given(subject, data, "evaluate", losses=losses, trust=trust, most=None)
        return network.to(find_device(device)), bound
    if data is None:
        raise InputError(f"evaluate needs data to measure on; expected {SAMPLES}")
    quantized = as_quantized(subject)
    return quantized.to(find_device(device)), as_data(data, quantized.source, losses=losses)


def _float_network(
    fp32: Any, found: Mapping[str, tuple[Network | QuantizedNetwork, Data]]
) -> Network | None:
    """What outputs are compared with: the one that is named, one of those measured, or the one that
    a quantized one was made from."""
    if fp32 is not None:
        ((_, bound), *_) = found.values()
        return as_network(fp32, bound)
    networks = [network for network, _ in found.values()]
    floats = [one for one in networks if isinstance(one, Network)]
    floats += [
        one.origin[0] for one in networks if isinstance(one, QuantizedNetwork) and one.origin
    ]
    return floats[0] if floats else None


def _row(
    name: str,
    network: Network | QuantizedNetwork,
    data: Data,
    reference: torch.Tensor | None,
    metrics: Sequence[str],
    integer: bool,
    batch_size: int,
) -> Evaluation:
    if isinstance(network, Network):
        return evaluate_network(
            name, network, data, batch_size, network.fp32_bytes, float_bops(network), metrics,
            reference,
        )  # fmt: skip
    chosen = network.assignment
    runs = network
    if integer:
        calibration = ranges_from(network.calibration())
        runs = cast("QuantizedNetwork", integer_network(network, calibration))
    row = evaluate_network(
        name, runs, data, batch_size, size_bytes(network.source, chosen),
        bops(network.source, chosen), metrics, reference,
    )  # fmt: skip
    return replace(row, origin=origin_of(network, data))


def _rows(
    found: Mapping[str, tuple[Network | QuantizedNetwork, Data]],
    float_network: Network | None,
    metrics: Sequence[str],
    integer: bool,
    batch_size: int,
) -> Evaluations:
    """The float network first, under its own name where it is among those measured."""
    if not found:
        raise InputError("got no networks to measure; expected them by name")
    ((_, data), *_) = found.values()
    rows, notes, held_out, reference = [], [], True, None
    if float_network is not None:
        reference = logits_of(float_network, data, batch_size)
        names = [key for key, (network, _) in found.items() if network is float_network]
        row = from_logits(
            names[0] if names else FLOAT, reference, data, float_network.fp32_bytes,
            float_bops(float_network), metrics, reference,
        )  # fmt: skip
        rows.append(replace(row, origin=origin_of(float_network, data)))
    for key, (network, bound) in found.items():
        if network is float_network:
            continue
        rows.append(_row(key, network, bound, reference, metrics, integer, batch_size))
        if isinstance(network, QuantizedNetwork):
            notes += [f"{key}: {undone_sentence(network.undone)}"] if network.undone else []
            if (own := network.calibration()) is not None:
                held_out &= own.digest != bound.digest
    return together(data, held_out, rows, notes)


def _subject(
    chosen: Any,
    model: Any,
    data: Any,
    calibration: Any,
    settings: PostTraining | None,
    batch_size: int,
    device: str,
    need_labels: bool,
) -> Subject:
    """What is measured on what: by default the model and the samples of the profile."""
    network, bound = float_model(chosen, model, data, "measuring", need_labels=need_labels)
    origin = getattr(chosen, "origin", None)
    ranges = bound if origin is None else as_data(origin[1], network, need_labels=False)
    if calibration is not None:
        ranges = as_data(calibration, network, need_labels=False)
    placed = network.to(find_device(device))
    return Subject("the model", placed, bound, ranges, batch_size, settings or PostTraining())


def smallest(
    asked: Asked,
    resource: str,
    from_front: Any = None,
    *,
    min_accuracy: str | float | None = None,
    max_drop: str | float | None = None,
    min_agreement: str | float | None = None,
    model: Any = None,
    data: Any = None,
    calibration: Any = None,
    confirm: Any = None,
    most: int | str | None = 32,
    tolerance: str | float = "0.5%",
    settings: PostTraining | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    output: str | os.PathLike[str] | None = None,
) -> Solution:
    """The smallest assignment that is measured to reach a target; without choices where none does.

    What was measured is in `records["measured"]`. See `mpsearch.solve` for the arguments.
    """
    table, budget = asked.table, asked.budget
    targets = [one for one in (min_accuracy, max_drop, min_agreement) if one is not None]
    if len(targets) != 1:
        raise InputError(
            "data, model and the like go with one of min_accuracy='88%', max_drop=1.0 and "
            f"min_agreement='98%'; got {len(targets)} of these"
        )
    if resource not in table.columns:
        raise InputError(
            f"got minimize={resource!r}; expected one resource column, as accuracy is measured "
            f"along the front of Ω against it: {', '.join(table.columns)}"
        )
    target = Target(
        None if min_accuracy is None else parse_accuracy(f"{min_accuracy}"),
        None if max_drop is None else parse_points(f"{max_drop}") / 100,
        None if min_agreement is None else parse_agreement(f"{min_agreement}"),
    )
    found = front_within(table, resource, budget, asked.pins, asked.exclude, from_front)
    if not len(found):
        return solve_table(table, budget, pins=asked.pins, exclude=asked.exclude)
    labelled = min_agreement is None
    subject = _subject(table, model, data, calibration, settings, batch_size, device, labelled)
    again = None if confirm is None else as_data(confirm, subject.network)
    number = None if most in (None, "all") else int(str(most))
    answer = smallest_that_holds(
        found, subject, target, output, number, float(parse_tolerance(f"{tolerance}")), again
    )
    solution = measured_solution(answer, table, budget, resource)
    if answer.point is not None:
        return replace(solution, records={"measured": measured_document(answer)})
    best = f"the best measured has {100 * answer.row.accuracy:.2f} %"
    note = f"no measured assignment has {answer.target}: {best}"
    return replace(
        solution, status="no-solution", choices={}, objective=None, omega=None, totals={},
        notes=(note,), records={"measured": measured_document(answer)},
    )  # fmt: skip


def refine(
    solution: Solution,
    count: int = COUNT,
    *,
    model: Any = None,
    data: Any = None,
    calibration: Any = None,
    settings: PostTraining | None = None,
    time_limit: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    output: str | os.PathLike[str] | None = None,
) -> Refined:
    """Measure `count` assignments within a solution's limits, as `mpsearch solve --refine` does.

    Half of them are optima and next best by every metric of the table, the rest exchanges around
    the best. `solution` of what comes back is the one to take; it is never worse on these samples.
    model, data, calibration: in any form, by default those of the profile; labels are not needed.
    settings: the repairs. time_limit: seconds for the search of each metric's optimum. output: what
    was measured is kept beside this file, so that a killed run goes on. Raises InputError for a
    solution without an assignment, and for a table of other layers than the network's.

    >>> refined = mpsearch.refine(solution, 4)
    >>> refined.best.error <= refined.first.error, refined.solution.status
    (True, 'optimal')
    """
    if not isinstance(solution, Solution) or solution.table is None or not solution.choices:
        raise InputError("refine starts from an assignment; expected what mpsearch.solve returned")
    table, search = solution.table, solution.search
    recorded = [search.get(option, ()) for option in ("pin", "exclude", "allow")]
    pins, excludes, _ = searched(table, recorded[0], recorded[1], recorded[2])
    most = search.get("max-distinct")
    asked = Asked(
        table, Budget(solution.limits, solution.at_least), pins, excludes,
        None if most is None else int(most[0]),
    )  # fmt: skip
    subject = _subject(solution, model, data, calibration, settings, batch_size, device, False)
    found = refine_choices(asked, solution.choices, subject, output, count, time_limit)
    chosen = refined_solution(found, asked, solution)
    return replace(found, solution=replace(chosen, records={"refined": refined_document(found)}))


def measure(
    front: Front,
    points: int | str = 12,
    *,
    at: str | Iterable[str] = (),
    model: Any = None,
    data: Any = None,
    calibration: Any = None,
    settings: PostTraining | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    output: str | os.PathLike[str] | None = None,
    remeasure: bool = False,
) -> Front:
    """The front with what points of it score, as `mpsearch evaluate --front`.

    points: how many, spread over the front, or `"all"`; at: those of least Ω within these sizes,
    `"145KB"`. model, data, calibration: in any form, by default those of the profile; without
    labels the agreement with FP32 is measured. output: the front's CSV, which is written after
    each point with its JSON; None writes nothing. Raises InputError for a front that was measured
    on other data, unless `remeasure`.

    >>> front = mpsearch.front(table).measure(2)
    >>> int((front.measured["accuracy"] >= 0).sum())
    2
    """
    subject = _subject(front.table, model, data, calibration, settings, batch_size, device, False)
    chosen = points_of(front, f"{points}", (at,) if isinstance(at, str) else at)
    return measure_front(front, chosen, subject, output, remeasure)


def measured_now(
    subject: Any, data: Any, fp32: Any, losses: tuple[str, ...], metrics: tuple[str, ...]
) -> tuple[Assignment, Evaluations | None]:
    """The assignment of a quantized network in any form, with its size and BOPS, and with data what
    it scores beside the float network, in rows `FP32` and `quantized`."""
    quantized = as_quantized(subject)
    choices, source = quantized.assignment, quantized.source
    totals = {"size_bytes": size_bytes(source, choices), "bops": bops(source, choices)}
    assignment = Assignment(choices, totals=totals, model_digest=quantized.model_digest)
    if data is None:
        return assignment, None
    rows = {"quantized": quantized}
    return assignment, evaluate(rows, data, fp32=fp32, loss=losses, metrics=metrics)
