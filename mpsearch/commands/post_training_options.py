"""Options of every command that quantizes after training."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mpsearch.commands.console import echo
from mpsearch.post_training.words import usual_ranges

if TYPE_CHECKING:
    from mpsearch.data import Data
    from mpsearch.graph.network import Network
    from mpsearch.post_training.repairing import PostTraining

Function = TypeVar("Function", bound=Callable[..., Any])

REPAIRS = (
    click.option(
        "--rounding", type=click.Choice(["nearest", "adaptive"]), default="adaptive",
        show_default=True, help="adaptive: round weights so that layer outputs are kept.",
    ),
    click.option(
        "--bias-correction/--no-bias-correction", default=True, show_default=True,
        help="Take the mean shift of each layer out of its bias.",
    ),
)  # fmt: skip
_OPTIONS = (
    click.option(
        "--ranges", metavar="METHOD",
        help="Activation ranges: mse, minmax, percentile[:99.9], entropy, measured, or auto: "
        "measured below 8 bits, else mse [default: auto; mse where nothing is repaired].",
    ),
    click.option("--per-tensor", is_flag=True, help="One weight scale for a layer's channels."),
    click.option("--equalize", is_flag=True, help="Even out weight ranges across joined layers."),
    *REPAIRS,
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True,
        help="Draws the positions that adaptive rounding looks at, and batches to learn from.",
    ),
    click.option(
        "--learn-scales", is_flag=True,
        help="Train scales and biases (no labels) so that the outputs are FP32's.",
    ),
)  # fmt: skip


def post_training_options(function: Function) -> Function:
    """Add `--ranges`, `--rounding`, `--learn-scales` and the others.

    The command gets them as keyword arguments; read them with `post_training_of`.
    """
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def post_training_of(
    ranges: str | None,
    per_tensor: bool,
    equalize: bool,
    bias_correction: bool,
    rounding: Any,
    seed: int,
    learn_scales: bool,
) -> "PostTraining":
    """The options as a PostTraining. Raises InputError for an unknown range method."""
    from mpsearch.post_training.repairing import PostTraining

    ranges = ranges or usual_ranges(rounding, bias_correction)
    return PostTraining(ranges, per_tensor, equalize, bias_correction, rounding, seed, learn_scales)


def note_missing_classes(network: "Network", calibration: "Data") -> None:
    """One line on standard error when the calibration sample lacks a class."""
    from mpsearch.quantization.calibration import missing_classes

    missing = missing_classes(network, calibration)
    if missing:
        named = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        echo(
            f"note: {calibration.name} has no sample of {len(missing)} of the "
            f"{network.output_shape[0]} classes ({named}); ranges may not fit them",
            err=True,
        )
