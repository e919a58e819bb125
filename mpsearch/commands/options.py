"""Options that several commands share, in groups: each group gives the command one argument."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mpsearch.commands.renamed import Renamed
from mpsearch.errors import InputError
from mpsearch.post_training.words import usual_ranges

if TYPE_CHECKING:
    from mpsearch.importers.loading import ModelSource
    from mpsearch.post_training.repairing import PostTraining, Rounding
    from mpsearch.post_training.stored_tensors import Wide
    from mpsearch.tables.budget import Budget, Minimand
    from mpsearch.tables.choice import Choice
    from mpsearch.tables.remedy import Option
    from mpsearch.tables.table import LayerTable

Function = TypeVar("Function", bound=Callable[..., Any])
Options = Sequence[Callable[[Any], Any]]


def add(function: Function, options: Options) -> Function:
    """The command with these options, above those that it has in `--help`."""
    for option in reversed(options):
        function = option(function)
    return function


def gathered(function: Callable[..., Any], argument: str, make: Callable[..., Any]) -> Any:
    """The command, which gets `argument=make(…)` in place of the options that `make` takes."""
    names = [*signature(make).parameters]

    @wraps(function)
    def command(**given: Any) -> Any:
        made = make(**{name: given.pop(name) for name in names})
        return function(**given, **{argument: made})

    return command


def _group(function: Function, argument: str, options: Options, kind: type) -> Function:
    gathering: Function = gathered(function, argument, kind)
    return add(gathering, options)


@dataclass(frozen=True)
class ModelOptions:
    """How a model's file is read, as it was typed."""

    architecture: str | None
    trust: bool
    input_shapes: tuple[str, ...]
    batch_dims: tuple[str, ...]
    fixes: tuple[str, ...]
    max_model_memory: str | None

    @property
    def given(self) -> bool:
        """Whether any of them was typed."""
        return self != ModelOptions(None, False, (), (), (), None)

    @property
    def words(self) -> list[str]:
        """As they stand in a command."""
        one = {"--architecture": self.architecture, "--max-model-memory": self.max_model_memory}
        several = {
            "--input-shape": self.input_shapes, "--batch-dim": self.batch_dims, "--fix": self.fixes,
        }  # fmt: skip
        found = [(option, value) for option, value in one.items() if value is not None]
        found += [(option, value) for option, values in several.items() for value in values]
        return [*(["--trust"] if self.trust else []), *(word for pair in found for word in pair)]

    def source(self, path: str) -> "ModelSource":
        """The file read like this. Raises InputError for a value that is none."""
        from mpsearch.importers.loading import ModelSource
        from mpsearch.tables.units import parse_bytes

        shapes = tuple(_shape(text) for text in self.input_shapes)
        most = None if self.max_model_memory is None else parse_bytes(self.max_model_memory)
        dims = {
            name: _dimension(name, text) for name, text in _pairs("--batch-dim", self.batch_dims)
        }
        fix = {name: _constant(name, text) for name, text in _pairs("--fix", self.fixes)}
        return ModelSource(path, self.architecture, self.trust, shapes, most, dims, fix)


def _shape(text: str) -> tuple[int, ...]:
    from mpsearch.tables.units import whole_number

    sizes = tuple(whole_number(part) or 0 for part in text.lower().split("x"))
    if 0 in sizes:
        raise InputError(f"got --input-shape {text!r}; expected sizes such as 3x32x32")
    return sizes


def _pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """`h=1` -> ("h", "1"), each name once."""
    pairs = [(name.strip(), value.strip()) for name, _, value in (t.rpartition("=") for t in texts)]
    names = [name for name, _ in pairs]
    for text, (name, value) in zip(texts, pairs, strict=True):
        if not name or not value:
            example = "h=1" if option == "--batch-dim" else "sr=16000"
            raise InputError(f"got {option} {text!r}; expected NAME=VALUE such as {example}")
        if names.count(name) > 1:
            raise InputError(f"got {option} for {name!r} more than once; expected one value")
    return pairs


def _dimension(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"got --batch-dim {name}={text}; expected the number of a dimension, from 0"
        ) from None


