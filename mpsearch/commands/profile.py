"""`mpsearch profile`."""

import math
import resource
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from mpsearch.commands.console import (
    echo,
    echo_next,
    json_option,
    print_json,
    print_table,
    progress,
)
from mpsearch.commands.loading import load_model_and_data
from mpsearch.commands.options import ModelOptions, device_option, loss_option, model_options
from mpsearch.errors import InputError
from mpsearch.tables.stored_widths import FORMATS, choices_for

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.graph.network import Network
    from mpsearch.profiling.profile import ProfileSettings
    from mpsearch.tables.table import LayerTable


@click.command()
@click.argument("path", metavar="MODEL")
@click.option(
    "--data", metavar="D", help="Samples: .npz, .safetensors, module:function or a dataset."
)
@click.option("--metric", default="sqnr", show_default=True, help="Ω: see `mpsearch metrics`.")
@click.option("--bits", metavar="4,8", help="Same bits for weights and activations: w4a4, w8a8.")
@click.option(
    "--choices", metavar="w4a8,…",
    help="The choices one by one, w4g32a8 with a scale for every 32 weights [default: w2a8, w3a8, "
    "w4a4, w4a8, w8a8].",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(sorted(FORMATS)),
    help="Or those of the default choices that this file format stores as they are.",
)  # fmt: skip
@loss_option
@click.option("--samples", type=click.IntRange(1), default=256, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--rtol", type=float, default=0.05, show_default=True,
    help="Standard error wanted of each estimated Ω, relative to max(it, the layers' mean).",
)  # fmt: skip
@click.option(
    "--max-probes", type=int, default=256, show_default=True,
    help="Random probes per layer at most, where a Hessian trace has to be estimated.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--group-residual", is_flag=True, help="Layers that meet in one addition share their bits."
)
@click.option(
    "--interactions", is_flag=True,
    help="Also keep how layers act together, for `predict` and `solve --rerank`.",
)  # fmt: skip
@click.option(
    "--rounding", type=click.Choice(["nearest", "adaptive"]), default="adaptive",
    show_default=True, help="Of the layers whose outputs are measured, as in `mpsearch apply`.",
)  # fmt: skip
@click.option("--no-bias-correction", is_flag=True, help="Leave the mean shift of these layers in.")
@click.option(
    "--dry-run", is_flag=True, help="Say what time and memory it will take, and write nothing."
)
@device_option
@click.option("--memory", default="512MB", show_default=True, help="For intermediate values.")
@click.option("-o", "--output", default="profile.csv", show_default=True)
@model_options
@json_option
def profile(
    path: str,
    data: str | None,
    metric: str,
    bits: str | None,
    choices: str | None,
    form: str | None,
    loss: tuple[str, ...],
    samples: int,
    batch_size: int,
    rtol: float,
    max_probes: int,
    seed: int,
    group_residual: bool,
    interactions: bool,
    rounding: Any,
    no_bias_correction: bool,
    dry_run: bool,
    device: str,
    memory: str,
    output: str,
    as_json: bool,
    model: ModelOptions,
) -> None:
    """Measure how sensitive each layer of MODEL is to each choice of bits.

    Writes a table of size, BOPS and Ω per layer and choice (profile.csv) and where the numbers come
    from (profile.json). An mpsearch file carries its own sample of data; other files need --data.
    At its end it says what each export will make of MODEL, as `mpsearch check` does at once.
    --dry-run tries a small part of it, a few layers or passes, and tells what all will take.

    \b
    Example:
      mpsearch profile model.pt
      mpsearch profile model.pt --metric hessian --bits 2,3,4,8 -o hessian.csv
      mpsearch profile model.pt --interactions
      mpsearch profile autoencoder.pt --loss reconstruction -o coder.csv
      mpsearch profile a.safetensors --architecture resnet20 --data cifar10:train
    """
    from mpsearch.commands.check import target_lines
    from mpsearch.exporters.checking import check
    from mpsearch.post_training.words import usual_ranges
    from mpsearch.profiling.float_text import HEADER, float_rows, float_sentence
    from mpsearch.profiling.profile import ProfileSettings, parse_choices
    from mpsearch.profiling.profile import profile as run_profile
    from mpsearch.running.workers import is_first
    from mpsearch.tables.provenance import provenance_path
    from mpsearch.tables.units import format_size, parse_bytes

    parsed = parse_choices(bits, choices)
    if form is not None and (bits or choices):
        raise InputError("got --format beside --bits or --choices; expected one of them")
    loaded, bound = load_model_and_data(model.source(path), data, "profiling", loss)
    if form is not None:
        parsed = choices_for(form, (layer.kind for layer in loaded.network.layers), parsed)
    settings = ProfileSettings(
        metric=metric,
        choices=parsed,
        samples=samples,
        batch_size=batch_size,
        seed=seed,
        rtol=rtol,
        max_probes=max_probes,
        group_residual=group_residual,
        memory_limit=parse_bytes(memory),
        interactions=interactions,
        rounding=rounding,
        correct_bias=not no_bias_correction,
        ranges=usual_ranges(rounding, not no_bias_correction),
    )
    started = time.monotonic()
    targets = check(loaded.network, bound) if is_first() else {}
    if dry_run:
        checked = time.monotonic() - started
        _predict(path, loaded.network, bound, settings, device, checked, as_json)
        return
    exports = {name: found.to_json() for name, found in targets.items()}
    table = run_profile(loaded.network, bound, output, settings, progress, device, exports, path)
    provenance = table.provenance
    if not is_first():
        return
    peak = peak_bytes(device)
    if as_json:
        print_json({"table": output, "peak_memory_bytes": peak, "provenance": provenance})
        return
    print_table(
        ["layer", "kind", "weights", "MACs", *(f"Ω {choice}" for choice in parsed)],
        [
            [
                layer.name, layer.kind, f"{layer.weights:,}", f"{layer.macs:,}",
                *(f"{table.omega[table.row_of(layer.name, choice)]:.3g}" for choice in parsed),
            ]
            for layer in table.layers
        ],
        least=["MACs", "weights", "kind"],
    )  # fmt: skip
    in_float = float_rows(provenance["float_operators"])
    if in_float:
        print_table(HEADER, in_float)
    if sentence := float_sentence(provenance["float_operators"]):
        echo(sentence)
    used = f"{provenance['samples']} samples of {provenance['data']}"
    echo(f"{metric} on {used}, loss {provenance['loss']}")
    if not provenance["labels"]:
        echo("no labels: the loss is the divergence from the network's own predictions")
    if provenance["heads_taken_off"]:
        heads = ", ".join(provenance["heads_taken_off"])
        echo(f"the network ends in {heads}, which the loss has too: it is taken off for it")
    if provenance["left_out_outputs"]:
        names = ", ".join(provenance["left_out_outputs"])
        echo(f"outputs that are whole numbers or flags are left out: {names}")
    if provenance["layers_without_effect"]:
        names = ", ".join(provenance["layers_without_effect"])
        echo(f"no choice of these layers changes the outputs (Ω = 0): {names}")
    few = provenance["metric_notes"].get("fewer_positions_than_inputs", {})
    if few:
        name, count = next(iter(few.items()))
        rest = f" and of {len(few) - 1} more layers" if len(few) > 1 else ""
        echo(
            f"{count:,} positions of {name}{rest} are fewer than its inputs: rounding is damped "
            "where they show nothing; more --samples help"
        )
    echo("what each export makes of it, with 8 bits in every layer:", *target_lines(targets))
    echo(f"peak memory {format_size(peak)}")
    echo(f"wrote {output} and {provenance_path(output)}")
    echo_next(next_command(table, output, form))


