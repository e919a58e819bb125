"""`mpsearch demo`."""

import os
import shlex
import time
from pathlib import Path

import click

from mpsearch.commands.console import echo


@click.command()
@click.argument("folder", default="demo")
@click.option("--data", metavar="NAME", help="A dataset [default: image-audio if it is there].")
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.pass_context
def demo(ctx: click.Context, folder: str, data: str | None, epochs: int, seed: int) -> None:
    """Run the whole loop on TinyM²Net in FOLDER, command by command.

    Trains the bundled two-modality network, then `mpsearch run`: its bits for 38 % of its uniform
    8-bit size (the TinyM²Net paper has 66 %), measured beside FP32, W8A8 and W3A8 on unseen
    samples, the front and a report. The data are generated unless MPSEARCH_DATA names real ones.

    \b
    Example:
      mpsearch demo
      mpsearch demo runs/generated --data generated-battlefield
    """
    from mpsearch.models.datasets import why_unavailable

    started = time.monotonic()
    if data is None:
        real = why_unavailable("image-audio") is None
        data = "image-audio" if real else "generated-battlefield"
    Path(folder).mkdir(parents=True, exist_ok=True)
    echo(f"working in {folder}")
    if data.startswith("generated"):
        echo(
            "the data are GENERATED (rendered images, synthesised sounds): they show how the tool "
            "works and say nothing about real scenes"
        )
    model = os.path.join(folder, "model.pt")
    train = f"train tinym2net-battlefield --data {data} --epochs {epochs} --lr 2e-3 --seed {seed}"
    _run(ctx, [*train.split(), "-o", model])
    _run(ctx, ["run", model, "--size", "38%", "--test", f"{data}:test", "-o", folder])
    echo(f"done in {time.monotonic() - started:.0f} s")


def _run(ctx: click.Context, words: list[str]) -> None:
    """Show the command as a user would type it, and run it."""
    echo("", f"$ {shlex.join(['mpsearch', *words])}", bold=True)
    group = ctx.find_root().command
    result = group.main(words, prog_name="mpsearch", standalone_mode=False)
    if isinstance(result, int) and result != 0:
        raise click.exceptions.Exit(result)