def _constant(name: str, text: str) -> Any:
    """`16000`, `0.5`, `true`, or a list of them: `8,8`."""
    parts = [_number(part.strip()) for part in text.split(",")]
    if None in parts:
        raise InputError(
            f"got --fix {name}={text}; expected a number, true, false, or a list such as 8,8"
        )
    return parts if "," in text else parts[0]


def _number(text: str) -> bool | int | float | None:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


_MODEL = (
    click.option(
        "--architecture", cls=Renamed, old=["--model"], metavar="NAME",
        help="The network of a state dict: a bundled name or package.module:factory.",
    ),
    click.option(
        "--trust", is_flag=True, help="The file may run code: you trust its author."
    ),
    click.option(
        "--input-shape", "input_shapes", multiple=True, metavar="3x32x32",
        help="Shape of one sample, once per input, where neither file nor data tell.",
    ),
    click.option(
        "--batch-dim", "batch_dims", multiple=True, metavar="NAME=DIM",
        help="Where an input or output has its samples, if not found by itself: h=1. Repeatable.",
    ),
    click.option(
        "--fix", "fixes", multiple=True, metavar="NAME=VALUE",
        help="Give an input that is not per sample a constant: sr=16000, size=8,8. Repeatable.",
    ),
    click.option(
        "--max-model-memory", "max_model_memory", metavar="SIZE",
        help="All tensors at once while the file is loaded [default: 4 × the file + 1GB].",
    ),
)  # fmt: skip


def model_options(function: Function) -> Function:
    """Add `--architecture`, `--trust`, `--input-shape`, `--batch-dim`, `--fix` and
    `--max-model-memory`: `model: ModelOptions`."""
    return _group(function, "model", _MODEL, ModelOptions)


def loss_option(function: Function) -> Function:
    """Add `--loss`, which gives `loss`: a tuple of texts for `bind`."""
    return click.option(
        "--loss", "loss", multiple=True, metavar="[OUTPUT=]LOSS",
        help="cross-entropy, bce, mse, mae, reconstruction, kl, … or package.module:function; once "
        "per output [default: by outputs and labels, see docs/losses.md].",
    )(function)  # fmt: skip


def device_option(function: Function) -> Function:
    """Add `--device`, which gives `device`: a name for `find_device`."""
    return click.option(
        "--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda or auto."
    )(function)


@dataclass(frozen=True)
class PostTrainingOptions:
    """How a network is quantized after training, as it was typed."""

    rounding: "Rounding"
    bias_correction: bool
    ranges: str | None = None
    per_tensor: bool = False
    equalize: bool = False
    seed: int = 0
    learn_scales: bool = False
    wide: "Wide" = "auto"

    def settings(self) -> "PostTraining":
        """The same as a PostTraining. Raises InputError for an unknown range method."""
        from mpsearch.post_training.repairing import PostTraining

        return PostTraining(
            self.ranges or usual_ranges(self.rounding, self.bias_correction),
            self.per_tensor, self.equalize, self.bias_correction, self.rounding, self.seed,
            self.learn_scales, self.wide,
        )  # fmt: skip


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
_POST_TRAINING = (
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
    click.option(
        "--wide", type=click.Choice(["auto", "8", "16", "32"]), default="auto", show_default=True,
        help="Bits of sums and of what several layers read; auto: 8, 16 where that loses.",
    ),
)  # fmt: skip


def sample_option(function: Function) -> Function:
    """Add `--sample/--no-sample`: `keep_sample: bool`."""
    option = click.option(
        "--sample/--no-sample", "keep_sample", default=True,
        help="Keep at most 256 calibration samples, 16 MiB, and FP32's outputs for them in the "
        "file, so that export, evaluate and gate need no --fp32 [default: keep].",
    )  # fmt: skip
    return add(function, (option,))


def post_training_options(function: Function) -> Function:
    """Add `--ranges`, `--rounding` and the others: `post_training: PostTrainingOptions`."""
    return _group(function, "post_training", _POST_TRAINING, PostTrainingOptions)


