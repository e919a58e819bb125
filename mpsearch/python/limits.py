"""What a search is asked, as people write it in Python: the options of the command line, as text.

`size="45KB"` and `size=46080`, `pin={"fc2": "w8a8"}` and `pin="fc2=w8a8"` are the same; the texts
are read by what reads those of the command line.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from mpsearch.errors import InputError
from mpsearch.foreign_tables.grouping import grouped
from mpsearch.foreign_tables.reading import read_table
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.choice import Choice
from mpsearch.tables.layer_choices import Choices, Pins, excludes_of, pins_of
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable

Amount = str | int | float
Columns = Mapping[str, str] | str | None
"""`{"omega": "kld"}` or `"layer=name,omega=kld"`: what a table calls its columns."""
Groups = Iterable[str] | str
"""`"blocks.*.attn.{q,k,v}"`: layers that share a choice."""


def as_assignment(given: Any, table: Any = None) -> tuple[Assignment, Any]:
    """The assignment of a Solution or a path, or itself; and its table, a Solution's own unless one
    is given. Raises InputError for another type."""
    if isinstance(given, Solution):
        return given.to_assignment(), given.table if table is None else table
    if isinstance(given, str | os.PathLike):
        given = Assignment.load(given)
    if not isinstance(given, Assignment):
        raise InputError(
            f"got {type(given).__name__} for the assignment; expected a Solution of "
            "mpsearch.solve, an Assignment or a path to assignment.json"
        )
    return given, table


def as_table(given: Any, columns: Columns = None, groups: Groups = ()) -> LayerTable:
    """A LayerTable as it is, the file that a path names, or the content of a DataFrame.

    columns, groups: as `read_table` takes them.
    """
    groups = (groups,) if isinstance(groups, str) else tuple(groups)
    if isinstance(given, LayerTable):
        if columns:
            raise InputError("columns= names those of a file or a DataFrame; a LayerTable has ours")
        return grouped(given, groups)
    if isinstance(given, str | os.PathLike) or (
        hasattr(given, "to_csv") and hasattr(given, "columns")
    ):
        return read_table(given, columns, groups)
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
        return budget.held_by(table)
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
    pin: Pins = (),
    exclude: Choices = (),
    allow: Choices = (),
    unfit: Choices = (),
) -> tuple[dict[str, Choice], dict[str, set[Choice]], dict[str, tuple[str, ...]]]:
    """(pins, excludes, both as assignment.json records them): see `pins_of` and `excludes_of`.

    unfit: further excludes.
    """
    pins, excludes = pins_of(table, pin), excludes_of(table, exclude, allow)
    for layer, choices in excludes_of(table, unfit).items():
        excludes.setdefault(layer, set()).update(choices)
    recorded = {
        "pin": tuple(f"{layer}={choice}" for layer, choice in pins.items()),
        "exclude": tuple(
            f"{layer}={choice}" if layer else str(choice)
            for layer, choices in excludes.items()
            for choice in sorted(choices)
        ),
        "group": table.grouped_by,
    }
    recorded = {option: texts for option, texts in recorded.items() if texts}
    return pins, excludes, {**table.recorded, **recorded}


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
