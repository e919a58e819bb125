"""What a measurement is of: digests of weights, bits and data, kept beside every figure.

Whoever measures writes an `Origin`; whoever uses the figures compares it with the network that the
figures are used for. Weights are the digest of the float network (`Network.digest`), which
profile.json and assignment.json hold too: a network that was fine-tuned or repaired has that of the
float network which it came from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.json_form import anything, by_name, null_or, text
from mpsearch.files.writing import digest
from mpsearch.tables.choice import Choice

SHOWN = 3  # layers that a message names
ORIGIN = {  # what `origin_to_json` adds to a row
    **dict.fromkeys(("model_digest?", "data_digest?", "quantized_digest?"), null_or(text)),
    "assignment_digest?": null_or(text),
    "layers?": null_or(by_name(text)),
    "post_training?": null_or(by_name(anything)),
}


@dataclass(frozen=True)
class Origin:
    """What was measured, by digests; None: not known.

    model: operators and weights of the float network. layers: the bits; None for the float network
    itself. data: the samples, in their order. quantized: the integers that ran, where they were
    read from a file. post_training: the settings of `PostTraining` that they were made with.
    """

    model: str | None = None
    layers: Mapping[str, Choice] | None = None
    data: str | None = None
    quantized: str | None = None
    post_training: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Judged:
    """The network that figures are used for.

    models: who says which weights it has -> their digest: {"the assignment": "sha256:…"}; empty
    where nobody does. layers: its bits; None where they are not asked about.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, Choice] | None = None


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """The keys of a row of evaluation.json; none where nothing is known."""
    document: dict[str, Any] = {
        "model_digest": origin.model,
        "data_digest": origin.data,
        "quantized_digest": origin.quantized,
        "post_training": None if origin.post_training is None else dict(origin.post_training),
    }
    if origin.layers is not None:
        document["assignment_digest"] = network_digest(origin.layers)
        document["layers"] = {name: str(choice) for name, choice in origin.layers.items()}
    return {key: value for key, value in document.items() if value is not None}


def origin_from_json(row: Mapping[str, Any]) -> Origin:
    """Read these keys of a row that has the form ORIGIN. Raises ValueError for layers that are not
    those of their digest."""
    layers = None
    if row.get("layers") is not None:
        try:
            layers = {name: Choice.parse(bits) for name, bits in row["layers"].items()}
        except InputError:
            raise ValueError("its layers have no bits such as w8a8") from None
        if row.get("assignment_digest") != network_digest(layers):
            raise ValueError("its layers are not those of its assignment_digest")
    return Origin(
        row.get("model_digest"), layers, row.get("data_digest"), row.get("quantized_digest"),
        row.get("post_training"),
    )  # fmt: skip


def check_weights(digest: str | None, what: str, judged: Judged, remedy: str) -> None:
    """Raise InputError where `what` is of other weights than the network judged."""
    for who, expected in judged.models.items():
        if digest is not None and digest != expected:
            raise InputError(
                f"{what} is of other weights than {who}: {digest[:19]}, there {expected[:19]}",
                remedy,
            )


def check_bits(layers: Mapping[str, Choice] | None, what: str, judged: Judged, remedy: str) -> None:
    """Raise InputError, which names the layers, where `what` is of other bits."""
    wanted = judged.layers
    if wanted is None or layers == wanted:
        return
    if layers is None:
        raise InputError(f"{what} is of the float network, not of the assignment", remedy)
    if set(layers) != set(wanted):
        names = _listed(sorted(set(layers) ^ set(wanted)))
        raise InputError(
            f"{what} is of another network than the assignment: only one of them has the layers "
            f"{names}",
            remedy,
        )
    names = _listed([
        f"{name} ({layers[name]}, in the assignment {choice})"
        for name, choice in wanted.items() if layers[name] != choice
    ])  # fmt: skip
    raise InputError(f"{what} is of other bits than the assignment: layers {names}", remedy)


def check_tied(tied: bool, what: str, remedy: str, unverified: bool) -> None:
    """Raise InputError for figures that do not say what they are of, unless that is accepted."""
    if not tied and not unverified:
        raise InputError(
            f"{what} is not tied to a network: it does not say which weights, bits and data it is "
            "of (older versions wrote no digests)",
            f"{remedy}, or accept it with --unverified",
        )


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def network_digest(choices: Mapping[str, Choice]) -> str:
    """Ties a profile to an assignment: digest of `NAME=w4a8` of all layers, sorted by name."""
    return digest(*(f"{name}={choices[name]}" for name in sorted(choices)))
