"""What does a scale for every few weights cost, and what does it win?

    MPSEARCH_DATA=… python benchmarks/groups.py --networks resnet20,ds-cnn -o groups.json

First every choice in all layers: its size, its Ω (`sqnr`), and the points of accuracy lost against
FP32 on unseen samples, with weights rounded to the nearest code and with the defaults. Then the
least Ω at equal bytes, with and without groups among the choices. What was measured is kept in the
output file, so that a killed run goes on.
"""

import json
from pathlib import Path
from typing import Any

import click
from equal_bytes import Yardstick, load

from mpsearch.files.whole import write_atomic
from mpsearch.models.features import cache_folder
from mpsearch.post_training.repairing import PLAIN, PostTraining
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import LayerTable

CHOICES = "w2a8,w2g32a8,w3a8,w3g32a8,w4a8,w4g64a8,w4g32a8,w4g16a8,w8a8"
SHARES = (31, 38, 44, 50, 66)  # percent of the bytes with w8a8


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default="resnet20,ds-cnn", show_default=True)
@click.option("--choices", default=CHOICES, show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False), default="groups.json")
def main(networks: str, choices: str, output: str) -> None:
    """Print two Markdown tables per network and write what was measured as JSON."""
    folder = cache_folder() / "ranking"
    folder.mkdir(parents=True, exist_ok=True)
    stored = Path(output)
    document: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    parsed = tuple(map(Choice.parse, choices.split(",")))
    for name in networks.split(","):
        known = document.setdefault(name, {})
        stick = load(name, folder, known)
        table = stick.table("sqnr", parsed, PostTraining())
        click.echo(f"\n{name}: FP32 {known['fp32']:.1f} % of {known['n']}\n")
        click.echo("| choice | bits per weight | KB | Ω | lost, nearest | lost, default |")
        click.echo("|---|---|---|---|---|---|")
        for choice in parsed:
            click.echo(f"| {' | '.join(_uniform(stick, table, choice))} |")
            write_atomic(output, json.dumps(document, indent=2) + "\n")
        click.echo("\n| bytes of w8a8 | Ω without groups | Ω with | layers with groups |")
        click.echo("|---|---|---|---|")
        for share in SHARES:
            click.echo(f"| {' | '.join(_mixed(stick, table, share))} |")


def _uniform(stick: Yardstick, table: LayerTable, choice: Choice) -> list[str]:
    everywhere = {layer.name: choice for layer in stick.network.layers}
    size = table.total(everywhere, "size_bytes")
    weights = sum(layer.weights for layer in stick.network.layers)
    cells = [str(choice), f"{8 * size / weights:.2f}", f"{size / 1024:.1f}"]
    cells.append(f"{table.total(everywhere, 'omega'):.3g}")
    for settings in (PLAIN, PostTraining()):
        row = stick.measured(everywhere, settings)
        low, high = row["interval"]
        cells.append(f"{row['lost']:+.1f} [{low:+.1f}, {high:+.1f}]")
    return cells


def _mixed(stick: Yardstick, table: LayerTable, share: int) -> list[str]:
    budget = Budget.parse(table, size=f"{share * stick.bytes_at(8) // 100}B")
    grouped = [choice for choice in table.choices if choice.group_size]
    without = solve(table, budget, exclude={"": grouped})
    answer = solve(table, budget)
    many = sum(bool(choice.group_size) for choice in answer.choices.values())
    return [
        f"{share} %", *(f"{one.omega:.3g}" if one.choices else "-" for one in (without, answer)),
        f"{many} of {len(table.layers)}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
