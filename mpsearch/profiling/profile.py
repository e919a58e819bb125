"""`profile`: a network and data in, the layer table with its provenance out."""

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import mpsearch
from mpsearch.data import Data, with_loss
from mpsearch.errors import InputError
from mpsearch.files.whole import digest, write_atomic
from mpsearch.graph.graph_json import check_storable
from mpsearch.graph.layers import Layer, residual_groups
from mpsearch.graph.network import Network
from mpsearch.interactions.interactions import interactions_path, save_interactions
from mpsearch.losses.heads import heads_of, without_heads
from mpsearch.losses.loss import Loss
from mpsearch.post_training.repairing import Rounding
from mpsearch.profiling.float_operators import float_part
from mpsearch.profiling.lifetimes import lifetimes
from mpsearch.quantization.packing import float_bytes_outside, layer_bytes
from mpsearch.quantization.quantizer import check_choice
from mpsearch.running.journal import Journal
from mpsearch.running.plugins import load
from mpsearch.running.workers import find_device, join, leave
from mpsearch.sensitivity.forward_metric import OutputMetric
from mpsearch.sensitivity.interactions import collect, samples_to_keep
from mpsearch.sensitivity.perturbation import ACCURACY, KL, LOSS, PERTURBATION, SQNR
from mpsearch.sensitivity.study import MEMORY_LIMIT, Profiler, Scores, Study
from mpsearch.tables.choice import Choice, as_choice
from mpsearch.tables.provenance import FORMAT, LIFETIMES, VERSION, provenance_path
from mpsearch.tables.table import LayerTable, Row, TableLayer
from mpsearch.tables.units import whole_number

GROUP = "mpsearch.profilers"
DEFAULT_METRIC = "sqnr"  # docs/metrics.md says why
# Flash buys bits of weights only, so activations keep 8; w4a4 is for limits on operations.
DEFAULT_CHOICES = (Choice(2, 8), Choice(3, 8), Choice(4, 4), Choice(4, 8), Choice(8, 8))
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


