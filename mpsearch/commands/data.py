"""`mpsearch data`: datasets from your own files, and whether they leak."""

from typing import TYPE_CHECKING

import click

from mpsearch.commands.console import echo, json_option, print_json, print_table
from mpsearch.commands.suggesting import Commands
from mpsearch.errors import InputError

if TYPE_CHECKING:
    from mpsearch.models.dataset_building import Built
    from mpsearch.models.samples import Dataset

SHOWN = 20  # skipped files and leaks that are printed; dataset.json and --json hold all


@click.group(cls=Commands)
def data() -> None:
    """Make datasets from your own sounds, pictures and videos, and check them.

    \b
    Examples:
      mpsearch data build data.toml -o mydata
      mpsearch data check mydata
      mpsearch train tinym2net-battlefield --data mydata
    """


@data.command()
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("-o", "--output", required=True, help="The folder to write.")
@click.option("--strict", is_flag=True, help="A file that cannot be used is an error (exit 2).")
@json_option
def build(config: str, output: str, strict: bool, as_json: bool) -> int:
    """Make the dataset that CONFIG, a TOML file, describes; docs/data.md says how to write it.

    The folder gets train.npz, val.npz and test.npz, samples.csv (where every sample comes from) and
    dataset.json. Files that cannot be used are skipped and listed. Exit code 1 when something is in
    two splits. An interrupted build goes on where it was: computed features are cached.

    \b
    Example:
      mpsearch data build data.toml -o mydata
    """
    from mpsearch.commands.console import progress
    from mpsearch.models.dataset_building import build_dataset, file_count, list_clips
    from mpsearch.models.dataset_config import read_config
    from mpsearch.models.datasets import check_target, write_folder

    wanted = read_config(config)
    check_target(output)
    listings = list_clips(wanted)
    with progress(f"reading {wanted.name}", file_count(listings)) as step:
        built = build_dataset(wanted, listings, step)
    if strict and built.skipped:
        _print_list("skipped", [f"{skip.file}: {skip.reason}" for skip in built.skipped], err=True)
        raise InputError(
            f"{len(built.skipped)} files cannot be used; expected none with --strict, "
            "nothing was written"
        )
    dataset = write_folder(output, built.dataset, built.sources, built.description)
    if as_json:
        print_json(_document(dataset, built, output))
    else:
        _print_built(dataset, built, output)
    return 1 if built.leaks else 0


@data.command()
@click.argument("folder", type=click.Path(file_okay=False))
@json_option
def check(folder: str, as_json: bool) -> int:
    """Look for what is in two splits: participants, recordings, exact duplicates.

    FOLDER was made by `mpsearch data build`, or holds train.npz, val.npz and test.npz from
    elsewhere, in which only equal arrays can be found. Exit code 1 and a list when there is a leak.

    \b
    Example:
      mpsearch data check mydata
    """
    from mpsearch.models.datasets import check_folder

    found = check_folder(folder)
    if as_json:
        print_json({"folder": folder, "leaks": [vars(leak) for leak in found]})
    elif found:
        _print_list("leaks", [str(leak) for leak in found])
    else:
        echo(f"{folder}: nothing is in two splits")
    return 1 if found else 0


def _print_built(dataset: "Dataset", built: "Built", output: str) -> None:
    import numpy as np

    kind = "GENERATED data" if dataset.generated else "data"
    echo(f"{dataset.name} ({kind}: {dataset.source})")
    counts = {
        name: np.bincount(split.labels, minlength=len(dataset.classes)).tolist()
        for name, split in dataset.splits.items()
    }
    print_table(
        ("class", *counts),
        [
            *(
                (label, *(str(its[index]) for its in counts.values()))
                for index, label in enumerate(dataset.classes)
            ),
            ("all", *(str(sum(its)) for its in counts.values())),
        ],
    )
    first = next(iter(dataset.splits.values()))
    for index, (name, x) in enumerate(zip(dataset.input_names, first.inputs, strict=True)):
        echo(f"x{index} {name}: {'x'.join(map(str, x.shape[1:]))}")
    for note in built.notes:
        echo(f"note: {note}")
    _print_list("skipped", [f"{skip.file}: {skip.reason}" for skip in built.skipped])
    _print_list("leaks", [str(leak) for leak in built.leaks])
    echo(f"wrote {output}")


def _print_list(title: str, lines: list[str], err: bool = False) -> None:
    if not lines:
        return
    echo(f"{title}: {len(lines)}", err=err)
    for line in lines[:SHOWN]:
        echo(f"  {line}", err=err)
    if len(lines) > SHOWN:
        echo(f"  … and {len(lines) - SHOWN} more (--json lists all)", err=err)


def _document(dataset: "Dataset", built: "Built", output: str) -> dict[str, object]:
    return {
        "output": output,
        "name": dataset.name,
        "generated": dataset.generated,
        "classes": list(dataset.classes),
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "digest": dataset.digest,
        **built.description,
    }
