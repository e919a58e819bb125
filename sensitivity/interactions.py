"""Gathering the changes of the outputs that a forward metric left in the journal."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mpsearch.errors import InputError
from mpsearch.interactions.interactions import Interactions, gram_matrix
from mpsearch.losses.forms import Softmax
from mpsearch.losses.loss import PlainLoss
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.forward_metric import decode, piece
from mpsearch.sensitivity.perturbation import PERTURBATION
from mpsearch.sensitivity.study import Study

MOST_BYTES = 2**26  # of float16 changes; fewer samples are kept where all would take more


def kind_of(study: Study) -> str:
    """The loss as a file of interactions has it. Raises InputError for one that it cannot have."""
    loss, shape = study.loss, study.network.output_shape
    form = loss.form if isinstance(loss, PlainLoss) and loss.has_exact_hessian else None
    if form is not None and (len(shape) == 1 or not isinstance(form, Softmax)):
        return form.name
    raise InputError(
        f"interactions are kept of one output, for cross-entropy of a row of class logits, bce or "
        f"mse; this network returns {shape} with the loss {loss.name}: leave out --interactions"
    )


def samples_to_keep(study: Study) -> int:
    """How many samples' changes fit into 64 MB: all of them for small networks.

    Raises InputError for a loss of which none can be kept.
    """
    kind_of(study)
    per_sample = (
        2 * len(study.network.layers) * len(study.choices) * math.prod(study.network.output_shape)
    )
    return max(1, min(len(study.data), MOST_BYTES // per_sample))


def collect(
    study: Study, journal: Journal, step: Callable[[], None], model_digest: str | None = None
) -> Interactions:
    """The interactions of all cells on the first `study.keep_outputs` samples.

    What a forward metric has left in the journal is taken as it is; otherwise the metric
    `perturbation` is run for its passes.
    """
    layers = study.network.layers
    last = -(-study.keep_outputs // study.rows)
    pieces = [piece(batch, layer) for batch in range(last) for layer in layers]
    if any(journal.get(key) is None or "changes" not in journal.get(key) for key in pieces):
        PERTURBATION.score(replace(study, beside=()), journal, step)
    kept = study.keep_outputs
    width = math.prod(study.network.output_shape)
    changes = np.empty((len(layers) * len(study.choices), kept, width))
    for batch in range(last):
        rows = slice(batch * study.rows, min(kept, (batch + 1) * study.rows))
        for position, layer in enumerate(layers):
            for index, document in enumerate(journal.get(piece(batch, layer))["changes"]):
                changes[position * len(study.choices) + index, rows] = decode(document).reshape(
                    -1, width
                )
    scales = np.abs(changes).max(axis=(1, 2))
    scales = np.where(scales > 0, scales, 1.0)
    stored = (changes / scales[:, None, None]).astype(np.float16)
    logits, kind = _logits(study), kind_of(study)
    labels = study.data.labels
    return Interactions(
        layers=tuple(layer.name for layer in layers for _ in study.choices),
        choices=tuple(choice for _ in layers for choice in study.choices),
        logits=logits,
        changes=stored,
        scales=scales,
        gram=gram_matrix(logits, stored, scales, kind),
        labels=np.empty(0, np.int64) if labels is None else _flat(labels[:kept], kind),
        model_digest=model_digest or study.network.digest,
        data_digest=study.data.digest,
        loss=kind,
    )


def _logits(study: Study) -> np.ndarray:
    parts = []
    with torch.no_grad():
        for inputs, _ in study.batches():
            parts.append(study.network(*inputs).float().cpu().numpy())
            if sum(map(len, parts)) >= study.keep_outputs:
                break
    whole: np.ndarray = np.concatenate(parts)[: study.keep_outputs]
    return whole.reshape(len(whole), -1)


def _flat(labels: torch.Tensor, kind: str) -> np.ndarray:
    """Class numbers as they are, other targets as float64 [N, C]."""
    found: np.ndarray = labels.numpy()
    return found if kind == "cross-entropy" else found.reshape(len(found), -1).astype(np.float64)
