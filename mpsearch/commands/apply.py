"""`mpsearch apply`."""

from contextlib import suppress
from dataclasses import replace

import click

from mpsearch.commands.console import echo, json_option, print_json, progress
from mpsearch.commands.grouping import READING, REPAIRING, Grouped
from mpsearch.commands.loading import load_model_and_data, note_missing_classes, sample_sentence
from mpsearch.commands.options import (
    ModelOptions,
    PostTrainingOptions,
    device_option,
    model_options,
    post_training_options,
    sample_option,
)

GROUPS = {
    "How it is quantized": ("data", *REPAIRING),
    "Output": ("output", "sample", "json", "help"),
    "Computing": ("device",),
    "Reading MODEL": READING,
}  # fmt: skip


@click.command(cls=Grouped, groups=GROUPS)
@click.argument("path", metavar="MODEL")
@click.argument("assignment", default="assignment.json")
@click.option("--data", metavar="D", help="Calibration data [default: the model file's sample].")
@click.option("-o", "--output", default="quantized.pt", show_default=True)
@sample_option
@post_training_options
@device_option
@model_options
@json_option
def apply(
    path: str,
    assignment: str,
    data: str | None,
    output: str,
    keep_sample: bool,
    device: str,
    as_json: bool,
    post_training: PostTrainingOptions,
    model: ModelOptions,
) -> None:
    """Quantize MODEL as ASSIGNMENT says, with ranges calibrated on data.

    The written file holds integer weights packed at their bit widths, scales and biases;
    `mpsearch evaluate` loads it again with identical numbers. Repairs (adaptive rounding and bias
    correction, and --equalize on demand) need no labels and no training; the calibration data
    are all that they see, and a repair is undone for the layers where it does harm on them.

    \b
    Example:
      mpsearch apply model.pt assignment.json -o quantized.pt
      mpsearch apply model.pt --rounding nearest --no-bias-correction -o plain.pt
    """
    from mpsearch.data import Data
    from mpsearch.errors import InputError
    from mpsearch.graph.arrays import Arrays, bind_arrays
    from mpsearch.post_training.kept_repairs import undone_sentence
    from mpsearch.post_training.quantizing import apply as quantize
    from mpsearch.post_training.quantizing import with_notice
    from mpsearch.profiling.float_text import outside_sentence
    from mpsearch.quantization.calibrated_inputs import input_ranges, outside_notes
    from mpsearch.quantization.packing import bops, float_bytes_outside, size_bytes
    from mpsearch.quantization.quantized import check_assignment
    from mpsearch.quantization.quantized_file import save_quantized
    from mpsearch.running.workers import find_device
    from mpsearch.tables.assignment import Assignment, weights_notes
    from mpsearch.tables.units import format_count, format_size

    settings = post_training.settings()
    place = find_device(device)
    chosen = Assignment.load(assignment)
    choices = chosen.layers
    if chosen.memory and settings.wide == "auto":
        settings = replace(settings, wide="8")  # what `solve --ram` counted with
    source = model.source(path)
    loaded, bound = load_model_and_data(source, data, "calibration", need_labels=False)
    network = loaded.network
    check_assignment(network, chosen)
    note_missing_classes(network, bound)
    with progress("quantizing", len(network.layers)) as step:
        begins = with_notice(network.layers, step) if settings.rounding == "adaptive" else step
        quantized = quantize(
            network.to(place), choices, bound, settings, on_step=begins, keep_sample=keep_sample
        )
    save_quantized(quantized, output)
    others = weights_notes(chosen, assignment, source.path, network.digest)
    outside: list[str] = []
    if data is not None and loaded.sample:
        with suppress(InputError):  # a sample of another form is no matter here
            own = bind_arrays(Arrays(source.path, loaded.sample), network)[0]
            carried = Data(f"the sample in {source.path}", own, None)
            outside = outside_notes(network, bound, input_ranges(network, carried), len(carried))
    undone = {repair: list(names) for repair, names in quantized.undone.items()}
    size, operations = size_bytes(network, choices), bops(network, choices)
    if as_json:
        print_json({"output": output, "size_bytes": size, "bops": operations,
                    "fp32_bytes": network.fp32_bytes, "undone": undone,
                    "sample": quantized.sample and quantized.sample.described(),
                    "notes": [*others, *outside]})  # fmt: skip
        return
    echo(
        f"wrote {output}: {format_size(size)} of packed weights, biases and scales (FP32: "
        f"{format_size(network.fp32_bytes)}), {format_count(operations)}BOPS; ranges from "
        f"{len(bound)} samples of {bound.name}"
    )
    echo(sample_sentence(quantized))
    for note in (*others, *(f"{one} (compared with the model's sample)" for one in outside)):
        echo(note)
    if undone:
        echo(undone_sentence(undone))
    if in_float := float_bytes_outside(network):
        echo(outside_sentence(in_float))