def _silent(description: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Progress for scripts: none."""
    return nullcontext(lambda: None)


CONVENTIONS = {
    "size_bytes": "packed weights + 4 bytes per bias and per output channel's scale; one scale for "
    "an embedding table with rows below 32 weights",
    "bops": "MACs * w_bits * a_bits, one sample",
    "weights": "symmetric per output channel, least squared error; of the layer's output instead "
    "where rounding is adaptive",
    "activations": "affine per tensor, least squared error on the calibration data",
}
# Of tables that have such choices, which others need not say.
GROUPS = {"groups": "w4g32a8: one scale, 4 bytes, for every 32 weights of an output channel"}


@dataclass(frozen=True)
class ProfileSettings:
    """What `profile` may vary.

    Metrics built on ‖ΔW‖² round to the nearest code whatever `rounding` says.
    """

    metric: str = DEFAULT_METRIC
    """Its name; docs/metrics.md lists them."""
    choices: tuple[Choice, ...] = DEFAULT_CHOICES
    """What every layer is scored at."""
    samples: int = 256
    """How many of the data's samples are used at most."""
    batch_size: int = 32
    """Samples in one pass."""
    seed: int = 0
    """Of every random draw."""
    rtol: float = 0.05
    """The standard error that is wanted where Ω is estimated, relative to what a layer
    contributes."""
    max_probes: int = 256
    """Random probes per layer at most, however large its error still is; at least 2."""
    group_residual: bool = False
    """Whether layers that a residual connection adds up share a choice."""
    memory_limit: int = MEMORY_LIMIT
    """Bytes of intermediate values that are kept at once."""
    interactions: bool = False
    """Whether what layers do to each other is stored beside the table."""
    rounding: Rounding = "adaptive"
    """How layers are quantized whose outputs a metric looks at, as `PostTraining` has it."""
    correct_bias: bool = True
    """The same of their biases."""
    ranges: str = "auto"
    """The same of the ranges of their inputs."""

    def __post_init__(self) -> None:
        """Choices by name are choices; one alone is a tuple. Raises InputError for others."""
        given = (self.choices,) if isinstance(self.choices, Choice | str) else self.choices
        object.__setattr__(self, "choices", tuple(map(as_choice, given)))


def profile(
    network: Network,
    data: Data,
    output: str | os.PathLike[str] | None = None,
    settings: ProfileSettings | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    exports: Mapping[str, Any] | None = None,
    model_file: str | None = None,
) -> LayerTable:
    """Score every layer at every choice; write `output` (CSV) and its provenance beside it (JSON).

    Without `output` nothing is written, without `settings` their defaults hold, without `progress`
    nothing is shown. `device` is `cpu`, `cuda`, `cuda:1`, … or `auto` (the GPU when there is one).
    Under torchrun the processes share the work, all return the same table and the first writes it.
    `exports`, what `check` found as JSON, and `model_file`, where the network came from, go into
    the provenance.
    A killed run is resumed by the next call with the same network, data and settings. Raises
    InputError for a network without layers or with operators that no mpsearch file can hold, and
    for non-finite scores.
    """
    settings = settings or ProfileSettings()
    progress = progress or _silent
    if settings.interactions and output is None:
        raise InputError(
            "interactions are kept in a file beside the table; give an output, as profile.csv"
        )
    profiler, study = study_of(network, data, settings, device)
    workers = join()
    study = replace(study, workers=workers)
    sample, loss, place = study.data, study.loss, study.device
    run = digest(
        mpsearch.__version__, network.digest, sample.digest, repr(settings), place.type, loss.name
    )
    with Journal(output, run, workers.rank) as journal:
        resumed = len(journal)
        with progress(f"profile ({settings.metric})", profiler.steps(study)) as step:
            scores = profiler.score(study, journal, step)
        _check_scores(scores, study)
        table = _table(study, scores, settings.group_residual)
        provenance = _provenance(
            scores, replace(study, network=network), settings, profiler, resumed
        )
        provenance["heads_taken_off"] = heads_of(sample.loss)
        if exports is not None:
            provenance["exports"] = dict(exports)
        if model_file is not None:
            provenance["model_file"] = model_file
        if workers.rank == 0:
            provenance[LIFETIMES] = lifetimes(network, sample)
        if settings.interactions:
            interactions = collect(study, journal, lambda: None, network.digest)
            provenance["interactions"] = {
                "samples": study.keep_outputs,
                "bytes": interactions.changes.nbytes + interactions.gram.nbytes,
            }
            if workers.rank == 0 and output is not None:
                save_interactions(interactions, interactions_path(output))
        written = json.dumps(provenance, indent=2) + "\n"
        provenance = json.loads(written)  # as who reads the file has it
        if workers.rank == 0 and output is not None:
            table.write_csv(output)
            write_atomic(provenance_path(output), written)
        workers.wait()  # no journal goes before the table is written
        journal.discard()
    leave(workers)
    source = table.source if output is None else os.fspath(output)
    return replace(table, provenance=provenance, origin=(network, sample), source=source)


def study_of(
    network: Network, data: Data, settings: ProfileSettings, device: str = "cpu"
) -> tuple[Profiler, Study]:
    """The metric, and what it is asked about. Raises InputError as `profile` does."""
    profiler: Profiler = load(GROUP, settings.metric, "metric")
    for choice in settings.choices:
        check_choice(choice)
    if not 0 < settings.rtol < math.inf:
        raise InputError(f"got --rtol {settings.rtol:g}; expected > 0, for example 0.05")
    if settings.max_probes < 2:
        raise InputError(f"got --max-probes {settings.max_probes}; expected 2 or more")
    if not network.layers:
        raise InputError(
            "the network has no convolution, linear layer or embedding with weights of its own"
        )
    check_storable(network.graph)  # what `apply` will write: better said before the measuring
    data = with_loss(data, network)
    assert data.loss is not None
    sample = data.take(settings.samples, settings.seed)
    place = find_device(device)
    bare, loss = without_heads(network, data.loss)
    study = Study(
        network=bare.to(place),
        data=sample,
        loss=loss,
        choices=settings.choices,
        batch_size=settings.batch_size,
        seed=settings.seed,
        rtol=settings.rtol,
        max_probes=settings.max_probes,
        memory_limit=settings.memory_limit,
        device=place,
        beside=output_metrics(sample, loss),
        rounding=settings.rounding,
        correct_bias=settings.correct_bias,
        ranges=settings.ranges,
    )
    if settings.interactions:
        study = replace(study, keep_outputs=samples_to_keep(study))
    return profiler, study


def output_metrics(data: Data, loss: Loss) -> tuple[OutputMetric, ...]:
    """The metrics of the outputs that the data allow, and that cost little beside the passes.

    Those of labels without labels would only repeat the divergence, and the Hessian of a loss of
    the user's own costs derivatives.
    """
    labelled = data.labels is not None
    found: tuple[tuple[bool, OutputMetric], ...] = (
        (True, SQNR),
        (labelled, LOSS),
        (loss.has_exact_hessian, KL),
        (loss.has_exact_hessian, PERTURBATION),
        (labelled, ACCURACY),
    )
    return tuple(metric for wanted, metric in found if wanted)


def _check_scores(scores: Scores, study: Study) -> None:
    for (layer, choice), score in scores.items():
        if not math.isfinite(score.omega) or not math.isfinite(score.stderr):
            raise InputError(
                f"Ω of layer {layer!r} at {choice} is {score.omega}: the loss is no number there; "
                "expected finite weights, data and outputs"
            )
    if not any(score.omega or score.stderr for score in scores.values()):
        raise InputError(
            f"no choice changes anything on {len(study.data)} samples of {study.data.name}: Ω is 0 "
            "everywhere; expected a loss that depends on the layers, more samples or fewer bits"
        )


def _table(study: Study, scores: Scores, group_residual: bool) -> LayerTable:
    network = study.network
    groups = residual_groups(network.graph, network.layers) if group_residual else {}
    shaped = any(choice.group_size for choice in study.choices)
    layers = [
        TableLayer(
            layer.name, layer.kind, groups.get(layer.name, ""), layer.weights, layer.macs,
            tuple(_shape(layer, network)) if shaped else (),
        )
        for layer in network.layers
    ]  # fmt: skip
    rows = []
    for layer in network.layers:
        for choice in study.choices:
            score = scores[layer.name, choice]
            resources = {
                "size_bytes": layer_bytes(layer, choice),
                "bops": layer.macs * choice.w_bits * choice.a_bits,
            }
            rows.append(
                Row(layer.name, choice, score.omega, score.stderr, resources, score.metrics)
            )
    return LayerTable.from_rows(layers, rows)


def _without_effect(scores: Scores, study: Study) -> list[str]:
    """Layers whose every Ω is 0: the loss does not see them, or rounding changes nothing."""
    return [
        layer.name
        for layer in study.network.layers
        if not any(scores[layer.name, choice].omega for choice in study.choices)
    ]


def _shape(layer: Layer, network: Network) -> list[int]:
    """Lengths of the weight, output channels first, of transposed convolutions too."""
    kernel = network.weight(layer).shape[2:]
    return [layer.channels, layer.weights // layer.channels // math.prod(kernel), *kernel]


def _provenance(
    scores: Scores, study: Study, settings: ProfileSettings, profiler: Profiler, resumed: int
) -> dict[str, Any]:
    network, choices = study.network, settings.choices
    notes = dict(profiler.notes(study))
    return {
        "format": FORMAT,
        "version": VERSION,
        "mpsearch": mpsearch.__version__,
        "model_digest": network.digest,
        "data": study.data.name,
        "data_digest": study.data.digest,
        "samples": len(study.data),
        "labels": study.data.labels is not None,
        "loss": study.loss.name,
        **({"label_notes": list(study.data.notes)} if study.data.notes else {}),
        "metric": settings.metric,
        "metric_notes": notes,
        "rounding": notes.get("rounding", "nearest"),
        "bias_correction": notes.get("bias_correction", False),
        "metrics_beside": list(next(iter(scores.values())).metrics),
        "layers_without_effect": _without_effect(scores, study),
        "left_out_outputs": list(network.left_out_outputs),
        "choices": [str(choice) for choice in choices],
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "rtol": settings.rtol,
        "max_probes": settings.max_probes,
        "parameters": network.parameters,
        "fp32_bytes": network.fp32_bytes,
        "float_bytes_outside_layers": float_bytes_outside(network),
        "float_operators": float_part(network).to_json(),
        "macs": sum(layer.macs for layer in network.layers),
        "shapes": {layer.name: _shape(layer, network) for layer in network.layers},
        "resumed_pieces": resumed,
        "conventions": {**CONVENTIONS, **(GROUPS if any(c.group_size for c in choices) else {})},
    }


def parse_choices(bits: str | None, choices: str | None) -> tuple[Choice, ...]:
    """`--bits 4,8` -> w4a4, w8a8; `--choices w4a8,w8a8` as written; else `DEFAULT_CHOICES`.

    `--bits 4g32` -> w4g32a4: a scale for every 32 weights.
    """
    if bits is not None and choices is not None:
        raise InputError("got both --bits and --choices; expected one of them")
    if choices is not None:
        parsed = [Choice.parse(word) for word in choices.split(",")]
    elif bits is not None:
        parsed = [_same(word) for word in bits.split(",")]
    else:
        return DEFAULT_CHOICES
    unique = tuple(sorted(set(parsed)))
    for choice in unique:
        check_choice(choice)
    return unique


def _same(word: str) -> Choice:
    text, grouped, _ = word.strip().lower().partition("g")
    bits = whole_number(text)
    if bits is None:
        raise InputError(f"got --bits {word!r}; expected numbers such as 4,8, or 4g32 for groups")
    return Choice.parse(f"w{word.strip()}a{bits}") if grouped else Choice(bits, bits)
