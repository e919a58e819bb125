"""How the choices of different layers act together: `profile.interactions.npz`.

For every cell (layer, choice) the file keeps u, the change that the cell alone makes to the outputs
f on a sample of data. With H the Hessian of the loss in the outputs,

    G_ab = ½ E[u_aᵀ H u_b]          the Gram matrix: CLADO's interactions without its passes
    xᵀ G x = ½ E[(Σ u)ᵀ H (Σ u)]    the quadratic form of an assignment x, with cross terms
    f + Σ u                         its outputs by superposition, hence its loss and accuracy

Nothing here needs torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsearch.errors import InputError
from mpsearch.files.archives import read_npz
from mpsearch.files.whole import atomic_path, like_file
from mpsearch.tables.choice import Choice

VERSION = 1
LOSSES = ("cross-entropy", "bce", "mse")


@dataclass(frozen=True, eq=False)
class Interactions:
    """What K cells, a layer at a choice each, do to C outputs of N samples, and to each other.

    H, the Hessian in the outputs, is that of `loss`.
    """

    layers: tuple[str, ...]
    """The layer of each cell [K]."""
    choices: tuple[Choice, ...]
    """The choice of each cell [K]."""
    logits: NDArray[np.float32]
    """The float network's outputs [N, C]."""
    changes: NDArray[np.float16]
    """What each cell changes in the outputs [K, N, C], float16, in units of `scales`."""
    scales: NDArray[np.float64]
    """The unit of each cell's changes [K]."""
    gram: NDArray[np.float64]
    """The quadratic form of every pair of cells [K, K], float64, positive semidefinite."""
    labels: NDArray[np.int64] | NDArray[np.float64]
    """int64 [N] classes, or for `bce` and `mse` float64 [N, C]; empty for data without labels."""
    model_digest: str
    """Of the float network."""
    loss: str = "cross-entropy"
    """`cross-entropy` of one row of class logits, or `bce` or `mse` of an output of any shape,
    flattened."""
    data_digest: str = ""
    """Of the samples; empty in files of older versions."""

    def cells(self, assignment: Mapping[str, Choice]) -> NDArray[np.int64]:
        """The cell of each layer. Raises InputError for a layer or choice that is not there."""
        position = {cell: k for k, cell in enumerate(zip(self.layers, self.choices, strict=True))}
        known = set(self.layers)
        for layer in known - set(assignment):
            raise InputError(
                f"there is no choice for layer {layer!r}, which the interactions have: they are of "
                "another network"
            )
        for layer, choice in assignment.items():
            if (layer, choice) not in position:
                what = f"layer {layer!r}" if layer not in known else f"{choice} for layer {layer!r}"
                way = "profile it again with that choice and --interactions"
                if choice.label:
                    way = "it is a format of another tool, which `mpsearch profile` does not have"
                raise InputError(f"the interactions have no {what}; {way}")
        return np.array([position[cell] for cell in assignment.items()], dtype=np.int64)


@dataclass(frozen=True)
class Prediction:
    """What is expected of an assignment on the stored sample."""

    additive: float
    """The sum of the layers' own quadratic forms."""
    quadratic: float
    """The same with the cross terms."""
    kl: float
    """The divergence of the superposed outputs from the float ones, mean over the samples."""
    loss: float | None
    """The mean loss of the superposed outputs; None without labels."""
    accuracy: float | None
    """The share of right answers of the superposed outputs, 0 to 1; None without labels."""
    float_loss: float | None
    """The float network's; None without labels."""
    float_accuracy: float | None
    """The float network's, 0 to 1; None without labels."""
    samples: int
    """How many samples are stored."""


def predict(interactions: Interactions, assignment: Mapping[str, Choice]) -> Prediction:
    """Predict an assignment from the stored changes: no pass through the network."""
    chosen = interactions.cells(assignment)
    gram = interactions.gram[np.ix_(chosen, chosen)]
    logits = interactions.logits.astype(np.float64)
    weighted = interactions.changes[chosen].astype(np.float64)
    outputs = logits + np.tensordot(interactions.scales[chosen], weighted, axes=1)
    loss, labels = interactions.loss, interactions.labels
    known = len(labels) > 0
    return Prediction(
        additive=float(np.trace(gram)),
        quadratic=float(gram.sum()),
        kl=_divergence(loss, logits, outputs),
        loss=_loss(loss, outputs, labels) if known else None,
        accuracy=_accuracy(loss, outputs, labels) if known else None,
        float_loss=_loss(loss, logits, labels) if known else None,
        float_accuracy=_accuracy(loss, logits, labels) if known else None,
        samples=len(logits),
    )


