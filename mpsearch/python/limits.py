"""What a search is asked, as people write it in Python: the options of the command line, as text.

`size="45KB"` and `size=46080`, `pin={"fc2": "w8a8"}` and `pin="fc2=w8a8"` are the same; the texts
are read by what reads those of the command line.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from mpsearch.errors import InputError
from mpsearch.tables.budget import Budget, Minimand, parse_excludes, parse_pins
from mpsearch.tables.choice import Choice, as_choice
from mpsearch.tables.table import LayerTable

Amount = str | int | float
Pins = Mapping[str, Choice | str] | Iterable[str] | str
Choices = Mapping[str, Any] | Iterable[Choice | str] | Choice | str


def as_table(given: Any) -> LayerTable:
    """A LayerTable as it is, the file that a path names, or the content of a DataFrame."""
    if isinstance(given, LayerTable):
        return given
    if isinstance(given, str | os.PathLike):
        return LayerTable.read_csv(given)
    if hasattr(given, "to_csv") and hasattr(given, "columns"):
        return LayerTable.from_pandas(given)
    raise InputError(
        f"got {type(given).__name__} for the table; expected a LayerTable of mpsearch.profile, a "
        "path to profile.csv, or a DataFrame with its columns"
    )


def budget_of(
    table: LayerTable,
    budget: Any = None,
    size: Amount | None = None,
    bops: Amount | None = None,
    limits: Any = None,
    at_least: Any = None,
    omega_limit: Amount | None = None,
    minimize: Minimand | None = None,
) -> Budget:
    """The limits against a table. Raises InputError for what is none, or none of its own."""
    others = (size, bops, limits, at_least, omega_limit)
    if isinstance(budget, Budget):
        if any(one is not None for one in others):
            raise InputError(
                "got a Budget beside other limits; expected all limits in one: "
                'size="45KB", limits={"bops": "50%"}, or Budget.parse(table, …)'
            )
        return budget
    if budget is not None:
        if isinstance(budget, Mapping) and limits is None:
            limits = budget
        elif size is None and isinstance(budget, str | int | float):
            size = budget
        else:
            raise InputError(
                f"got the budget {budget!r:.60}; expected a size such as '45KB', limits such as "
                "{'size_bytes': '45KB'}, or a Budget"
            )
    upper = _amounts("limits", limits)
    if omega_limit is not None:
        upper.append(f"omega={amount_text('omega_limit', 'omega', omega_limit)}")
    return Budget.parse(
        table,
        None if size is None else amount_text("size", "size_bytes", size),
        None if bops is None else amount_text("bops", "bops", bops),
        upper,
        _amounts("at_least", at_least),
        (minimize or Minimand()).columns,
    )


def _amounts(argument: str, given: Any) -> list[str]:
    """`{"latency_s": 0.02}`, `["latency_s=20ms"]` or `"latency_s=20ms"` -> texts `COLUMN=VALUE`."""
    form = "{'latency_s': '20ms'} or ['latency_s=20ms']"
    if isinstance(given, Mapping):
        return [f"{key}={amount_text(argument, str(key), value)}" for key, value in given.items()]
    return _texts(argument, given, form)


def _texts(argument: str, given: Any, form: str) -> list[str]:
    if given is None:
        return []
    texts = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"got {argument}={given!r:.60}; expected {form}")
    return texts


def amount_text(argument: str, key: str, given: Any) -> str:
    """A text as it is; a number in the unit of the key: bytes, operations, seconds, joules."""
    if isinstance(given, str):
        return given
    number = given.item() if hasattr(given, "item") else given
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InputError(
            f"got {argument}={given!r:.60}; expected a text such as '45KB' or '50%', or a number"
        )
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not key.endswith("_bytes"):
        return repr(number)
    if isinstance(number, float):
        raise InputError(
            f"got {argument}={number!r}; expected whole bytes, or a text such as '45KB' or '50%'"
        )
    return f"{number}B"


def searched(
    table: LayerTable,
    pin: Any = None,
    exclude: Any = None,
    allow: Any = None,
    unfit: Iterable[str] = (),
) -> tuple[dict[str, Choice], dict[str, set[Choice]], dict[str, tuple[str, ...]]]:
    """(pins, excludes, both as assignment.json records them). Raises InputError for what is none.

    pin: `{"conv1": "w8a8"}` or `"conv1=w8a8"`; exclude: `{"conv1": ["w4a4"]}`, `"w2a2"` for every
    layer; allow: `{"conv1": ["w4a8", "w8a8"]}`; unfit: further excludes as text.
    """
    pins = _pinned(pin)
    excludes = [text for texts in _listed("exclude", exclude) for text in texts]
    excludes += [text for text in unfit if text not in excludes]
    allows = [_allowed(texts) for texts in _listed("allow", allow)]
    recorded = {"pin": tuple(pins), "exclude": tuple(excludes), "allow": tuple(allows)}
    return (
        parse_pins(pins),
        parse_excludes(excludes, allows, table),
        {option: texts for option, texts in recorded.items() if texts},
    )


def _pinned(given: Any) -> list[str]:
    if isinstance(given, Mapping):
        return [f"{layer}={_choice('pin', choice)}" for layer, choice in given.items()]
    return _texts("pin", given, "{'conv1': 'w8a8'} or ['conv1=w8a8']")


def _listed(argument: str, given: Any) -> list[list[str]]:
    """For every layer named, and every text by itself, the texts `LAYER=CHOICE` or `CHOICE`."""
    if isinstance(given, Mapping):
        each = {
            layer: [choices] if isinstance(choices, str | Choice) else choices
            for layer, choices in given.items()
        }
        for choices in each.values():
            if not isinstance(choices, Iterable) or not choices:
                raise InputError(
                    f"got {argument}={given!r:.60}; expected {{'conv1': ['w4a8', 'w8a8']}}"
                )
        return [
            [
                f"{layer}={_choice(argument, choice)}" if layer else _choice(argument, choice)
                for choice in choices
            ]
            for layer, choices in each.items()
        ]
    if isinstance(given, Choice):
        given = str(given)
    if not isinstance(given, str) and isinstance(given, Iterable):
        given = [str(one) if isinstance(one, Choice) else one for one in given]
    form = "{'conv1': ['w4a8']} or ['conv1=w4a8']"
    return [[text] for text in _texts(argument, given, form)]


def _allowed(texts: list[str]) -> str:
    """`["conv1=w4a8", "conv1=w8a8"]` -> `conv1=w4a8,w8a8`."""
    first, *others = texts
    return ",".join([first, *(text.rpartition("=")[2] for text in others)])


def _choice(argument: str, given: Any) -> str:
    try:
        return str(as_choice(given))
    except InputError as error:
        raise InputError(f"{argument}: {' '.join(error.lines)}") from None


def as_losses(loss: Any) -> tuple[str, ...]:
    """`"mse"`, `["class=cross-entropy", "box=mse"]` or `{"class": "cross-entropy"}` as `--loss` has
    them."""
    if loss is None:
        return ()
    if isinstance(loss, str):
        return (loss,)
    if isinstance(loss, Mapping):
        loss = [f"{output}={name}" for output, name in loss.items()]
    if not isinstance(loss, Iterable) or not all(isinstance(one, str) for one in loss):
        raise InputError(
            f"got the loss {loss!r:.60}; expected a name such as 'mse', 'package.module:function', "
            "or one for each output: {'class': 'cross-entropy', 'box': 'mse'}"
        )
    return tuple(loss)