@dataclass(frozen=True)
class SearchOptions:
    """What assignments have to keep, as it was typed."""

    size: str | None
    bops_limit: str | None
    limits: tuple[str, ...]
    lower_limits: tuple[str, ...]
    pins: tuple[str, ...]
    excludes: tuple[str, ...]
    allows: tuple[str, ...]

    def budget(self, table: "LayerTable", minimand: "Minimand | None" = None) -> "Budget":
        """The limits against a table. Raises InputError for what is none, or none of its own."""
        from mpsearch.tables.budget import Budget

        return Budget.parse(
            table, self.size, self.bops_limit, self.limits, self.lower_limits,
            () if minimand is None else minimand.columns,
        )  # fmt: skip

    def pinned(self, table: "LayerTable") -> dict[str, "Choice"]:
        """Layer -> the choice that it is given. Raises InputError for what is none."""
        from mpsearch.tables.layer_choices import pins_of

        return pins_of(table, self.pins, "--pin")

    def excluded(self, table: "LayerTable") -> "dict[str, set[Choice]]":
        """Layer, or "" for all -> choices that it may not have. Raises InputError likewise."""
        from mpsearch.tables.layer_choices import excludes_of

        return excludes_of(table, self.excludes, self.allows, "--")

    @property
    def typed(self) -> "tuple[Option, ...]":
        """Pins, excludes and allows, one by one."""
        return (
            *(("--pin", text) for text in self.pins),
            *(("--exclude", text) for text in self.excludes),
            *(("--allow", text) for text in self.allows),
        )

    @property
    def recorded(self) -> Mapping[str, tuple[str, ...]]:
        """What files keep of it, so that a search can be repeated: pins, excludes, allows."""
        given = {"pin": self.pins, "exclude": self.excludes, "allow": self.allows}
        return {option: values for option, values in given.items() if values}


_SEARCH = (
    # The gate's words for the same limits; the first ones are short, or known from everywhere.
    click.option(
        "--size", "--max-size", "size", metavar="SIZE",
        help="Limit on size_bytes: 145KB, 1.5MB, 50%, w8.",
    ),
    click.option(
        "--bops-limit", "--max-bops", "bops_limit", metavar="COUNT",
        help="Limit on bops: 1.2G, 300M, 50%, w8a8.",
    ),
    click.option(
        "--limit", "limits", multiple=True, metavar="COLUMN=VALUE",
        help="Limit on any column's total (latency_s=0.02), its peak over the layers "
        "(max:latency_s=2ms), or a number of layers (count:w8=5). Repeatable.",
    ),
    click.option(
        "--at-least", "lower_limits", multiple=True, metavar="COLUMN=VALUE",
        help="Lower limit, e.g. count:w4=10 or size_bytes=100KB. Repeatable.",
    ),
    click.option(
        "--pin", "pins", multiple=True, metavar="LAYER=CHOICE",
        help="Give layers (and their groups) this choice: conv1=w8a8, 'blocks.*.dw=w8a8' or "
        "kind:depthwise=w8a8. Repeatable.",
    ),
    click.option(
        "--exclude", "excludes", multiple=True, metavar="[LAYER=]CHOICE",
        help="Forbid a choice for all layers (w2a2) or for some (conv1=w4a4, 'fc*=w4a4', "
        "kind:linear=w4a4). Repeatable.",
    ),
    click.option(
        "--allow", "allows", multiple=True, metavar="LAYER=CHOICE,…",
        help="The only choices that layers may have, e.g. conv1=w4a8,w8a8. Repeatable.",
    ),
)  # fmt: skip


def tool_option(function: Function) -> Function:
    """Add `--for`: `tool: str | None`."""
    option = click.option(
        "--for", "tool", metavar="NAME",
        help="The tool that a recipe is for, in its own bytes, of its choices: `mpsearch recipes`.",
    )  # fmt: skip
    return add(function, (option,))


def search_options(function: Function) -> Function:
    """Add `--size`, `--limit`, `--pin` and the others: `within: SearchOptions`."""
    return _group(function, "within", _SEARCH, SearchOptions)
