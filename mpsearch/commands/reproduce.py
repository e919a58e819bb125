"""`mpsearch reproduce`."""

import os
from dataclasses import replace
from pathlib import Path

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.renamed import Renamed
from mpsearch.errors import InputError


@click.command()
@click.argument("case", type=click.Choice(["battlefield", "covid"]))
@click.option("--data", metavar="D", help="A named dataset or a folder made by `mpsearch data`.")
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    help="Seeds, or folds of cough-speech [default: 3 seeds, 5 folds].",
)
@click.option("--run", "only", type=click.IntRange(min=0), help="Measure this run alone.")
@click.option("--epochs", type=click.IntRange(min=1), help="[default: 30; covid 12]")
@click.option("--finetune-epochs", type=click.IntRange(min=1), help="[default: 8; covid 4]")
@click.option(
    "--fp32", "models", cls=Renamed, old=["--model"], multiple=True, metavar="MODEL",
    help="Load the float model, once for each run.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FOLDER", help="[default: reproduction-CASE]")
@json_option
def reproduce(
    case: str,
    data: str | None,
    runs: int | None,
    only: int | None,
    epochs: int | None,
    finetune_epochs: int | None,
    models: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    """Repeat TinyM²Net's accuracy table: FP32, W8A8, mixed and W4A4, rounded and fine-tuned.

    Every run trains the paper's network and its single inputs, profiles it, solves at the paper's
    relative budget (66.1 % or 67.1 % of the uniform 8-bit size) and at 52 %, quantizes, fine-tunes
    and measures on the test split. What a killed call has measured is kept. Where the data have
    no folds, runs differ by their seed.

    \b
    Examples:
      mpsearch reproduce battlefield
      mpsearch reproduce covid --runs 5 -o covid
      mpsearch reproduce battlefield --data mydata/ --fp32 fp32.pt --runs 1
    """
    from mpsearch.commands.console import progress
    from mpsearch.commands.train import dataset_for
    from mpsearch.files.whole import write_atomic
    from mpsearch.reproduction.published import CASES
    from mpsearch.reproduction.run import Experiment, Recipe, identity, run
    from mpsearch.reproduction.run_store import RunStore
    from mpsearch.reproduction.table import HEADER, markdown, notes, table

    reference = data or CASES[case].dataset
    chosen = CASES[case]
    if reference != chosen.dataset:
        chosen = replace(chosen, folds=False, substitute=None)
    folds = chosen.folds
    count = runs or len(models) or (5 if folds else 3)
    if models and len(models) != count:
        raise InputError(f"got {len(models)} --fp32 for {count} runs; expected one for each run")
    if only is not None and only >= count:
        raise InputError(f"got --run {only}; the runs are 0 to {count - 1}")
    if folds and count > 5:
        raise InputError(f"got --runs {count}; {reference} has 5 folds")
    folder = Path(output or f"reproduction-{case}")
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(epochs or chosen.epochs, finetune_epochs or chosen.finetune_epochs, models)
    stores = []
    for number in range(count) if only is None else (only,):
        dataset = dataset_for(chosen.network, reference, number if folds else None)
        its = identity(chosen, dataset, recipe, number)
        store = RunStore.open(folder / f"run-{number}", its)
        run(Experiment(chosen, dataset, number, recipe, store, progress))
        stores.append(store)
        if not as_json:
            echo(f"run {number} of {count} is done: {os.path.join(store.folder, 'run.json')}")
    document = [dict(zip(HEADER, row, strict=True)) for row in table(chosen, stores)]
    if only is None:
        write_atomic(folder / "table.md", markdown(chosen, stores))
    if as_json:
        print_json({"case": case, "data": reference, "runs": len(stores), "rows": document})
        return
    print_table(HEADER, table(chosen, stores), least=["file KB"])
    for note in notes(chosen, stores):
        echo(note)
    if only is None:
        echo(f"wrote {folder / 'table.md'}")
