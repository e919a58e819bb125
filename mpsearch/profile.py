"""`profile`: a network and data in, the layer table with its provenance out."""

import json
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import mpsearch
from mpsearch.choice import Choice
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.files import digest, write_atomic
from mpsearch.journal import Journal
from mpsearch.layers import residual_groups
from mpsearch.losses import loss_for
from mpsearch.network import Network
from mpsearch.packing import layer_bytes
from mpsearch.plugins import load
from mpsearch.profiler import Profiler, Scores, Study
from mpsearch.provenance import FORMAT, VERSION, provenance_path
from mpsearch.quantizer import check_bits
from mpsearch.table import Layer, LayerTable, Row

GROUP = "mpsearch.profilers"
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]

CONVENTIONS = {
    "size_bytes": "packed weights + 4 bytes per bias and per output channel's scale",
    "bops": "MACs * w_bits * a_bits, one sample",
    "weights": "symmetric per output channel, least squared error",
    "activations": "affine per tensor, least squared error on the calibration data",
}


@dataclass(frozen=True)
class ProfileSettings:
    """What `profile` may vary. `samples` limits how many of the data's samples are used."""

    metric: str = "hessian"
    choices: tuple[Choice, ...] = (Choice(4, 4), Choice(8, 8))
    samples: int = 256
    batch_size: int = 32
    seed: int = 0
    rtol: float = 0.05
    max_probes: int = 256
    group_residual: bool = False


def profile(
    network: Network,
    data: Data,
    output: str | os.PathLike[str],
    settings: ProfileSettings,
    progress: Progress,
) -> tuple[LayerTable, dict[str, Any]]:
    """Score every layer at every choice; write `output` (CSV) and its provenance beside it (JSON).

    A killed run is resumed by the next call with the same network, data and settings. Returns the
    table and the provenance. Raises InputError for a network without layers and for non-finite
    scores.
    """
    profiler: Profiler = load(GROUP, settings.metric, "metric")
    for choice in settings.choices:
        check_bits(choice.w_bits)
        check_bits(choice.a_bits)
    if not 0 < settings.rtol < math.inf:
        raise InputError(f"got --rtol {settings.rtol:g}; expected > 0, for example 0.05")
    if settings.max_probes < 2:
        raise InputError(f"got --max-probes {settings.max_probes}; expected 2 or more")
    if not network.layers:
        raise InputError("the network has no convolution or linear layer with weights of its own")
    sample = data.take(settings.samples, settings.seed)
    study = Study(
        network=network,
        data=sample,
        loss=loss_for(network, sample.labels),
        choices=settings.choices,
        batch_size=settings.batch_size,
        seed=settings.seed,
        rtol=settings.rtol,
        max_probes=settings.max_probes,
    )
    run = digest(mpsearch.__version__, network.digest, sample.digest, repr(settings))
    with Journal(output, run) as journal:
        resumed = len(journal)
        with progress(f"profile ({settings.metric})", profiler.steps(study)) as step:
            scores = profiler.score(study, journal, step)
        table = _table(study, scores, settings.group_residual)
        provenance = _provenance(study, settings, profiler, resumed)
        table.write_csv(output)
        write_atomic(provenance_path(output), json.dumps(provenance, indent=2) + "\n")
        journal.discard()
    return table, provenance


def _table(study: Study, scores: Scores, group_residual: bool) -> LayerTable:
    network = study.network
    groups = residual_groups(network.graph, network.layers) if group_residual else {}
    layers = [
        Layer(layer.name, layer.kind, groups.get(layer.name, ""), layer.weights, layer.macs)
        for layer in network.layers
    ]
    rows = []
    for layer in network.layers:
        for choice in study.choices:
            score = scores[layer.name, choice]
            resources = {
                "size_bytes": layer_bytes(layer, choice),
                "bops": layer.macs * choice.w_bits * choice.a_bits,
            }
            rows.append(Row(layer.name, choice, score.omega, score.stderr, resources))
    return LayerTable.from_rows(layers, rows)


def _provenance(
    study: Study, settings: ProfileSettings, profiler: Profiler, resumed: int
) -> dict[str, Any]:
    network = study.network
    layer_sizes = sum(
        4 * layer.weights + (4 * layer.channels if layer.bias_name else 0)
        for layer in network.layers
    )
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
        "metric": settings.metric,
        "metric_notes": dict(profiler.notes(study)),
        "choices": [str(choice) for choice in settings.choices],
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "rtol": settings.rtol,
        "max_probes": settings.max_probes,
        "parameters": network.parameters,
        "fp32_bytes": network.fp32_bytes,
        "float_bytes_outside_layers": network.fp32_bytes - layer_sizes,
        "macs": sum(layer.macs for layer in network.layers),
        "resumed_pieces": resumed,
        "conventions": CONVENTIONS,
    }


def parse_choices(bits: str | None, choices: str | None) -> tuple[Choice, ...]:
    """`--bits 4,8` -> w4a4, w8a8; `--choices w4a8,w8a8` as written; w4a4 and w8a8 by default."""
    if bits is not None and choices is not None:
        raise InputError("got both --bits and --choices; expected one of them")
    if choices is not None:
        parsed = [Choice.parse(word) for word in choices.split(",")]
    else:
        parsed = [_same(word) for word in (bits or "4,8").split(",")]
    unique = tuple(sorted(set(parsed)))
    for choice in unique:
        check_bits(choice.w_bits)
        check_bits(choice.a_bits)
    return unique


def _same(word: str) -> Choice:
    if not word.strip().isdigit():
        raise InputError(f"got --bits {word!r}; expected numbers such as 4,8")
    return Choice(int(word), int(word))
