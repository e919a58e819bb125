"""The calls that repeat a run that was made in Python, where model and data are in no file."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mpsearch.reports.commands import SAMPLE_OF, asked_options, profile_options, search_options
from mpsearch.reports.front_facts import measured_facts
from mpsearch.reports.run_folder import Run
from mpsearch.running.python_words import argument, text_literal

_FILES = (".npz", ".safetensors")
_OF_DATA = ("data", "calibration")
_APPLIED = {
    "ranges", "rounding", "seed", "per-tensor", "equalize", "learn-scales", "wide",
    "no-bias-correction",
}  # fmt: skip


def is_made_in_python(run: Run) -> bool:
    """Whether the pieces were not read from files, or the table is of a model or of data in memory:
    the command line records the model's file."""
    data = str(run.provenance.get("data", SAMPLE_OF))
    in_file = data.startswith(SAMPLE_OF) or data.endswith(_FILES) or ":" in data
    return run.in_memory or not ("model_file" in run.provenance or in_file)


def calls_of(run: Run) -> tuple[str, ...]:
    """One call for each piece that is there; `model` and `data` are the caller's own."""
    calls = []
    if run.provenance:
        words = profile_options(run.provenance)
        given = ["model", "data", *_named(run, "profile"), *_arguments(words)]
        calls.append(f"table = mpsearch.profile({', '.join(given)})")
    elif run.table is not None:
        path = ", ".join(_named(run, "profile")) or "…"
        calls.append(f"table = mpsearch.LayerTable.read_csv({path})")
    if run.assignment is not None and run.assignment.status != "given":
        calls.append(_solved(search_options(run.assignment)))
    if run.front is not None:
        words = ["--resource", run.front.resource, *asked_options(run.front)]
        call = f"front = table.front({', '.join(_arguments(words))})"
        found = measured_facts(run.front)
        points = "" if found is None else f".measure({len(found.totals)}, data=data)"
        calls.append(call + points)
    if run.evaluations is not None and run.assignment is not None:
        calls.append(_EVALUATED)
    return tuple(calls)


_EVALUATED = (
    'evaluations = mpsearch.evaluate({"FP32": model, "assignment": solution.apply()}, data)'
)


def measuring_calls(run: Run) -> tuple[str, ...]:
    """What measures the accuracies, where none are, and points of the front, where none are."""
    calls = [_EVALUATED] if run.assignment is not None and run.evaluations is None else []
    if run.table is not None and (run.front is None or not run.front.measured):
        calls.append("front = table.front().measure(8, data=data)")
    return tuple(calls)


def _named(run: Run, piece: str) -> list[str]:
    return [text_literal(run.paths[piece])] if piece in run.paths else []


def _solved(words: Sequence[str]) -> str:
    """`table.solve(…)`, refined where it was; repairs go with what is measured."""
    options = list(_options(words))
    repairs = [pair for pair in options if pair[0] in _APPLIED]
    refined = next((value for option, value in options if option == "refine"), None)
    settings = []
    if repairs:
        given = ", ".join(argument(option, value) for option, value in repairs)
        settings = [f"settings=mpsearch.PostTraining({given})"]
    data = ["data=data"] if any(option in _OF_DATA for option, _ in options) else []
    rest = [pair for pair in options if pair[0] not in (*_OF_DATA, *_APPLIED, "refine")]
    measured = [*data, *settings]
    given = ", ".join([*_merged(rest), *([] if refined else measured)])
    more = f".refine({', '.join([refined, *measured])}).solution" if refined else ""
    return f"solution = table.solve({given}){more}"


def _arguments(words: Sequence[str]) -> list[str]:
    return _merged([pair for pair in _options(words) if pair[0] not in _OF_DATA])


def _options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Options with their values, None for a flag."""
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            yield word.removeprefix("--"), None if following.startswith("--") else following


def _merged(options: Sequence[tuple[str, str | None]]) -> list[str]:
    """Arguments; the values of an option that is there more than once are one list."""
    grouped: dict[str, list[str | None]] = defaultdict(list)
    for option, value in options:
        grouped[option].append(value)
    made = []
    for option, values in grouped.items():
        if len(values) == 1:
            made.append(argument(option, values[0]))
        else:
            texts = ", ".join(text_literal(str(value)) for value in values)
            made.append(f"{argument(option)}[{texts}]")
    return made