def _predict(
    path: str,
    network: "Network",
    data: "Data",
    settings: "ProfileSettings",
    device: str,
    checked: float,
    as_json: bool,
) -> None:
    """Say what the profile will take; `checked`: seconds that `check` took, whose lowering to
    integers the profile repeats once for what `solve --ram` needs."""
    from mpsearch.profiling.prediction import predict
    from mpsearch.profiling.profile import study_of

    started = time.monotonic()
    profiler, study = study_of(network, data, settings, device)
    found = predict(profiler, study)
    tried = checked + time.monotonic() - started
    seconds = found.seconds + 2 * checked
    memory = peak_bytes(device) + found.more_bytes
    if as_json:
        print_json({"seconds": seconds, "at_most": found.at_most, "peak_memory_bytes": memory,
                    "tried": found.tried, "of": found.of, "tried_seconds": tried})  # fmt: skip
        return
    about = "at most about" if found.at_most else "about"
    echo(
        f"profiling {path} with {settings.metric} takes {about} {_duration(seconds)} and "
        f"{memory / 2**20:,.0f} MB of memory here",
        f"(from {found.tried} of {found.of} {found.unit}, tried in {tried:.1f} s; nothing was "
        "written)",
    )


def _duration(seconds: float) -> str:
    """`8 s`, `3 min`, `2.5 h`."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def next_command(table: "LayerTable", path: str, form: str | None = None) -> str:
    """A search that has an answer: for 66 % of the size, or half-way to what is the least."""
    from mpsearch.search.feasible_limits import ranges

    found = ranges(table)["size_bytes"]
    least, most = float(found.least), float(found.most)
    share = 66 if 0.66 * most >= least else math.ceil(50 * (least + most) / most)
    named = [] if path == "profile.csv" else [path]
    words = [] if form is None else ["--format", form]
    return shlex.join(["mpsearch", "solve", *named, "--size", f"{share}%", *words])


def peak_bytes(device: str = "cpu") -> int:
    """Peak resident bytes of the process so far, or peak allocated bytes of the GPU for `cuda`."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KB