def _divergence(loss: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    if loss == "mse":
        return float(((after - before) ** 2).mean())
    if loss == "bce":
        p = np.exp(-np.logaddexp(0, -before))
        return float(
            (p * (before - after) + np.logaddexp(0, after) - np.logaddexp(0, before)).mean()
        )
    first, second = _log_softmax(before), _log_softmax(after)
    return float((np.exp(first) * (first - second)).sum(axis=1).mean())


def _loss(loss: str, outputs: NDArray[np.float64], labels: NDArray[Any]) -> float:
    if loss == "mse":
        return float(((outputs - labels) ** 2).mean())
    if loss == "bce":
        return float((np.logaddexp(0, outputs) - labels * outputs).mean())
    return float(-_log_softmax(outputs)[np.arange(len(labels)), labels].mean())


def _accuracy(loss: str, outputs: NDArray[np.float64], labels: NDArray[Any]) -> float | None:
    if loss == "mse":
        return None
    if loss == "bce":
        return float(((outputs > 0) == (labels > 0.5)).mean())
    return float((outputs.argmax(axis=1) == labels).mean())


def gram_matrix(
    logits: NDArray[np.float32],
    changes: NDArray[np.float16],
    scales: NDArray[np.float64],
    loss: str = "cross-entropy",
) -> NDArray[np.float64]:
    """G [K, K] for logits [N, C] and changes [K, N, C] times scales [K].

    G = V Vᵀ/(2N) with v·v' = uᵀ H u'. Of cross-entropy uᵀ H u' is the covariance of u and u' under
    p, so v = √p ∘ (u − pᵀu); of bce v = √(p (1 − p)/C) ∘ u, of mse v = √(2/C) u.
    """
    z, p = logits.astype(np.float64), np.zeros(1)  # no mean is taken off where p is zero
    if loss == "mse":
        root = np.full(z.shape, np.sqrt(2 / z.shape[1]))
    elif loss == "bce":
        root = np.exp(-(np.logaddexp(0, -z) + np.logaddexp(0, z)) / 2) / np.sqrt(z.shape[1])
    else:
        p = np.exp(_log_softmax(z))
        root = np.sqrt(p)
    rows = np.empty((len(changes), logits.size), dtype=np.float64)
    for k, (change, scale) in enumerate(zip(changes, scales, strict=True)):
        u = change.astype(np.float64) * scale
        rows[k] = (root * (u - (p * u).sum(axis=1, keepdims=True))).reshape(-1)
    return rows @ rows.T / (2 * len(logits))


def interactions_path(table: str | os.PathLike[str]) -> Path:
    """`profile.csv` -> `profile.interactions.npz`."""
    return Path(table).with_suffix(".interactions.npz")


def save_interactions(interactions: Interactions, path: str | os.PathLike[str]) -> None:
    """Write the file in one step."""
    own: dict[str, Any] = {}  # files of classifiers stay as they always were
    if interactions.loss != "cross-entropy":
        own["loss"] = np.array(interactions.loss)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            version=np.array(VERSION),
            layers=np.array(interactions.layers),
            choices=np.array([str(choice) for choice in interactions.choices]),
            logits=interactions.logits,
            changes=interactions.changes,
            scales=interactions.scales,
            gram=interactions.gram,
            labels=interactions.labels,
            model_digest=np.array(interactions.model_digest),
            data_digest=np.array(interactions.data_digest),
            **own,
        )


def load_interactions(path: str | os.PathLike[str]) -> Interactions:
    """Read the file. Raises InputError when it is missing, damaged or of another version."""
    try:
        arrays = read_npz(path, kinds="fiubU")
        return _from_arrays(arrays)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; make it with `mpsearch profile MODEL --interactions`"
            f"{like_file(path)}"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: not a file of interactions: {error}") from None


_KINDS = {
    "version": "iu", "layers": "U", "choices": "U", "logits": "f", "changes": "f", "scales": "f",
    "gram": "f", "labels": "fiub", "model_digest": "U",
}  # fmt: skip


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Interactions:
    """Raises ValueError, InputError for a choice, where the arrays are others."""
    for name, kinds in _KINDS.items():
        if name not in arrays:
            raise ValueError(f"it has no array {name}")
        if arrays[name].dtype.kind not in kinds:
            raise ValueError(f"its array {name} has type {arrays[name].dtype}")
    if arrays["version"].shape != () or int(arrays["version"]) != VERSION:
        raise ValueError(f"version {str(arrays['version'])[:20]}, expected {VERSION}")
    layers, choices, labels = arrays["layers"], arrays["choices"], arrays["labels"]
    logits, changes, scales, gram = (
        arrays[name] for name in ("logits", "changes", "scales", "gram")
    )
    loss = str(arrays["loss"]) if "loss" in arrays else "cross-entropy"
    count = layers.size
    if (
        logits.ndim != 2
        or not logits.size
        or not labels.ndim
        or layers.shape != (count,)
        or choices.shape != (count,)
        or scales.shape != (count,)
        or changes.shape != (count, *logits.shape)
        or gram.shape != (count, count)
        or loss not in LOSSES
        or (len(labels) and labels.shape != logits.shape[: 1 if loss == "cross-entropy" else 2])
    ):
        raise ValueError("damaged: its arrays do not belong together")
    if (
        loss == "cross-entropy"
        and len(labels)
        and not (labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < logits.shape[1])
    ):
        raise ValueError("damaged: its labels are no classes of its logits")
    if not all(np.isfinite(one).all() for one in (logits, changes, scales, gram)):
        raise ValueError("damaged: it holds numbers that are not finite")
    return Interactions(
        layers=tuple(layers.tolist()),
        choices=tuple(Choice.parse(text) for text in choices.tolist()),
        logits=logits,
        changes=changes,
        scales=scales,
        gram=gram,
        labels=labels,
        model_digest=str(arrays["model_digest"]),
        loss=loss,
        data_digest=str(arrays["data_digest"]) if "data_digest" in arrays else "",
    )


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
