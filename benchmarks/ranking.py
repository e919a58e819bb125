"""Does a metric put assignments into the order of their measured accuracy?

    python benchmarks/ranking.py --networks resnet20,resnet8 -o ranking.json

Random assignments over 2, 3, 4 and 8 bits, weights only and weights with activations; every
installed metric's sum of Ω against loss and accuracy on samples that no metric has seen. What was
measured stays in --cache, so that a killed run goes on and new metrics need no new measurement.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from ranking_measuring import REGIMES, draw, measure, quantize_cells
from ranking_metrics import metric_names, predict, predict_together
from ranking_statistics import resamples
from ranking_subjects import SOURCES, Subject, load_subject
from ranking_tables import Ranking, ceilings, markdown, rank, summary, usable_accuracy

from mpsearch.commands.console import progress
from mpsearch.errors import InputError
from mpsearch.evaluation.measuring import evaluate
from mpsearch.files.whole import write_atomic
from mpsearch.losses.loss import loss_for
from mpsearch.models.features import cache_folder
from mpsearch.sensitivity.study import Study


@dataclass(frozen=True)
class Settings:
    """What a run may vary. `times` is how many bootstrap resamples are drawn."""

    cache: Path
    assignments: int = 200
    seed: int = 0
    times: int = 1000
    batch_size: int = 32
    rtol: float = 0.05
    max_probes: int = 256


def rank_metrics(
    subject: Subject, regime: str, metrics: Sequence[str], settings: Settings
) -> Ranking:
    """Measure the assignments of one regime and rank the metrics by them."""
    network, data = subject.network, subject.profiling
    choices = REGIMES[regime]
    study = Study(
        network=network,
        data=data,
        loss=loss_for(network, data.labels),
        choices=choices,
        batch_size=settings.batch_size,
        seed=settings.seed,
        rtol=settings.rtol,
        max_probes=settings.max_probes,
    )
    names = [layer.name for layer in network.layers]
    assignments = draw(names, choices, settings.assignments, settings.seed)
    title = f"{subject.name}, {regime}"
    with progress(f"{title}: quantize", len(names) * len(choices)) as step:
        cells = quantize_cells(study, step)
    checkpoint = settings.cache / f"{subject.name}-{regime}.jsonl"
    with progress(f"{title}: measure", len(assignments)) as step:
        measured = measure(study, subject.unseen, assignments, cells, checkpoint, step)
    predictions = []
    with progress(f"{title}: profile", len(metrics)) as step:
        for name in metrics:
            predictions.append(predict(name, study, assignments))
            step()
    predictions += predict_together(study, assignments)
    in_float = evaluate("FP32", network, subject.unseen).accuracy
    usable_from = usable_accuracy(in_float, network.output_shape[0])
    rows = resamples(len(assignments), settings.times, settings.seed)
    return Ranking(
        subject.name, regime, len(data), len(subject.unseen), in_float, usable_from, assignments,
        measured, predictions, rank(predictions, measured, rows, usable_from),
        rank(ceilings(measured), measured, rows, usable_from),
    )  # fmt: skip


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default=",".join(SOURCES), show_default=True)
@click.option("--metrics", help="Names with commas; every installed metric where not given.")
@click.option("--assignments", type=click.IntRange(min=2), default=200, show_default=True)
@click.option(
    "--samples", type=click.IntRange(min=1), default=256, show_default=True,
    help="Training samples to calibrate and to profile on.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the trained network and of what was measured; the user cache by default.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False), default="ranking.json")
def main(
    networks: str, metrics: str | None, assignments: int, samples: int, seed: int,
    cache: Path | None, output: str,
) -> None:  # fmt: skip
    """Print one Markdown table per network and regime and write everything raw as JSON."""
    folder = cache or cache_folder() / "ranking"
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(folder, assignments, seed)
    rankings = []
    try:
        wanted = metric_names(metrics)
        for name in networks.split(","):
            subject = load_subject(name, folder, samples, seed)
            for regime in REGIMES:
                rankings.append(rank_metrics(subject, regime, wanted, settings))
                click.echo(markdown(rankings[-1]))
                document = [ranking.to_json() for ranking in rankings]
                write_atomic(output, json.dumps(document, indent=1) + "\n")
        click.echo(summary(rankings))
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
