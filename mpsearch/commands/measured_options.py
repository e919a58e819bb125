"""Options of `mpsearch solve` for what is measured: a target for the accuracy, and --refine."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpsearch.commands.options import (
    REPAIRS,
    Function,
    ModelOptions,
    PostTrainingOptions,
    add,
    gathered,
    model_options,
)
from mpsearch.commands.renamed import Renamed
from mpsearch.errors import InputError
from mpsearch.tables.units import (
    parse_accuracy,
    parse_agreement,
    parse_points,
    parse_tolerance,
    whole_number,
)

if TYPE_CHECKING:
    from mpsearch.evaluation.subjects import Subject
    from mpsearch.measured.answer import Target
    from mpsearch.post_training.repairing import Rounding

USUAL_MODEL = "model.pt"
MOST, TOLERANCE = 32, "0.5%"

_OPTIONS = (
    click.option(
        "--min-accuracy", metavar="PERCENT",
        help="The smallest assignment with at least this accuracy, measured: 88%.",
    ),
    click.option(
        "--max-drop", metavar="POINTS",
        help="Or with at most so many points less than FP32 on the same samples: 1.0.",
    ),
    click.option(
        "--min-agreement", metavar="PERCENT",
        help="Or that decides at least this share of the samples as FP32 does; no labels: 98%.",
    ),
    click.option(
        "--refine", type=click.IntRange(min=1), metavar="N",
        help="Measure N assignments as repaired networks and take the best: every metric's optimum "
        "(columns omega_*), the next best, exchanges.",
    ),
    click.option(
        "--data", metavar="D",
        help="Data to measure on, labelled for an accuracy [default: the sample].",
    ),
    click.option(
        "--fp32", cls=Renamed, old=["--network"], metavar="MODEL",
        help=f"The float model that is measured [default: {USUAL_MODEL}].",
    ),
    click.option(
        "--calibration", metavar="D", help="Data for the ranges [default: the model's sample]."
    ),
    click.option(
        "--measure", metavar="N|all",
        help=f"Measure at most so many assignments [default: {MOST}]; all: every smaller one.",
    ),
    click.option(
        "--tolerance", metavar="PERCENT",
        help=f"Leave out points that are so little smaller than another [default: {TOLERANCE}].",
    ),
    click.option(
        "--confirm-data", metavar="D", help="Measure the answer once more, on samples of its own."
    ),
    click.option(
        "--device", metavar="DEVICE", help="Where to measure: cpu, cuda or auto [default: cpu]."
    ),
    *REPAIRS,
)  # fmt: skip


def measured_options(command: Function) -> Function:
    """Add --min-accuracy, --max-drop, --min-agreement, --refine and what goes with them.

    The command gets what `parse_measured` gives, as `measured`.
    """
    parsed: Function = gathered(command, "measured", parse_measured)
    return add(model_options(parsed), _OPTIONS)


@dataclass(frozen=True)
class Measuring:
    """Which model is measured, and on which data."""

    network: str
    model: ModelOptions
    data: str | None
    calibration: str | None
    post_training: PostTrainingOptions
    device: str

    def subject(self, table_model: str | None, need_labels: bool = True) -> "Subject":
        """Both loaded. InputError as they raise, and for another network than the table's, whose
        digest is `table_model` where it is known."""
        from mpsearch.evaluation.subjects import load_subject
        from mpsearch.tables.provenance import Judged, check_weights

        subject = load_subject(
            self.model.source(self.network), self.data, self.calibration,
            post_training=self.post_training.settings(), need_labels=need_labels,
            device=self.device,
        )  # fmt: skip
        if table_model is not None:
            check_weights(
                subject.network.digest, self.network, Judged({"the table": table_model}),
                "profile it again, or name the model that was profiled with --fp32",
            )  # fmt: skip
        return subject


@dataclass(frozen=True)
class MeasuredRequest:
    """Which target for the accuracy, of what, and how much may be measured to find it."""

    on: Measuring
    target: "Target"
    most: int | None
    tolerance: float
    confirm: str | None


@dataclass(frozen=True)
class RefineRequest:
    """How many assignments are measured, and as what."""

    on: Measuring
    count: int


def parse_measured(
    min_accuracy: str | None,
    max_drop: str | None,
    min_agreement: str | None,
    refine: int | None,
    data: str | None,
    fp32: str | None,
    calibration: str | None,
    measure: str | None,
    tolerance: str | None,
    confirm_data: str | None,
    device: str | None,
    rounding: "Rounding",
    bias_correction: bool,
    model: ModelOptions,
) -> MeasuredRequest | RefineRequest | None:
    """The options as a request; None where nothing is measured. Raises InputError."""
    targets = {
        "--min-accuracy": min_accuracy, "--max-drop": max_drop, "--min-agreement": min_agreement,
    }  # fmt: skip
    given_targets = [option for option, value in targets.items() if value is not None]
    asked = bool(given_targets)
    if not asked and refine is None:
        given = (data, fp32, calibration, measure, tolerance, confirm_data, device)
        flags = model.given or rounding != "adaptive" or not bias_correction
        if flags or any(option is not None for option in given):
            raise InputError(
                "--data, --fp32, --architecture, --calibration, --device, --rounding and "
                "--no-bias-correction go with --min-accuracy, --max-drop, --min-agreement or "
                "--refine; --measure, --tolerance and --confirm-data with the first three"
            )
        return None
    if len(given_targets) > 1:
        raise InputError(f"got {' and '.join(given_targets)}; expected one of them")
    if asked and refine is not None:
        raise InputError(
            f"got --refine with {given_targets[0]}; expected one of them: refine measures at the "
            "limits that are given, the other looks for the smallest size"
        )
    if refine is not None and (measure, tolerance, confirm_data) != (None, None, None):
        raise InputError("--measure, --tolerance and --confirm-data do not go with --refine")
    named = model.architecture
    if fp32 is None and named is not None and Path(named).is_file():  # by the old --model
        fp32, model = named, replace(model, architecture=None)
    if fp32 is None:
        if not Path(USUAL_MODEL).is_file():
            raise InputError(
                f"{'accuracy is' if asked else 'assignments are'} measured, and there is no "
                f"{USUAL_MODEL} here; name the float model's file with --fp32"
            )
        fp32 = USUAL_MODEL
    on = Measuring(
        fp32, model, data, calibration, PostTrainingOptions(rounding, bias_correction),
        device or "cpu",
    )  # fmt: skip
    if refine is not None:
        return RefineRequest(on, refine)
    return MeasuredRequest(
        on, _target(min_accuracy, max_drop, min_agreement), _most(measure),
        float(parse_tolerance(tolerance or TOLERANCE)), confirm_data,
    )  # fmt: skip


def _target(
    min_accuracy: str | None, max_drop: str | None, min_agreement: str | None = None
) -> "Target":
    from mpsearch.measured.answer import Target

    if min_accuracy is not None:
        return Target(min_accuracy=parse_accuracy(min_accuracy))
    if min_agreement is not None:
        return Target(min_agreement=parse_agreement(min_agreement))
    assert max_drop is not None
    return Target(max_drop=parse_points(max_drop) / 100)


def _most(text: str | None) -> int | None:
    if text == "all":
        return None
    if text is None:
        return MOST
    most = whole_number(text)
    if not most:
        raise InputError(f"got --measure {text!r}; expected a number such as 32, or all")
    return most
