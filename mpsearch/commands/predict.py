"""`mpsearch predict`."""

import dataclasses

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.renamed import Renamed


@click.command()
@click.argument("assignments", nargs=-1)
@click.option(
    "--interactions-file", "interactions", cls=Renamed, old=["--interactions"],
    default="profile.interactions.npz", show_default=True, metavar="FILE",
    help="Written by `mpsearch profile MODEL --interactions`.",
)  # fmt: skip
@json_option
def predict(assignments: tuple[str, ...], interactions: str, as_json: bool) -> None:
    """Predict loss and accuracy of ASSIGNMENTs without running the network.

    Needs `mpsearch profile MODEL --interactions`, which keeps the changes that every layer alone
    makes to the outputs. They are superposed here; the quadratic form with cross terms is given
    beside the additive one. Accuracies are those of the stored sample, which the profile has seen:
    compare assignments by them, and measure with `mpsearch evaluate`.

    \b
    Example:
      mpsearch predict assignment.json other.json
    """
    from mpsearch.interactions.interactions import load_interactions
    from mpsearch.interactions.interactions import predict as predict_one
    from mpsearch.tables.assignment import Assignment
    from mpsearch.tables.provenance import Judged, check_weights

    stored = load_interactions(interactions)
    names = assignments or ("assignment.json",)
    chosen = {name: Assignment.load(name) for name in names}
    for name, one in chosen.items():
        if one.model_digest is not None:
            check_weights(
                stored.model_digest, interactions, Judged({name: one.model_digest}),
                "name the interactions of that network with --interactions-file, or profile it "
                "again",
            )  # fmt: skip
    found = {name: predict_one(stored, one.layers) for name, one in chosen.items()}
    if as_json:
        print_json({name: dataclasses.asdict(prediction) for name, prediction in found.items()})
        return
    rows = []
    for name, p in found.items():
        accuracy = "" if p.accuracy is None else f"{100 * p.accuracy:.2f}"
        loss = "" if p.loss is None else f"{p.loss:.4f}"
        rows.append([name, accuracy, loss, f"{p.kl:.3g}", f"{p.quadratic:.3g}",
                     f"{p.additive:.3g}"])  # fmt: skip
    columns = ["assignment", "accuracy %", "loss", "KL", "Ω with cross terms", "Ω added"]
    print_table(columns, rows, least=["loss"])
    any_of_them = next(iter(found.values()))
    before = any_of_them.float_accuracy
    echo(
        f"predicted by superposition on the {any_of_them.samples} samples of {interactions}"
        + ("" if before is None else f"; FP32 has {100 * before:.2f} % there")
    )
